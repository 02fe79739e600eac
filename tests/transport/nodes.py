"""Nodes with doors and links, on real sockets or on the loopback network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, real_world, seeded_world
from swarmd.transport.connection import Connection
from swarmd.transport.doors import DoorLimits, Doors
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Dispatcher, Link, WithPayload
from swarmd.wire.messages import message
from tests.fakes.authority import FakeAuthority


@message(61001)
@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    text: str
    wait_s: float = 0.0


@message(61002)
@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed:
    text: str


@message(61003)
class Step(msgspec.Struct, frozen=True, array_like=True):
    position: int


@message(61004)
@dataclass(frozen=True, slots=True, kw_only=True)
class Unhandled:
    pass


class Node:
    """What is between doors and application in a test."""

    def __init__(
        self,
        letter: str,
        supervisor: Supervisor,
        *,
        world: World,
        hub: LoopbackHub | None = None,
        limits: DoorLimits | None = None,
    ) -> None:
        self.authority = FakeAuthority(letter)
        self.dispatcher = Dispatcher()
        self.links: list[Link] = []
        self.arrived = asyncio.Event()
        self.supervisor = supervisor
        self.doors = Doors(
            listen=Endpoint(letter if hub else "127.0.0.1", 1 if hub else 0),
            authority=self.authority,
            on_connection=self.adopt,
            spawn=supervisor.spawn,
            world=world,
            network=hub.network(letter) if hub else None,
            limits=limits,
        )

    @property
    def endpoint(self) -> Endpoint:
        assert self.doors.endpoint is not None
        return self.doors.endpoint

    def adopt(self, connection: Connection) -> Link:
        link = Link(connection, dispatcher=self.dispatcher, spawn=self.supervisor.spawn)
        self.links.append(link)
        self.arrived.set()
        return link

    async def link_to(self, other: Node, purpose: Purpose = Purpose.CONTROL) -> Link:
        connection = await self.doors.dial(other.endpoint, expect=other.authority.node, purpose=purpose)
        assert isinstance(connection, Connection), connection
        return self.adopt(connection)


@asynccontextmanager
async def nodes(
    letters: str, *, hub: LoopbackHub | None = None, limits: DoorLimits | None = None
) -> AsyncIterator[list[Node]]:
    """Running nodes; everything is closed afterwards."""
    world = seeded_world(1) if hub else real_world()
    async with Supervisor("test", world=world) as supervisor:
        made = [Node(letter, supervisor, world=world, hub=hub, limits=limits) for letter in letters]
        for node in made:
            node.doors.name = f"doors {node.authority.node[:1]}"
            await supervisor.start(node.doors)
        try:
            yield made
        finally:
            for node in made:
                for link in node.links:
                    link.close("test is over")
            await asyncio.sleep(0.01)
            await supervisor.stop()


async def echo(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
    if request.wait_s:
        await asyncio.sleep(request.wait_s)
    return WithPayload(Echoed(text=request.text), payload)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
