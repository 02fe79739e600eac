"""Adapters between two nodes over a link in memory: what an honest head gives, and what a lying one gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.events import AdapterRejected
from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import BadFile, Busy, Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.world import real_world
from swarmd.models import lora
from swarmd.models.catalog import KnownModel
from swarmd.shards import adapter_exchange, small_files
from swarmd.shards.adapter_exchange import AdapterExchange
from swarmd.shards.adapter_parts import AdapterParts
from swarmd.shards.serving import ShardServer
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import Dispatcher, Reply, WithPayload
from swarmd.wire.exchange import AdapterPart, AskAdapter
from swarmd.wire.messages import Refused
from tests.fakes.adapters import known_model
from tests.fakes.gguf import TinyModel
from tests.fakes.holders import Store, open_store
from tests.shards.test_adapter_parts import SHAPE, Made, opened
from tests.transport.nodes import Node, nodes

Part = Callable[[AskAdapter], WithPayload | Refusal]


@dataclass
class Two:
    server: Node
    client: Node
    made: Made
    known: KnownModel
    theirs: AdapterParts
    ours: AdapterParts
    exchange: AdapterExchange
    bus: EventBus

    @property
    def ref(self) -> AdapterRef:
        return AdapterRef(digest=self.made.digest, size_bytes=self.made.index.size_bytes)

    @property
    def source(self) -> NodeId:
        return self.server.authority.node

    async def fetch(self, start: int = 0, end: int = 3) -> Refusal | None:
        return await self.exchange.fetch(self.ref, self.known, start, end, source=self.source)


def exchange_of(store: Store, parts: AdapterParts, bus: EventBus) -> AdapterExchange:
    server = ShardServer(
        catalog=store.catalog, storage=store.storage, disk=store.disk, world=real_world(), upload_limit=lambda: None,
        observed_host=lambda peer: None,
    )  # fmt: skip
    return AdapterExchange(parts=parts, server=server, lines=store.wire, world=real_world(), bus=bus)


@asynccontextmanager
async def two(tmp_path: Path, answer: Part | None = None) -> AsyncIterator[Two]:
    """`answer`: in place of the honest server."""
    made, bus = Made(tmp_path), EventBus()
    known = known_model(tmp_path, SHAPE)
    theirs, ours = opened(tmp_path / "theirs", made.digest), opened(tmp_path / "ours")
    await made.into(theirs)
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        if answer is None:
            exchange_of(open_store(1, tmp_path / "theirs"), theirs, bus).register(server.dispatcher)
        else:
            lie(server.dispatcher, answer)
        store = open_store(2, tmp_path / "ours")
        store.wire.links[server.authority.node] = await client.link_to(server)
        yield Two(server, client, made, known, theirs, ours, exchange_of(store, ours, bus), bus)


def lie(dispatcher: Dispatcher, answer: Part) -> None:
    async def answered(ask: AskAdapter, payload: memoryview, peer: object) -> WithPayload | Refusal:
        return answer(ask)

    dispatcher.answer(AskAdapter, answered)


async def test_a_stage_gets_its_layers_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("swarmd.shards.small_files", "swarmd.shards.serving"):
        monkeypatch.setattr(f"{module}.PART_BYTES", 5000)  # so that a layer comes in several
    async with two(tmp_path) as pair:
        assert await pair.fetch(1, 2) is None
        assert [part.layer for part in pair.ours.missing(pair.made.digest, 0, 3)] == [0, 2]
        assert await pair.fetch(1, 3) is None
        assert isinstance(await pair.ours.slice(pair.made.digest, 1, 3), tuple)
        assert await pair.exchange.fetch(pair.ref, pair.known, 1, 3, source=None) is None, "nothing is missing"
        assert isinstance(await pair.exchange.fetch(pair.ref, pair.known, 0, 3, source=None), NotFound)


async def test_a_peer_may_ask_for_anything_and_gets_what_is_here(tmp_path: Path) -> None:
    async with two(tmp_path) as pair:
        link = await pair.client.link_to(pair.server)
        for ask in (
            AskAdapter(digest=bytes(32), layer=None, offset=0),
            AskAdapter(digest=b"../../identity.key", layer=None, offset=0),
            AskAdapter(digest=pair.made.digest, layer=9, offset=0),
            AskAdapter(digest=pair.made.digest, layer=-1, offset=0),
            AskAdapter(digest=pair.made.digest, layer=0, offset=-1),
            AskAdapter(digest=pair.made.digest, layer=0, offset=1 << 60),
        ):
            assert isinstance(await link.call(ask, AdapterPart, timeout_s=5), Refused), ask
        reply = await link.call(AskAdapter(digest=pair.made.digest, layer=2, offset=8), AdapterPart, timeout_s=5)
        assert isinstance(reply, Reply) and bytes(reply.payload) == pair.made.contents[2][8:]


@pytest.mark.parametrize("lie_about", ["index", "part", "size", "drip"])
async def test_a_lying_head_is_refused_and_blamed(tmp_path: Path, lie_about: str) -> None:
    made = Made(tmp_path)

    def answer(ask: AskAdapter) -> WithPayload | Refusal:
        data = made.encoded if ask.layer is None else made.contents[ask.layer]
        if (lie_about == "index") == (ask.layer is None) and lie_about in ("index", "part"):
            data = bytes([data[0] ^ 1]) + data[1:]
        total = lora.PART_LIMIT + 1 if lie_about == "size" and ask.layer == 1 else len(data)
        return WithPayload(AdapterPart(total_bytes=total), data[:1] if lie_about == "drip" else data)

    async with two(tmp_path, answer) as pair:
        with pair.bus.spy() as spy:
            assert isinstance(await pair.fetch(), BadFile)
            (fact,) = spy.of(AdapterRejected)
            assert fact.source == pair.source
        assert pair.ours.path(pair.made.digest, 1) is None


async def test_a_head_that_has_it_not_or_is_gone_is_not_blamed(tmp_path: Path) -> None:
    async with two(tmp_path, lambda ask: NotFound(what="removed")) as pair:
        with pair.bus.spy() as spy:
            assert isinstance(await pair.fetch(), NotFound)
            stranger = NodeId("c" * 64)
            assert isinstance(await pair.exchange.fetch(pair.ref, pair.known, 0, 3, source=stranger), Busy)
            assert not spy.of(AdapterRejected)


async def test_an_adapter_that_does_not_fit_is_refused_before_its_parts_come(tmp_path: Path) -> None:
    other = known_model(tmp_path / "other", TinyModel(layers=2))
    async with two(tmp_path) as pair:
        pair.known = other
        refusal = await pair.fetch(0, 2)
        assert isinstance(refusal, Invalid) and "does not fit" in refusal.sentence
        assert len(pair.ours.missing(pair.made.digest, 0, 3)) == 3
        for size, digest in ((0, bytes(32)), (lora.ADAPTER_LIMIT + 1, bytes(32)), (1, b"short")):
            ref = AdapterRef(digest=digest, size_bytes=size)
            assert isinstance(await pair.exchange.fetch(ref, other, 0, 2, source=pair.source), Invalid)
        ref = replace(pair.ref, size_bytes=pair.ref.size_bytes + 1)
        assert isinstance(await pair.exchange.fetch(ref, other, 0, 2, source=pair.source), Invalid)


async def test_a_head_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_files, "PART_TIMEOUT_S", 0.05)
    async with two(tmp_path, lambda ask: NotFound(what="x")) as pair:
        pair.server.dispatcher._answers.clear()

        async def never(ask: AskAdapter, payload: memoryview, peer: object) -> WithPayload:
            await asyncio.Event().wait()
            raise AssertionError

        pair.server.dispatcher.answer(AskAdapter, never)
        assert isinstance(await pair.fetch(), Busy)


async def test_whoever_names_many_adapters_waits_behind_itself(tmp_path: Path) -> None:
    asked, most = [0], [0]

    async with two(tmp_path, lambda ask: NotFound(what="x")) as pair:
        pair.server.dispatcher._answers.clear()

        async def slowly(ask: AskAdapter, payload: memoryview, peer: object) -> Refusal:
            asked[0] += 1
            most[0] = max(most[0], asked[0])
            await asyncio.sleep(0.001)
            asked[0] -= 1
            return NotFound(what="x")

        pair.server.dispatcher.answer(AskAdapter, slowly)
        refs = [AdapterRef(digest=bytes([number]) * 32, size_bytes=9) for number in range(20)]
        answers = await asyncio.gather(
            *(pair.exchange.fetch(ref, pair.known, 0, 3, source=pair.source) for ref in refs)
        )
        assert all(isinstance(answer, NotFound) for answer in answers) and most == [1]


async def test_slow_members_keep_nobody_else_from_an_adapter_for_longer_than_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_exchange, "PATIENCE_S", 0.05)
    monkeypatch.setattr(adapter_exchange, "SLOWEST_BYTES_S", 1e9)
    async with two(tmp_path, lambda ask: NotFound(what="x")) as pair:
        pair.server.dispatcher._answers.clear()
        asked: list[int | None] = []

        async def dawdles(ask: AskAdapter, payload: memoryview, peer: object) -> WithPayload:
            asked.append(ask.layer)
            assert pair.exchange._places._value == adapter_exchange.PLACES - 1, "one for the part that comes, none between"
            if ask.layer == 1:
                await asyncio.Event().wait()
            data = pair.made.encoded if ask.layer is None else pair.made.contents[ask.layer]
            return WithPayload(AdapterPart(total_bytes=len(data)), data)

        pair.server.dispatcher.answer(AskAdapter, dawdles)
        real = pair.ours.keep_part
        between: list[int] = []

        async def kept(digest: bytes, layer: int, data: bytes | bytearray) -> Refusal | None:
            between.append(pair.exchange._places._value)
            return await real(digest, layer, data)

        monkeypatch.setattr(pair.ours, "keep_part", kept)
        refusal = await pair.fetch()
        assert isinstance(refusal, Busy) and "takes too long" in refusal.sentence
        assert asked == [None, 0, 1]
        assert between == [adapter_exchange.PLACES - 1], "what has come is held until it is on the disk"
        assert pair.exchange._places._value == adapter_exchange.PLACES
