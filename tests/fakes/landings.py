"""Shards of the tiny model on their way to their names, and a disk that stops where a test wants it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode
from swarmd.shards.landing import Landing
from tests.fakes.holders import HastyDisk, Store
from tests.fakes.shards import CutModel, cut_model

MODEL = ModelId("tiny")
SMALL = 8192
"""Bytes of a chunk in the tests of shards."""


async def adopted(store: Store, tiny: Path) -> tuple[CutModel, KnownModel]:
    cut = cut_model(tiny.read_bytes(), shard_size_bytes=100_000)
    known = await store.catalog.adopt(encode(cut.manifest), tiny.read_bytes()[: cut.header.data_offset])
    assert isinstance(known, KnownModel), known
    return cut, known


def chunk(payload: bytes, number: int) -> bytes:
    return payload[number * SMALL : (number + 1) * SMALL]


class GatedDisk(HastyDisk):
    """Stops in `method` until the gate is opened. The thread waits, nothing else does."""

    def __init__(self) -> None:
        self.method, self.inside, self.gate = "", threading.Event(), threading.Event()

    def _pass(self, method: str) -> None:
        if method == self.method:
            self.inside.set()
            assert self.gate.wait(10)

    def write_range_now(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self._pass("write")
        super().write_range_now(path, offset, data)

    def read_range_now(self, path: Path, offset: int, size: int) -> bytes:
        self._pass("read")
        return super().read_range_now(path, offset, size)

    def rename_now(self, source: Path, target: Path) -> None:
        self._pass("rename")
        super().rename_now(source, target)

    async def entered(self) -> None:
        async with asyncio.timeout(10):
            while not self.inside.is_set():
                await asyncio.sleep(0.001)


async def whole(store: Store, cut: CutModel, ref: ShardRef) -> Landing:
    """A landing that only has to be committed."""
    landing = await store.storage.open_landing(ref)
    for number in landing.missing():
        await landing.write_chunk(number, chunk(cut.payloads[ref.index], number))
    return landing


def files(store: Store, ref: ShardRef) -> set[str]:
    return {path.name for path in store.catalog.folder(MODEL).iterdir() if path.name.startswith(f"shard_{ref.index:03d}")}
