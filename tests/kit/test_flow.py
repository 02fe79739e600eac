"""Delays, limits, shared flights and channels, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.kit.flow import Backoff, Channel, ChannelClosed, SingleFlight, TokenBucket
from swarmd.kit.world import World, seeded_world

pytestmark = pytest.mark.looptime


def loop_time() -> float:
    return asyncio.get_running_loop().time()


# --- Backoff


@given(st.integers(0, 1000), st.integers(1, 40))
def test_delays_grow_within_their_bounds(seed: int, count: int) -> None:
    backoff = Backoff(0.5, 2.0, 30.0, entropy=seeded_world(seed).entropy)
    delays = [backoff.delay() for _ in range(count)]
    assert 0.5 <= delays[0] <= 1.0
    assert all(0.5 <= delay <= 30.0 for delay in delays)
    assert all(delay >= 15.0 for delay in delays[6:])
    backoff.reset()
    assert backoff.delay() <= 1.0


@pytest.mark.parametrize(("first", "factor", "limit"), [(0, 2, 1), (2, 2, 1), (1, 1, 2)])
def test_a_backoff_that_cannot_grow_is_refused(world: World, first: float, factor: float, limit: float) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(first, factor, limit, entropy=world.entropy)


# --- TokenBucket


def test_under_a_lower_limit_delays_still_differ_from_node_to_node() -> None:
    delays: set[float] = set()
    for seed in range(20):
        backoff = Backoff(0.2, 2.0, 30.0, entropy=seeded_world(seed).entropy)
        for _ in range(10):
            last = backoff.delay(limit_s=8.0)
        assert 4.0 <= last <= 8.0
        delays.add(last)
    assert len(delays) == 20
    assert backoff.delay() > 8.0 or backoff.delay() > 8.0  # without it they go on growing


async def test_a_burst_then_the_rate(world: World) -> None:
    bucket = TokenBucket(2.0, 3.0, clock=world.clock)
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]
    assert bucket.retry_after_s() == 0.5
    await asyncio.sleep(0.5)
    assert bucket.try_take()
    await asyncio.sleep(100)
    assert [bucket.try_take() for _ in range(4)] == [True, True, True, False]


async def test_waiters_are_served_in_order_and_may_exceed_the_burst(world: World) -> None:
    bucket = TokenBucket(10.0, 10.0, clock=world.clock)
    done: list[tuple[str, float]] = []

    async def take(name: str, n: float) -> None:
        await bucket.take(n)
        done.append((name, loop_time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(take("big", 30))
        group.create_task(take("small", 1))
    assert done == [("big", 2.0), ("small", 2.1)]


async def test_a_cancelled_waiter_gives_back_what_it_reserved(world: World) -> None:
    bucket = TokenBucket(1.0, 1.0, clock=world.clock)
    await bucket.take()
    task = asyncio.create_task(bucket.take(100))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bucket.try_take()


async def test_a_new_rate_holds_from_now_on(world: World) -> None:
    bucket = TokenBucket(1.0, 10.0, clock=world.clock)
    bucket.set_rate(5.0, 5.0)
    assert not bucket.try_take(6)
    assert bucket.try_take(5)
    await asyncio.sleep(0.4)
    assert bucket.try_take(2)
    with pytest.raises(ValueError, match="over 0"):
        bucket.set_rate(0, 1)


# --- SingleFlight


async def test_concurrent_callers_share_one_run() -> None:
    runs: list[int] = []
    flight: SingleFlight[str, int] = SingleFlight()

    async def work() -> int:
        runs.append(1)
        await asyncio.sleep(1)
        return len(runs)

    assert await asyncio.gather(*(flight.do("a", work) for _ in range(3))) == [1, 1, 1]
    assert len(flight) == 0
    assert await flight.do("a", work) == 2


async def test_keys_do_not_wait_for_each_other() -> None:
    flight: SingleFlight[int, None] = SingleFlight()
    await asyncio.gather(*(flight.do(key, lambda: asyncio.sleep(1)) for key in range(5)))
    assert loop_time() == 1


async def test_everybody_gets_the_error() -> None:
    flight: SingleFlight[str, int] = SingleFlight()

    async def work() -> int:
        await asyncio.sleep(1)
        raise OSError("down")

    outcomes = await asyncio.gather(flight.do("a", work), flight.do("a", work), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["down", "down"]


async def test_a_cancelled_leader_hands_over() -> None:
    runs: list[int] = []
    flight: SingleFlight[str, int] = SingleFlight()

    async def work() -> int:
        runs.append(1)
        await asyncio.sleep(10)
        return len(runs)

    leader = asyncio.create_task(flight.do("a", work))
    followers = [asyncio.create_task(flight.do("a", work)) for _ in range(2)]
    await asyncio.sleep(1)
    leader.cancel()
    assert await asyncio.gather(*followers) == [2, 2]
    assert leader.cancelled()


async def test_a_cancelled_follower_disturbs_nobody() -> None:
    flight: SingleFlight[str, int] = SingleFlight()

    async def work() -> int:
        await asyncio.sleep(10)
        return 5

    leader = asyncio.create_task(flight.do("a", work))
    follower = asyncio.create_task(flight.do("a", work))
    await asyncio.sleep(1)
    follower.cancel()
    assert await leader == 5
    assert follower.cancelled()


# --- Channel


async def test_send_waits_while_the_channel_is_full() -> None:
    channel: Channel[int] = Channel(2)
    sent: list[float] = []

    async def send() -> None:
        for number in range(4):
            await channel.send(number)
            sent.append(loop_time())
        channel.close()

    got: list[int] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        await asyncio.sleep(5)
        async for number in channel:
            got.append(number)
            await asyncio.sleep(1)
    assert got == [0, 1, 2, 3]
    assert sent == [0, 0, 5, 6]


async def test_try_send_does_not_wait() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.try_send(1)
    assert not channel.try_send(2)
    assert len(channel) == 1
    channel.close()
    assert not channel.try_send(3)
    assert await channel.receive() == 1
    with pytest.raises(ChannelClosed):
        await channel.receive()


async def test_close_wakes_both_sides() -> None:
    full: Channel[int] = Channel(1)
    empty: Channel[int] = Channel(1)
    full.try_send(1)
    senders = [asyncio.create_task(full.send(2)) for _ in range(2)]
    receivers = [asyncio.create_task(empty.receive()) for _ in range(2)]
    await asyncio.sleep(1)
    full.close()
    empty.close()
    for task in (*senders, *receivers):
        with pytest.raises(ChannelClosed):
            await task
    assert full.closed


async def test_close_with_an_error_gives_what_is_inside_first() -> None:
    channel: Channel[int] = Channel(2)
    channel.try_send(1)
    channel.close(ConnectionError("link lost"))
    channel.close()
    got: list[int] = []
    with pytest.raises(ConnectionError, match="link lost"):
        async for number in channel:
            got.append(number)
    assert got == [1]


async def test_a_receiver_cancelled_in_the_turn_it_was_woken_loses_nothing() -> None:
    channel: Channel[int] = Channel(1)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await asyncio.sleep(1)
    channel.try_send(7)
    first.cancel()
    assert await second == 7
    assert first.cancelled()


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    channel: Channel[int] = Channel(1)
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(1)
    channel.try_send(7)
    assert await second == 7


def test_a_channel_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Channel(0)
