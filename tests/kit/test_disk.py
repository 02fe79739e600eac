"""Whole files, ranges, room and locks, on a real folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.kit.disk import WRITE_BYTES, Disk, Locked, TooLarge

disk = Disk()


async def test_write_atomic_replaces_and_sets_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    await disk.write_atomic(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    await disk.write_atomic(path, memoryview(b"new"), mode=0o600)
    assert await disk.read_bytes(path, limit=3) == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await disk.list_folder(tmp_path) == [path]


async def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    await disk.write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        await disk.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert disk.list_folder_now(tmp_path) == [path]


async def test_reading_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        await disk.read_bytes(path, limit=10)
    with pytest.raises(FileNotFoundError):
        await disk.read_bytes(tmp_path / "absent", limit=10)


async def test_ranges(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    await disk.write_range(path, 4, b"efgh")
    await disk.write_range(path, 0, memoryview(b"abcd"))
    await disk.sync(path)
    assert await disk.read_range(path, 2, 4) == b"cdef"
    assert await disk.read_range(path, 6, 100) == b"gh" and await disk.read_range(path, 3, 0) == b""
    assert await disk.read_range(path, 100, 1) == b""
    assert await disk.size_bytes(path) == 8


def test_a_begun_sync_changes_nothing_but_the_time(tmp_path: Path) -> None:
    disk, path = Disk(), tmp_path / "file"
    disk.preallocate_now(path, 10_000_000)
    disk.write_range_now(path, 5, b"x" * 9_000_000)
    disk.begin_sync_now(path, 5, 9_000_000)
    disk.sync_now(path)
    assert path.read_bytes()[5:9_000_005] == b"x" * 9_000_000
    with pytest.raises(FileNotFoundError):
        disk.begin_sync_now(tmp_path / "none", 0, 1)


def test_where_the_system_cannot_begin_a_sync_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.kit.disk._sync_file_range", None)
    Disk().begin_sync_now(tmp_path / "none", 0, 1)


async def test_preallocate_makes_and_resizes(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    await disk.preallocate(path, 100_000)
    assert path.stat().st_size == 100_000
    assert path.stat().st_blocks * 512 >= 100_000
    await disk.write_range(path, 0, b"head")
    await disk.preallocate(path, 10)
    assert path.read_bytes() == b"head" + bytes(6)
    await disk.preallocate(path, 0)
    assert path.read_bytes() == b""


async def test_rename_across_folders_replaces(tmp_path: Path) -> None:
    await disk.make_folder(tmp_path / "a" / "b")
    await disk.make_folder(tmp_path / "a")
    source, target = tmp_path / "a" / "b" / "part", tmp_path / "a" / "whole"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    await disk.rename(source, target)
    assert target.read_bytes() == b"new"
    assert not await disk.exists(source)
    await disk.rename(tmp_path / "a" / "b", tmp_path / "c")
    assert await disk.exists(tmp_path / "c")


async def test_removing_what_is_not_there_is_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert await disk.remove(path)
    assert not await disk.remove(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "y").write_bytes(b"")
    assert await disk.remove_folder(tmp_path / "folder")
    assert not await disk.remove_folder(tmp_path / "folder")
    assert await disk.list_folder(tmp_path / "folder") == []


async def test_free_bytes_of_a_folder_still_to_be_made(tmp_path: Path) -> None:
    assert await disk.free_bytes(tmp_path / "not" / "yet") > 0


def test_one_lock_one_holder_also_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with disk.locked(path):
        with pytest.raises(Locked, match="another process"), disk.locked(path):
            pass
        code = (
            "import sys, pathlib\nfrom swarmd.kit.disk import Disk, Locked\n"
            "try:\n    with Disk().locked(pathlib.Path(sys.argv[1])): pass\nexcept Locked: sys.exit(7)"
        )
        assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7
    with disk.locked(path):
        pass


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    parts = [bytes([n % 256]) * (n % 7) for n in range(2000)]
    path = tmp_path / "file"
    Disk().write_parts_now(path, 3, parts)
    assert path.read_bytes() == bytes(3) + b"".join(parts)
    Disk().write_parts_now(path, 0, [])
    Disk().write_parts_now(path, 0, [b"", memoryview(b"ab")])
    assert path.read_bytes()[:3] == b"ab\0"


def test_no_call_writes_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 1 MiB took four to ten times as long as calls of 32 KiB, in the kernel."""
    path, sizes = tmp_path / "file", list[int]()
    write, write_parts = os.pwrite, os.pwritev

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        sizes.append(len(data))
        return write(descriptor, data, offset)

    def pwritev(descriptor: int, parts: list[memoryview], offset: int) -> int:
        sizes.append(sum(map(len, parts)))
        return write_parts(descriptor, parts, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "pwritev", pwritev)
    data = os.urandom(3 * WRITE_BYTES + 5)
    Disk().write_range_now(path, 0, data)
    assert path.read_bytes() == data
    Disk().write_parts_now(path, 7, [data[:10], data[10 : WRITE_BYTES + 20], data[WRITE_BYTES + 20 :]])
    assert path.read_bytes() == data[:7] + data
    assert sizes == [WRITE_BYTES, WRITE_BYTES, WRITE_BYTES, 5] * 2
