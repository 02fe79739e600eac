"""Which of two connections to the same peer stays. Pure.

Two nodes that hear of each other at the same moment dial each other, and each would keep the one it made. The rule must
come out the same on both sides without a word between them: the connection dialled by the node with the lower id stays.
Two exceptions, both about leftovers that only one side still believes in: after a restart of the peer (another `boot`
in its Hello), and when the same side dials again, the newer connection stays. And before all that, except a restart: a
direct connection beats a relayed one, of which both sides know what it is.

Only the node with the lower id closes the loser, and only after it has the winner: the other side would otherwise see
its one connection close before the winner has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from swarmd.domain.ids import NodeId


class Claim(Protocol):
    """What a connection shows about itself."""

    @property
    def dialled(self) -> bool:
        """We opened it."""
        ...

    @property
    def boot(self) -> bytes:
        """The run of the peer's process."""
        ...

    @property
    def relayed(self) -> bool: ...


C = TypeVar("C", bound=Claim)


class Closing(Enum):
    """What happens to a connection that lost."""

    NOW = "now"
    LATER = "later"  # the peer will close it; we do, should it forget
    IDLE = "idle"  # a relayed one that gives way: what runs over it may end first


@dataclass(frozen=True, slots=True)
class Verdict(Generic[C]):
    """The outcome of one more connection."""

    loser: C | None
    """None: there was no other."""
    closing: Closing
    taken: bool
    """The new connection is the current one now."""


class Slot(Generic[C]):
    """The place of the one connection to one peer for one purpose."""

    def __init__(self, *, own: NodeId, peer: NodeId) -> None:
        assert own != peer, "a node has no link to itself"
        self._we_are_lower = own < peer
        self._current: C | None = None

    @property
    def current(self) -> C | None:
        return self._current

    def offer(self, new: C) -> Verdict[C]:
        """One more connection is up. Changes `current` when the new one is to stay."""
        current = self._current
        if current is None:
            self._current = new
            return Verdict(loser=None, closing=Closing.NOW, taken=True)
        if current.boot == new.boot and current.relayed != new.relayed:
            if current.relayed:
                self._current = new
                return Verdict(loser=current, closing=Closing.IDLE, taken=True)
            return Verdict(loser=new, closing=Closing.NOW, taken=False)  # nothing runs over it yet
        leftover = current.boot != new.boot or current.dialled == new.dialled
        if leftover or self._preferred(new):
            self._current = new
            return Verdict(loser=current, closing=self._closing(leftover), taken=True)
        return Verdict(loser=new, closing=self._closing(leftover), taken=False)

    def drop(self, gone: C) -> bool:
        """A connection is over. True when it was the current one, so that there is none now."""
        if self._current is not gone:
            return False
        self._current = None
        return True

    def _preferred(self, claim: C) -> bool:
        return claim.dialled == self._we_are_lower

    def _closing(self, leftover: bool) -> Closing:
        return Closing.NOW if leftover or self._we_are_lower else Closing.LATER
