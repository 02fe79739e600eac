"""Reading a local file before it is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmd.domain.refusals import BadFile
from swarmd.kit.disk import Disk
from swarmd.shards.cutting import LocalFile, hash_payload, is_same_file, is_same_throughout, open_local, read_chunk
from tests.fakes.landings import SMALL
from tests.fakes.shards import cut_model, hash_of


async def opened(path: Path) -> LocalFile:
    local = await open_local(path, Disk())
    assert isinstance(local, LocalFile), local
    return local


async def test_hashes_are_those_of_the_payloads(tiny: Path) -> None:
    local, cut = await opened(tiny), cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
    assert local.header_data == tiny.read_bytes()[: cut.header.data_offset]
    from swarmd.models.slicing import plan_layout

    cuts = plan_layout(local.header, 100_000)
    assert isinstance(cuts, tuple)
    for one, payload, spec in zip(cuts, cut.payloads, cut.manifest.shards, strict=True):
        steps: list[int] = []
        assert await hash_payload(local, one, Disk(), steps.append) == hash_of(payload)
        assert sum(steps) == len(payload)
        assert await read_chunk(tiny, spec, 1, Disk()) == payload[SMALL : 2 * SMALL]
    assert await is_same_file(local, cut.manifest, Disk())


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
        await read_chunk(tiny, cut.manifest.shards[0], 0, Disk())


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
