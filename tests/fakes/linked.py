"""Whole nodes as far as membership and links go: what `app` wires on the floors identity to discovery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path

from swarmd.discovery.codes import NetworkCodes
from swarmd.discovery.join import Joined, Joiner
from swarmd.discovery.lan import Lan
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import NetworkCode, NewInvite
from swarmd.domain.peers import Endpoint
from swarmd.kit.gauges import Gauges
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, seeded_world
from swarmd.peers.gossip import Gossip
from swarmd.peers.links import RELAY_BYTES_PER_S, Links
from swarmd.peers.renewal import Renewal
from swarmd.store.database import Database
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Doors, Network
from swarmd.transport.greeting import Greeting
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Dispatcher
from tests.fakes.inline_sqlite import inline_database
from tests.fakes.members import Member, inline, open_member
from tests.fakes.segment import FakeSegment

ANY_PORT = Endpoint("127.0.0.1", 0)


@dataclass(slots=True, kw_only=True)
class Node:
    member: Member
    doors: Doors
    gossip: Gossip
    links: Links
    renewal: Renewal
    joiner: Joiner
    codes: NetworkCodes
    gauges: Gauges
    announced: list[Endpoint]
    dispatcher: Dispatcher
    relaying: list[float]
    """Bytes a second that the node relays for others; the last one counts."""
    lan: Lan

    @property
    def id(self) -> NodeId:
        return self.member.key.node

    @property
    def at(self) -> Endpoint:
        endpoint = self.doors.endpoint
        assert endpoint is not None
        return endpoint

    async def code(self) -> str:
        code = await self.codes.network_code()
        assert isinstance(code, NetworkCode), code
        return code.code

    async def short_code(self) -> str:
        made = await self.codes.short_code()
        assert isinstance(made, NewInvite), made
        return made.code


@asynccontextmanager
async def open_node(
    seed: int,
    *,
    world: World,
    folder: Path,
    network: Network | None = None,
    listen: Endpoint | None = ANY_PORT,
    database: Path | Database | None = None,
    max_peers: int = 150,
    identity: int | None = None,
    segment: FakeSegment | None = None,
    is_open: bool = False,
) -> AsyncIterator[Node]:
    """A running node. `identity`: the seed whose key it has, when not its own. `listen` None: it only dials. Its announced
    address is where it really listens. With a segment it takes part in the local network as `10.0.0.<seed>/24`."""
    async with (
        open_member(identity or seed, world=world, folder=folder, database=database, is_open=is_open) as member,
        Supervisor(f"node {seed}", world=world) as supervisor,
    ):
        dispatcher = Dispatcher()
        gauges = Gauges()
        announced: list[Endpoint] = []
        relaying = [RELAY_BYTES_PER_S]

        async def passed_on(greeting: Greeting, node: NodeId, first: bytes) -> None:
            await links.relay.forward(greeting, node, first)

        def accepted(connection: Connection) -> None:
            links.accepted(connection)

        doors = Doors(
            listen=listen,
            authority=member.gate,
            on_connection=accepted,
            spawn=supervisor.spawn,
            world=world,
            network=network,
            forward=passed_on,
        )
        gossip = Gossip(
            key=member.key,
            network=lambda: member.membership.network,
            certificate=member.membership.shown_certificate,
            revoked=member.membership.revocations.covers,
            bare=member.membership.takes_bare,
            world=world,
            bus=member.bus,
        )
        links = Links(
            own=member.key.node,
            book=member.book,
            dialler=doors,
            dispatcher=dispatcher,
            spawn=supervisor.spawn,
            world=world,
            bus=member.bus,
            gauges=gauges,
            revocations=member.membership.revocations,
            gossip=gossip,
            max_peers=max_peers,
            relay_bytes_per_s=lambda: relaying[-1],
        )
        renewal = Renewal(
            membership=member.membership,
            lines=links,
            dispatcher=dispatcher,
            db=member.db,
            world=world,
            bus=member.bus,
        )
        lan = Lan(
            own=member.key.node,
            network=lambda: member.membership.network,
            listening=lambda: member.listening[0],
            interfaces=lambda: (ip_interface(f"{Swarm.host(seed)}/24"),),
            links=links,
            nameplates=member.short_codes.nameplates_around,
            responder=segment or FakeSegment(),
            world=world,
            bus=member.bus,
        )
        joiner = Joiner(
            membership=member.membership,
            gate=member.gate,
            links=links,
            dialler=doors,
            segment=None if segment is None else lan,
            world=world,
            bus=member.bus,
            compute=inline,
        )
        codes = NetworkCodes(
            membership=member.membership,
            invitations=member.invitations,
            short_codes=member.short_codes,
            links=links,
            world=world,
            announced=lambda: tuple(announced),
        )
        member.listening.clear()
        await supervisor.start(doors)
        if listen is not None and doors.endpoint is not None:
            member.listening.append(Endpoint(listen.host, doors.endpoint.port))  # "everywhere", when that was asked for
            announced.append(doors.endpoint)
        await supervisor.start(links)
        await supervisor.start(renewal)
        if segment is not None:
            await supervisor.start(lan)
        yield Node(
            member=member,
            doors=doors,
            gossip=gossip,
            links=links,
            renewal=renewal,
            joiner=joiner,
            codes=codes,
            gauges=gauges,
            announced=announced,
            dispatcher=dispatcher,
            relaying=relaying,
            lan=lan,
        )


async def joined(guest: Node, host: Node) -> Joined:
    outcome = await guest.joiner.join(await host.code())
    assert isinstance(outcome, Joined), outcome
    return outcome


@dataclass(slots=True, kw_only=True)
class Swarm:
    """Nodes `10.0.0.<seed>` on one hub, each with a database that survives the node."""

    folder: Path
    hub: LoopbackHub
    stack: AsyncExitStack
    databases: dict[int, Database] = field(default_factory=dict)
    running: dict[int, AsyncExitStack] = field(default_factory=dict)
    segment: FakeSegment = field(default_factory=FakeSegment)

    async def start(
        self,
        seed: int,
        *,
        listening: bool = True,
        world: World | None = None,
        max_peers: int = 150,
        identity: int | None = None,
        lan: bool = False,
        is_open: bool = False,
    ) -> Node:
        if seed not in self.databases:
            self.databases[seed] = await self.stack.enter_async_context(inline_database())
        stack = self.running[seed] = AsyncExitStack()
        return await stack.enter_async_context(
            open_node(
                seed,
                world=world or seeded_world(seed),
                folder=self.folder,
                network=self.hub.network(self.host(seed)),
                listen=Endpoint("0.0.0.0", 8810) if listening else None,
                database=self.databases[seed],
                max_peers=max_peers,
                identity=identity,
                segment=self.segment if lan else None,
                is_open=is_open,
            )
        )

    async def stop(self, seed: int) -> None:
        await self.running.pop(seed).aclose()

    @staticmethod
    def host(seed: int) -> str:
        return f"10.0.0.{seed}"


@asynccontextmanager
async def open_swarm(folder: Path, *, latency_s: float = 0.01) -> AsyncIterator[Swarm]:
    """For virtual time. Nodes that still run at the end are stopped, the newest first."""
    async with AsyncExitStack() as stack:
        swarm = Swarm(folder=folder, hub=LoopbackHub(latency_s=latency_s), stack=stack)
        yield swarm
        for seed in reversed(list(swarm.running)):
            await swarm.stop(seed)
