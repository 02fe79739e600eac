"""Shards on the disk: held, damaged, found, and the room they take."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd.domain.ids import ShardRef
from swarmd.domain.models import ShardState
from swarmd.domain.refusals import NoSpace
from swarmd.domain.shards import Acquisition
from swarmd.identity.keys import NodeKey, Signed
from swarmd.models import seals
from swarmd.models.catalog import KnownModel
from swarmd.models.shard_file import source_runs
from swarmd.shards.landing import pieces
from tests.fakes.around import FILE, REPO, TINY, Around, asked, over
from tests.fakes.holders import open_store
from tests.fakes.landings import MODEL, GatedDisk, adopted, chunk, files, whole
from tests.fakes.shards import assemble, hash_of


async def test_a_shard_lands_and_reads_back(tmp_path: Path, tiny: Path) -> None:
    store = open_store(1, tmp_path)
    cut, known = await adopted(store, tiny)
    for index, payload in enumerate(cut.payloads):
        ref = ShardRef(MODEL, index)
        assert store.storage.state(ref) is ShardState.ABSENT
        landing = await store.storage.open_landing(ref)
        for number in reversed(landing.missing()):
            await landing.write_chunk(number, memoryview(chunk(payload, number)))
        await landing.commit()
        assert store.storage.state(ref) is ShardState.HELD
        assert store.storage.path(ref).read_bytes() == assemble(known.files[index], payload)
        assert await store.storage.read_payload(ref, 5, 20_000) == payload[5:20_005]
    assert store.storage.local_bytes() == sum(len(payload) for payload in cut.payloads)
    assert not list(store.catalog.folder(MODEL).glob("*.journal"))
    again = open_store(1, tmp_path)
    assert again.storage.held(MODEL) == tuple(range(len(cut.payloads)))


async def test_a_damaged_file_is_quarantined(tmp_path: Path, tiny: Path) -> None:
    store = open_store(1, tmp_path)
    cut, known = await adopted(store, tiny)
    short, wrong = ShardRef(MODEL, 0), ShardRef(MODEL, 1)
    store.storage.path(short).write_bytes(assemble(known.files[0], cut.payloads[0])[:-1])
    store.storage.scan_now()
    assert store.storage.state(short) is ShardState.QUARANTINED
    data = bytearray(assemble(known.files[1], cut.payloads[1]))
    data[known.files[1].runs[0].file_offset] ^= 1
    store.storage.path(wrong).write_bytes(data)
    assert await store.storage.find_new() == [(wrong, False)]
    assert store.storage.state(wrong) is ShardState.QUARANTINED


async def test_room(tmp_path: Path, tiny: Path) -> None:
    """Manifest, header and vocabulary are disk use like shards."""
    store = open_store(1, tmp_path)
    cut, known = await adopted(store, tiny)
    files = [path for path in store.catalog.folder(MODEL).iterdir()]
    assert known.stored_bytes == sum(path.stat().st_size for path in files) and len(files) == 3
    refs = [ShardRef(MODEL, index) for index in range(len(cut.payloads))]
    total = sum(len(payload) for payload in cut.payloads)
    limit = total + known.stored_bytes
    assert store.storage.space_for(refs, limit_bytes=limit) is None
    assert store.storage.space_for(refs, limit_bytes=limit - 1) == NoSpace(needed_bytes=total, free_bytes=total - 1)
    assert store.storage.short_of(refs, limit_bytes=0) == limit
    assert store.storage.space_for(refs, limit_bytes=0, spare_bytes=limit) is None
    assert store.storage.space_for(refs, limit_bytes=0, spare_bytes=9) == NoSpace(needed_bytes=total, free_bytes=0)
    first = len(cut.payloads[0])
    assert store.storage.space_for(refs[1:], limit_bytes=limit, promised=refs[:1]) is None
    assert store.storage.room(limit_bytes=limit, promised=refs[:1]) == total - first
    await store.storage.open_landing(refs[0])
    assert store.storage.space_for(refs, limit_bytes=limit, promised=refs) is None
    assert await store.storage.drop(refs[0]) and not await store.storage.drop(refs[0])


async def test_what_a_kill_left_beside_a_final_name_goes(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, _ = await adopted(store, tiny)
    await (await whole(store, cut, ref)).commit()
    store.storage.path(ref).with_suffix(".journal").write_bytes(b"1")
    assert open_store(1, tmp_path).storage.held(MODEL) == (0,) and files(store, ref) == {"shard_000.gguf"}


async def test_a_rescan_leaves_what_was_fetched_while_it_hashed(tmp_path: Path, tiny: Path) -> None:
    """A bad file was put there by hand; the good one, landed meanwhile, went into quarantine and still counted as held."""
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    landing = await whole(store, cut, ref)
    store.storage.path(ref).write_bytes(bytes(known.files[0].size_bytes))
    disk.method = "read"
    scan = asyncio.create_task(store.storage.find_new())
    await disk.entered()
    disk.method = ""
    await landing.commit()
    disk.gate.set()
    assert await scan == []
    assert store.storage.state(ref) is ShardState.HELD
    assert store.storage.path(ref).read_bytes() == assemble(known.files[0], cut.payloads[0])


async def test_a_rescan_sets_nothing_aside_where_a_shard_is_landing(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    store.storage.path(ref).write_bytes(bytes(known.files[0].size_bytes))
    landing = await whole(store, cut, ref)
    assert await store.storage.find_new() == [] and store.storage.path(ref).exists()
    await landing.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[0], cut.payloads[0])


@pytest.mark.parametrize("right", [True, False])
async def test_a_model_that_is_removed_during_a_rescan_holds_nothing(tmp_path: Path, tiny: Path, right: bool) -> None:
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    for index in (0, 1):
        data = assemble(known.files[index], cut.payloads[index]) if right else bytes(known.files[index].size_bytes)
        store.storage.path(ShardRef(MODEL, index)).write_bytes(data)
    disk.method = "read"
    scan = asyncio.create_task(store.storage.find_new())
    await disk.entered()
    disk.method = ""
    store.storage.forget(MODEL)
    await store.catalog.remove(MODEL)
    disk.gate.set()
    assert await scan == []
    assert store.storage.held(MODEL) == ()
    with pytest.raises(FileNotFoundError, match="not on this node"):
        await store.storage.read_payload(ref, 0, 1)


async def test_a_false_seal_of_bytes_that_are_here_already_ends_no_job(around: Around, data: bytes) -> None:
    """Seen: any member's seal made them verified ones; the commit deleted them all, the job failed, and the seal stayed."""
    holder = await around.start(1)
    assert holder.hub_desk is not None
    known, ref = await holder.hub_desk._known(REPO, FILE, None), ShardRef(TINY, 0)
    assert isinstance(known, KnownModel)
    spec, store = known.manifest.shards[0], holder.store
    payload = b"".join(data[at : at + count] for at, _, count in pieces(source_runs(spec), 0, spec.size_bytes))
    landing = await store.storage.open_landing(ref)  # of an earlier run: all of it came from the hub, and then a kill
    for number in landing.missing():
        await landing.write_chunk(number, chunk(payload, number))
    landing.give_up()
    liar = NodeKey(bytes([9]) * 32)
    false = seals.make(
        known.manifest, 0, hash_of(bytes(spec.size_bytes)), signer=liar.node,
        sign=lambda text: liar.sign(Signed.MANIFEST, text),
    )  # fmt: skip
    assert isinstance(await store.catalog.seal(TINY, 0, seals.encode(false)), KnownModel)
    landing = await store.storage.open_landing(ref)
    assert not store.storage.present(ref), "nothing of it is offered as verified"
    landing.give_up()
    assert isinstance(await asked(holder, shards=(0,)), Acquisition)
    done = await over(holder)
    assert done.state == "complete", done
    assert store.storage.expected_hash(ref) == hash_of(payload).blake3
