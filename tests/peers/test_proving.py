"""Addresses that callers state: proven before they are told, and no tool to make us dial somebody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.kit.world import World
from swarmd.peers.proving import BURST, DIALS, LEFT_ALONE_S, Proving

pytestmark = pytest.mark.looptime


@dataclass
class Scene:
    world: World
    lives_at: set[Endpoint] = field(default_factory=set)
    stated: dict[NodeId, list[Endpoint]] = field(default_factory=dict)
    dialled: list[Endpoint] = field(default_factory=list)
    proven: list[Endpoint] = field(default_factory=list)
    changes: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        book: Any = SimpleNamespace(unproven_endpoints=self._unproven, record_seen=self._seen)
        self.proving = Proving(
            book=book, prober=self, spawn=lambda work, name: asyncio.ensure_future(work), clock=self.world.clock,
            changed=self._changed,
        )  # fmt: skip

    def _unproven(self, node: NodeId) -> tuple[Endpoint, ...]:
        return tuple(one for one in self.stated.get(node, []) if one not in self.proven)

    async def _seen(self, node: NodeId, *, endpoint: Endpoint) -> None:
        self.proven.append(endpoint)

    def _changed(self) -> None:
        self.changes += 1

    async def reaches(self, endpoint: Endpoint, static_public: bytes) -> bool:
        self.dialled.append(endpoint)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.1 if endpoint in self.lives_at else 5.0)
        self.at_once -= 1
        return endpoint in self.lives_at

    def comes(self, number: int, *hosts: str) -> Any:
        node = NodeId(f"{number:064x}")
        self.stated[node] = [Endpoint(host, 8810) for host in hosts]
        connection: Any = SimpleNamespace(node=node, remote_static=b"k" * 32, closed=None)
        self.proving.begin(connection)
        return connection


async def test_what_answers_is_told_and_the_rest_is_left_alone_for_an_hour(world: World) -> None:
    scene = Scene(world)
    scene.lives_at.add(Endpoint("10.0.0.1", 8810))
    scene.comes(1, "172.17.0.1", "10.0.0.1")
    await asyncio.sleep(20.0)
    assert scene.proven == [Endpoint("10.0.0.1", 8810)] and scene.changes == 1
    for _ in range(10):
        scene.comes(1, "172.17.0.1", "10.0.0.1")
        await asyncio.sleep(10.0)
    assert len(scene.dialled) == 2
    await asyncio.sleep(LEFT_ALONE_S)
    scene.comes(1, "172.17.0.1", "10.0.0.1")
    await asyncio.sleep(20.0)
    assert len(scene.dialled) == 3


async def test_who_comes_again_and_again_with_other_addresses_makes_us_dial_few_of_them(world: World) -> None:
    scene = Scene(world)
    for number in range(300):
        connection = scene.comes(1, *(f"93.184.{number % 250}.{at}" for at in range(1, 9)))
        await asyncio.sleep(0.3)
        connection.closed = "gone"
    assert len(scene.dialled) <= BURST + 2
    await asyncio.sleep(600.0)
    assert len(scene.dialled) <= BURST + 12


async def test_many_liars_together_keep_few_dials_busy_and_nobody_waits_behind_a_caller_that_left(world: World) -> None:
    scene = Scene(world)
    liars = [scene.comes(number, *(f"93.{number}.0.{at}" for at in range(1, 9))) for number in range(1, 101)]
    await asyncio.sleep(1.0)
    assert scene.most_at_once == DIALS
    for connection in liars:
        connection.closed = "gone"
    honest = Endpoint("10.0.0.5", 8810)
    scene.lives_at.add(honest)
    scene.comes(200, honest.host)
    await asyncio.sleep(6.0)
    assert scene.proven == [honest]
    assert scene.most_at_once == DIALS
