"""One llama.cpp model in one process, no node around it: what a split run is compared with.

Reads `decode N` and `prefill N` lines on standard input, writes the mean milliseconds per token of N greedy decode steps, or
the milliseconds of a prompt of N tokens in one step, as llama.cpp computes it by default.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from swarmd.domain.generation import Sampling
from swarmd.inference.engine import ContextShape, Embeddings, Engine, LoadedShard, Run, Sampler
from swarmd.models.architectures import Architecture, check_supported
from swarmd.models.gguf import HeaderParser
from swarmd.models.manifest import PayloadHasher, build_manifest
from swarmd.models.shard_file import shard_file, source_runs
from swarmd.models.slicing import plan_layout
from swarmd.shards.landing import pieces

PROMPT_TOKENS = 16
CELLS = 2048
ROWS = 512  # of a step: llama.cpp's default


def cut_whole(source: Path, target: Path) -> Embeddings:
    """The model as one shard file: the same weights, the whole model in one llama.cpp context."""
    with source.open("rb") as file:
        parser = HeaderParser(file_size_bytes=source.stat().st_size)
        header = None
        while header is None:
            header = parser.feed(file.read(1 << 20))
        architecture = check_supported(header)
        assert isinstance(architecture, Architecture), architecture
        cuts = plan_layout(header, 1 << 40)
        assert isinstance(cuts, tuple), cuts
        hasher = PayloadHasher()
        for tensor in cuts[0].tensors:
            file.seek(header.data_offset + tensor.offset_bytes)
            hasher.feed(file.read(tensor.size_bytes))
        manifest = build_manifest(
            header=header, cuts=cuts, hashes=[hasher.finish()], header_blake3="0" * 64, model="bench", name="bench",
            file_size_bytes=source.stat().st_size, shard_size_bytes=1 << 40, created_at=0,
        )  # fmt: skip
        shard = shard_file(header, manifest, 0)
        if not target.exists() or target.stat().st_size != shard.size_bytes:
            with target.open("wb") as out:
                out.truncate(shard.size_bytes)
                out.write(shard.header)
                for origin in source_runs(manifest.shards[0]):
                    for at, start, count in pieces(shard.runs, origin.payload_offset, origin.size):
                        file.seek(origin.file_offset + start)
                        out.seek(at)
                        out.write(file.read(count))
                for offset, data in shard.tail:
                    out.seek(offset)
                    out.write(data)
    table = shard.embedding
    assert table is not None
    return Embeddings(
        offset_bytes=table.file_offset, kind=table.type, rows=table.rows, width=table.columns,
        row_bytes=table.row_bytes, scale=architecture.embedding_scale,
    )  # fmt: skip


def decode(engine: Engine, shard: LoadedShard, count: int) -> float:
    """Mean milliseconds of `count` steps behind a short prompt, sampling included; as a node reports its own."""
    sampler = Sampler(engine, Sampling(temperature=0.0), vocabulary_size=shard.vocabulary_size, cells=CELLS)
    shard.forget(0)
    prompt = np.arange(40, 40 + PROMPT_TOKENS, dtype=np.int32)
    shard.step([Run(sequence=0, position=0, count=PROMPT_TOKENS)], shard.embed(prompt), [PROMPT_TOKENS - 1])
    token = sampler.pick(shard, PROMPT_TOKENS - 1, PROMPT_TOKENS - 1).token
    started = time.perf_counter()
    for position in range(PROMPT_TOKENS, PROMPT_TOKENS + count):
        shard.step([Run(sequence=0, position=position, count=1)], shard.embed(np.array([token], np.int32)), [0])
        token = sampler.pick(shard, 0, position).token
    elapsed = time.perf_counter() - started
    sampler.close()
    return elapsed / count * 1e3


def prefill(shard: LoadedShard, count: int) -> float:
    """Milliseconds until the logits behind a prompt of `count` tokens are there."""
    shard.forget(0)
    prompt = np.arange(count, dtype=np.int32) % 200 + 40
    started = time.perf_counter()
    for at in range(0, count, ROWS):
        rows = min(ROWS, count - at)
        shard.step([Run(sequence=0, position=at, count=rows)], shard.embed(prompt[at : at + rows]), [rows - 1])
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    target = arguments.model.with_suffix(".whole.gguf")
    table = cut_whole(arguments.model, target)
    engine = Engine()
    shape = ContextShape(cells=CELLS, sequences=1, rows=ROWS, threads=arguments.threads)
    shard = LoadedShard(engine, target, last=True, embeddings=table, shape=shape)
    print("ready", flush=True)
    for line in sys.stdin:
        what, count = line.split()
        print(decode(engine, shard, int(count)) if what == "decode" else prefill(shard, int(count)), flush=True)


if __name__ == "__main__":
    main()
