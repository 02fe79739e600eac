"""Shards that land: interrupted, cancelled, wrong, committed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ShardRef
from swarmd.domain.models import ShardSpec, ShardState
from swarmd.models import shard_file
from swarmd.models.architectures import Architecture
from swarmd.models.catalog import KnownModel
from swarmd.models.gguf import GgufHeader
from swarmd.models.gguf_values import Value, text_value
from swarmd.models.manifest import encode
from swarmd.models.shard_file import Run
from swarmd.shards.landing import ChunkMismatch, Superseded, pieces
from tests.fakes.holders import HastyDisk, Store, open_store
from tests.fakes.landings import MODEL, GatedDisk, adopted, chunk, files, whole
from tests.fakes.shards import CutModel, assemble, cut_model, hash_of
from tests.models.test_seals import known_in, seal_of


async def test_a_killed_landing_goes_on(tmp_path: Path, tiny: Path) -> None:
    """What a kill leaves behind is what is on the disk: a second storage over the same folder sees exactly that."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    total = len(landing.missing())
    for number in (0, 3, 4):
        await landing.write_chunk(number, chunk(cut.payloads[1], number))
    store = open_store(1, tmp_path)
    assert store.storage.state(ref) is ShardState.PARTIAL and store.storage.held(MODEL) == ()
    landing = await store.storage.open_landing(ref)
    assert landing.missing() == [number for number in range(total) if number not in (0, 3, 4)]
    for number in landing.missing():
        await landing.write_chunk(number, chunk(cut.payloads[1], number))
    store = open_store(1, tmp_path)  # killed between the last chunk and the final name
    landing = await store.storage.open_landing(ref)
    assert landing.missing() == []
    await landing.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])


async def test_wrong_bytes_are_not_kept(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, _ = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    good = chunk(cut.payloads[0], 0)
    for bad in (good[:-1], bytes(len(good)), good + b"x", b""):
        with pytest.raises(ChunkMismatch):
            await landing.write_chunk(0, bad)
    assert landing.done_bytes == 0 and 0 in landing.missing()


async def test_a_journal_of_other_bytes_counts_for_nothing(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    journal = store.storage.path(ref).with_suffix(".journal")
    data = bytearray(journal.read_bytes())
    data[24:56] = bytes(32)  # the tag
    data[72:] = b"\1" * len(data[72:])
    journal.write_bytes(data)
    partial = store.storage.path(ref).with_suffix(".gguf.partial")
    partial.write_bytes(b"\xff" * known.files[0].size_bytes)
    landing = await store.storage.open_landing(ref)
    assert landing.done_bytes == 0
    for number in landing.missing():
        await landing.write_chunk(number, chunk(cut.payloads[0], number))
    await landing.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[0], cut.payloads[0]), "padding is zero"


@pytest.mark.parametrize("method", ["write", "read", "rename"])
async def test_a_commit_that_is_cancelled_leaves_no_thread_and_no_doubt(tmp_path: Path, tiny: Path, method: str) -> None:
    """The thread went on alone: it named a file that nobody counted, in a folder that might be gone by then."""
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await whole(store, cut, ref)
    disk.method = method
    job = asyncio.create_task(landing.commit())
    await disk.entered()
    job.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not job.done(), "the thread is still at it"
    disk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    if method == "rename":
        assert store.storage.state(ref) is ShardState.HELD and files(store, ref) == {"shard_001.gguf"}
        return
    assert store.storage.state(ref) is ShardState.PARTIAL
    assert files(store, ref) == {"shard_001.gguf.partial", "shard_001.journal"}
    again = await store.storage.open_landing(ref)
    assert again.missing() == []
    await again.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])
    assert files(store, ref) == {"shard_001.gguf"}


async def test_a_writer_that_is_cancelled_leaves_the_landing_to_the_others(tmp_path: Path, tiny: Path) -> None:
    """Seen: a source that failed cancelled what it wrote, and a good peer's chunks were refused from then on."""
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 1)
    cut, _ = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    disk.method = "write"
    job = asyncio.create_task(landing.write_chunk(0, chunk(cut.payloads[1], 0)))
    await disk.entered()
    job.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not job.done(), "the thread is still at it"
    disk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert landing.open and landing.has(0), "written to its end"
    for number in landing.missing():
        await landing.write_chunk(number, chunk(cut.payloads[1], number))
    await landing.commit()
    assert store.storage.held(MODEL) == (1,)


class BrokenDisk(HastyDisk):
    """The next sync of something called like `ending` fails, once: the system tells of it once, and counts as written what
    was lost."""

    ending: str | None = None

    def _sync(self, path: Path, flags: int) -> None:
        if self.ending is not None and path.name.endswith(self.ending):
            self.ending = None
            raise OSError(errno.EIO, "Input/output error", str(path))


async def test_after_a_sync_that_failed_no_byte_is_taken_for_written(tmp_path: Path, tiny: Path) -> None:
    """Seen: the next try found all of it in the page cache, synced nothing without a complaint, and gave the name."""
    disk = BrokenDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await whole(store, cut, ref)
    disk.ending = ".partial"
    with pytest.raises(OSError, match="Input/output"):
        await landing.commit()
    assert store.storage.state(ref) is ShardState.PARTIAL and store.storage.held(MODEL) == ()
    again = await store.storage.open_landing(ref)
    assert again.done_bytes == 0
    for number in again.missing():
        await again.write_chunk(number, chunk(cut.payloads[1], number))
    await again.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])
    assert files(store, ref) == {"shard_001.gguf"}


async def test_a_shard_that_has_its_name_is_held_whatever_failed_after_it(tmp_path: Path, tiny: Path) -> None:
    """Seen: the sync of the folder failed; nobody counted the shard, and it was fetched once more beside its own file."""
    disk = BrokenDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await whole(store, cut, ref)
    disk.ending = MODEL
    with pytest.raises(OSError, match="Input/output"):
        await landing.commit()
    assert store.storage.state(ref) is ShardState.HELD and files(store, ref) == {"shard_001.gguf"}
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])


async def landed_unsealed(store: Store, cut: CutModel, ref: ShardRef, chunks: Iterable[int]) -> None:
    """Read at the source before anybody knew its hashes, and then a kill."""
    landing = await store.storage.open_landing(ref)
    assert not landing.spec.sealed
    for number in chunks:
        await landing.write_chunk(number, chunk(cut.payloads[ref.index], number))
    landing.give_up()


async def test_a_seal_that_comes_after_the_bytes_is_compared_with_them(tmp_path: Path) -> None:
    """Seen: any seal made them verified ones. They were offered to peers, who called this node a liar."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    await landed_unsealed(store, cut, ref, (0, 2, 3, 5))
    landing = await store.storage.open_landing(ref)
    await landing.write_block(8 * 7, [chunk(cut.payloads[1], 7)[: landing.block_bytes]])
    assert 0 not in landing.missing(), "without a seal it goes on as it is"
    hashes = list(hash_of(cut.payloads[1]).chunk_blake3)
    hashes[2] = "0" * 64
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1, chunk_blake3=tuple(hashes)))
    for _ in range(2):
        landing = await store.storage.open_landing(ref)
        assert {0, 3, 5}.isdisjoint(landing.missing()) and 2 in landing.missing()
        assert landing.missing_blocks(7) == list(range(8 * 7 + 1, 8 * 8)), "half a chunk is checked when it is whole"
        assert store.storage.has_chunk(ref, 3) and not store.storage.has_chunk(ref, 2)
        store = open_store(1, tmp_path)


async def test_what_was_checked_with_a_seal_counts_for_nothing_without_it(tmp_path: Path) -> None:
    """Peers sent it, whose seal was taken back: killed then, this node signed their bytes as read at the source."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    await whole(store, cut, ref)
    store = open_store(1, tmp_path)
    assert (await store.storage.open_landing(ref)).missing() == []
    await store.catalog.unseal(MODEL, 1)
    assert (await store.storage.open_landing(ref)).done_bytes == 0


async def test_a_seal_that_is_right_in_parts_and_wrong_as_a_whole_goes(tmp_path: Path) -> None:
    """Seen: it stayed, and every further try fetched all of the shard and threw it away."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1, blake3="0" * 64))
    landing = await whole(store, cut, ref)
    with pytest.raises(ChunkMismatch) as caught:
        await landing.commit()
    assert caught.value.signer == store.key.node
    assert files(store, ref) == set(), "what came by false hashes may be from anybody, and nothing would check it now"
    assert not store.storage.expected_hash(ref) and not open_store(1, tmp_path).storage.expected_hash(ref)
    await landed_unsealed(store, cut, ref, range(landing.spec.chunk_count))
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    await (await whole(store, cut, ref)).commit()
    assert store.storage.held(MODEL) == (1,)


async def test_a_seal_is_not_to_blame_for_what_changed_on_the_disk(tmp_path: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await known_in(store, tmp_path)
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    landing = await whole(store, cut, ref)
    partial = store.storage.path(ref).with_suffix(".gguf.partial")
    data = bytearray(partial.read_bytes())
    data[known.files[1].runs[0].file_offset] ^= 1
    partial.write_bytes(data)
    with pytest.raises(OSError, match="1 chunks have changed"):
        await landing.commit()
    assert store.storage.expected_hash(ref), "the seal stays"
    again = await store.storage.open_landing(ref)
    assert again.missing() == [0]
    await again.write_chunk(0, chunk(cut.payloads[1], 0))
    await again.commit()
    assert store.storage.held(MODEL) == (1,)


async def test_a_false_seal_that_comes_in_between_costs_no_byte_that_was_read_at_the_source(tmp_path: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    landing = await whole(store, cut, ref)
    assert await landing.hash() == hash_of(cut.payloads[1])
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1, blake3="0" * 64))
    with pytest.raises(ChunkMismatch):
        await landing.commit()
    again = await store.storage.open_landing(ref)
    assert again.missing() == [] and not again.spec.sealed
    await again.hash()
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    await again.commit()
    assert store.storage.held(MODEL) == (1,)


async def test_hashes_of_the_manifest_itself_stay_whatever_lands(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    data = tiny.read_bytes()
    cut = cut_model(data, shard_size_bytes=100_000)
    shards = [replace(spec, blake3="0" * 64) if spec.index == 1 else spec for spec in cut.manifest.shards]
    manifest = replace(cut.manifest, model=MODEL, shards=tuple(shards))
    assert isinstance(await store.catalog.adopt(encode(manifest), data[: cut.header.data_offset]), KnownModel)
    landing = await whole(store, cut, ref)
    with pytest.raises(ChunkMismatch) as caught:
        await landing.commit()
    assert caught.value.signer is None
    assert files(store, ref) == set() and store.storage.expected_hash(ref) == "0" * 64


async def test_a_second_landing_waits_for_the_first_ones_thread_and_is_alone_then(tmp_path: Path, tiny: Path) -> None:
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    first = await store.storage.open_landing(ref)
    await first.write_chunk(0, chunk(cut.payloads[0], 0))
    disk.method = "write"
    late = asyncio.create_task(first.write_chunk(1, chunk(cut.payloads[0], 1)))
    await disk.entered()
    opening = asyncio.create_task(store.storage.open_landing(ref))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not opening.done()
    disk.gate.set()
    second = await opening
    await late
    assert not {0, 1}.intersection(second.missing()), "what was written counts, whoever wrote it"
    for number in second.missing():
        await second.write_chunk(number, chunk(cut.payloads[0], number))
    for work in (first.write_chunk(2, chunk(cut.payloads[0], 2)), first.write_chunk(0, b"")):
        with pytest.raises(Superseded):
            await work
    await second.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[0], cut.payloads[0])
    assert files(store, ref) == {"shard_000.gguf"}


async def test_a_commit_in_its_hashing_gives_way_to_a_second_landing(tmp_path: Path, tiny: Path) -> None:
    disk = GatedDisk()
    store, ref = open_store(1, tmp_path, disk=disk), ShardRef(MODEL, 0)
    cut, known = await adopted(store, tiny)
    landing = await whole(store, cut, ref)
    disk.method = "read"
    job = asyncio.create_task(landing.commit())
    await disk.entered()
    opening = asyncio.create_task(store.storage.open_landing(ref))
    await asyncio.sleep(0)
    disk.method = ""
    disk.gate.set()
    second = await opening
    with pytest.raises(Superseded):
        await job
    assert second.missing() == [] and store.storage.held(MODEL) == ()
    await second.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[0], cut.payloads[0])


async def test_a_late_chunk_does_not_bring_back_a_deleted_file(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, _ = await adopted(store, tiny)
    for delete in (True, False):
        landing = await whole(store, cut, ref)
        if delete:
            assert await store.storage.drop(ref)
        else:
            store.storage.forget(MODEL)
        for work in (landing.write_chunk(0, chunk(cut.payloads[0], 0)), landing.commit()):
            with pytest.raises(Superseded):
                await work
        assert not delete or files(store, ref) == set()


async def test_a_journal_without_its_file_counts_for_nothing(tmp_path: Path, tiny: Path) -> None:
    """It called the zeros of the next partial file verified, until the hash of the whole said otherwise."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 0)
    cut, _ = await adopted(store, tiny)
    await whole(store, cut, ref)
    store.storage.path(ref).with_suffix(".gguf.partial").unlink()
    await open_store(1, tmp_path).storage.open_landing(ref)
    landing = await open_store(1, tmp_path).storage.open_landing(ref)
    assert landing.done_bytes == 0


async def test_blocks_make_a_chunk_and_a_kill_costs_at_most_one(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)

    def block(number: int) -> list[bytes]:
        data = cut.payloads[1][number * landing.block_bytes :][: landing.block_size(number)]
        return [data[:100], data[100:]]

    for number in (0, 1, 5, 9):
        await landing.write_block(number, block(number))
    assert not landing.has(0) and landing.missing_blocks(0) == [2, 3, 4, 6, 7]
    store = open_store(1, tmp_path)  # killed
    landing = await store.storage.open_landing(ref)
    assert landing.missing_blocks(0) == [2, 3, 4, 6, 7] and 9 not in landing.missing_blocks(1)
    for chunk_number in landing.missing():
        for number in landing.missing_blocks(chunk_number):
            await landing.write_block(number, block(number))
        assert landing.has(chunk_number)
    await landing.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])


async def test_a_wrong_block_costs_its_chunk_and_nothing_else(tmp_path: Path, tiny: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await adopted(store, tiny)
    landing = await store.storage.open_landing(ref)
    await landing.write_chunk(1, chunk(cut.payloads[1], 1))
    for number in range(8):
        data = bytearray(chunk(cut.payloads[1], 0)[number * landing.block_bytes :][: landing.block_bytes])
        data[7] ^= number == 3
        if number < 7:
            await landing.write_block(number, [data])
        else:
            with pytest.raises(ChunkMismatch):
                await landing.write_block(number, [data])
    assert landing.missing_blocks(0) == list(range(8)) and landing.has(1)


async def test_after_a_power_cut_only_blocks_that_are_really_there_count(tmp_path: Path, tiny: Path) -> None:
    """The journal reached the disk and some of the blocks did not: they would have been zeros in a finished shard."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, known = await adopted(store, tiny)
    await whole(store, cut, ref)
    partial = store.storage.path(ref).with_suffix(".gguf.partial")
    with partial.open("r+b") as file:
        file.seek(known.files[1].runs[0].file_offset + 3 * 1024)
        file.write(bytes(1024))
    same_boot = await open_store(1, tmp_path).storage.open_landing(ref)
    assert same_boot.missing() == []

    class Rebooted(HastyDisk):
        def boot_now(self) -> bytes:
            return b"another boot 16b"

    store = open_store(1, tmp_path, disk=Rebooted())
    landing = await store.storage.open_landing(ref)
    assert landing.missing() == [0] and landing.missing_blocks(0) == [3]
    await landing.write_block(3, [chunk(cut.payloads[1], 0)[3 * 1024 : 4 * 1024]])
    await landing.commit()
    assert store.storage.path(ref).read_bytes() == assemble(known.files[1], cut.payloads[1])


async def test_blocks_that_lie_behind_a_header_of_another_length_count_for_nothing(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: a version of swarmd with one key more in its headers went on with the partial file of the one before, and
    committed a shard with bytes in the wrong places."""
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, before = await adopted(store, tiny)
    await whole(store, cut, ref)
    real = shard_file._metadata

    def longer(header: GgufHeader, architecture: Architecture, spec: ShardSpec) -> dict[str, Value]:
        return {**real(header, architecture, spec), "swarmd.more": text_value("x" * 40)}

    monkeypatch.setattr(shard_file, "_metadata", longer)
    store = open_store(1, tmp_path)
    after = store.catalog.get(MODEL)
    assert after is not None and after.identity == before.identity and after.files[1].runs != before.files[1].runs
    landing = await store.storage.open_landing(ref)
    assert landing.done_bytes == 0
    await (await whole(store, cut, ref)).commit()
    assert store.storage.path(ref).read_bytes() == assemble(after.files[1], cut.payloads[1])


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=12),
    offset=st.integers(0, 400),
    size=st.integers(0, 400),
)
def test_pieces_cover_a_range_once_and_in_order(sizes: list[tuple[int, int]], offset: int, size: int) -> None:
    runs: list[Run] = []
    payload_offset, file_offset = 0, 7
    where: list[int] = []
    for length, gap in sizes:
        runs.append(Run(payload_offset=payload_offset, size=length, file_offset=file_offset))
        where += range(file_offset, file_offset + length)
        payload_offset, file_offset = payload_offset + length, file_offset + length + gap
    found = [(at + step, start + step) for at, start, count in pieces(runs, offset, size) for step in range(count)]
    expected = [(place, position) for position, place in enumerate(where[offset : offset + size])]
    assert found == expected
