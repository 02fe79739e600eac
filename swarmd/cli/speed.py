"""What `swarmd doctor` measures: copying memory, and the built-in model in a worker process, whole and alone."""

from __future__ import annotations

import asyncio
import importlib.resources
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from blake3 import blake3

from swarmd.domain.ids import model_slug
from swarmd.domain.models import Manifest
from swarmd.domain.refusals import UnsupportedModel
from swarmd.inference import worker_frames as frames
from swarmd.inference.worker_process import WorkerProcess
from swarmd.kit.disk import Disk
from swarmd.kit.world import Clock
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import GgufHeader, parse_header
from swarmd.models.manifest import PayloadHasher, build_manifest
from swarmd.models.shard_file import ShardFile, shard_file, source_runs, vocabulary_file
from swarmd.models.slicing import plan_layout

BUILTIN: Final = "swarmd-builtin.gguf"
BUILTIN_LIMIT: Final = 64 * 1024 * 1024  # bytes; the model has 7 MB and may grow
COPIED_BYTES: Final = 256_000_000  # larger than any cache of a processor, small enough for a small machine
COPY_ROUNDS: Final = 5  # the best of them: the others were disturbed
PREFILL_ROWS: Final = 128  # rows of a prompt's step, as the node's workers have it
DECODED_TOKENS: Final = 128  # a second or less on any machine, and the first slow steps do not count much
DEADLINE_S: Final = 60.0  # per step; a machine this slow is not fine
QUESTION: Final = "What is a shard?"

_GREEDY: Final = frames.SamplingAs(
    temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, frequency_penalty=0.0, presence_penalty=0.0, repeat_penalty=1.0,
    seed=0, top_logprobs=None,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModel:
    """The built-in model as one shard, cut and written."""

    path: Path
    vocabulary: Path
    file: ShardFile
    architecture: Architecture
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second."""

    prompt: float
    """Of steps with PREFILL_ROWS tokens each."""
    decode: float
    """One token after the other."""


def copy_bandwidth_gbps(clock: Clock) -> float:
    """GB/s that one thread reads and writes while it copies. Blocks for a second or so, and takes 512 MB."""
    source = np.ones(COPIED_BYTES // 8, np.float64)
    target = np.zeros_like(source)  # touched beforehand: pages that come into being are not what we measure
    best = float("inf")
    for _ in range(COPY_ROUNDS):
        started = clock.ticks()
        np.copyto(target, source)
        best = min(best, clock.ticks() - started)
    return 2 * COPIED_BYTES / best / 1e9


async def write_builtin(folder: Path, disk: Disk) -> WholeModel:
    """Cuts the built-in model into one shard under `folder`. Raises OSError."""
    with importlib.resources.as_file(importlib.resources.files("swarmd.builtin") / BUILTIN) as path:
        data = await disk.read_bytes(path, limit=BUILTIN_LIMIT)
    header, manifest, file, architecture = await asyncio.to_thread(_cut, data)
    whole = WholeModel(
        path=folder / "shard_000.gguf", vocabulary=folder / "vocabulary.gguf", file=file, architecture=architecture,
        template=header.text("tokenizer.chat_template") or "",
    )  # fmt: skip
    await disk.write_atomic(whole.path, _assembled(data, manifest, file))
    await disk.write_atomic(whole.vocabulary, vocabulary_file(header))
    return whole


async def measure(worker: WorkerProcess, model: WholeModel, clock: Clock, *, threads: int) -> Speed:
    """Loads the model, reads PREFILL_ROWS tokens, decodes DECODED_TOKENS. Raises WorkerGone or CommandFailed."""
    table = model.file.embedding
    assert table is not None, "shard 0 has the embedding"
    await worker.call(frames.OpenVocabulary(str(model.vocabulary)), deadline_s=DEADLINE_S)
    await worker.call(
        frames.Load(
            shard=0, path=str(model.path), last=True, cells=2 * (PREFILL_ROWS + DECODED_TOKENS), sequences=1,
            rows=PREFILL_ROWS, threads=threads,
            embeddings=frames.EmbeddingsAt(
                offset_bytes=table.file_offset, kind=table.type, rows=table.rows, width=table.columns,
                row_bytes=table.row_bytes, scale=model.architecture.embedding_scale,
            ),
        ),
        deadline_s=DEADLINE_S,
    )  # fmt: skip
    _, payload = await worker.call(frames.RenderChat(model.template, [frames.Said("user", QUESTION)]), deadline_s=DEADLINE_S)
    question: list[int] = payload.cast("i").tolist()
    await worker.call(frames.StartSequence(0, _GREEDY), deadline_s=DEADLINE_S)
    # The question once or more often, until a step is full: what the tokens say does not change what they cost.
    prompt = (question * PREFILL_ROWS)[:PREFILL_ROWS]
    await _step(worker, prompt, 0)  # not counted: the first step makes the compute buffers
    await worker.call(frames.Rollback(0, 0), deadline_s=DEADLINE_S)
    started = clock.ticks()
    token = await _step(worker, prompt, 0)
    prefilled = clock.ticks()
    for position in range(PREFILL_ROWS, PREFILL_ROWS + DECODED_TOKENS):
        token = await _step(worker, [token], position)
    ended = clock.ticks()
    return Speed(prompt=PREFILL_ROWS / (prefilled - started), decode=DECODED_TOKENS / (ended - prefilled))


async def _step(worker: WorkerProcess, tokens: list[int], position: int) -> int:
    """Runs the tokens from this position on; the token that follows."""
    count = len(tokens)
    command = frames.Step(0, 0, [frames.Run(0, position, count)], [(count - 1, 0, position + count - 1)])
    answer, _ = await worker.call(command, struct.pack(f"<{count}i", *tokens), deadline_s=DEADLINE_S)
    assert isinstance(answer, frames.Stepped), f"a step is answered with Stepped, not {answer}"
    return answer.picked[0][0]


def _cut(data: bytes) -> tuple[GgufHeader, Manifest, ShardFile, Architecture]:
    header = parse_header(data, file_size_bytes=len(data))
    cuts = plan_layout(header, len(data) + 1)
    architecture = check_supported(header)
    assert not isinstance(cuts, UnsupportedModel), "the built-in model can be cut"
    assert not isinstance(architecture, UnsupportedModel), "the built-in model is of a supported architecture"
    hasher = PayloadHasher()
    for tensor in cuts[0].tensors:
        start = header.data_offset + tensor.offset_bytes
        hasher.feed(data[start : start + tensor.size_bytes])
    manifest = build_manifest(
        header=header, cuts=cuts, hashes=[hasher.finish()], header_blake3=blake3(data[: header.data_offset]).hexdigest(),
        model=model_slug(BUILTIN), name=BUILTIN, file_size_bytes=len(data), shard_size_bytes=len(data) + 1, created_at=0,
    )  # fmt: skip
    return header, manifest, shard_file(header, manifest, 0), architecture


def _assembled(data: bytes, manifest: Manifest, file: ShardFile) -> bytes:
    """The bytes of the shard's file."""
    payload = b"".join(data[run.file_offset : run.file_offset + run.size] for run in source_runs(manifest.shards[0]))
    out = bytearray(file.size_bytes)
    out[: len(file.header)] = file.header
    for run in file.runs:
        out[run.file_offset : run.file_offset + run.size] = payload[run.payload_offset : run.payload_offset + run.size]
    for offset, tail in file.tail:
        out[offset : offset + len(tail)] = tail
    return bytes(out)
