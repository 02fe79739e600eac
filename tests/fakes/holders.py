"""Nodes with models: everything `app` wires from the kit up to the shard desk, over a hub in memory or real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarmd.config.settings import ResourcesSettings, Settings
from swarmd.domain.events import SummaryReceived
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.peers import Endpoint, NodeSummary, PeerView, Purpose
from swarmd.domain.refusals import Refusal
from swarmd.downloads.engine import Engine
from swarmd.downloads.files import Files
from swarmd.downloads.hub import Hub
from swarmd.downloads.probe import Prober
from swarmd.downloads.ranges import RangeClient
from swarmd.identity.keys import NodeKey, Signed, verify
from swarmd.inference.herald import Herald
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.gauges import Gauges
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, real_world
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.models.manifest import encode, signed
from swarmd.shards.desk import ShardDesk
from swarmd.shards.discovered import Discovered
from swarmd.shards.hub_desk import HubDesk
from swarmd.shards.hub_source import HubLine
from swarmd.shards.registry import Registry
from swarmd.shards.sealing import Sealer
from swarmd.shards.serving import ShardServer
from swarmd.shards.storage import ShardStorage
from swarmd.shards.whole import WholeCheck
from swarmd.store.database import Database
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Doors
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Dispatcher, Link
from tests.fakes.authority import FakeAuthority
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model


class HastyDisk(Disk):
    """Syncs nothing: no test pulls the plug of the machine, and a sync takes milliseconds."""

    def _sync(self, path: Path, flags: int) -> None:
        pass


class Wire:
    """Two ends of links for one node: who it is linked to, made by `connect`."""

    def __init__(self) -> None:
        self.links: dict[NodeId, Link] = {}
        self.rtt_ms: dict[NodeId, float] = {}
        self.summaries: dict[NodeId, NodeSummary] = {}

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None:
        link = self.links.get(node)
        return None if link is None or link.closed is not None else link

    def view(self, node: NodeId) -> PeerView | None:
        return None

    def connected(self) -> tuple[NodeId, ...]:
        return tuple(sorted(self.links))

    def heard(self) -> Mapping[NodeId, NodeSummary]:
        return {node: summary for node, summary in self.summaries.items() if self.link(node) is not None}


@dataclass(slots=True, kw_only=True)
class Store:
    """A catalogue, a storage and a registry over one folder, without a network."""

    key: NodeKey
    folder: Path
    disk: Disk
    bus: EventBus
    catalog: Catalog
    storage: ShardStorage
    wire: Wire
    registry: Registry


def open_store(seed: int, folder: Path, *, disk: Disk | None = None, bus: EventBus | None = None) -> Store:
    key = NodeKey(bytes([seed]) * 32)
    disk, bus, wire = disk or HastyDisk(), bus or EventBus(), Wire()
    catalog = Catalog(
        root=folder / "models", disk=disk, bus=bus, verify=lambda who, data, sign: verify(who, Signed.MANIFEST, data, sign)
    )
    catalog.load_now()
    storage = ShardStorage(catalog=catalog, disk=disk)
    storage.scan_now()
    registry = Registry(node=key.node, catalog=catalog, storage=storage, bus=bus, summaries=wire.heard)
    return Store(
        key=key, folder=folder, disk=disk, bus=bus, catalog=catalog, storage=storage, wire=wire, registry=registry
    )


def offer(folder: Path, model: ModelId, key: NodeKey, *, seed: int = 1) -> tuple[bytes, bytes, str]:
    """What a peer with this key sends of a model: manifest, header, and the layout it tells of."""
    data = write_model(folder / "offered.gguf", TinyModel(seed=seed)).read_bytes()
    cut = cut_model(data, shard_size_bytes=100_000)
    manifest = signed(replace(cut.manifest, model=model), key.node, lambda text: key.sign(Signed.MANIFEST, text))
    return encode(manifest), data[: cut.header.data_offset], manifest.layout


def discovered_of(store: Store, *, free_bytes: int = 1 << 40) -> Discovered:
    """Of a node on which no job runs and no worker."""
    return Discovered(
        catalog=store.catalog, storage=store.storage, job=lambda _: None, in_memory=tuple,
        free_bytes=lambda: free_bytes,
    )  # fmt: skip


def sealer_of(store: Store) -> Sealer:
    return Sealer(
        node=store.key.node, catalog=store.catalog, storage=store.storage, registry=store.registry, lines=store.wire,
        disk=store.disk, sign=lambda data: store.key.sign(Signed.MANIFEST, data),
    )  # fmt: skip


class HubParts:
    """What a node has of the hub."""

    def __init__(self, endpoint: str, store: Store, world: World) -> None:
        self.store, self.world = store, world
        self.hub = Hub(
            endpoint=lambda: endpoint, token=lambda: None, proxy=lambda: None, world=world, user_agent="swarmd/test"
        )
        self.client = RangeClient(
            world=world, hub=lambda: endpoint, token=lambda: None, proxy=lambda: None, user_agent="swarmd/test", stall_s=2.0
        )
        engine = Engine(client=self.client, world=world, connections=lambda: 4, bytes_per_s=lambda: None)
        self.prober = Prober(hub=self.hub, client=self.client, world=world)
        self.made: HubDesk | None = None
        self.line = HubLine(
            engine=engine, client=self.client, files=Files(engine=engine, disk=store.disk), url=self.hub.url,
            confirm=self.confirm,
            whole=WholeCheck(
                catalog=store.catalog, storage=store.storage, disk=store.disk, client=self.client, url=self.hub.url
            ).matches,
        )  # fmt: skip

    async def confirm(self, known: KnownModel) -> Refusal | None:
        assert self.made is not None
        return await self.made.confirm(known)

    def desk(self, desk: ShardDesk, settings: Callable[[], Settings]) -> HubDesk:
        self.made = HubDesk(
            node=self.store.key.node, hub=self.hub, prober=self.prober, desk=desk, catalog=self.store.catalog,
            registry=self.store.registry, lines=self.store.wire, disk=self.store.disk, bus=self.store.bus, world=self.world,
            settings=settings, sign=lambda data: self.store.key.sign(Signed.MANIFEST, data),
            memory_here=lambda: 1 << 30, memory_swarm=lambda: 1 << 32,
        )  # fmt: skip
        return self.made


@asynccontextmanager
async def aclosing_parts(endpoint: str | None, store: Store, world: World) -> AsyncIterator[HubParts | None]:
    """Closed after the node's services, which would open it again."""
    parts = None if endpoint is None else HubParts(endpoint, store, world)
    try:
        yield parts
    finally:
        if parts is not None:
            parts.hub.close()
            await parts.client.close()


@dataclass(slots=True, kw_only=True)
class Holder:
    """A node with a running desk."""

    store: Store
    desk: ShardDesk
    dispatcher: Dispatcher
    doors: Doors
    supervisor: Supervisor
    gauges: Gauges
    settings: list[Settings]
    hub_desk: HubDesk | None = None
    in_memory: set[ModelId] = field(default_factory=set)
    dropped: list[ShardRef] = field(default_factory=list)
    drop_refusals: list[Refusal] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.store.key.node

    def limit_disk(self, megabytes: int) -> None:
        resources = ResourcesSettings(max_disk_mb=megabytes)
        self.settings[0] = replace(self.settings[0], resources=resources)

    def lie(self) -> None:
        """From now on it sends wrong bytes, on purpose: a damaged disk it would notice."""
        read = self.store.storage.read_chunk

        async def read_chunk(ref: ShardRef, number: int) -> list[bytes]:
            first, *rest = await read(ref, number)
            return [bytes([first[0] ^ 1]) + first[1:], *rest]

        self.store.storage.read_chunk = read_chunk  # type: ignore[method-assign]

    def hear(self, other: Holder) -> None:
        """What the other holds now."""
        self.store.wire.summaries[other.id] = other.summary()
        self.store.bus.publish(SummaryReceived(summary=other.summary()))

    async def connect(self, other: Holder) -> None:
        """Link both and let them hear of each other."""
        assert other.doors.endpoint is not None
        connection = await self.doors.dial(other.doors.endpoint, expect=other.id, purpose=Purpose.BULK)
        assert isinstance(connection, Connection), connection
        self.store.wire.links[other.id] = Link(connection, dispatcher=self.dispatcher, spawn=self.supervisor.spawn)
        await other.linked(self.id)
        self.hear(other)
        other.hear(self)

    async def linked(self, node: NodeId) -> None:
        async with asyncio.timeout(5):
            while node not in self.store.wire.links:
                await asyncio.sleep(0)

    def summary(self) -> NodeSummary:
        return herald_of(self.store, lambda summary: None, real_world()).summary()


def herald_of(store: Store, announce: Callable[[NodeSummary], None], world: World) -> Herald:
    return Herald(
        nameplates=tuple,
        node=store.key.node, holdings=store.registry, announce=announce, world=world, bus=store.bus,
        software="swarmd/test", region="DE", free_ram=lambda: 1 << 30, total_ram_bytes=1 << 31,
        layer_ms=lambda model: None, endpoints=tuple, demand=tuple, peers=tuple, sessions=int,
    )  # fmt: skip


@asynccontextmanager
async def open_holder(
    seed: int,
    folder: Path,
    hub: LoopbackHub,
    *,
    disk: Disk | None = None,
    patience_s: float = 5.0,
    endpoint: str | None = None,
) -> AsyncIterator[Holder]:
    """A node of its own folder (`folder / "node-<seed>"`), which a later one with the same seed finds again. `endpoint`: of
    the hub that models come from; None: it has none."""
    home = folder / f"node-{seed}"
    home.mkdir(exist_ok=True)
    world = real_world()
    store = open_store(seed, home, disk=disk)
    settings = [Settings()]
    dispatcher, gauges = Dispatcher(), Gauges()
    holder: Holder
    ShardServer(
        catalog=store.catalog, storage=store.storage, disk=store.disk, world=world, upload_limit=lambda: None,
        observed_host=lambda peer: "127.0.0.1", damaged=lambda ref: holder.desk.doubt(ref),
    ).register(dispatcher)  # fmt: skip
    async with (
        aclosing_parts(endpoint, store, world) as parts,
        await Database.open(home / "node.db") as db,
        Supervisor(f"holder {seed}", world=world) as supervisor,
    ):
        authority = FakeAuthority("0")
        authority.node = store.key.node

        def accepted(connection: Connection) -> None:
            link = Link(connection, dispatcher=dispatcher, spawn=supervisor.spawn)
            store.wire.links[connection.node] = link

        doors = Doors(
            listen=Endpoint(f"node-{seed}", 1), authority=authority, on_connection=accepted, spawn=supervisor.spawn,
            world=world, network=hub.network(f"node-{seed}"),
        )  # fmt: skip

        async def before_drop(ref: ShardRef) -> Refusal | None:
            if holder.drop_refusals:
                return holder.drop_refusals[0]
            holder.dropped.append(ref)
            store.registry.set_loaded(ref.model, store.registry.loaded(ref.model) - {ref.index})
            return None

        desk = ShardDesk(
            node=store.key.node, catalog=store.catalog, storage=store.storage, registry=store.registry, lines=store.wire,
            summaries=store.wire.heard, db=db, disk=store.disk, world=world, bus=store.bus, gauges=gauges,
            settings=lambda: settings[0], sign=lambda data: store.key.sign(Signed.MANIFEST, data),
            before_drop=before_drop, in_memory=lambda: holder.in_memory, patience_s=patience_s,
            resume_patience_s=patience_s, hub=None if parts is None else parts.line,
        )  # fmt: skip
        desk.register(dispatcher)
        hub_desk = None if parts is None else parts.desk(desk, lambda: settings[0])
        holder = Holder(
            store=store, desk=desk, dispatcher=dispatcher, doors=doors, supervisor=supervisor, gauges=gauges,
            settings=settings, hub_desk=hub_desk,
        )  # fmt: skip
        await supervisor.start(doors)
        await supervisor.start(desk)
        yield holder
        for link in store.wire.links.values():
            link.close("the test is over")
        await asyncio.sleep(0)
