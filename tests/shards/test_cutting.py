"""Reading a local file before it is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import BadFile
from swarmd.kit.disk import Disk
from swarmd.models.manifest import build_manifest
from swarmd.models.slicing import plan_layout
from swarmd.shards.cutting import LocalFile, hash_payload, is_same_file, is_same_throughout, open_local, read_chunk
from tests.fakes.gguf import TinyModel
from tests.fakes.landings import SMALL
from tests.fakes.shards import cut_model, hash_of
from tests.fakes.split import write_split


async def opened(path: Path) -> LocalFile:
    local = await open_local(path, Disk())
    assert isinstance(local, LocalFile), local
    return local


async def test_hashes_are_those_of_the_payloads(tiny: Path) -> None:
    local, cut = await opened(tiny), cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
    assert local.header_data == tiny.read_bytes()[: cut.header.data_offset]
    cuts = plan_layout(local.header, 100_000)
    assert isinstance(cuts, tuple)
    for one, payload, spec in zip(cuts, cut.payloads, cut.manifest.shards, strict=True):
        steps: list[int] = []
        assert await hash_payload(local, one, Disk(), steps.append) == hash_of(payload)
        assert sum(steps) == len(payload)
        assert await read_chunk(local, spec, 1, Disk()) == payload[SMALL : 2 * SMALL]
    assert await is_same_file(local, cut.manifest, Disk())


@pytest.mark.parametrize("bare_first", [False, True])
async def test_a_split_file_is_read_as_the_whole_that_it_was(tmp_path: Path, bare_first: bool) -> None:
    whole, parts = write_split(tmp_path, TinyModel(), tensors_each=20, bare_first=bare_first)
    local, alone = await opened(parts[1]), await opened(whole)
    assert local.path == parts[0] and local.stem == "parts" and len(local.parts) == len(parts) > 2
    assert [tensor.name for tensor in local.header.tensors] == [tensor.name for tensor in alone.header.tensors]
    cuts, expected = plan_layout(local.header, 100_000), plan_layout(alone.header, 100_000)
    assert isinstance(cuts, tuple) and isinstance(expected, tuple) and len(cuts) > 2
    ours = [await hash_payload(local, one, Disk(), lambda _: None) for one in cuts]
    assert ours == [await hash_payload(alone, one, Disk(), lambda _: None) for one in expected]
    manifest = build_manifest(
        header=local.header, cuts=cuts, hashes=ours, header_blake3=local.header_blake3, model=ModelId("parts"), name="parts",
        file_size_bytes=local.size_bytes, shard_size_bytes=100_000, created_at=0,
    )  # fmt: skip
    assert await is_same_throughout(local, manifest, Disk(), lambda _: None), "chunks that end in another part, too"


async def test_what_is_wrong_with_a_part_is_said_with_its_name(tmp_path: Path) -> None:
    _, parts = write_split(tmp_path, TinyModel(), tensors_each=20)
    apart = parts[0].rename(tmp_path / "first.gguf")
    missing = await open_local(parts[1], Disk())
    assert isinstance(missing, BadFile) and f"{parts[0].name} is missing" in missing.sentence
    renamed = await open_local(apart, Disk())
    assert isinstance(renamed, BadFile) and f"first-00001-of-{len(parts):05d}.gguf" in renamed.sentence
    parts[0].write_bytes(parts[1].read_bytes())
    swapped = await open_local(parts[1], Disk())
    assert isinstance(swapped, BadFile) and "part 1" in swapped.sentence
    parts[0].write_bytes(b"GGUF")
    broken = await open_local(parts[1], Disk())
    assert isinstance(broken, BadFile) and str(parts[0]) in broken.sentence


async def test_a_changed_file_is_another_one(tiny: Path) -> None:
    cut = cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
    data = bytearray(tiny.read_bytes())
    data[cut.header.data_offset + 1] ^= 1
    tiny.write_bytes(data)
    assert not await is_same_file(await opened(tiny), cut.manifest, Disk())


async def test_what_cannot_be_opened_is_refused(tmp_path: Path, tiny: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)  # opening it would wait for a writer for ever
    (tmp_path / "empty.gguf").write_bytes(b"")
    for path in (pipe, tmp_path, tmp_path / "absent.gguf", tmp_path / "empty.gguf", Path("/a\0b")):
        assert isinstance(await open_local(path, Disk()), BadFile), path


async def test_a_file_that_shrinks_is_noticed(tiny: Path) -> None:
    local, cut = await opened(tiny), cut_model(tiny.read_bytes())
    tiny.write_bytes(tiny.read_bytes()[: local.header.data_offset + 10])
    with pytest.raises(OSError, match="shorter"):
        await read_chunk(local, cut.manifest.shards[0], 0, Disk())


async def test_a_file_that_differs_in_its_middle_is_seen_by_a_whole_comparison(tiny: Path) -> None:
    cut = cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
    steps: list[int] = []
    assert await is_same_throughout(await opened(tiny), cut.manifest, Disk(), steps.append)
    assert sum(steps) == sum(len(payload) for payload in cut.payloads)
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    tiny.write_bytes(data)
    local = await opened(tiny)
    assert await is_same_file(local, cut.manifest, Disk())
    assert not await is_same_throughout(local, cut.manifest, Disk(), steps.append)
