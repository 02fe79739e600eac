"""The numbers of embeddings, as llama.cpp's server makes them: which rows, their sum, the normalised vector. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from swarmd.inference.worker_frames import Run

Vector = npt.NDArray[np.float32]
"""Shape (width,)."""


class Pooling(IntEnum):
    """How the rows of a text become one vector. Numbers of `<architecture>.pooling_type` in GGUF: those that run here."""

    MEAN = 1
    LAST = 3


def vector_rows(runs: Sequence[Run], vectors: Sequence[int]) -> list[int]:
    """Rows of a step whose state behind the final norm is needed: all of a run of which a vector is made.

    Not only those that are added up: llama.cpp computes all rows of a text when it makes embeddings, and how many rows the
    last layer has decides how it adds up.
    """
    rows: list[int] = []
    at = 0
    for run, summed in zip(runs, vectors, strict=True):
        if summed:
            rows += range(at, at + run.count)
        at += run.count
    return rows


def vector_sums(runs: Sequence[Run], vectors: Sequence[int], normed: npt.NDArray[np.float32]) -> bytes:
    """float32 (runs with vectors, width). `normed`: of `vector_rows`. The sum of one row is that row, bit for bit."""
    sums: list[bytes] = []
    at = 0
    for run, summed in zip(runs, vectors, strict=True):
        if summed:
            at += run.count
            sums.append(normed[at - summed : at].sum(axis=0, dtype=np.float64).astype(np.float32).tobytes())
    return b"".join(sums)


def normalised(vector: Vector) -> Vector:
    """Of length 1; zeros stay zeros. Operation by operation what llama.cpp does, so that equal bits in are equal bits out:
    squares in float32, added one after the other in float64."""
    squares = (vector * vector).astype(np.float64)
    length = float(np.sqrt(np.add.accumulate(squares)[-1]))
    return vector * np.float32(1.0 / length if length > 0.0 else 0.0)
