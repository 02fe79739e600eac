"""Sessions of MCP clients are bounded and forgotten, and nobody is thrown out in the middle of a call."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.api.mcp_sessions import CALLS_LIMIT, IDLE_S, Session, Sessions
from swarmd.domain.refusals import Busy, Invalid, NotFound
from swarmd.kit.world import World

pytestmark = pytest.mark.looptime


def begun(sessions: Sessions) -> Session:
    found = sessions.begin("2025-11-25")
    assert isinstance(found, Session)
    return found


async def test_who_is_not_heard_of_is_forgotten(world: World) -> None:
    sessions = Sessions(world)
    session = begun(sessions)
    await asyncio.sleep(IDLE_S - 1)
    assert sessions.find(session.id) is session
    await asyncio.sleep(IDLE_S - 1)
    assert sessions.find(session.id) is session
    await asyncio.sleep(IDLE_S + 1)
    assert isinstance(sessions.find(session.id), NotFound) and len(sessions) == 0
    assert isinstance(sessions.find(None), Invalid)


async def test_the_longest_idle_gives_way_and_who_is_busy_does_not(world: World) -> None:
    sessions = Sessions(world, limit=2)
    first, second = begun(sessions), begun(sessions)
    first.listen()
    third = begun(sessions)
    assert isinstance(sessions.find(second.id), NotFound)
    assert sessions.find(first.id) is first
    third.listen()
    assert isinstance(sessions.begin("2025-11-25"), Busy)
    await asyncio.sleep(IDLE_S + 1)
    assert sessions.find(first.id) is first, "its stream is open"
    first.hush()
    assert len({first.id, second.id, third.id, begun(sessions).id}) == 4 and len(sessions) == 2


async def test_calls_are_bounded_told_apart_and_cancelled(world: World) -> None:
    sessions = Sessions(world)
    session = begun(sessions)
    assert session.cannot_begin(1) is None
    async with asyncio.TaskGroup() as group:
        for number in range(CALLS_LIMIT):
            session.calls[number] = group.create_task(asyncio.sleep(1000))
        assert isinstance(session.cannot_begin(1), Invalid) and isinstance(session.cannot_begin("1"), Busy)
        session.cancel("never was")
        session.cancel(3)
        await asyncio.sleep(0)
        assert session.calls[3].cancelling() and not session.calls[4].cancelling()
        sessions.end(session)
    assert all(task.cancelled() for task in session.calls.values()) and len(sessions) == 0


async def test_one_stream_each_and_none_when_the_node_stops(world: World) -> None:
    sessions = Sessions(world)
    session = begun(sessions)
    first = session.listen()
    second = session.listen()
    assert first.is_set() and not second.is_set() and session.busy
    sessions.close_all()
    assert second.is_set() and not session.busy
