"""Sampling says what the model says, as often as it says it: also for tokens that come behind a guess.

Seeds are fixed, so the counts are always the same ones; the bound is that of chi-square at one in a thousand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from swarmd.inference import worker_frames as frames
from swarmd.inference.engine import Engine
from swarmd.inference.worker import Worker
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model, write_shards

PROMPT = [5, 9, 2]
TEMPERATURE = 0.2  # of a random model, whose tokens are nearly alike at 1.0: some stand out, and a guess comes true
SEEDS = 3000
SHOWN = 8  # likeliest tokens counted one by one; the others together
CHI_SQUARE = 26.12  # 8 degrees of freedom, one in a thousand


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = tmp_path_factory.mktemp("tiny")
    cut = cut_model(write_model(folder / "tiny.gguf", TinyModel(layers=1, tokenizer=True)).read_bytes())
    (path,) = write_shards(cut, folder)
    table = cut.files[0].embedding
    assert table is not None
    at = frames.EmbeddingsAt(table.file_offset, table.type, table.rows, table.columns, table.row_bytes, 1.0)
    found = Worker(Engine())
    answer, _ = found.answer(frames.Load(0, str(path), True, at, 64, 2, 16, 1), memoryview(b""))
    assert isinstance(answer, frames.Loaded), answer
    return found


def step(worker: Worker, tokens: list[int], outputs: int, *, logits: bool = False) -> tuple[frames.Stepped, bytes]:
    rows = [(len(tokens) - back, 0, len(tokens) - back) for back in range(outputs, 0, -1)]
    command = frames.Step(0, 0, [frames.Run(0, 0, len(tokens))], rows, logits)
    answer, payload = worker.answer(command, memoryview(np.array(tokens, np.int32).tobytes()))
    assert isinstance(answer, frames.Stepped), answer
    return answer, bytes(payload)


def likelihoods(worker: Worker, tokens: list[int]) -> npt.NDArray[np.float64]:
    """Of the token that follows, at TEMPERATURE."""
    worker.answer(frames.StartSequence(0, None), memoryview(b""))
    _, payload = step(worker, tokens, 1, logits=True)
    scaled = np.frombuffer(payload, np.float32).astype(np.float64) / TEMPERATURE
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def distance(counts: npt.NDArray[np.int64], expected: npt.NDArray[np.float64]) -> float:
    """Chi-square, the likeliest tokens one by one and the rest as one."""
    order = np.argsort(-expected)
    shown, rest = order[:SHOWN], order[SHOWN:]
    observed = np.array([*counts[shown], counts[rest].sum()], np.float64)
    wanted = np.array([*expected[shown], expected[rest].sum()]) * counts.sum()
    assert wanted.min() >= 5, "chi-square needs some of each"
    return float(((observed - wanted) ** 2 / wanted).sum())


def test_tokens_come_as_often_as_the_model_says_with_a_guess_and_without(worker: Worker) -> None:
    first = likelihoods(worker, PROMPT)
    guess = int(first.argmax())
    second = likelihoods(worker, [*PROMPT, guess])
    plain = np.zeros(len(first), np.int64)
    behind = np.zeros(len(first), np.int64)
    for seed in range(SEEDS):
        sampling = frames.SamplingAs(TEMPERATURE, 1.0, 0, 0.0, 0.0, 0.0, 1.0, seed, None)
        worker.answer(frames.StartSequence(0, sampling), memoryview(b""))
        answer, _ = step(worker, [*PROMPT, guess], 2)
        (one, _), (other, _) = answer.picked
        plain[one] += 1
        if one == guess:  # it came true, and the token behind it is taken as well
            behind[other] += 1
    assert behind.sum() > SEEDS / 20
    assert distance(plain, first) < CHI_SQUARE
    assert distance(behind, second) < CHI_SQUARE


def test_a_guess_does_not_change_what_is_picked_before_or_behind_it(worker: Worker) -> None:
    likeliest = int(likelihoods(worker, PROMPT).argmax())
    for seed in range(40):
        sampling = frames.SamplingAs(TEMPERATURE, 0.9, 40, 0.01, 0.0, 0.0, 1.0, seed, None)
        worker.answer(frames.StartSequence(0, sampling), memoryview(b""))
        guessed, _ = step(worker, [*PROMPT, likeliest], 2)
        worker.answer(frames.StartSequence(0, sampling), memoryview(b""))
        alone, _ = step(worker, PROMPT, 1)
        assert guessed.picked[0] == alone.picked[0]
        worker.answer(frames.StartSequence(0, sampling), memoryview(b""))
        then, _ = step(worker, [*PROMPT, likeliest], 1)
        assert guessed.picked[1] == then.picked[0]
