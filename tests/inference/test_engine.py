"""The engine through real worker processes: a chain of shards in several processes equals the whole model bit for bit."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from swarmd.inference import worker_frames as frames
from swarmd.inference.engine import ContextShape, Engine, LoadedShard, keyed_seed
from swarmd.inference.worker_process import CommandFailed, WorkerProcess, start_worker
from swarmd.kit.service import Supervisor
from swarmd.kit.world import real_world
from swarmd.models.shard_file import vocabulary_file
from swarmd.models.slicing import cuts_at
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.llama import Llama, NativeModel
from tests.fakes.shards import CutModel, cut_model, write_shards

CELLS, SEQUENCES, ROWS = 512, 4, 128
MODELS = {
    "llama": TinyModel(layers=6),
    "gemma3": TinyModel(architecture="gemma3", layers=18, tied=True),
    "gemma2": TinyModel(architecture="gemma2", layers=6, tied=True),  # hidden states go in another way
    "glm4": TinyModel(architecture="glm4", layers=3, kv_heads=1, heads=2),  # this one too
}


def cut(path: Path, model: TinyModel, parts: int) -> CutModel:
    data = write_model(path, model).read_bytes()
    layers = model.layers
    if parts == 1:
        return cut_model(data)
    probe = cut_model(data)
    step = max(probe.architecture.cut_period, layers // parts)
    bounds = [*[*range(0, layers, step)][:parts], layers]
    cuts = cuts_at(probe.header, probe.architecture, tuple(bounds))
    return cut_model(data, cuts=cuts)


class Chain:
    """The shards of a model, spread over processes."""

    def __init__(self, cut: CutModel, processes: list[WorkerProcess], runs: list[tuple[int, int]]) -> None:
        self.cut, self.processes, self.runs = cut, processes, runs

    async def all(self, command, **rest) -> None:
        for process in self.processes:
            await process.call(command, deadline_s=30, **rest)

    async def step(self, tokens: list[int], runs: list[tuple[int, int, int]]) -> np.ndarray:
        payload: bytes | memoryview = np.array(tokens, np.int32).tobytes()
        outputs = [(row, 0, 0) for row in range(len(tokens))]
        last = len(self.cut.files) - 1
        for process, (first, end) in zip(self.processes, self.runs, strict=True):
            wanted = outputs if end == last else []
            step = frames.Step(first, end, [frames.Run(*run) for run in runs], wanted, True)
            _, payload = await process.call(step, payload, deadline_s=30)
        return np.frombuffer(payload, np.float32).reshape(len(tokens), -1)


    async def normed(self, tokens: list[int], runs: list[tuple[int, int, int]], vectors, outputs=()) -> np.ndarray:
        """The vectors that the tail makes, (vectors, width)."""
        payload: bytes | memoryview = np.array(tokens, np.int32).tobytes()
        last = len(self.cut.files) - 1
        for process, (first, end) in zip(self.processes, self.runs, strict=True):
            at_tail = end == last
            step = frames.Step(
                first, end, [frames.Run(*run) for run in runs], list(outputs) if at_tail else [],
                vectors=vectors if at_tail else [],
            )
            self.answer, payload = await process.call(step, payload, deadline_s=30)
        return np.frombuffer(payload, np.float32).reshape(-1, self.cut.manifest.width)


async def open_chain(stack: AsyncExitStack, supervisor: Supervisor, folder: Path, cut: CutModel, processes: int) -> Chain:
    folder.mkdir()
    paths = write_shards(cut, folder)
    count = len(paths)
    bounds = [round(i * count / processes) for i in range(processes + 1)]
    runs = [(a, b - 1) for a, b in pairwise(bounds)]
    started = []
    for number, (first, last) in enumerate(runs):
        process = await start_worker(spawn=supervisor.spawn, name=f"worker {number}")
        stack.push_async_callback(process.stop)
        started.append(process)
        for index in range(first, last + 1):
            table = cut.files[index].embedding
            at = table and frames.EmbeddingsAt(
                table.file_offset, table.type, table.rows, table.columns, table.row_bytes, cut.architecture.embedding_scale
            )
            load = frames.Load(index, str(paths[index]), index == count - 1, at, CELLS, SEQUENCES, ROWS, 1)
            await process.call(load, deadline_s=30)
    chain = Chain(cut, started, runs)
    for sequence in range(3):
        await chain.all(frames.StartSequence(sequence, None))
    return chain


EMBEDDING_MODELS = MODELS | {
    "llama, experts": TinyModel(layers=4, experts=4),
    "gemma3, no window": TinyModel(architecture="gemma3", layers=12, window=0),
}


@pytest.mark.parametrize("name", EMBEDDING_MODELS)
async def test_the_state_behind_the_final_norm_is_the_embedding_of_the_whole_model(name, tmp_path):
    model = EMBEDDING_MODELS[name]
    prompt = [(7 * i + 3) % 200 for i in range(100)]
    llama = Llama()
    parts = 3 if name in MODELS else 2
    divided = cut(tmp_path / "a.gguf", model, parts)
    with NativeModel(llama, tmp_path / "a.gguf", pooling=0) as whole:
        expected = whole.vectors([(0, position, token) for position, token in enumerate(prompt)])
        behind = whole.vectors([(0, 100, 5)])
    llama.close()
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        split = await open_chain(stack, supervisor, tmp_path / "split", divided, parts)
        assert np.array_equal(await split.normed(prompt, [(0, 0, 100)], [1]), expected[-1:])
        assert np.array_equal(await split.normed([5], [(0, 100, 1)], [1]), behind), "in the cache is what belongs there"
        total = expected.sum(axis=0, dtype=np.float64).astype(np.float32)
        await split.all(frames.EndSequence(0))
        assert np.array_equal(await split.normed(prompt, [(0, 0, 100)], [100]), [total])


async def test_a_reply_and_an_embedding_share_a_step_and_both_are_right(tmp_path):
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        chain = await open_chain(stack, supervisor, tmp_path / "split", cut(tmp_path / "a.gguf", MODELS["llama"], 3), 3)
        greedy = frames.SamplingAs(0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 0, None)
        for process in chain.processes[-1:]:
            await process.call(frames.StartSequence(0, greedy), deadline_s=30)
        await chain.normed([1, 2, 3], [(0, 0, 3)], [], [(2, 0, 2)])
        (alone,) = chain.answer.picked
        await chain.all(frames.Rollback(0, 0))
        vector = await chain.normed([4, 5], [(1, 0, 2)], [1])
        await chain.all(frames.Rollback(1, 0))
        for _ in range(2):  # the graph of the step before is used again
            both = await chain.normed([4, 5, 1, 2, 3], [(1, 0, 2), (0, 0, 3)], [1, 0], [(4, 0, 2)])
            assert np.array_equal(both, vector) and chain.answer.picked == [alone]
            await chain.all(frames.Rollback(0, 0))
            await chain.all(frames.Rollback(1, 0))


@pytest.mark.parametrize("name", MODELS)
async def test_three_processes_equal_one_bit_for_bit(name, tmp_path):
    model = MODELS[name]
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        whole = await open_chain(stack, supervisor, tmp_path / "whole", cut(tmp_path / "a.gguf", model, 1), 1)
        split = await open_chain(stack, supervisor, tmp_path / "split", cut(tmp_path / "b.gguf", model, 3), 3)
        assert len(split.cut.files) == 3

        async def compare(tokens, runs):
            assert np.array_equal(await whole.step(tokens, runs), await split.step(tokens, runs))

        prompt = [(7 * i + 3) % 200 for i in range(100)]
        await compare(prompt, [(0, 0, 100)])
        await compare([5], [(0, 100, 1)])
        await compare(prompt[:9], [(1, 0, 4), (2, 0, 5)])  # several sequences in one step
        await compare([1, 2, 3], [(0, 101, 1), (1, 4, 1), (2, 5, 1)])
        for chain in (whole, split):  # rollback, and what was rolled back rewritten
            await chain.all(frames.Rollback(0, 50))
        await compare([9, 8], [(0, 50, 2)])
        for chain in (whole, split):  # a prefix shared instead of computed
            await chain.all(frames.EndSequence(2))
            await chain.all(frames.CopySequence(0, 2, 40))
        await compare([4, 6], [(0, 52, 1), (2, 40, 1)])


class Names:
    """llama.cpp's functions; keeps which tensors it was asked the name of."""

    def __init__(self, call) -> None:
        self._call, self.asked = call, {}

    def __getattr__(self, name):
        return getattr(self._call, name)

    def ggml_get_name(self, tensor):
        self.asked[tensor] = self._call.ggml_get_name(tensor)
        return self.asked[tensor]


@pytest.mark.parametrize("last", [False, True], ids=["inner", "last"])
def test_a_step_whose_hidden_states_did_not_go_in_is_run_again(tmp_path, last):
    """What is remembered of one graph can be wrong of the next, at the same addresses."""
    model = cut(tmp_path / "a.gguf", MODELS["gemma2"], 3)
    path = write_shards(model, tmp_path)[2 if last else 1]
    engine, shape = Engine(), ContextShape(cells=64, sequences=1, rows=4, threads=1)
    hidden = np.random.default_rng(3).standard_normal((3, 1, model.architecture.hidden_width), dtype=np.float32)

    def steps(disturbed: bool) -> list[np.ndarray]:
        shard = LoadedShard(engine, path, last=last, embeddings=None, shape=shape)
        nodes = shard._tap._nodes
        nodes._call = names = Names(nodes._call)
        out = []
        try:
            for position, row in enumerate(hidden):
                if disturbed and position == 2:
                    assert b"inp_scaled" in names.asked.values()
                    nodes.update(dict.fromkeys(names.asked, False))
                    names.asked.clear()
                value = shard.step([frames.Run(0, position, 1)], row)
                out.append(shard.logits(0).copy() if value is None else value)
            assert b"inp_scaled" in names.asked.values(), "the graph was looked at anew"
        finally:
            shard.close()
        return out

    assert np.array_equal(steps(disturbed=True), steps(disturbed=False))


async def test_shards_load_and_unload_one_by_one_without_a_restart(tmp_path):
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        chain = await open_chain(stack, supervisor, tmp_path / "s", cut(tmp_path / "a.gguf", MODELS["llama"], 3), 1)
        process = chain.processes[0]
        before = await chain.step([1, 2, 3], [(0, 0, 3)])
        pid = process.pid
        await process.call(frames.Unload(1), deadline_s=10)
        with pytest.raises(CommandFailed, match="shard 1 is not loaded"):
            await chain.step([1], [(0, 3, 1)])
        load = frames.Load(1, str(tmp_path / "s" / "shard_001.gguf"), False, None, CELLS, SEQUENCES, ROWS, 1)
        await process.call(load, deadline_s=30)
        await chain.all(frames.EndSequence(0))
        assert np.array_equal(await chain.step([1, 2, 3], [(0, 0, 3)]), before)
        assert process.pid == pid


async def test_sampling_depends_on_seed_and_position_alone(tmp_path):
    def sampling(seed: int, temperature: float = 1.0, top: int | None = None) -> frames.SamplingAs:
        return frames.SamplingAs(temperature, 1.0, 0, 0.0, 0.0, 0.0, 1.0, seed, top)

    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        chain = await open_chain(stack, supervisor, tmp_path / "s", cut(tmp_path / "a.gguf", MODELS["llama"], 1), 1)
        process = chain.processes[0]

        async def pick(seed: int, **rest) -> tuple[int, list[tuple[int, float]]]:
            await process.call(frames.StartSequence(0, sampling(seed, **rest)), deadline_s=10)
            step = frames.Step(0, 0, [frames.Run(0, 0, 3)], [(2, 0, 2)])
            answer, _ = await process.call(step, np.array([1, 2, 3], np.int32).tobytes(), deadline_s=10)
            return answer.picked[0]

        assert await pick(1) == await pick(1)
        assert len({(await pick(seed))[0] for seed in range(12)}) > 3
        await chain.all(frames.StartSequence(0, None))
        logits = (await chain.step([1, 2, 3], [(0, 0, 3)]))[2].astype(np.float64)
        token, logprobs = await pick(1, temperature=0.0, top=3)
        assert token == int(logits.argmax())
        expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        likeliest = np.argsort(-expected, kind="stable")[:3]
        assert logprobs == [(t, float(expected[t])) for t in [token, *map(int, likeliest)]]


async def test_bad_steps_are_refused_and_harm_nobody(tmp_path):
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        chain = await open_chain(stack, supervisor, tmp_path / "s", cut(tmp_path / "a.gguf", MODELS["llama"], 3), 1)
        process = chain.processes[0]
        for command, payload, words in (
            (frames.Step(0, 0, [frames.Run(0, 0, 1)], []), b"\xff\xff\xff\x7f", "outside"),
            (frames.Step(0, 0, [frames.Run(0, 0, 2)], []), b"\0\0\0\0", "2 rows came with 1 tokens"),
            (frames.Step(1, 1, [frames.Run(0, 0, 1)], []), b"\0\0\0\0", "1 rows of width 64 came with 1 numbers"),
            (frames.Step(0, 0, [frames.Run(0, 0, 0)], []), b"", "1 to 128 rows"),
            (frames.Step(0, 0, [frames.Run(0, 0, 200)], []), b"\0\0\0\0" * 200, "1 to 128 rows"),
            (frames.Step(0, 2, [frames.Run(3, 0, 1)], [(0, 3, 0)]), b"\0\0\0\0", "not started with a sampler"),
        ):
            with pytest.raises(CommandFailed, match=words):
                await process.call(command, payload, deadline_s=10)
        assert process.alive


async def test_vocabulary_and_prompts(tmp_path):
    path = write_model(tmp_path / "v.gguf", TinyModel(layers=2, tokenizer=True))
    model = cut_model(path.read_bytes())
    (tmp_path / "vocabulary.gguf").write_bytes(vocabulary_file(model.header))
    async with Supervisor("test", world=real_world()) as supervisor, AsyncExitStack() as stack:
        process = await start_worker(spawn=supervisor.spawn, name="worker")
        stack.push_async_callback(process.stop)
        opened, payload = await process.call(frames.OpenVocabulary(str(tmp_path / "vocabulary.gguf")), deadline_s=10)
        assert sum(opened.lengths) == len(payload)
        pieces, at = [], 0
        for length in opened.lengths:
            pieces.append(bytes(payload[at : at + length]))
            at += length
        _, ids = await process.call(frames.Tokenize("hello, wörld"), deadline_s=10)
        tokens = np.frombuffer(ids, np.int32)
        assert b"".join(pieces[t] for t in tokens).decode() == "hello, wörld"
        assert opened.ends
        template = model.header.text("tokenizer.chat_template")
        _, ids = await process.call(frames.RenderChat(template, [frames.Said("user", "hi")]), deadline_s=10)
        assert len(np.frombuffer(ids, np.int32)) > 2
        with pytest.raises(CommandFailed, match="no more") as failed:
            complaint = frames.RenderChat("{{ raise_exception('no more') }}", [frames.Said("user", "hi")])
            await process.call(complaint, deadline_s=10)
        assert failed.value.kind == "template"


def test_keyed_seeds_differ_by_seed_and_position_and_never_change():
    assert len({keyed_seed(s, p) for s in range(20) for p in range(20)}) == 400
    assert keyed_seed(1, 2) == keyed_seed(1, 2)
    assert keyed_seed(-1, 0) == keyed_seed(-1, 0)


