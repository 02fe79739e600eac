"""How a network grows: invites, and what people are shown of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NewType

from swarmd.domain.ids import NetworkId, NodeId

InviteId = NewType("InviteId", str)
"""16 hex digits."""
RoleName = Literal["member", "inviter"]
"""What an invited node may do; `identity.certificates.Role`, as people write it."""
INVITE_ID_BYTES: Final = 8  # of the tag's 16: among the few hundred invites a node keeps, two never share them


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
    short: bool = False
    """A short code stands for it: nobody has its tag and psk, and it ends with the run of the node that made it."""
    burnt: bool = False
    """Somebody guessed the words of its short code wrong. It is cancelled as well."""
    role: RoleName = "member"

    @property
    def id(self) -> InviteId:
        """Half of the tag, as text: enough to tell invites apart, and nothing a code or its psk could be made from."""
        return InviteId(self.tag[:INVITE_ID_BYTES].hex())

    def state(self, *, now: float) -> InviteState:
        """A withdrawn code says so, whatever else became of it."""
        if self.burnt:
            return InviteState.BURNT
        if self.cancelled:
            return InviteState.CANCELLED
        if self.uses_left <= 0:
            return InviteState.USED
        return InviteState.EXPIRED if now >= self.expires_at else InviteState.LIVE

    def view(self, *, now: float) -> InviteView:
        return InviteView(
            id=self.id,
            created_at=self.created_at,
            expires_at=self.expires_at,
            uses_left=self.uses_left,
            state=self.state(now=now),
            short=self.short,
            role=self.role,
        )


class InviteState(Enum):
    """Whether somebody could still join with an invite, and if not, why."""

    LIVE = "live"
    USED = "used"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BURNT = "burnt"
    """A short code that somebody tried with wrong words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteView:
    """An invite as people are shown it later: without code, tag and psk."""

    id: InviteId
    created_at: float
    """Unix seconds."""
    expires_at: float
    """Unix seconds."""
    uses_left: int
    state: InviteState
    short: bool = False
    role: RoleName = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvite:
    """An invite in the one moment in which its code is known."""

    code: str
    invite: InviteView


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A node that belongs to the network, or did, as far as this node knows."""

    node: NodeId
    role: RoleName | None
    """None: its certificate is not known here, nor are the next three; or it has none, in an open network."""
    issued_at: int | None
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds."""
    admitted_by: NodeId | Literal["founder"] | None
    """Who issued it; `founder`: the network key."""
    below: int
    """Members that this one invited, and those they did, as far as known here: they go when it is put out."""
    revoked_at: int | None
    """Unix seconds; None also for one that was put out and admitted again. Of whoever above it was put out, where it went
    with that."""
    connected: bool
    last_seen: float | None
    """Unix seconds."""
    is_self: bool
