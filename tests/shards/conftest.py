"""Chunks of 8 KiB, so that a tiny model has many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain import models
from swarmd.models import manifest
from swarmd.shards import cutting, landing, serving, storage
from swarmd.shards import hub_desk as hub_desks
from tests.fakes.around import FILE, REPO, Around
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.landings import SMALL
from tests.hub.hub import LocalHub


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (models, manifest, storage, landing, serving, cutting):
        monkeypatch.setattr(module, "CHUNK_BYTES", SMALL)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model of about 400 kB with six layers."""
    return write_model(tmp_path / "Tiny Model.gguf", TinyModel())


@pytest.fixture(autouse=True)
def _shards_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_desks, "MEGABYTE", 200)  # times the 512 of the settings: shards of about 100 kB


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with LocalHub() as hub:
        made = Around(tmp_path, hub)
        yield made
        for seed in reversed(list(made.stacks)):
            await made.stop(seed)


@pytest.fixture
def data(tiny: Path, around: Around) -> bytes:
    found = tiny.read_bytes()
    around.hub.repo(REPO).file(FILE, found)
    return found
