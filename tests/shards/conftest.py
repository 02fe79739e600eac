"""Chunks of 8 KiB, so that a tiny model has many."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.domain import models
from swarmd.models import manifest
from swarmd.shards import cutting, serving, storage
from tests.fakes.gguf import TinyModel, write_model

SMALL = 8192


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (models, manifest, storage, serving, cutting):
        monkeypatch.setattr(module, "CHUNK_BYTES", SMALL)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model of about 400 kB with six layers."""
    return write_model(tmp_path / "Tiny Model.gguf", TinyModel())
