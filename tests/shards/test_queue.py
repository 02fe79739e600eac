"""Whose turn it is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ModelId
from swarmd.shards.queue import Queue

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")


class Runs:
    """Models that wait for their turn, run until they are told to end, and leave."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.running: list[ModelId] = []
        self.ends: dict[ModelId, asyncio.Event] = {}

    async def run(self, model: ModelId) -> None:
        self.ends[model] = asyncio.Event()
        async with self.queue.turn(model):
            self.running.append(model)
            await self.ends[model].wait()
            self.running.remove(model)
        self.queue.leave(model)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_so_many_run_in_order_and_a_moved_one_is_next() -> None:
    runs = Runs(Queue(lambda: 1))
    async with asyncio.TaskGroup() as group:
        for model in (A, B, C):
            runs.queue.enter(model)
            group.create_task(runs.run(model))
        await settle()
        assert runs.running == [A] and runs.queue.order() == (A, B, C)
        runs.queue.move(C, 0)
        await settle()
        assert runs.running == [A] and runs.queue.place(C) == 0, "what runs goes on"
        runs.ends[A].set()
        await settle()
        assert runs.running == [C]
        runs.ends[C].set()
        await settle()
        assert runs.running == [B] and runs.queue.place(A) == 1, "who is not in it is behind everybody"
        runs.ends[B].set()


async def test_one_that_stops_waiting_leaves_its_turn_to_the_next() -> None:
    runs = Runs(Queue(lambda: 1))
    async with asyncio.TaskGroup() as group:
        tasks = {model: group.create_task(runs.run(model)) for model in (A, B, C)}
        await settle()
        tasks[B].cancel()  # a pause: it keeps its place and does not run
        await settle()
        runs.ends[A].set()
        await settle()
        assert runs.running == [C] and B in runs.queue.order()
        tasks[C].cancel()
        await settle()
        again = group.create_task(runs.run(B))
        await settle()
        assert B in runs.running
        runs.ends[B].set()
        await again


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(-2, 9)), max_size=20))
def test_moving_keeps_everybody_once(moves: list[tuple[ModelId, int]]) -> None:
    queue = Queue(lambda: 2)
    for model in (A, B, C, A):
        queue.enter(model)
    for model, place in moves:
        queue.move(model, place)
        assert queue.place(model) == max(0, min(place, 2))
    assert sorted(queue.order()) == [A, B, C]


def test_one_that_is_not_there_cannot_be_moved() -> None:
    with pytest.raises(AssertionError):
        Queue(lambda: 1).move(A, 0)
