"""Who hears what, and what happens to those who do not listen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from swarmd.kit.bus import EventBus, InboxOverflow

pytestmark = pytest.mark.looptime


@dataclass(frozen=True)
class Happened:
    number: int = 0


@dataclass(frozen=True)
class Rose(Happened):
    pass


@dataclass(frozen=True)
class Fell(Happened):
    pass


async def test_subscribers_hear_their_classes_in_order() -> None:
    bus = EventBus()
    with bus.subscribe(Rose) as rises, bus.subscribe(Happened) as everything, bus.subscribe(Rose, Fell) as both:
        bus.publish(Rose(1))
        bus.publish(Fell(2))
        bus.publish(Rose(3))
        bus.publish("something else")
        assert rises.drain() == [Rose(1), Rose(3)]
        assert everything.drain() == both.drain() == [Rose(1), Fell(2), Rose(3)]


async def test_an_inbox_waits_and_ends_with_its_block() -> None:
    bus = EventBus()
    heard: list[Rose] = []

    async def listen() -> None:
        async for fact in inbox:
            heard.append(fact)

    with bus.subscribe(Rose) as inbox:
        task = asyncio.create_task(listen())
        await asyncio.sleep(1)
        bus.publish(Rose(1))
        await asyncio.sleep(1)
        bus.publish(Rose(2))
    bus.publish(Rose(3))
    await task
    assert heard == [Rose(1), Rose(2)]


async def test_an_overflow_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    with bus.subscribe(Rose, size=2) as inbox:
        for number in range(4):
            bus.publish(Rose(number))
        assert len(inbox) == 2
        with pytest.raises(InboxOverflow, match="more than 2 facts \\(Rose\\)"):
            await anext(inbox)
        with pytest.raises(InboxOverflow):
            inbox.drain()
    assert caplog.text.count("an inbox of ['Rose'] is full") == 1


async def test_a_tap_drops_the_oldest_and_counts() -> None:
    bus = EventBus()
    with bus.tap(Happened, size=2) as tap:
        for number in range(5):
            bus.publish(Rose(number))
        assert [fact.number for fact in tap.drain()] == [3, 4]
        assert tap.dropped == 3


async def test_recent_keeps_the_newest() -> None:
    bus = EventBus(recent=2)
    for number in range(3):
        bus.publish(Rose(number))
    assert bus.recent() == [Rose(1), Rose(2)]


async def test_a_spy_finds_what_was_and_what_comes() -> None:
    bus = EventBus()
    bus.publish(Rose(0))
    with bus.spy() as spy:
        bus.publish(Rose(1))
        bus.publish(Fell(1))
        assert await spy.wait_for(Rose) == Rose(1)
        asyncio.get_running_loop().call_later(3, bus.publish, Fell(2))
        assert await spy.wait_for(Fell, lambda fact: fact.number == 2) == Fell(2)
        assert spy.of(Fell) == [Fell(1), Fell(2)]
        spy.clear()
        with pytest.raises(TimeoutError, match="no Rose that fits within 5 s; heard: nothing"):
            await spy.wait_for(Rose)


async def test_a_listener_that_leaves_is_forgotten() -> None:
    bus = EventBus()
    with bus.spy() as spy:
        pass
    bus.publish(Rose(1))
    assert spy.facts == []
    with pytest.raises(ValueError, match="at least one"), bus.subscribe(Rose, size=0):
        pass
