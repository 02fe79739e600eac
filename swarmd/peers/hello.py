"""The Hello: what the two ends of a fresh link tell each other about who they are. Pure.

msgpack arrays, so a later version may append fields: a reader ignores what it does not know and fills in what is
missing. Everything in it is a claim until `peers/membership` has checked it.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

import msgspec

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.peers import Endpoint, Purpose
from swarmd.identity.certificates import MAX_BYTES as MAX_CERTIFICATE_BYTES
from swarmd.identity.keys import KEY_BYTES, SIGNATURE_BYTES
from swarmd.peers.addresses import MAX_ENDPOINTS

BOOT_BYTES: Final = 8  # drawn at every start of the process; 64 bits never meet twice
MAX_SOFTWARE: Final = 64  # characters

NetworkBytes = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
CertificateBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE_BYTES)]


class Declined(Enum):
    """Why an invited node gets no certificate; told only to who proved that it has the code. CLOSED apart: it is told to
    who knows the network's id."""

    USED = "used"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"  # the code was taken back, or the inviter may not issue certificates any more
    CLOSED = "closed"  # said to a node without certificate that states our network: it takes in invited nodes alone


class StatedEndpoint(msgspec.Struct, array_like=True, frozen=True):
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Hello(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """See the module."""

    node: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    static_signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
    purpose: Purpose
    software: Annotated[str, msgspec.Meta(max_length=MAX_SOFTWARE)]
    boot: Annotated[bytes, msgspec.Meta(min_length=BOOT_BYTES, max_length=BOOT_BYTES)]
    """Tells a restarted peer from one that dials twice: links of the same node with another boot are leftovers."""
    endpoints: Annotated[tuple[StatedEndpoint, ...], msgspec.Meta(max_length=MAX_ENDPOINTS)] = ()
    certificate: CertificateBytes | None = None
    """None: the sender belongs to no network yet, or to an open one without."""
    admission: CertificateBytes | None = None
    """In the answer to an invited node: its new certificate."""
    declined: Declined | None = None
    """In the answer to an invited node: why there is none."""
    declined_since: float = 0.0
    """With EXPIRED: unix seconds."""
    expects: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)] | None = None
    """Whom the caller means to reach; None: whoever lives there. Homes share addresses, so a call may be for another node,
    and must not take the place of a connection that stands."""
    network: NetworkBytes | None = None
    """With `is_open`: the network the sender belongs to, whether or not it has a certificate."""
    is_open: bool = False
    """The sender takes part in an open network, or would."""

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.node.hex())

    @property
    def network_id(self) -> NetworkId | None:
        return None if self.network is None else NetworkId(self.network.hex())

    @property
    def is_guest(self) -> bool:
        """It only wants to get in: it shows no certificate and states no network."""
        return self.certificate is None and self.network is None

    @property
    def stated(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(one.host, one.port) for one in self.endpoints)


_decoder: Final = msgspec.msgpack.Decoder(Hello)
_encoder: Final = msgspec.msgpack.Encoder()


def encode(hello: Hello) -> bytes:
    return _encoder.encode(hello)


def decode(data: bytes) -> Hello | None:
    """None: not a Hello. The caller has capped the size."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Wrong types, wrong sizes, not msgpack; text that is no UTF-8; arrays nested without end behind our fields.
        return None
