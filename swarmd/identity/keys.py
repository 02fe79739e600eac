"""The node key and the network key: made once, kept in files only their owner may read, used to sign.

A seed is 32 random bytes; the file holds it as 64 hex digits and a newline, so that it can be copied by hand. From a
node's seed come its Ed25519 key (whose public half is the node id) and its X25519 key for the Noise handshake, so there
is one secret to back up. Every signature is over a text that begins with what it is for: a signature made for one use
is worth nothing in another.
"""

from __future__ import annotations

import asyncio
import logging
import re
import stat
from enum import Enum
from pathlib import Path
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.kit.disk import Disk, TooLarge
from swarmd.kit.world import Entropy

SEED_BYTES: Final = 32  # RFC 8032: an Ed25519 secret key
SIGNATURE_BYTES: Final = 64  # RFC 8032
KEY_BYTES: Final = 32  # a public key, Ed25519 or X25519

_STATIC_CONTEXT: Final = "swarmd 2026-11 node seed to X25519 static key v1"
"""BLAKE3 derive_key context. Changing it changes every node's static key; the node ids would stay."""

_FILE_LIMIT: Final = 256  # bytes: the key needs 65; more is not a key file
_SEED_TEXT: Final = re.compile(rb"[0-9a-f]{64}\n?")
_OWNER_ONLY: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

logger = logging.getLogger(__name__)


class KeyFileError(Exception):
    """A key file is there and cannot be used. The sentence names the file and the remedy; the node must not go on."""


class Signed(Enum):
    """What a signature is for: the first bytes of every signed text, ended by a zero byte, so no two uses overlap."""

    STATIC_KEY = b"swarmd/1/static-key"  # the node's X25519 key, shown in the handshake
    CERTIFICATE = b"swarmd/1/certificate"
    MANIFEST = b"swarmd/1/manifest"
    REVOCATION = b"swarmd/1/revocation"
    NODE_FACTS = b"swarmd/1/node-facts"
    RELEASES = b"swarmd/1/releases"

    def text(self, message: bytes) -> bytes:
        return self.value + b"\x00" + message


class NodeKey:
    """This node's secret. Compare and print `node`, never the key."""

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == SEED_BYTES, f"a seed has {SEED_BYTES} bytes, not {len(seed)}"
        self._signer = Ed25519PrivateKey.from_private_bytes(seed)
        self.static_private: Final = blake3(seed, derive_key_context=_STATIC_CONTEXT).digest(KEY_BYTES)
        """32 bytes for the Noise handshake; X25519 clamps them itself."""
        self.static_public: Final = X25519PrivateKey.from_private_bytes(self.static_private).public_key().public_bytes_raw()
        self.node: Final = NodeId(self._signer.public_key().public_bytes_raw().hex())
        self.static_signature: Final = self.sign(Signed.STATIC_KEY, self.static_public)
        """Proves to whoever met `static_public` in a handshake that it belongs to `node`."""

    def sign(self, use: Signed, message: bytes) -> bytes:
        """64 bytes."""
        return self._signer.sign(use.text(message))

    def sealing_key(self, use: str) -> bytes:
        """32 bytes for sealing what this node alone may read. Other uses have other keys; none leads back to the seed."""
        expand = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"swarmd/1/seal/{use}".encode())
        return expand.derive(self._signer.private_bytes_raw())

    def __repr__(self) -> str:
        return f"NodeKey({short(self.node)})"


class NetworkKey:
    """The founder's secret: whoever holds it decides who belongs to the network."""

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == SEED_BYTES, f"a seed has {SEED_BYTES} bytes, not {len(seed)}"
        self._signer = Ed25519PrivateKey.from_private_bytes(seed)
        self.network: Final = NetworkId(self._signer.public_key().public_bytes_raw().hex())

    def sign(self, use: Signed, message: bytes) -> bytes:
        """64 bytes."""
        return self._signer.sign(use.text(message))

    def __repr__(self) -> str:
        return f"NetworkKey({self.network[:16]})"


def verify(signer: NodeId | NetworkId, use: Signed, message: bytes, signature: bytes) -> bool:
    """Whether `signer` made `signature` over `message` for this `use`. Any malformed input is simply not a
    signature."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(signature, use.text(message))
    except (InvalidSignature, ValueError):  # ValueError: not 32 bytes of hex
        return False
    return True


async def ensure_node_key(path: Path, *, disk: Disk, entropy: Entropy) -> NodeKey:
    """The key in `path`, made now if there is no such file. Raises KeyFileError or OSError; never overwrites a file."""
    seed = await _read_seed(path, disk=disk)
    return NodeKey(await _create_seed(path, disk=disk, entropy=entropy) if seed is None else seed)


async def ensure_network_key(path: Path, *, disk: Disk, entropy: Entropy) -> NetworkKey:
    """As `ensure_node_key`: called when this node founds its network."""
    seed = await _read_seed(path, disk=disk)
    return NetworkKey(await _create_seed(path, disk=disk, entropy=entropy) if seed is None else seed)


async def read_network_key(path: Path, *, disk: Disk) -> NetworkKey | None:
    """The network key, None on a node that founded nothing. Raises KeyFileError or OSError."""
    seed = await _read_seed(path, disk=disk)
    return None if seed is None else NetworkKey(seed)


async def _read_seed(path: Path, *, disk: Disk) -> bytes | None:
    if not await asyncio.to_thread(_close_to_others, path):
        return None
    try:
        text = await disk.read_bytes(path, limit=_FILE_LIMIT)
    except TooLarge:
        text = b""
    if not _SEED_TEXT.fullmatch(text):
        raise KeyFileError(
            f"the key file {path} is damaged (expected 64 hex digits): put a backup in its place, "
            "or move it away to start as a new node"
        )
    return bytes.fromhex(text.strip().decode("ascii"))


async def _create_seed(path: Path, *, disk: Disk, entropy: Entropy) -> bytes:
    seed = entropy.token(SEED_BYTES)
    await disk.write_atomic(path, seed.hex().encode("ascii") + b"\n", mode=_OWNER_ONLY)
    return seed


def _close_to_others(path: Path) -> bool:
    """Takes from everybody but the owner what rights they have on the file. False when there is no such file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"the key file {path} is not a regular file: put the file itself there, not a link or a folder")
    if status.st_mode & _OTHERS:
        try:
            path.chmod(_OWNER_ONLY)
        except OSError as error:
            raise KeyFileError(
                f"the key file {path} can be read by other users and swarmd may not change that ({error.strerror}): "
                f"make it yours alone (chown, chmod 600)"
            ) from error
        logger.warning(
            "the key file %s could be read by other users and is closed to them now; "
            "if somebody untrusted uses this machine, move the file away so that a new key is made",
            path,
        )
    return True
