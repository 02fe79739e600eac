"""Who holds what, as it is shown; leases."""

from __future__ import annotations

from pathlib import Path

from swarmd.domain.events import ShardDropped, ShardStored
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import Holding, NodeSummary
from tests.fakes.holders import Store, open_store
from tests.shards.test_storage import MODEL, adopted, chunk

OTHER, THIRD = NodeId("a" * 64), NodeId("b" * 64)


def says(store: Store, node: NodeId, *holdings: Holding) -> None:
    store.wire.summaries[node] = NodeSummary(
        node=node, version=1, software="swarmd/test", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0, holdings=holdings
    )


async def hold(store: Store, payload: bytes, ref: ShardRef) -> None:
    landing = await store.storage.open_landing(ref)
    for number in landing.missing():
        await landing.write_chunk(number, chunk(payload, number))
    await landing.commit()
    store.registry.hold(ref, source=None)


async def test_holders_are_this_node_and_those_with_the_same_layout(tmp_path: Path, tiny: Path) -> None:
    store = open_store(1, tmp_path)
    store.registry._summaries = lambda: store.wire.summaries
    cut, known = await adopted(store, tiny)
    ref = ShardRef(MODEL, 1)
    says(store, OTHER, Holding(model=MODEL, layout=known.manifest.layout, shards=(1, 2)))
    says(store, THIRD, Holding(model=MODEL, layout="0" * 32, shards=(1,)))
    assert store.registry.holders(ref) == (OTHER,)
    with store.bus.spy() as spy:
        await hold(store, cut.payloads[1], ref)
        assert spy.of(ShardStored) == [ShardStored(shard=ref, size_bytes=len(cut.payloads[1]), source=None)]
    assert store.registry.holders(ref) == tuple(sorted((OTHER, store.key.node)))
    assert store.registry.holdings() == (Holding(model=MODEL, layout=known.manifest.layout, shards=(1,)),)
    store.registry.set_loaded(MODEL, (1,))
    view = store.registry.view(MODEL)
    assert view is not None and view.held == (1,) and not view.covered
    assert [shard.loaded for shard in view.shards][:2] == [False, True] and THIRD not in view.holders
    with store.bus.spy() as spy:
        assert await store.registry.drop(ref) and not await store.registry.drop(ref)
        assert spy.of(ShardDropped) == [ShardDropped(shard=ref)]
    assert store.registry.holdings() == ()


async def test_a_name_from_a_peer_is_shown_without_a_manifest(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    store.registry._summaries = lambda: store.wire.summaries
    far = ModelId("far")
    assert store.registry.view(far) is None and store.registry.holders(ShardRef(far, 0)) == ()
    says(store, OTHER, Holding(model=far, layout="0" * 32, shards=(0,)))
    view = store.registry.view(far)
    assert view is not None and view.manifest is None and view.holders == (OTHER,) and view.trust is TrustLevel.DISCOVERED
    assert store.registry.models() == (far,)


def test_leases_add_up(tmp_path: Path) -> None:
    registry, ref = open_store(1, tmp_path).registry, ShardRef(MODEL, 0)
    with registry.lease(MODEL, (0, 1)), registry.lease(MODEL, (0,)):
        assert registry.in_use(ref)
    assert not registry.in_use(ref)
