"""Adapters in a worker: loaded, switched, freed; which of them stay, and what it takes to have a seat with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Busy, NoCapacity, Refusal, WorkerFailed
from swarmd.inference import worker_frames as frames
from swarmd.inference.engine import Engine
from swarmd.inference.worker import Worker
from swarmd.inference.worker_process import CommandFailed
from swarmd.inference.workers import ADAPTERS_LIMIT, Seat
from swarmd.kit.world import seeded_world
from swarmd.models.slicing import cuts_at
from swarmd.shards.adapters import AdapterSlices
from tests.fakes.adapters import random_adapter, safetensors_bytes
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.node_parts import NodeParts, open_parts, tiny_known
from tests.fakes.shards import cut_model, write_shards
from tests.inference.test_worker import failed, greedy, tokens
from tests.models.test_lora_runs import converted, write_slice

SHAPE = TinyModel(layers=2, tokenizer=True)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


class Loaded:
    """A worker with two shards, and slices of two adapters on the disk: `a` for both layers, `b` for the second alone."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        data = write_model(folder / "tiny.gguf", SHAPE).read_bytes()
        whole = cut_model(data)
        cut = cut_model(data, cuts=cuts_at(whole.header, whole.architecture, (0, 1, 2)))
        self.worker = Worker(engine)
        for index, path in enumerate(write_shards(cut, folder)):
            table = cut.files[index].embedding
            at = table and frames.EmbeddingsAt(
                table.file_offset, table.type, table.rows, table.columns, table.row_bytes, 1.0
            )
            self.worker.answer(frames.Load(index, str(path), index == 1, at, 64, 2, 16, 1), bytearray())
        self.slices: dict[str, list[Path | None]] = {}
        for name, layers in (("a", (0, 1)), ("b", (1,))):
            index, contents = converted(safetensors_bytes(random_adapter(SHAPE, layers=layers)), whole)
            self.slices[name] = [
                write_slice(folder / f"{name}{at}.gguf", index, contents, at, at + 1) for at in range(2)
            ]

    def load(self, number: int, name: str) -> None:
        for shard, path in enumerate(self.slices[name]):
            command = frames.LoadAdapter(shard, number, None if path is None else str(path))
            assert self.worker.answer(command, bytearray())[0] == frames.Done()

    def logits(self, adapter: int, *, last: int = 1) -> bytes:
        self.worker.answer(frames.EndSequence(0), bytearray())
        self.worker.answer(frames.StartSequence(0, None), bytearray())
        step = frames.Step(0, last, [frames.Run(0, 0, 3)], [(2, 0, 2)] if last else [], logits=True, adapter=adapter)
        answer, payload = self.worker.answer(step, tokens(1, 2, 3))
        assert isinstance(answer, frames.Stepped), answer
        return bytes(payload)


def test_a_switch_changes_what_comes_out_and_back(engine: Engine, tmp_path: Path) -> None:
    made = Loaded(engine, tmp_path)
    plain = made.logits(0)
    made.load(1, "a")
    made.load(2, "b")
    assert made.logits(0) == plain, "an adapter that is loaded and not asked for does nothing"
    with_a, with_b = made.logits(1), made.logits(2)
    assert len({plain, with_a, with_b}) == 3
    for adapter, expected in ((2, with_b), (0, plain), (1, with_a), (2, with_b), (1, with_a), (0, plain)):
        assert made.logits(adapter) == expected
    assert made.logits(2, last=0) == made.logits(0, last=0) != made.logits(1, last=0), "b leaves the first layer as it is"


def test_one_that_is_freed_while_it_is_applied_is_gone(engine: Engine, tmp_path: Path) -> None:
    made = Loaded(engine, tmp_path)
    plain = made.logits(0)
    made.load(1, "a")
    with_a = made.logits(1)
    assert made.worker.answer(frames.UnloadAdapter(1), bytearray())[0] == frames.Done()
    step = frames.Step(0, 1, [frames.Run(0, 3, 1)], [], adapter=1)
    assert "adapter 1 is not loaded" in failed(made.worker, step, tokens(1))
    assert made.logits(0) == plain
    made.load(7, "a")
    assert made.logits(7) == with_a
    assert len(greedy(made.worker, 3)) == 3


def test_a_file_that_is_no_adapter_of_this_model_is_a_failure(engine: Engine, tmp_path: Path) -> None:
    made = Loaded(engine, tmp_path)
    for path in (tmp_path / "tiny.gguf", tmp_path / "nothing.gguf", made.slices["b"][1]):
        wrong = tmp_path / "wrong.gguf"
        wrong.write_bytes(path.read_bytes()[:-1000] if path is not None and path.exists() else b"x")
        assert "cannot load the adapter" in failed(made.worker, frames.LoadAdapter(0, 3, str(wrong)))
    assert "not loaded" in failed(made.worker, frames.LoadAdapter(9, 3, None))
    assert made.logits(0)


@pytest.fixture
async def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NodeParts]:
    async with open_parts(seeded_world(1), monkeypatch) as made:
        made.add(tiny_known(tmp_path), "tiny", (0, 1, 2, 3))
        yield made


TINY = ModelId("tiny")


def slices(number: int, *, size: int = 1000, shards: tuple[int, ...] = (0, 1)) -> AdapterSlices:
    ref = AdapterRef(digest=bytes([number]) * 32, size_bytes=size)
    return AdapterSlices(ref=ref, files={index: (Path(f"/nowhere/{number}-{index}"), size) for index in shards})


async def seat(parts: NodeParts, adapter: AdapterSlices | None, shards: tuple[int, ...] = (0, 1)) -> Seat | Refusal:
    return await parts.workers.take_seat(TINY, shards, cells=4, adapter=adapter)


def adapter_commands(parts: NodeParts) -> list[frames.Command]:
    return [one for one in parts.processes[-1].commands if isinstance(one, frames.LoadAdapter | frames.UnloadAdapter)]


async def test_an_adapter_is_loaded_once_for_all_who_ask(parts: NodeParts) -> None:
    one, two = await seat(parts, slices(1)), await seat(parts, slices(1))
    assert isinstance(one, Seat) and isinstance(two, Seat) and one.adapter == two.adapter == 1
    assert [(c.shard, c.number) for c in adapter_commands(parts)] == [(0, 1), (1, 1)]
    one.release()
    two.release()
    plain = await seat(parts, None)
    assert isinstance(plain, Seat) and plain.adapter == 0
    more = await seat(parts, slices(1, shards=(0, 1, 2)), (0, 1, 2))
    assert isinstance(more, Seat)
    assert [(c.shard, c.number) for c in adapter_commands(parts)] == [(0, 1), (1, 1), (2, 1)]


async def test_the_longest_unused_one_makes_room_and_none_in_use(parts: NodeParts) -> None:
    for number in range(1, ADAPTERS_LIMIT + 1):
        found = await seat(parts, slices(number))
        assert isinstance(found, Seat)
        found.release()
    used = await seat(parts, slices(1))  # the oldest is the latest now, and in use
    assert isinstance(used, Seat)
    found = await seat(parts, slices(100))
    assert isinstance(found, Seat)
    assert [c.number for c in adapter_commands(parts) if isinstance(c, frames.UnloadAdapter)] == [2]
    host = parts.workers._hosts[TINY]
    assert len(host.adapters) == ADAPTERS_LIMIT
    for adapter in host.adapters.values():
        adapter.users += 1
    assert isinstance(await seat(parts, slices(101)), Busy)


async def test_adapters_count_in_the_memory_of_a_worker(parts: NodeParts) -> None:
    first = await seat(parts, slices(1, size=500_000))
    assert isinstance(first, Seat)
    host = parts.workers._hosts[TINY]
    assert host.loaded_bytes() == sum(host.memory_bytes(index) for index in (0, 1)) + 1_000_000
    parts.free = 1_500_000
    refused = await seat(parts, slices(2, size=1_000_000))
    assert isinstance(refused, NoCapacity) and refused.needed_bytes == 2_000_000
    first.release()
    refused = await seat(parts, slices(2, size=1_000_000))
    assert isinstance(refused, NoCapacity)
    assert [type(c).__name__ for c in adapter_commands(parts)][-1] == "UnloadAdapter", "what nobody uses went first"
    assert isinstance(await seat(parts, slices(3, size=700_000)), Seat)


async def test_an_adapter_whose_slice_made_room_for_anothers_is_asked_for_again_soon(
    parts: NodeParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(await seat(parts, slices(1)), Seat)
    real = parts.processes[-1].call

    async def call(command: frames.Command, *rest: Any, **more: Any) -> Any:
        if isinstance(command, frames.LoadAdapter):
            raise CommandFailed("engine", "llama.cpp cannot load the adapter")
        return await real(command, *rest, **more)

    monkeypatch.setattr(parts.processes[-1], "call", call)
    assert isinstance(await seat(parts, slices(2)), Busy)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"x")
    there = AdapterSlices(ref=slices(3).ref, files={0: (damaged, 1), 1: (damaged, 1)})
    assert isinstance(await seat(parts, there), WorkerFailed)
    monkeypatch.undo()
    assert isinstance(await seat(parts, slices(2)), Seat)


async def test_a_shard_that_comes_again_gets_the_adapter_again(parts: NodeParts) -> None:
    one = await seat(parts, slices(1))
    assert isinstance(one, Seat)
    one.release()
    assert await parts.workers.unload_shard(ShardRef(TINY, 1)) == (0,)
    assert isinstance(await seat(parts, slices(1)), Seat)
    assert [c.shard for c in adapter_commands(parts) if isinstance(c, frames.LoadAdapter)] == [0, 1, 1]
