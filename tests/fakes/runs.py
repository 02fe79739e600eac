"""What a model computes in a prompt and some steps behind it, whole or as a chain of shards."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarmd.models.architectures import FAMILIES
from tests.fakes.llama import Llama, NativeModel, Rows
from tests.fakes.shards import CutModel

FIRST_CHUNK = 25
PREFILL = 40  # longer than gemma's window of 16, and no multiple of 32


def steps(vocab: int) -> list[Rows]:
    """A prompt of PREFILL tokens in two chunks, two decode steps, a step with two sequences at once, and one behind a
    position that was already passed."""
    prompt = [(0, position, (position * 31 + 7) % vocab) for position in range(PREFILL)]
    return [
        prompt[:FIRST_CHUNK],
        prompt[FIRST_CHUNK:],
        [(0, PREFILL, 3)],
        [(0, PREFILL + 1, 9)],
        [(0, PREFILL + 2, 11), (1, 0, 5)],
        [(0, PREFILL - 1, 2), (0, PREFILL, 13), (1, 1, 6)],
    ]


def taken_back(rows: Rows, at: list[NativeModel]) -> None:
    """As the engine does before a step that begins at a position which was already passed."""
    if rows[0][1] == PREFILL - 1 and len(rows) == 3:
        for model in at:
            model.forget(0, PREFILL - 1)


def whole_logits(
    llama: Llama, path: Path, vocab: int, *, adapter: Path | None = None, threads: int = 1
) -> list[npt.NDArray[np.float32]]:
    with NativeModel(llama, path, adapter=adapter, threads=threads) as model:
        return run_whole(model, vocab)


def run_whole(model: NativeModel, vocab: int) -> list[npt.NDArray[np.float32]]:
    out: list[npt.NDArray[np.float32]] = []
    for rows in steps(vocab):
        taken_back(rows, [model])
        out.append(model.run(rows))
    return out


def chain_logits(
    llama: Llama,
    model: CutModel,
    paths: tuple[Path, ...],
    *,
    adapters: Sequence[Path | None] | None = None,
    threads: int = 1,
) -> list[npt.NDArray[np.float32]]:
    """As a pipeline does it: embedding rows from the first file, hidden states from file to file, logits from the last.

    `adapters`: each shard's slice.
    """
    table = model.files[0].embedding
    assert table is not None
    out: list[npt.NDArray[np.float32]] = []
    with contextlib.ExitStack() as stack:
        chain = [
            stack.enter_context(
                NativeModel(
                    llama, path, tap=None if path == paths[-1] else f"l_out-{shard.layers - 1}",
                    entry=FAMILIES[model.architecture.name].entry, adapter=adapter, threads=threads,
                )
            )
            for path, shard, adapter in zip(paths, model.manifest.shards, adapters or [None] * len(paths), strict=True)
        ]
        for rows in steps(model.architecture.vocab_size):
            taken_back(rows, chain)
            ids = [token for _, _, token in rows]
            value = llama.embed(paths[0], table, ids, model.architecture.embedding_scale)
            for shard in chain:
                value = shard.run(rows, value)
            out.append(value)
    return out
