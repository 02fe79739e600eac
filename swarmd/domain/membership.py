"""How a network grows: invites, and what people are shown of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from swarmd.domain.ids import NetworkId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteRecord:
    """What the inviter keeps of an invite: never the code, so that a stolen database admits nobody by itself."""

    tag: bytes
    """16 bytes, named in clear by whoever joins."""
    psk: bytes
    """32 bytes, proven in the handshake. Derived from the code's secret; the secret cannot be computed from it."""
    created_at: float
    """Unix seconds."""
    expires_at: float
    """Unix seconds."""
    uses_left: int
    cancelled: bool = False


class Phase(Enum):
    """Contract: swarmllm.md 2.8."""

    SEEDLING = "seedling"  # no peer is connected
    ESTABLISHED = "established"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCode:
    """An invite code as shown to the person who will pass it on."""

    code: str
    node: NodeId
    network: NetworkId
    phase: Phase
    peer_count: int
    """Connected now."""
    expires_at: float
    """Unix seconds."""
