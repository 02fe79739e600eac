"""Beginnings of prompts that are computed once: found by keys, kept within a budget, taken up bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.inference import worker_frames as frames
from swarmd.inference.engine import Engine
from swarmd.inference.prefixes import ENTRIES, KEY_BYTES, SECRET_BYTES, Prefixes, State, prefix_keys
from swarmd.inference.worker import Worker
from swarmd.models.slicing import cuts_at
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model, write_shards

SECRET = bytes(SECRET_BYTES)
MINE, OTHER = b"mine", b"other"
WIDTH = 64
CELLS = 256  # llama.cpp rounds up to it
BUDGET = 1 << 30

Tokens = st.lists(st.integers(0, 1 << 30), max_size=20)


# -- keys


@given(Tokens, Tokens, Tokens, st.integers(1, 7))
def test_prompts_share_the_keys_of_the_whole_chunks_that_they_begin_with(
    common: list[int], one: list[int], other: list[int], rows: int
) -> None:
    first = prefix_keys(SECRET, MINE, common + one, rows)
    second = prefix_keys(SECRET, MINE, common + other, rows)
    shared = 0
    while shared < min(len(common + one), len(common + other)) and (common + one)[shared] == (common + other)[shared]:
        shared += 1
    equal = sum(a == b for a, b in zip(first, second, strict=False))
    assert equal == min(len(first), len(second), shared // rows)
    assert first[:equal] == second[:equal]
    assert len(set(first)) == len(first) == max(0, len(common + one) - 1) // rows
    assert all(len(key) == KEY_BYTES for key in first)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    assert len(prefix_keys(SECRET, MINE, [1] * 16, 8)) == 1
    assert len(prefix_keys(SECRET, MINE, [1] * 17, 8)) == 2


def test_another_secret_or_model_has_other_keys() -> None:
    keys = {tuple(prefix_keys(secret, salt, [1, 2, 3], 1)) for secret in (SECRET, b"x" * 32) for salt in (MINE, OTHER)}
    assert len(keys) == 4


# -- what is kept


class Caches:
    """A cache is the list of its keys, a byte for each position."""

    def __init__(self) -> None:
        self.restored: list[tuple[int, int]] = []
        self.saved = 0
        self.whole = self.room = True
        self.size = 10

    def save(self, number: int, shards: Sequence[int]) -> Mapping[int, State] | None:
        self.saved += 1
        return {index: np.zeros(self.size, np.uint8) for index in shards} if self.whole else None

    def restore(self, number: int, states: Mapping[int, State], positions: int) -> bool:
        self.restored.append((number, positions))
        return self.room


def key(name: str) -> list[bytes]:
    """`abc`: the keys of three chunks, each of which says all before it."""
    return [name[: end + 1].encode() for end in range(len(name))]


def test_the_longest_common_beginning_is_taken_up() -> None:
    caches = Caches()
    kept = Prefixes(caches)
    kept.keep(0, key("abcd"), [1], 8, BUDGET)
    assert kept.restore(3, key("abxy"), [1], 8) == 16
    assert kept.restore(4, key("abcde"), [1], 8) == 32
    assert kept.restore(5, key("xabc"), [1], 8) == 0
    assert kept.restore(5, key("abcd"), [1, 2], 8) == 0, "of other shards nothing is kept"
    assert caches.restored == [(3, 16), (4, 32)]
    caches.room = False
    assert kept.restore(6, key("abcd"), [1], 8) == 0


def test_a_chat_that_goes_on_replaces_what_it_had() -> None:
    caches = Caches()
    kept = Prefixes(caches)
    kept.keep(0, key("ab"), [0], 8, BUDGET)
    kept.keep(0, key("abcd"), [0], 8, BUDGET)
    assert kept.size_bytes == 10
    assert kept.restore(0, key("ab"), [0], 8) == 16, "what it began with is still there"
    kept.keep(0, key("abc"), [0], 8, BUDGET)
    assert caches.saved == 2, "all of it was kept already"


def test_the_least_recently_used_goes_when_the_budget_is_full() -> None:
    kept = Prefixes(Caches())
    for name in "abc":
        kept.keep(0, key(name), [0], 8, 30)
    assert kept.restore(0, key("a"), [0], 8) == 8
    kept.keep(0, key("d"), [0], 8, 30)
    assert [kept.restore(0, key(name), [0], 8) for name in "abcd"] == [8, 0, 8, 8]
    kept.shrink(0)
    assert kept.size_bytes == 0 and kept.restore(0, key("a"), [0], 8) == 0


def test_what_is_larger_than_the_budget_or_not_whole_is_not_kept() -> None:
    caches = Caches()
    kept = Prefixes(caches)
    kept.keep(0, key("a"), [0], 8, 9)
    caches.whole = False
    kept.keep(0, key("a"), [0], 8, BUDGET)
    assert kept.size_bytes == 0 and kept.restore(0, key("a"), [0], 8) == 0


@given(
    st.lists(st.tuples(st.booleans(), st.text("ab", min_size=1, max_size=5), st.sampled_from([(0,), (0, 1)])), max_size=30),
    st.integers(0, 60),
)
def test_books_agree_with_what_is_kept(deeds: list[tuple[bool, str, tuple[int, ...]]], budget: int) -> None:
    kept = Prefixes(Caches())
    for keep, name, shards in deeds:
        if keep:
            kept.keep(0, key(name), shards, 8, budget)
        else:
            found = kept.restore(0, key(name), shards, 8)
            assert 0 <= found <= 8 * len(name)
        entries = list(kept._kept.values())
        assert kept.size_bytes == sum(one.size_bytes for one in entries) <= budget
        assert {(k, tuple(one.states)) for one in entries for k in one.keys} >= set(kept._by_key)
        assert all(any(known is one for one in entries) for known in kept._by_key.values())
        assert all(kept._by_key.get((one.keys[-1], tuple(one.states))) for one in entries)


def test_there_is_an_end_to_small_ones_too() -> None:
    kept = Prefixes(Caches())
    for number in range(ENTRIES + 5):
        kept.keep(0, [str(number).encode()], [0], 8, BUDGET)
    assert len(kept._kept) == ENTRIES == len(kept._by_key)


# -- with llama.cpp


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[frames.Load]:
    folder = tmp_path_factory.mktemp("shards")
    data = write_model(folder / "tiny.gguf", TinyModel(layers=4, tokenizer=True)).read_bytes()
    whole = cut_model(data)
    cut = cut_model(data, cuts=cuts_at(whole.header, whole.architecture, (0, 2, 4)))
    found = []
    for index, path in enumerate(write_shards(cut, folder)):
        table = cut.files[index].embedding
        at = table and frames.EmbeddingsAt(table.file_offset, table.type, table.rows, table.columns, table.row_bytes, 1.0)
        found.append(frames.Load(index, str(path), index == 1, at, CELLS, 3, ROWS, 1))
    return found


ROWS = 16


@pytest.fixture
def worker(engine: Engine, shards: list[frames.Load]) -> Worker:
    found = Worker(engine)
    for load in shards:
        answer, _ = found.answer(load, memoryview(b""))
        assert isinstance(answer, frames.Loaded), answer
    return found


def ids(tokens: Sequence[int]) -> memoryview:
    return memoryview(np.array(tokens, np.int32).tobytes())


def say(worker: Worker, command: frames.Command, payload: memoryview = memoryview(b"")) -> tuple[frames.Answer, bytes]:  # noqa: B008
    answer, rest = worker.answer(command, payload)
    assert not isinstance(answer, frames.Failed), answer
    worker.tidy()
    return answer, bytes(rest)


def begin(worker: Worker, sequence: int, prompt: Sequence[int], budget: int = BUDGET) -> int:
    prefix = frames.Prefix(0, 1, ROWS, prefix_keys(SECRET, b"", prompt, ROWS), budget)
    answer, _ = say(worker, frames.StartSequence(sequence, None, prefix))
    assert isinstance(answer, frames.Started)
    return answer.positions


def prefill(worker: Worker, sequence: int, prompt: Sequence[int], start: int) -> bytes:
    """The logits behind the prompt."""
    for at in range(start, len(prompt), ROWS):
        chunk = prompt[at : at + ROWS]
        last = at + len(chunk) == len(prompt)
        outputs = [(len(chunk) - 1, sequence, len(prompt) - 1)] if last else []
        run = frames.Run(sequence, at, len(chunk))
        _, logits = say(worker, frames.Step(0, 1, [run], outputs, last), ids(chunk))
    return logits


PROMPT = [(7 * n) % 29 + 1 for n in range(3 * ROWS + 5)]


def test_a_prefix_taken_up_gives_the_bits_of_one_computed(worker: Worker) -> None:
    assert begin(worker, 0, PROMPT) == 0
    expected = prefill(worker, 0, PROMPT, 0)
    say(worker, frames.Step(0, 1, [frames.Run(0, len(PROMPT), 1)], []), ids([3]))  # a reply
    say(worker, frames.EndSequence(0))
    assert begin(worker, 1, PROMPT) == 3 * ROWS
    assert prefill(worker, 1, PROMPT, 3 * ROWS) == expected
    say(worker, frames.EndSequence(1))
    # Another prompt with the same beginning.
    other = [*PROMPT[: 2 * ROWS + 3], *[5] * ROWS]
    fresh = prefill(worker, 0, other, 0)
    say(worker, frames.EndSequence(0))
    assert begin(worker, 2, other) == 2 * ROWS
    assert prefill(worker, 2, other, 2 * ROWS) == fresh
    # And a stage whose head begins before what it has: another stage has less.
    assert begin(worker, 1, PROMPT) == 3 * ROWS


def test_a_head_that_begins_earlier_than_it_could_gets_the_same(worker: Worker) -> None:
    begin(worker, 0, PROMPT)
    expected = prefill(worker, 0, PROMPT, 0)
    say(worker, frames.EndSequence(0))
    assert begin(worker, 0, PROMPT) == 3 * ROWS
    assert prefill(worker, 0, PROMPT, ROWS) == expected


def test_caches_that_are_full_take_nothing_up_and_break_nothing(worker: Worker) -> None:
    begin(worker, 0, PROMPT)
    expected = prefill(worker, 0, PROMPT, 0)
    say(worker, frames.EndSequence(0))
    say(worker, frames.StartSequence(1, None))
    for at in range(0, CELLS - ROWS, ROWS):
        say(worker, frames.Step(0, 1, [frames.Run(1, at, ROWS)], []), ids([1] * ROWS))
    assert begin(worker, 0, PROMPT) == 0
    say(worker, frames.EndSequence(1))
    say(worker, frames.EndSequence(0))
    assert begin(worker, 0, PROMPT) == 3 * ROWS
    assert prefill(worker, 0, PROMPT, 3 * ROWS) == expected


def test_a_budget_of_nothing_keeps_nothing_and_drops_what_there_is(worker: Worker) -> None:
    begin(worker, 0, PROMPT)
    prefill(worker, 0, PROMPT, 0)
    say(worker, frames.EndSequence(0))
    assert worker._prefixes.size_bytes > 0
    assert begin(worker, 0, PROMPT, budget=0) == 0
    assert worker._prefixes.size_bytes == 0


def test_an_unloaded_shard_takes_what_was_kept_with_it(worker: Worker, shards: list[frames.Load]) -> None:
    begin(worker, 0, PROMPT)
    prefill(worker, 0, PROMPT, 0)
    say(worker, frames.EndSequence(0))
    say(worker, frames.Unload(1))
    say(worker, shards[1])
    assert begin(worker, 0, PROMPT) == 0


def test_the_window_of_a_model_that_slides_keeps_only_what_it_covers(engine: Engine, tmp_path: Path) -> None:
    data = write_model(tmp_path / "tiny.gguf", TinyModel(architecture="gemma3", layers=6, tokenizer=True)).read_bytes()
    cut = cut_model(data)
    (path,) = write_shards(cut, tmp_path)
    table = cut.files[0].embedding
    at = frames.EmbeddingsAt(table.file_offset, table.type, table.rows, table.columns, table.row_bytes, 1.0)
    worker = Worker(engine)
    say(worker, frames.Load(0, str(path), True, at, 2 * CELLS, 3, ROWS, 1))
    for length, kept in ((20 * ROWS + 1, 0), (ROWS + 1, ROWS)):  # the window has 16 positions
        long = [(5 * n) % 23 + 1 for n in range(length)]
        prefix = frames.Prefix(0, 0, ROWS, prefix_keys(SECRET, b"", long, ROWS), BUDGET)
        for expected in (0, kept):
            answer, _ = say(worker, frames.StartSequence(0, None, prefix))
            assert answer == frames.Started(expected)
            for begin_at in range(expected, len(long), ROWS):
                chunk = long[begin_at : begin_at + ROWS]
                say(worker, frames.Step(0, 0, [frames.Run(0, begin_at, len(chunk))], []), ids(chunk))
            say(worker, frames.EndSequence(0))
