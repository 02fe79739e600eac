"""Seals between nodes: asked of holders, believed when they are good, made where the hashes are known."""

from __future__ import annotations

from pathlib import Path

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.holders import Holder, open_holder, sealer_of
from tests.fakes.shards import cut_model
from tests.models.test_seals import signed_by, unsealed

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
        assert await seals.learn(ShardRef(MODEL, 1))
        sealed, ours = asker.store.catalog.get(MODEL), cutter.store.catalog.get(MODEL)
        assert sealed is not None and ours is not None and not known.manifest.shards[1].sealed
        assert sealed.manifest.shards[1] == ours.manifest.shards[1]
        assert await seals.learn(ShardRef(MODEL, 1)), "what is sealed needs nobody"
        assert await asker.desk.acquire(MODEL, (0, 1), "user") is not None


async def test_without_a_holder_there_is_no_seal(tmp_path: Path, tiny: Path) -> None:
    net, tiny = LoopbackHub(), named_tiny(tiny)
    async with open_holder(1, tmp_path, net) as lonely, open_holder(2, tmp_path, net) as other:
        await knows_without_hashes(lonely, tiny)
        seals = sealer_of(lonely.store)
        assert not await seals.learn(ShardRef(MODEL, 0)) and not await seals.learn(ShardRef(ModelId("unknown"), 0))
        await knows_without_hashes(other, tiny)
        await lonely.connect(other)
        assert not await seals.learn(ShardRef(MODEL, 0)), "a node that holds nothing is not asked"
