"""A node's models in one row each, from the real catalogue, storage and registry."""

from __future__ import annotations

from pathlib import Path

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.peers import Holding, NodeSummary
from swarmd.economy.shelf import MAX_HEARD, Shelf, Shelved
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import open_holder

TINY = ModelId("tiny-model")


async def test_what_is_here_and_what_is_only_heard_of(tmp_path: Path) -> None:
    path = write_model(tmp_path / "Tiny Model.gguf", TinyModel())
    async with open_holder(1, tmp_path, LoopbackHub()) as holder:
        assert await holder.desk.add_file(path, 100_000) == TINY
        store, shelf = holder.store, Shelf(catalog=holder.store.catalog, registry=holder.store.registry)
        (row,) = shelf.models()
        known = store.catalog.get(TINY)
        assert known is not None
        assert row.sizes == tuple(shard.size_bytes for shard in known.manifest.shards) and len(row.sizes) > 2
        assert (row.layout, row.pinned, row.has_source, row.shared) == (known.manifest.layout, True, False, False)
        assert row.held == frozenset(range(len(row.sizes))) and row.loaded == row.running == frozenset()
        store.registry.set_loaded(TINY, (1, 99))
        with store.registry.lease(TINY, (2,)):
            (row,) = shelf.models()
            assert (row.loaded, row.running) == ({1}, {2})
        names = tuple(Holding(model=ModelId(f"heard-{n:04}"), layout="0" * 32, shards=(0,)) for n in range(MAX_HEARD + 9))
        store.registry._summaries = lambda: {
            NodeId("a" * 64): NodeSummary(
                node=NodeId("a" * 64), version=1, software="t", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0,
                holdings=names,
            )
        }  # fmt: skip
        rows = shelf.models()
        assert len(rows) == 1 + MAX_HEARD and rows[1] == Shelved(model=ModelId("heard-0000"), name="heard-0000")
