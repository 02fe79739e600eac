"""A machine that slept, or moved to another address, looks at its links at once. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd.kit.service import Supervisor
from swarmd.kit.world import seeded_world
from swarmd.peers.surroundings import LOOK_S, Surroundings

pytestmark = pytest.mark.looptime


class Machine:
    def __init__(self) -> None:
        world = seeded_world(1)
        self.clock = world.clock
        self.addresses = frozenset({"127.0.0.1", "10.0.0.7"})
        self.looks: list[frozenset[str]] = []
        self.service = Surroundings(addresses=lambda: self.addresses, links=self, world=world)

    def look_around(self, present: frozenset[str]) -> None:
        self.looks.append(present)


@asynccontextmanager
async def running() -> AsyncIterator[Machine]:
    """Within the test: a fixture would start the service before the time is virtual."""
    machine = Machine()
    async with Supervisor("test", world=seeded_world(2)) as supervisor:
        await supervisor.start(machine.service)
        yield machine


async def test_nothing_happens_while_nothing_changes() -> None:
    async with running() as machine:
        await asyncio.sleep(100 * LOOK_S)
        assert machine.looks == []


async def test_another_address_is_noticed_once() -> None:
    async with running() as machine:
        machine.addresses = frozenset({"127.0.0.1", "10.0.0.9"})
        await asyncio.sleep(5 * LOOK_S)
        assert machine.looks == [frozenset({"127.0.0.1", "10.0.0.9"})]


async def test_a_machine_that_slept_is_noticed_once() -> None:
    async with running() as machine:
        machine.clock.shift(3600)
        await asyncio.sleep(5 * LOOK_S)
        assert machine.looks == [machine.addresses]


async def test_a_clock_that_drifts_or_goes_back_is_no_sleep() -> None:
    async with running() as machine:
        machine.clock.shift(1)
        await asyncio.sleep(2 * LOOK_S)
        machine.clock.shift(-3600)
        await asyncio.sleep(2 * LOOK_S)
        assert machine.looks == []
