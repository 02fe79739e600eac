"""Adding a file: what the manifest says. The ways it ends are in `test_desk`."""

from __future__ import annotations

from pathlib import Path

from swarmd.domain.refusals import NoSpace
from swarmd.identity.keys import Signed
from swarmd.kit.gauges import Gauges
from swarmd.kit.world import World
from swarmd.shards.adding import Adder
from swarmd.shards.cutting import LocalFile, open_local
from swarmd.shards.jobs import Job
from tests.fakes.holders import Store, discovered_of, open_store, sealer_of
from tests.shards.test_storage import MODEL


def adder(store: Store, world: World) -> Adder:
    return Adder(
        node=store.key.node, catalog=store.catalog, discovered=discovered_of(store), storage=store.storage,
        registry=store.registry, disk=store.disk, gauges=Gauges(), world=world,
        sign=lambda data: store.key.sign(Signed.MANIFEST, data), seals=sealer_of(store),
    )  # fmt: skip


async def test_two_nodes_that_cut_one_file_agree(tmp_path: Path, tiny: Path, world: World) -> None:
    manifests = []
    for seed in (1, 2):
        store, local = open_store(seed, tmp_path / str(seed)), await open_local(tiny, open_store(seed, tmp_path).disk)
        assert isinstance(local, LocalFile)
        job = Job(MODEL, trigger="user", started_at=0.0)
        refusal = await adder(store, world).add(local, job, shard_size_bytes=90_000, limit_bytes=10**9, promised=())
        assert refusal is None and job.open == ()
        known = store.catalog.get(MODEL)
        assert known is not None and known.manifest.publisher == store.key.node and known.manifest.name == "tiny"
        manifests.append(known.manifest)
    one, two = manifests
    assert (one.layout, one.shards, one.header_blake3) == (two.layout, two.shards, two.header_blake3)


async def test_space_is_asked_for_before_the_hashing(tmp_path: Path, tiny: Path, world: World) -> None:
    store, local = open_store(1, tmp_path / "node"), await open_local(tiny, open_store(1, tmp_path).disk)
    assert isinstance(local, LocalFile)
    job = Job(MODEL, trigger="user", started_at=0.0)
    refusal = await adder(store, world).add(local, job, shard_size_bytes=90_000, limit_bytes=1000, promised=())
    assert isinstance(refusal, NoSpace) and refusal.free_bytes == 1000
    assert job.snapshot(at=0).log == () and store.catalog.all() == ()
