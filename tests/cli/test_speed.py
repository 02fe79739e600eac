"""What doctor measures with."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.cli import speed
from swarmd.kit.disk import Disk
from swarmd.kit.world import real_world
from swarmd.models.gguf import parse_header


def test_copying_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "COPIED_BYTES", 8_000_000)
    assert 0.1 < speed.copy_bandwidth_gbps(real_world().clock) < 10_000


async def test_the_builtin_model_becomes_one_shard(tmp_path: Path) -> None:
    whole = await speed.write_builtin(tmp_path, Disk())
    data = whole.path.read_bytes()
    assert len(data) == whole.file.size_bytes
    header = parse_header(data)
    assert header.integer("llama.block_count") == whole.architecture.layer_count
    assert whole.template
    assert parse_header(whole.vocabulary.read_bytes()).tensors == ()
