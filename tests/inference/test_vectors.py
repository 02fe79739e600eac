"""The numbers of embeddings: which rows, their sum, length 1."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swarmd.inference.vectors import normalised, vector_rows, vector_sums
from swarmd.inference.worker_frames import Run

RUNS = [Run(0, 0, 2), Run(1, 5, 1), Run(2, 0, 3)]


def test_all_rows_of_a_run_with_a_vector_are_needed_however_few_are_added_up() -> None:
    assert vector_rows(RUNS, [1, 0, 3]) == [0, 1, 3, 4, 5]
    assert vector_rows(RUNS, [0, 0, 0]) == []


def test_a_vector_is_the_sum_of_the_last_rows_of_its_run() -> None:
    normed = np.arange(10, dtype=np.float32).reshape(5, 2)  # of rows 0, 1, 3, 4 and 5
    sums = np.frombuffer(vector_sums(RUNS, [1, 0, 3], normed), np.float32).reshape(-1, 2)
    assert sums.tolist() == [[2, 3], [4 + 6 + 8, 5 + 7 + 9]]


def test_one_row_keeps_its_bits() -> None:
    normed = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    assert vector_sums([Run(0, 0, 3)], [1], normed) == normed[2].tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_a_normalised_vector_has_the_bits_that_a_loop_in_c_gives_it(seed: int) -> None:
    vector = np.random.default_rng(seed).standard_normal(97).astype(np.float32)
    total = 0.0
    for number in vector:
        total += float(np.float32(number * number))
    factor = np.float32(1.0 / math.sqrt(total))
    assert np.array_equal(normalised(vector), np.array([number * factor for number in vector], np.float32))


def test_zeros_stay_zeros() -> None:
    assert normalised(np.zeros(4, np.float32)).tolist() == [0, 0, 0, 0]
