"""Events of a reply: followed live, replayed, bounded, paced."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.api.event_buffer import BYTES_LIMIT, EVENTS_LIMIT, LAG, EventBuffer, FellBehind


async def all_of(buffer: EventBuffer, after: int = -1) -> list[bytes]:
    return [one async for one in buffer.follow(after)]


async def test_followed_live_and_replayed() -> None:
    buffer = EventBuffer()
    buffer.append(b"0")
    live = asyncio.create_task(all_of(buffer))
    await asyncio.sleep(0)
    buffer.append(b"1")
    await asyncio.sleep(0)
    buffer.append(b"2")
    buffer.end()
    assert await live == [b"0", b"1", b"2"]
    assert await all_of(buffer, 0) == [b"1", b"2"] and await all_of(buffer, 2) == []


async def test_what_fell_out() -> None:
    buffer = EventBuffer()
    for number in range(EVENTS_LIMIT + 5):
        buffer.append(b"%d" % number)
    buffer.end()
    assert (buffer.first, buffer.count) == (5, EVENTS_LIMIT + 5)
    assert len(await all_of(buffer, 4)) == EVENTS_LIMIT
    with pytest.raises(FellBehind):
        await all_of(buffer, 3)


async def test_bytes_are_bounded_and_the_last_event_stays() -> None:
    buffer = EventBuffer()
    for _ in range(5):
        buffer.append(bytes(BYTES_LIMIT // 2))
    assert buffer.first == 3
    buffer.append(bytes(BYTES_LIMIT * 2))
    assert (buffer.first, buffer.count) == (5, 6)


async def test_a_slow_follower_is_told() -> None:
    buffer = EventBuffer()
    buffer.append(b"first")
    events = buffer.follow(-1)
    assert await anext(events) == b"first"
    for _ in range(EVENTS_LIMIT + 1):
        buffer.append(b"x")
    with pytest.raises(FellBehind):
        await anext(events)


async def test_one_follower_sets_the_pace() -> None:
    buffer = EventBuffer(paced=True)
    for _ in range(LAG + 1):
        buffer.append(b"x")
    waiting = asyncio.create_task(buffer.room())
    other = buffer.follow(-1)
    for _ in range(LAG):
        await anext(other)
    await asyncio.sleep(0)
    assert not waiting.done()
    own = buffer.follow(-1, paces=True)
    await anext(own)
    await anext(own)  # the first one has been taken only now
    await asyncio.wait_for(waiting, 1)
    assert not (await asyncio.wait([asyncio.create_task(buffer.room(0))], timeout=0.01))[0]


async def test_nobody_waits_for_followers_that_set_no_pace() -> None:
    buffer = EventBuffer()
    for _ in range(LAG * 2):
        buffer.append(b"x")
    await buffer.room(0)
