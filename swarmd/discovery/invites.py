"""Invite codes: `swarm://` and base64url without padding. Pure.

    version u8 | nonce 12 | secret 16 | box

The box is ChaCha20-Poly1305 under a key derived from the secret, with the version byte as associated data, over

    network 32 | inviter 32 | expires_at u64 | count u8 | endpoints

and an endpoint is `kind u8 | address | port u16`: kind 4 and 6 with the packed address, kind 1 with a length byte and a
DNS name. Fixed layout and not msgpack: a third shorter, and a code is passed on by people.

From the secret also come `tag` and `psk`, each under its own context: the tag goes over the wire in clear and must say
nothing about the other two.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import BadCode, Expired

SCHEME: Final = "swarm://"
VERSION: Final = 1
CODE_LIMIT: Final = 4096  # characters; contract: swarmllm.md 2.8
MAX_ENDPOINTS: Final = 8  # a machine with IPv4, IPv6, a VPN and a public address has four
LIFE_S: Final = 24 * 3600.0  # design, section 6
USES: Final = 1  # design, section 6: one node

TAG_BYTES: Final = 16
PSK_BYTES: Final = 32  # Noise: a psk has 32 bytes
FRESH_BYTES: Final = 28
"""Random bytes a new invite needs: 12 of nonce and 16 of secret. 128 bits of secret are as strong as the X25519 around
them and make the code 21 characters shorter than 256 would."""

_NONCE_BYTES: Final = 12
_SECRET_BYTES: Final = 16
_BOX_CONTEXT: Final = "swarmd 2026-11 invite secret to box key v1"
_TAG_CONTEXT: Final = "swarmd 2026-11 invite secret to tag v1"
_PSK_CONTEXT: Final = "swarmd 2026-11 invite secret to handshake psk v1"

_HEAD: Final = struct.Struct(">32s32sQB")
_PORT: Final = struct.Struct(">H")
_POLY1305_BYTES: Final = 16
_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")  # RFC 1123: at most 253 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A code that could be read: where to go, whom to find there, and how to prove the invitation."""

    network: NetworkId
    inviter: NodeId
    endpoints: tuple[Endpoint, ...]
    expires_at: float
    """Unix seconds."""
    tag: bytes
    psk: bytes


def make_invite(
    *,
    network: NetworkId,
    inviter: NodeId,
    endpoints: tuple[Endpoint, ...],
    now: float,
    fresh: bytes,
    life_s: float = LIFE_S,
    uses: int = USES,
) -> tuple[str, InviteRecord]:
    """The code for the guest and the record for the inviter. `fresh`: FRESH_BYTES from a cryptographic source, used
    once.

    Only the first MAX_ENDPOINTS endpoints go in: give the best ones first. Raises ValueError for a host that is neither
    an IP address nor a DNS name.
    """
    assert len(fresh) == FRESH_BYTES, f"an invite needs {FRESH_BYTES} fresh bytes, not {len(fresh)}"
    assert uses >= 1, "an invite admits at least one node"
    nonce, secret = fresh[:_NONCE_BYTES], fresh[_NONCE_BYTES:]
    expires_at = int(now + life_s)
    chosen = endpoints[:MAX_ENDPOINTS]
    head = _HEAD.pack(bytes.fromhex(network), bytes.fromhex(inviter), expires_at, len(chosen))
    version = bytes([VERSION])
    box = ChaCha20Poly1305(_derive(_BOX_CONTEXT, secret, 32)).encrypt(
        nonce, head + b"".join(_pack_endpoint(endpoint) for endpoint in chosen), version
    )
    text = base64.urlsafe_b64encode(version + nonce + secret + box).rstrip(b"=").decode("ascii")
    record = InviteRecord(
        tag=_derive(_TAG_CONTEXT, secret, TAG_BYTES),
        psk=_derive(_PSK_CONTEXT, secret, PSK_BYTES),
        created_at=now,
        expires_at=expires_at,
        uses_left=uses,
    )
    return SCHEME + text, record


def read_invite(text: str, *, now: float) -> Invite | BadCode | Expired:
    """What the code says. White space anywhere is forgiven (mail programs wrap lines); every other change is
    noticed."""
    if len(text) > CODE_LIMIT:
        return BadCode(reason=f"it has {len(text)} characters, at most {CODE_LIMIT} are possible")
    text = "".join(text.split())
    if not text.startswith(SCHEME):
        return BadCode(reason=f"it does not start with {SCHEME}")
    data = _from_base64url(text[len(SCHEME) :])
    if isinstance(data, BadCode):
        return data
    if data and data[0] != VERSION:
        return BadCode(
            reason=f"it has version {data[0]}, this program reads version {VERSION}; update the older of the two nodes"
        )
    nonce, secret, box = data[1:13], data[13:29], data[29:]
    if len(box) < _HEAD.size + _POLY1305_BYTES:
        return BadCode(reason="it is cut short")
    try:
        plain = ChaCha20Poly1305(_derive(_BOX_CONTEXT, secret, 32)).decrypt(nonce, box, data[:1])
    except InvalidTag:
        return BadCode(reason="a character is wrong or missing")
    try:
        invite = _unpack(plain, secret=secret)
    except (ValueError, struct.error, IndexError):
        return BadCode(reason="its content cannot be read; it was made by another program")
    return Expired(expired_at=invite.expires_at) if now >= invite.expires_at else invite


def _derive(context: str, secret: bytes, size: int) -> bytes:
    return blake3(secret, derive_key_context=context).digest(size)


def _from_base64url(text: str) -> bytes | BadCode:
    if not _ALPHABET.fullmatch(text):
        return BadCode(reason="it has characters that no code has")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return BadCode(reason="it is cut short")
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != text:  # unused bits of the last character are set
        return BadCode(reason="its last character is wrong")
    return data


def _pack_endpoint(endpoint: Endpoint) -> bytes:
    """Raises ValueError for a host that is neither an IP address nor a DNS name."""
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        if not _HOST_NAME.fullmatch(endpoint.host):
            raise ValueError(f"{endpoint.host[:80]!r} is neither an IP address nor a host name") from None
        name = endpoint.host.encode("ascii")
        return bytes([1, len(name)]) + name + _PORT.pack(endpoint.port)
    return bytes([address.version]) + address.packed + _PORT.pack(endpoint.port)


def _unpack(plain: bytes, *, secret: bytes) -> Invite:
    """Raises ValueError, struct.error or IndexError where `plain` is not what `make_invite` packs.

    Whoever has a code can make another with the same key, so what the box holds is as hostile as any other input.
    """
    network, inviter, expires_at, count = _HEAD.unpack_from(plain)
    if count > MAX_ENDPOINTS:
        raise ValueError("too many endpoints")
    if expires_at >= 2**40:  # about the year 36,800: beyond what date formatting takes
        raise ValueError("absurd expiry")
    endpoints: list[Endpoint] = []
    at = _HEAD.size
    for _ in range(count):
        endpoint, at = _unpack_endpoint(plain, at)
        endpoints.append(endpoint)
    if at != len(plain):
        raise ValueError("bytes are left over")
    return Invite(
        network=NetworkId(network.hex()),
        inviter=NodeId(inviter.hex()),
        endpoints=tuple(endpoints),
        expires_at=expires_at,
        tag=_derive(_TAG_CONTEXT, secret, TAG_BYTES),
        psk=_derive(_PSK_CONTEXT, secret, PSK_BYTES),
    )


def _unpack_endpoint(plain: bytes, at: int) -> tuple[Endpoint, int]:
    kind = plain[at]
    at += 1
    match kind:
        case 4 | 6:
            size = 4 if kind == 4 else 16
            packed = plain[at : at + size]
            if len(packed) != size:
                raise ValueError("an address is cut short")
            host = str(ipaddress.ip_address(packed))
        case 1:
            size = plain[at]
            at += 1
            host = plain[at : at + size].decode("ascii")  # UnicodeDecodeError is a ValueError
            if len(host) != size or not _HOST_NAME.fullmatch(host):
                raise ValueError("not a host name")
        case _:
            raise ValueError("unknown kind of address")
    at += size
    (port,) = _PORT.unpack_from(plain, at)
    if port == 0:
        raise ValueError("port 0")
    return Endpoint(host, port), at + _PORT.size
