"""Sessions of MCP clients: who they are, what runs for them, and when they are forgotten.

A session is an agreement on a version and the place where a call can be cancelled by its id. It holds nothing else, so a
client that was forgotten loses nothing by beginning anew, which the protocol tells it to do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from swarmd.api.mcp_shapes import CallId
from swarmd.domain.refusals import Busy, Invalid, NotFound, Refusal
from swarmd.kit.world import World

SESSIONS_LIMIT: Final = 512  # of less than 1 kB each; a person has a handful of agents
IDLE_S: Final = 12 * 3600.0  # an editor that is left open over lunch keeps its session, one from last week does not
CALLS_LIMIT: Final = 32  # of one session at a time; the node has 10 places by default
ID_BYTES: Final = 16


@dataclass(slots=True, kw_only=True)
class Session:
    id: str
    version: str
    used_at: float
    """Of the loop's time."""
    calls: dict[CallId, asyncio.Task[None]] = field(default_factory=dict[CallId, "asyncio.Task[None]"])
    """What runs, by the id that the client gave it."""
    listener: asyncio.Event | None = None
    """Set when its stream has to end."""

    @property
    def busy(self) -> bool:
        return bool(self.calls) or self.listener is not None

    def cannot_begin(self, id: CallId) -> Refusal | None:
        if id in self.calls:
            return Invalid(what=f"a request with id {id!r} runs already", param="id")
        if len(self.calls) >= CALLS_LIMIT:
            return Busy(what=f"{CALLS_LIMIT} calls of this session run already: wait for one to end")
        return None

    def cancel(self, id: CallId) -> None:
        """Late ones, of calls that have ended, are usual."""
        if (task := self.calls.get(id)) is not None:
            task.cancel()

    def listen(self) -> asyncio.Event:
        """One stream each: who comes back after a lost connection takes the place of who is not there any more."""
        self.hush()
        self.listener = asyncio.Event()
        return self.listener

    def hush(self) -> None:
        if self.listener is not None:
            self.listener.set()
            self.listener = None


class Sessions:
    def __init__(self, world: World, *, limit: int = SESSIONS_LIMIT) -> None:
        self._world, self._limit = world, limit
        self._sessions: dict[str, Session] = {}
        """Those that were used last at the end."""

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, version: str) -> Session | Busy:
        now = self._world.clock.monotonic()
        self._forget(now)
        if len(self._sessions) >= self._limit:
            idle = next((one for one in self._sessions.values() if not one.busy), None)
            if idle is None:
                return Busy(what=f"{self._limit} sessions have calls or streams open: end one")
            del self._sessions[idle.id]
        session = Session(id=self._world.entropy.token(ID_BYTES).hex(), version=version, used_at=now)
        self._sessions[session.id] = session
        return session

    def find(self, id: str | None) -> Session | Invalid | NotFound:
        """The client begins anew when it is NotFound: so says the protocol."""
        if id is None:
            return Invalid(what="the header Mcp-Session-Id is missing: begin with initialize", param="mcp-session-id")
        now = self._world.clock.monotonic()
        self._forget(now)
        session = self._sessions.pop(id, None)
        if session is None:
            return NotFound(what="this session has ended, or never was: begin with initialize")
        session.used_at = now
        self._sessions[id] = session
        return session

    def end(self, session: Session) -> None:
        """Its calls are cancelled."""
        self._sessions.pop(session.id, None)
        session.hush()
        for task in session.calls.values():
            task.cancel()

    def close_all(self) -> None:
        """The node stops: nobody has to wait for streams on which nothing comes."""
        for session in self._sessions.values():
            session.hush()

    def _forget(self, now: float) -> None:
        old = [one.id for one in self._sessions.values() if now - one.used_at > IDLE_S and not one.busy]
        for id in old:
            del self._sessions[id]
