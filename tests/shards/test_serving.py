"""What members get from the disk, and how fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from swarmd.config.settings import NodeSettings, ResourcesSettings, Settings
from swarmd.domain.events import ShardsSeeded
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.kit.bus import EventBus
from swarmd.kit.world import real_world, seeded_world
from swarmd.shards import serving as serving_module
from swarmd.shards.serving import ASKS_PER_PEER, FIRST_PLACES, ShardServer, is_near, upload_limit
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Reply
from swarmd.wire.exchange import (
    AskChunk,
    AskChunkMap,
    AskHeader,
    AskManifest,
    ChunkMap,
    HeaderPart,
    ManifestPart,
    ShardChunk,
    unpack_chunks,
)
from swarmd.wire.messages import Refused
from tests.fakes.holders import Store, open_store
from tests.shards.test_registry import hold
from tests.shards.test_storage import MODEL, adopted, chunk
from tests.transport.nodes import nodes

PEER = PeerIdentity(node=NodeId("a" * 64), purpose=Purpose.BULK, software="swarmd/test")


def test_the_limit_follows_the_settings() -> None:
    settings = Settings()
    assert upload_limit(settings) == 1_250_000
    assert upload_limit(replace(settings, node=NodeSettings(contribution="moderate"))) == 6_250_000
    assert upload_limit(replace(settings, node=NodeSettings(contribution="maximum"))) is None
    assert upload_limit(replace(settings, resources=ResourcesSettings(max_bandwidth_mbps=8))) == 1_000_000


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True), ("192.168.1.9", True), ("10.0.0.2", True), ("fe80::1", True), ("::ffff:10.0.0.2", True),
        ("8.8.8.8", False), ("::ffff:8.8.8.8", False), ("2a00::1", False), ("host.example", False), (None, False),
    ],
)  # fmt: skip
def test_who_is_near(host: str | None, near: bool) -> None:
    assert is_near(host) is near


@pytest.mark.looptime
async def test_only_the_uplink_is_paced(tmp_path: Path) -> None:
    store, host = open_store(1, tmp_path), ["8.8.8.8"]
    server = ShardServer(
        catalog=store.catalog, storage=store.storage, disk=store.disk, world=seeded_world(1), upload_limit=lambda: 1000.0,
        observed_host=lambda peer: host[0],
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(4):
        await server._pace(PEER, 1000)
    assert loop.time() - start == pytest.approx(3.0)  # the first second was saved up
    host[0] = "192.168.0.4"
    await server._pace(PEER, 1_000_000)
    assert loop.time() - start == pytest.approx(3.0)


async def test_members_get_what_is_held_and_nothing_else(tmp_path: Path, tiny: Path) -> None:
    store = open_store(1, tmp_path)
    cut, known = await adopted(store, tiny)
    await hold(store, cut.payloads[1], ShardRef(MODEL, 1))
    layout = known.manifest.layout
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        ShardServer(
            catalog=store.catalog, storage=store.storage, disk=store.disk, world=real_world(), upload_limit=lambda: 1.0,
            observed_host=lambda peer: "10.0.0.1",
        ).register(server.dispatcher)  # fmt: skip
        link = await client.link_to(server)
        manifest = await link.call(AskManifest(model=MODEL, layout=layout, offset=0), ManifestPart, timeout_s=5)
        assert isinstance(manifest, Reply) and len(manifest.payload) == manifest.message.total_bytes
        header = await link.call(AskHeader(model=MODEL, layout=layout, offset=10), HeaderPart, timeout_s=5)
        assert isinstance(header, Reply) and len(header.payload) == header.message.total_bytes - 10
        spec = known.manifest.shards[1]
        for number, digest in enumerate(spec.chunk_blake3):
            ask = AskChunk(model=MODEL, layout=layout, shard=1, chunk=number)
            reply = await link.call(ask, ShardChunk, timeout_s=5)
            assert isinstance(reply, Reply) and blake3(reply.payload).hexdigest() == digest
        for ask, part in (
            (AskChunk(model=MODEL, layout=layout, shard=0, chunk=0), ShardChunk),
            (AskChunk(model=MODEL, layout=layout, shard=-1, chunk=0), ShardChunk),
            (AskChunk(model=MODEL, layout=layout, shard=1, chunk=len(spec.chunk_blake3)), ShardChunk),
            (AskChunk(model=MODEL, layout=layout, shard=1, chunk=-1), ShardChunk),
            (AskChunk(model=MODEL, layout="0" * 32, shard=1, chunk=0), ShardChunk),
            (AskHeader(model=ModelId("../x"), layout=layout, offset=0), HeaderPart),
            (AskHeader(model=MODEL, layout=layout, offset=-1), HeaderPart),
            (AskManifest(model=MODEL, layout=layout, offset=1 << 40), ManifestPart),
        ):
            assert isinstance(await link.call(ask, part, timeout_s=5), Refused), ask
        store.storage.path(ShardRef(MODEL, 1)).unlink()
        ask = AskChunk(model=MODEL, layout=layout, shard=1, chunk=0)
        assert isinstance(await link.call(ask, ShardChunk, timeout_s=5), Refused)


async def test_what_has_arrived_of_a_shard_is_served(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    layout, count = known.manifest.layout, known.manifest.shards[1].chunk_count
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        ShardServer(
            catalog=store.catalog, storage=store.storage, disk=store.disk, world=real_world(), upload_limit=lambda: None,
            observed_host=lambda peer: "10.0.0.1",
        ).register(server.dispatcher)  # fmt: skip
        link = await client.link_to(server)
        ask_map = AskChunkMap(model=MODEL, layout=layout, shard=1)
        assert isinstance(await link.call(ask_map, ChunkMap, timeout_s=5), Refused), "nothing of it is here"
        landing = await store.storage.open_landing(ref)
        for number in (0, 3):
            await landing.write_chunk(number, chunk(cut.payloads[1], number))
        reply = await link.call(ask_map, ChunkMap, timeout_s=5)
        assert isinstance(reply, Reply) and unpack_chunks(reply.payload, count) == {0, 3}
        for number in range(count):
            ask = AskChunk(model=MODEL, layout=layout, shard=1, chunk=number)
            answer = await link.call(ask, ShardChunk, timeout_s=5)
            if number in (0, 3):
                assert isinstance(answer, Reply) and answer.payload == chunk(cut.payloads[1], number)
            else:
                assert isinstance(answer, Refused), number
        for shard in (-1, 0, 99):
            ask_map = AskChunkMap(model=MODEL, layout=layout, shard=shard)
            assert isinstance(await link.call(ask_map, ChunkMap, timeout_s=5), Refused)
        await store.storage.drop(ref)
        ask = AskChunk(model=MODEL, layout=layout, shard=1, chunk=0)
        assert isinstance(await link.call(ask, ShardChunk, timeout_s=5), Refused), "it was deleted"
        await hold(store, cut.payloads[1], ref)
        reply = await link.call(AskChunkMap(model=MODEL, layout=layout, shard=1), ChunkMap, timeout_s=5)
        assert isinstance(reply, Reply) and unpack_chunks(reply.payload, count) == set(range(count))


async def test_what_was_given_within_a_moment_is_one_fact_for_each_peer(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "TOLD_S", 0.2)
    store, bus = open_store(1, tmp_path), EventBus()
    cut, known = await adopted(store, tiny)
    await hold(store, cut.payloads[1], ShardRef(MODEL, 1))
    layout, spec = known.manifest.layout, known.manifest.shards[1]
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        ShardServer(
            catalog=store.catalog, storage=store.storage, disk=store.disk, world=real_world(), upload_limit=lambda: None,
            observed_host=lambda peer: "10.0.0.1", bus=bus,
        ).register(server.dispatcher)  # fmt: skip
        link = await client.link_to(server)
        with bus.spy() as spy:
            for number in range(spec.chunk_count):
                ask = AskChunk(model=MODEL, layout=layout, shard=1, chunk=number)
                assert isinstance(await link.call(ask, ShardChunk, timeout_s=5), Reply)
            ask = AskChunk(model=MODEL, layout=layout, shard=0, chunk=0)
            assert isinstance(await link.call(ask, ShardChunk, timeout_s=5), Refused), "what is refused is not counted"
            told = await spy.wait_for(ShardsSeeded)
            assert told.size_bytes == spec.size_bytes
            assert len(spy.of(ShardsSeeded)) == 1


def served(store: Store, host: Callable[[PeerIdentity], str], rate: float | None = None) -> ShardServer:
    return ShardServer(
        catalog=store.catalog, storage=store.storage, disk=store.disk, world=seeded_world(1),
        upload_limit=lambda: rate, observed_host=host,
    )  # fmt: skip


@pytest.mark.looptime
async def test_nobody_waits_behind_a_slow_peer(tmp_path: Path) -> None:
    """A peer that takes nothing off its socket keeps its own places and no others."""
    server = served(open_store(1, tmp_path), lambda peer: "10.0.0.1")
    never = asyncio.Event()

    async def slow(peer: PeerIdentity) -> None:
        async with server._place(peer, 1000):
            await never.wait()

    async with asyncio.TaskGroup() as group:
        slow_ones = [replace(PEER, node=NodeId(f"{number:064x}")) for number in range(FIRST_PLACES - 1)]
        stuck = [group.create_task(slow(peer)) for peer in slow_ones for _ in range(8)]
        await asyncio.sleep(1)
        async with asyncio.timeout(1):
            for _ in range(20):
                async with server._place(PEER, 1000):
                    pass
        for task in stuck:
            task.cancel()
    assert server._queues == {}, "nothing is kept of who asks no more"


@pytest.mark.looptime
async def test_peers_take_turns_at_the_uplink(tmp_path: Path) -> None:
    server, order = served(open_store(1, tmp_path), lambda peer: "8.8.8.8", rate=1000.0), list[str]()

    async def one(peer: PeerIdentity, name: str) -> None:
        async with server._place(peer, 1000):
            order.append(name)

    start = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(one(PEER, f"greedy {number}"))
        await asyncio.sleep(0.1)
        group.create_task(one(replace(PEER, node=NodeId("b" * 64)), "modest"))
    assert order.index("modest") <= 2, order
    assert asyncio.get_running_loop().time() - start >= 6, "all peers together keep to the limit"


class Unread:
    """A stream whose peer takes nothing."""

    def __init__(self) -> None:
        self.peer, self.sent = PEER, list[object]()

    async def send(self, message: object, payload: bytes = b"", *, last: bool = False) -> None:
        self.sent.append(message)

    async def drain(self) -> None:
        await asyncio.get_running_loop().create_future()


async def test_parts_that_a_peer_asks_for_and_does_not_take_are_not_read_by_the_hundred(tmp_path: Path, tiny: Path) -> None:
    """Answers waited in the memory of the connection, 4 MiB each, as many as there may be streams."""
    store = open_store(1, tmp_path)
    _, known = await adopted(store, tiny)
    server = ShardServer(
        catalog=store.catalog, storage=store.storage, disk=store.disk, world=real_world(), upload_limit=lambda: None,
        observed_host=lambda peer: "10.0.0.1",
    )  # fmt: skip
    streams = [Unread() for _ in range(20)]
    ask = AskHeader(model=MODEL, layout=known.manifest.layout, offset=0)
    asks = [asyncio.create_task(server._header(ask, memoryview(b""), stream)) for stream in streams]
    async with asyncio.timeout(5):
        while sum(len(stream.sent) for stream in streams) < ASKS_PER_PEER:
            await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert sum(len(stream.sent) for stream in streams) == ASKS_PER_PEER
    for one in asks:
        one.cancel()
    await asyncio.gather(*asks, return_exceptions=True)
    assert not server._queues
