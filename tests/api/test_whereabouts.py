"""Where the running node answers, for commands that know only its data folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarmd.api.whereabouts import FILE_NAME, forget, read_now, tell
from swarmd.kit.disk import Disk

URL = "http://127.0.0.1:9123"


async def told(folder: Path, **changes: Any) -> None:
    """What a node of this very process tells, with other values here and there."""
    await tell(folder, URL + "/", disk=Disk())
    path = folder / FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def test_what_a_running_node_tells_is_read_and_forgotten_with_its_end(tmp_path: Path) -> None:
    assert read_now(tmp_path, disk=Disk()) is None
    await tell(tmp_path, URL + "/", disk=Disk())
    assert read_now(tmp_path, disk=Disk()) == URL
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    await forget(tmp_path, disk=Disk())
    assert read_now(tmp_path, disk=Disk()) is None
    await forget(tmp_path, disk=Disk())


async def test_what_a_killed_node_left_behind_misleads_nobody(tmp_path: Path) -> None:
    await told(tmp_path)
    assert read_now(tmp_path, disk=Disk()) == URL
    await told(tmp_path, started_at=psutil.Process().create_time() - 60)
    assert read_now(tmp_path, disk=Disk()) is None, "another process has its number now"
    await told(tmp_path, pid=2**22 + 1)  # more than Linux gives
    assert read_now(tmp_path, disk=Disk()) is None, "no process has its number"
    await told(tmp_path, pid=os.getpid())
    assert read_now(tmp_path, disk=Disk()) == URL


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "ftp://x"}, {"url": "http://x"}, {"url": "http://a b:1"}, {"url": None}, {"pid": 0}, {"pid": 2**40},
        {"pid": "1"},
    ],
)  # fmt: skip
async def test_what_no_node_wrote_counts_for_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    await told(tmp_path, **changes)
    assert read_now(tmp_path, disk=Disk()) is None


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{", b"x" * 100_000])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    assert read_now(tmp_path, disk=Disk()) is None
