from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swarmd.api.api_key import KeyFileError, ensure_api_key
from swarmd.kit.disk import Disk
from swarmd.kit.world import World


async def test_made_once_and_private(tmp_path: Path, world: World) -> None:
    key = await ensure_api_key(tmp_path, setting="", disk=Disk(), entropy=world.entropy)
    assert len(key) == 64 and set(key) <= set("0123456789abcdef")
    assert stat.S_IMODE((tmp_path / "api_key").stat().st_mode) == 0o600
    assert await ensure_api_key(tmp_path, setting="", disk=Disk(), entropy=world.entropy) == key


async def test_a_key_that_others_could_read_is_closed_to_them(tmp_path: Path, world: World) -> None:
    path = tmp_path / "api_key"
    path.write_text("a" * 64 + "\n")
    path.chmod(0o644)
    assert await ensure_api_key(tmp_path, setting="", disk=Disk(), entropy=world.entropy) == "a" * 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_setting_wins_and_nothing_is_written(tmp_path: Path, world: World) -> None:
    assert await ensure_api_key(tmp_path, setting="k" * 16, disk=Disk(), entropy=world.entropy) == "k" * 16
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "short", "two words that are long enough", "x" * 2000])
async def test_a_damaged_file_is_named_and_kept(tmp_path: Path, world: World, text: str) -> None:
    path = tmp_path / "api_key"
    path.write_text(text)
    with pytest.raises(KeyFileError, match="api_key"):
        await ensure_api_key(tmp_path, setting="", disk=Disk(), entropy=world.entropy)
    assert path.read_text() == text
