"""Seals between nodes: asked of holders, believed when they are good, made where the hashes are known."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import NotFound
from swarmd.domain.shards import Acquisition
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode
from swarmd.shards.sealing import AT_ONCE
from swarmd.transport.loopback import LoopbackHub
from swarmd.wire.exchange import AskSeal
from swarmd.wire.messages import CODES
from tests.fakes.holders import Holder, open_holder, sealer_of
from tests.fakes.landings import SMALL
from tests.fakes.shards import cut_model
from tests.models.test_seals import signed_by, unsealed
from tests.shards.test_desk import ended

MODEL = ModelId("tiny")


def named_tiny(tiny: Path) -> Path:
    return tiny.rename(tiny.with_name("tiny.gguf"))


async def knows_without_hashes(holder: Holder, tiny: Path) -> KnownModel:
    data = tiny.read_bytes()
    cut = cut_model(data, shard_size_bytes=100_000)
    known = await holder.store.catalog.adopt(
        encode(signed_by(holder.store, unsealed(cut))), data[: cut.header.data_offset]
    )
    assert isinstance(known, KnownModel), known
    return known


async def test_a_holder_that_cut_the_file_itself_seals_for_one_that_knows_it_from_the_hub(
    tmp_path: Path, tiny: Path
) -> None:
    net, tiny = LoopbackHub(), named_tiny(tiny)
    async with open_holder(1, tmp_path, net) as cutter, open_holder(2, tmp_path, net) as asker:
        assert await cutter.desk.add_file(tiny, 100_000) == MODEL
        known = await knows_without_hashes(asker, tiny)
        await asker.connect(cutter)
        asker.hear(cutter)
        seals = sealer_of(asker.store)
        assert await seals.learn(ShardRef(MODEL, 1), within_s=5) == cutter.id
        sealed, ours = asker.store.catalog.get(MODEL), cutter.store.catalog.get(MODEL)
        assert sealed is not None and ours is not None and not known.manifest.shards[1].sealed
        assert sealed.manifest.shards[1] == ours.manifest.shards[1]
        assert await seals.learn(ShardRef(MODEL, 1), within_s=5) is None, "what is sealed needs nobody"
        assert await asker.desk.acquire(MODEL, (0, 1), "user") is not None


async def test_without_a_holder_there_is_no_seal(tmp_path: Path, tiny: Path) -> None:
    net, tiny = LoopbackHub(), named_tiny(tiny)
    async with open_holder(1, tmp_path, net) as lonely, open_holder(2, tmp_path, net) as other:
        await knows_without_hashes(lonely, tiny)
        seals = sealer_of(lonely.store)
        for ref in (ShardRef(MODEL, 0), ShardRef(ModelId("unknown"), 0)):
            assert await seals.learn(ref, within_s=5) is None
        await knows_without_hashes(other, tiny)
        await lonely.connect(other)
        assert await seals.learn(ShardRef(MODEL, 0), within_s=5) is None, "a node that holds nothing is not asked"


async def test_liars_are_not_asked_and_their_word_is_not_taken_from_others(tmp_path: Path, tiny: Path) -> None:
    net, tiny, ref = LoopbackHub(), named_tiny(tiny), ShardRef(MODEL, 1)
    async with (
        open_holder(1, tmp_path, net) as cutter, open_holder(2, tmp_path, net) as asker,
        open_holder(3, tmp_path, net) as believer,
    ):  # fmt: skip
        assert await cutter.desk.add_file(tiny, 100_000) == MODEL
        for node in (believer, asker):
            await knows_without_hashes(node, tiny)
        await believer.connect(cutter)
        assert isinstance(await believer.desk.acquire(MODEL, (1,), "user"), Acquisition)
        assert (await ended(believer, MODEL)).state == "complete"
        await asker.connect(believer)
        seals = sealer_of(asker.store)
        assert await seals.learn(ref, liars={cutter.id}, within_s=5) is None, "it is the liar's seal, whoever passes it on"
        assert await seals.learn(ref, liars={believer.id}, within_s=5) is None
        assert await seals.learn(ref, within_s=5) == believer.id


async def test_only_a_strangers_seal_is_taken_back(tmp_path: Path, tiny: Path) -> None:
    net, tiny, ref = LoopbackHub(), named_tiny(tiny), ShardRef(MODEL, 1)
    async with open_holder(1, tmp_path, net) as cutter, open_holder(2, tmp_path, net) as asker:
        assert await cutter.desk.add_file(tiny, 100_000) == MODEL
        assert await sealer_of(cutter.store).take_back(ref) is None, "these hashes are of the manifest"
        await knows_without_hashes(asker, tiny)
        await asker.connect(cutter)
        seals = sealer_of(asker.store)
        assert await seals.learn(ref, within_s=5) == cutter.id
        assert await seals.take_back(ref) == cutter.id
        known = asker.store.catalog.get(MODEL)
        assert known is not None and not known.manifest.shards[1].sealed
        assert not asker.store.catalog.seal_path(MODEL, 1).exists()
        cut = cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
        landing = await asker.store.storage.open_landing(ref)
        for number in landing.missing():
            at = number * SMALL
            await landing.write_chunk(number, cut.payloads[1][at : at + landing.chunk_size(number)])
        assert await seals.make(landing) is None
        assert await seals.take_back(ref) is None, "this node has read it itself"
        assert await seals.take_back(ShardRef(ModelId("unknown"), 0)) is None


async def test_silent_holders_cost_one_short_wait_together(tmp_path: Path, tiny: Path) -> None:
    """They were asked one after the other for a minute each, before anything was fetched."""
    net, tiny, silent = LoopbackHub(), named_tiny(tiny), range(3, 3 + AT_ONCE)
    async with AsyncExitStack() as stack:
        asker = await stack.enter_async_context(open_holder(2, tmp_path, net))
        nodes = [await stack.enter_async_context(open_holder(seed, tmp_path, net)) for seed in (1, *silent)]
        asked = 0

        async def never(ask: AskSeal, payload: memoryview, peer: PeerIdentity) -> NotFound:
            nonlocal asked
            asked += 1
            await asyncio.sleep(3600)
            return NotFound(what="")

        await knows_without_hashes(asker, tiny)
        seals, (speaker, *others) = sealer_of(asker.store), sorted(nodes, key=lambda node: node.id, reverse=True)
        for node in nodes:
            assert await node.desk.add_file(tiny, 100_000) == MODEL
            await asker.connect(node)
        for node in others:
            node.dispatcher._answers[CODES[AskSeal]] = never
        began = asyncio.get_running_loop().time()
        assert await seals.learn(ShardRef(MODEL, 1), within_s=4.0) == speaker.id, "the last one of all"
        assert await seals.learn(ShardRef(MODEL, 0), within_s=4.0) == speaker.id
        assert asyncio.get_running_loop().time() - began < 4.0 and asked == AT_ONCE, "they are not waited for again"
