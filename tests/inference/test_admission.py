"""Places and the queue in front of them."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.refusals import Busy
from swarmd.inference.admission import RETRY_LIMIT_S, Admission
from swarmd.kit.world import World, seeded_world


class Limits:
    def __init__(self, places: int = 1, queue: int = 4, patience_s: float = 10) -> None:
        self.places, self.queue, self.patience_s = places, queue, patience_s


def admission(limits: Limits, world: World) -> Admission:
    return Admission(
        places=lambda: limits.places, queue=lambda: limits.queue, patience_s=lambda: limits.patience_s,
        clock=world.clock,
    )  # fmt: skip


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.looptime
async def test_a_request_waits_until_another_one_has_left(world: World) -> None:
    gate = admission(Limits(), world)
    assert await gate.enter("a") is None
    waiting = asyncio.create_task(gate.enter("a"))
    await settle()
    assert (gate.active, gate.waiting, waiting.done()) == (1, 1, False)
    gate.leave()
    assert await waiting is None
    assert (gate.active, gate.waiting) == (1, 0)


@pytest.mark.looptime
async def test_a_full_queue_refuses_and_says_when_to_come_back(world: World) -> None:
    gate = admission(Limits(places=2, queue=1), world)
    assert await gate.enter("a") is None and await gate.enter("a") is None
    waiting = asyncio.create_task(gate.enter("a"))
    await settle()
    gate.taken(30.0)
    refused = await gate.enter("b")
    assert isinstance(refused, Busy) and refused.retry_after_s == pytest.approx(30.0)
    gate.taken(3000.0)
    refused = await gate.enter("b")
    assert isinstance(refused, Busy) and refused.retry_after_s == RETRY_LIMIT_S
    waiting.cancel()
    await settle()
    assert (gate.active, gate.waiting) == (2, 0)


@pytest.mark.looptime
async def test_patience_has_an_end(world: World) -> None:
    gate = admission(Limits(patience_s=10), world)
    assert await gate.enter("a") is None
    loop = asyncio.get_running_loop()
    began = loop.time()
    refused = await gate.enter("b")
    assert isinstance(refused, Busy) and "within 10 s" in refused.sentence
    assert loop.time() - began == pytest.approx(10)
    gate.leave()
    assert (gate.active, gate.waiting) == (0, 0)


@pytest.mark.looptime
async def test_a_script_with_many_requests_delays_a_person_by_one_turn(world: World) -> None:
    gate = admission(Limits(queue=20), world)
    assert await gate.enter("script") is None
    order: list[str] = []

    async def ask(client: str, name: str) -> None:
        assert await gate.enter(client) is None
        order.append(name)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(ask("script", f"script {number}")))
        await settle()
    tasks.append(asyncio.create_task(ask("person", "person")))
    await settle()
    for _ in range(5):
        gate.leave()
        await settle()
    assert order == ["script 0", "person", "script 1", "script 2", "script 3"]
    await asyncio.gather(*tasks)


@pytest.mark.looptime
async def test_who_hangs_up_just_as_its_turn_comes_leaves_no_place_taken(world: World) -> None:
    gate = admission(Limits(), world)
    assert await gate.enter("a") is None
    waiting = asyncio.create_task(gate.enter("a"))
    await settle()
    gate.leave()  # its turn: the place is its own now
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (gate.active, gate.waiting) == (0, 0)


@pytest.mark.looptime
async def test_more_places_let_in_who_waits(world: World) -> None:
    limits = Limits()
    gate = admission(limits, world)
    assert await gate.enter("a") is None
    first = asyncio.create_task(gate.enter("a"))
    await settle()
    limits.places = 3
    assert await gate.enter("b") is None
    assert await first is None
    assert (gate.active, gate.waiting) == (3, 0)


@pytest.mark.looptime
async def test_somebody_left_tells_at_once_or_at_the_deadline(world: World) -> None:
    gate = admission(Limits(), world)
    assert await gate.enter("a") is None
    loop = asyncio.get_running_loop()
    began = loop.time()
    await gate.somebody_left(3.0)
    assert loop.time() - began == pytest.approx(3.0)
    told = asyncio.create_task(gate.somebody_left(3.0))
    await settle()
    gate.leave()
    await told
    assert loop.time() - began == pytest.approx(3.0)


Deed = st.tuples(st.sampled_from(["come", "leave", "hang up", "wait"]), st.integers(0, 3))


@given(st.lists(Deed, max_size=40), st.integers(1, 3), st.integers(0, 5))
def test_places_and_queue_keep_their_bounds_whatever_happens(deeds: list[tuple[str, int]], places: int, queue: int) -> None:
    async def scenario() -> None:
        gate = admission(Limits(places=places, queue=queue, patience_s=1e6), seeded_world(0))
        names = count()
        waiting: dict[int, asyncio.Task[Busy | None]] = {}
        inside = 0
        for deed, who in deeds:
            if deed == "come":
                waiting[next(names)] = asyncio.create_task(gate.enter(str(who)))
            elif deed == "leave" and inside:
                gate.leave()
                inside -= 1
            elif deed == "hang up" and waiting:
                waiting[sorted(waiting)[who % len(waiting)]].cancel()
            await settle()
            for name in [name for name, task in waiting.items() if task.done()]:
                task = waiting.pop(name)
                inside += not task.cancelled() and task.result() is None
            assert gate.active == inside <= places
            assert gate.waiting == len(waiting) <= queue
            assert not waiting or inside == places  # nobody waits beside a free place
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.looptime
async def test_weights_share_out_the_turns_and_a_late_comer_does_not_catch_up(world: World) -> None:
    weights = {"gold": 4, "bronze": 1}
    limits = Limits(queue=100)
    gate = Admission(
        places=lambda: limits.places, queue=lambda: limits.queue, patience_s=lambda: limits.patience_s, clock=world.clock,
        weight=lambda client: weights[client],
    )  # fmt: skip
    served: list[str] = []

    async def one(client: str) -> None:
        assert await gate.enter(client) is None
        served.append(client)

    assert await gate.enter("gold") is None
    waiting = [asyncio.create_task(one("bronze")) for _ in range(20)]
    await settle()
    for _ in range(10):  # alone, it has every turn
        gate.leave()
        await settle()
    assert served == ["bronze"] * 10
    waiting += [asyncio.create_task(one("gold")) for _ in range(20)]
    await settle()
    for _ in range(10):
        gate.leave()
        await settle()
    assert served[10:].count("gold") == 8 and served[10:].count("bronze") == 2
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
