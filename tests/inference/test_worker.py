"""The worker's answers, in this process: whatever is asked of it, it answers, and it ends with the node."""

from __future__ import annotations

import math
import resource
import socket
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from swarmd.domain.structure import Grammar
from swarmd.inference import worker as worker_module
from swarmd.inference import worker_frames as frames
from swarmd.inference.engine import Engine, LoadedShard
from swarmd.inference.native import EngineMismatch
from swarmd.inference.worker import Worker, main, serve
from swarmd.models.shard_file import vocabulary_file
from swarmd.models.slicing import cuts_at
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model, write_shards

WIDTH = 64
PLAIN = frames.SamplingAs(1.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 7, None)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[frames.Load]]:
    """Two shards of one layer each, and beside them the vocabulary."""
    folder = tmp_path_factory.mktemp("shards")
    data = write_model(folder / "tiny.gguf", TinyModel(layers=2, tokenizer=True)).read_bytes()
    whole = cut_model(data)
    cut = cut_model(data, cuts=cuts_at(whole.header, whole.architecture, (0, 1, 2)))
    (folder / "vocabulary.gguf").write_bytes(vocabulary_file(whole.header))
    found = []
    for index, path in enumerate(write_shards(cut, folder)):
        table = cut.files[index].embedding
        at = table and frames.EmbeddingsAt(table.file_offset, table.type, table.rows, table.columns, table.row_bytes, 1.0)
        found.append(frames.Load(index, str(path), index == 1, at, 64, 2, 16, 1))
    return folder / "vocabulary.gguf", found


@pytest.fixture
def worker(engine: Engine, loads: tuple[Path, list[frames.Load]]) -> Worker:
    found = Worker(engine)
    for load in loads[1]:
        assert found.answer(load, bytearray()) == (frames.Loaded(load.shard, 1, WIDTH), b"")
    return found


def tokens(*ids: int) -> bytearray:
    return bytearray(np.array(ids, np.int32).tobytes())


def failed(worker: Worker, command: frames.Command, payload: bytearray | None = None, kind: str = "engine") -> str:
    answer, rest = worker.answer(command, payload or bytearray())
    assert isinstance(answer, frames.Failed) and answer.kind == kind, answer
    assert rest == b""
    return answer.text


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' | center(2000000000) }}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_a_template_that_wants_all_the_memory_fails_and_leaves_the_limit_as_it_was(
    worker: Worker, loads: tuple[Path, list[frames.Load]], template: str
) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    worker.answer(frames.OpenVocabulary(str(loads[0])), bytearray())
    said = failed(worker, frames.RenderChat(template, [frames.Said("user", "x")]), kind="template")
    assert said == "it needs more than 512 MB of memory"
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_step_through_both_shards_equals_two_steps(worker: Worker) -> None:
    worker.answer(frames.StartSequence(0, PLAIN), bytearray())
    worker.answer(frames.StartSequence(1, PLAIN), bytearray())
    at_once, nothing = worker.answer(frames.Step(0, 1, [frames.Run(0, 0, 3)], [(2, 0, 2)]), tokens(1, 2, 3))
    assert isinstance(at_once, frames.Stepped) and len(at_once.picked) == 1 and nothing == b""
    first, hidden = worker.answer(frames.Step(0, 0, [frames.Run(1, 0, 3)], []), tokens(1, 2, 3))
    assert isinstance(first, frames.Stepped) and first.picked == [] and len(hidden) == 3 * WIDTH * 4
    second, _ = worker.answer(frames.Step(1, 1, [frames.Run(1, 0, 3)], [(2, 1, 2)]), bytearray(hidden))
    assert isinstance(second, frames.Stepped) and second.picked == at_once.picked


def beside(worker: Worker, others: int) -> list[bytes]:
    """Logits of one sequence, token by token, while so many others come and go."""
    worker.answer(frames.StartSequence(0, PLAIN), bytearray())
    found: list[bytes] = []
    for position in range(24):
        answer, logits = worker.answer(frames.Step(0, 1, [frames.Run(0, position, 1)], [(0, 0, position)], True), tokens(5))
        assert isinstance(answer, frames.Stepped), answer
        found.append(bytes(logits))
        for _ in range(others):
            worker.answer(frames.StartSequence(1, PLAIN), bytearray())
            answer, _ = worker.answer(frames.Step(0, 1, [frames.Run(1, 0, 3)], []), tokens(7, 8, 9))
            assert isinstance(answer, frames.Stepped), answer
            worker.answer(frames.EndSequence(1), bytearray())
    worker.answer(frames.EndSequence(0), bytearray())
    return found


@pytest.mark.parametrize("others", [1, 2, 5])
def test_a_reply_has_the_same_bits_however_many_others_come_and_go_beside_it(worker: Worker, others: int) -> None:
    """Their cells are needed again while it runs: what comes next must not be put below what it has."""
    assert beside(worker, others) == beside(worker, 0)


def test_caches_that_cannot_be_copied_stay_where_they_are(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadedShard, "save", lambda self, number: None)
    assert len(beside(worker, 5)) == 24

    def no_memory(self: LoadedShard, number: int) -> None:
        raise MemoryError

    monkeypatch.setattr(LoadedShard, "save", no_memory)
    assert len(beside(worker, 5)) == 24


def greedy(worker: Worker, count: int, *, produced: bytearray | None = None, frequency_penalty: float = 0.0) -> list[int]:
    """What a reply to one token begins with."""
    sampling = frames.SamplingAs(0.0, 1.0, 0, 0.0, frequency_penalty, 0.0, 1.0, 7, None)
    worker.answer(frames.StartSequence(0, sampling), produced or bytearray())
    picked = [1]
    for position in range(count):
        answer, _ = worker.answer(frames.Step(0, 1, [frames.Run(0, position, 1)], [(0, 0, position)]), tokens(picked[-1]))
        assert isinstance(answer, frames.Stepped), answer
        picked.append(answer.picked[0][0])
    worker.answer(frames.EndSequence(0), bytearray())
    return picked[1:]


def test_a_penalty_counts_what_was_said_and_nothing_else(worker: Worker) -> None:
    """llama.cpp's function has the vocabulary's size as a new first argument, and took our window for it: how far back it
    looked was whatever stood in a register, and now and then it cleared gigabytes."""
    plain = greedy(worker, 20)
    assert len(set(plain)) < len(plain), "a model that says something twice"
    for _ in range(5):
        assert greedy(worker, 20, frequency_penalty=1e-9) == plain
        penalised = greedy(worker, 20, frequency_penalty=100.0)
        assert len(set(penalised)) == 20, "nothing twice"
        assert penalised[0] == plain[0]
    said_before = greedy(worker, 20, frequency_penalty=100.0, produced=tokens(plain[0], penalised[3]))
    assert not {plain[0], penalised[3]} & set(said_before), "also what another tail had said"


@pytest.mark.parametrize(
    ("command", "payload", "words"),
    [
        (frames.Step(0, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), tokens(1), "sequence 0 was not started with a sampler"),
        (frames.Step(0, 1, [frames.Run(0, 0, 2)], []), tokens(1), "2 rows came with 1 tokens"),
        (frames.Step(0, 1, [frames.Run(0, 0, 1)], []), tokens(-1), "outside 0"),
        (frames.Step(1, 1, [frames.Run(0, 0, 1)], []), bytearray(4 * WIDTH - 4), "came with 63 numbers"),
        (frames.Step(0, 1, [frames.Run(0, 0, 17)], []), tokens(*range(17)), "1 to 16 rows"),
        (frames.Step(0, 1, [], []), tokens(), "1 to 16 rows"),
        (frames.Step(0, 7, [frames.Run(0, 0, 1)], []), tokens(1), "shard 2 is not loaded"),
        (frames.Tokenize("x"), bytearray(), "the vocabulary is not open"),
        (frames.RenderChat("x", [frames.Said("user", "x")]), bytearray(), "the vocabulary is not open"),
        (frames.OpenVocabulary("/nowhere.gguf"), bytearray(), "cannot read the vocabulary"),
        (frames.Load(5, "/nowhere.gguf", True, None, 64, 1, 8, 1), bytearray(), "cannot load nowhere.gguf"),
    ],
)
def test_a_bad_command_is_a_failure_with_a_sentence(
    worker: Worker, command: frames.Command, payload: bytearray, words: str
) -> None:
    assert words in failed(worker, command, payload)
    worker.answer(frames.StartSequence(0, PLAIN), bytearray())
    assert isinstance(worker.answer(frames.Step(0, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), tokens(1))[0], frames.Stepped)


def test_a_shard_is_loaded_once_and_unloaded_as_often_as_anybody_likes(
    worker: Worker, loads: tuple[Path, list[frames.Load]]
) -> None:
    assert failed(worker, loads[1][0]) == "shard 0 is already loaded"
    for _ in range(2):
        assert worker.answer(frames.Unload(0), bytearray()) == (frames.Done(), b"")
    assert failed(worker, frames.Step(0, 0, [frames.Run(0, 0, 1)], []), tokens(1)) == "shard 0 is not loaded"
    assert isinstance(worker.answer(loads[1][0], bytearray())[0], frames.Loaded)


@pytest.mark.parametrize(
    "sampling",
    [
        frames.SamplingAs(1.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, (1 << 64) - 1, None),
        frames.SamplingAs(1.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, -(1 << 63), None),
        frames.SamplingAs(math.nan, math.nan, -1, 9.0, 0.0, 0.0, 0.0, 1, 10**9),
        frames.SamplingAs(math.inf, -1.0, 1 << 30, 0.0, -100.0, 100.0, 100.0, 1, -3),
    ],
)
def test_absurd_sampling_ends_no_worker(worker: Worker, sampling: frames.SamplingAs) -> None:
    worker.answer(frames.StartSequence(0, sampling), bytearray())
    answer, _ = worker.answer(frames.Step(0, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), tokens(1))
    assert isinstance(answer, frames.Stepped)


def test_numbers_that_are_none_end_no_worker(worker: Worker) -> None:
    worker.answer(frames.StartSequence(0, PLAIN), bytearray())
    hidden = bytearray(np.full((1, WIDTH), np.nan, np.float32).tobytes())
    answer, _ = worker.answer(frames.Step(1, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), hidden)
    assert isinstance(answer, frames.Stepped)


@pytest.mark.parametrize("temperature", [0.0, 1e-40])
def test_next_to_no_temperature_picks_the_likeliest(worker: Worker, temperature: float) -> None:
    worker.answer(frames.StartSequence(0, frames.SamplingAs(temperature, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 1, 1)), bytearray())
    answer, _ = worker.answer(frames.Step(0, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), tokens(1))
    assert isinstance(answer, frames.Stepped)
    token, ((_, picked), (likeliest, best)) = answer.picked[0]
    assert (token, picked) == (likeliest, best)


def test_prompts_and_what_a_template_may_do_wrong(worker: Worker, loads: tuple[Path, list[frames.Load]]) -> None:
    opened, pieces = worker.answer(frames.OpenVocabulary(str(loads[0])), bytearray())
    assert isinstance(opened, frames.VocabularyOpen) and sum(opened.lengths) == len(pieces)
    _, ids = worker.answer(frames.Tokenize("the shard"), bytearray())
    assert 0 < len(np.frombuffer(ids, np.int32)) < len("the shard")
    said = [frames.Said("user", "x")]
    assert "kaput" in failed(worker, frames.RenderChat("{{ raise_exception('kaput') }}", said), kind="template")
    assert "line 1" in failed(worker, frames.RenderChat("{% for %}", said), kind="template")


def test_memory_that_python_does_not_get_is_a_failure_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broke(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(worker_module, "_hidden", broke)
    step = frames.Step(1, 1, [frames.Run(0, 0, 1)], [])
    assert "out of memory" in failed(worker, step, bytearray(4 * WIDTH), kind="memory")


def constrained(**more: Any) -> frames.SamplingAs:
    return frames.SamplingAs(0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 7, None, **more)


def test_a_bias_decides_and_logprobs_stay_those_of_the_model(worker: Worker) -> None:
    def picked(bias: tuple[tuple[int, float], ...]) -> tuple[int, list[tuple[int, float]]]:
        sampling = msgspec.structs.replace(constrained(logit_bias=bias), top_logprobs=1)
        worker.answer(frames.StartSequence(0, sampling), bytearray())
        answer, _ = worker.answer(frames.Step(0, 1, [frames.Run(0, 0, 1)], [(0, 0, 0)]), tokens(5))
        assert isinstance(answer, frames.Stepped), answer
        return answer.picked[0]

    plain, plainly = picked(())
    other, differently = picked(((plain, -100.0),))
    assert other != plain and differently[1] == plainly[1] == (plain, plainly[0][1])
    assert picked(((17, 100.0),))[0] == 17


def test_a_grammar_of_a_stranger_is_refused_and_ends_no_worker(
    worker: Worker, loads: tuple[Path, list[frames.Load]]
) -> None:
    assert failed(worker, frames.CheckGrammar(Grammar(schema="{}"))) == "the vocabulary is not open"
    worker.answer(frames.OpenVocabulary(str(loads[0])), bytearray())
    huge = '{"type": "array", "minItems": 1000000000}'
    for grammar, words in (
        (Grammar(), "it allows nothing"),
        (Grammar(schema=huge), "minItems"),
        (Grammar(schema='{"not": {}}'), "not"),
        (Grammar(schema='{"anyOf": [' + "[" * 50_000), "no JSON"),
    ):
        start = frames.StartSequence(0, constrained(grammar=grammar))
        for command in (frames.CheckGrammar(grammar), start):
            assert words in failed(worker, command, kind="grammar")
    assert worker.answer(frames.CheckGrammar(Grammar(schema='{"type": "object"}')), bytearray()) == (frames.Done(), b"")


def test_a_reply_so_far_that_does_not_fit_its_grammar_is_refused(
    worker: Worker, loads: tuple[Path, list[frames.Load]]
) -> None:
    worker.answer(frames.OpenVocabulary(str(loads[0])), bytearray())
    start = frames.StartSequence(0, constrained(grammar=Grammar(schema='{"const": 1}')))
    assert "does not fit its grammar" in failed(worker, start, tokens(5))
    assert worker.answer(frames.EndSequence(0), bytearray()) == (frames.Done(), b"")


def test_a_sequence_that_goes_on_elsewhere_is_held_to_what_is_left_of_its_grammar(
    worker: Worker, loads: tuple[Path, list[frames.Load]]
) -> None:
    worker.answer(frames.OpenVocabulary(str(loads[0])), bytearray())
    sampling = constrained(grammar=Grammar(schema='{"type": "string", "pattern": "^[a-z]{6}$"}'))

    def go_on(said: list[int], count: int) -> list[int]:
        worker.answer(frames.StartSequence(0, sampling), tokens(*said))
        for position, token in enumerate([5, *said][:-1]):
            worker.answer(frames.Step(0, 1, [frames.Run(0, position, 1)], []), tokens(token))
        found = list(said)
        for position in range(len(said), count):
            step = frames.Step(0, 1, [frames.Run(0, position, 1)], [(0, 0, position)])
            answer, _ = worker.answer(step, tokens([5, *found][-1]))
            assert isinstance(answer, frames.Stepped), answer
            found.append(answer.picked[0][0])
        return found

    whole = go_on([], 4)
    assert go_on(whole[:2], 4) == whole


def conversation(*commands: frames.Command) -> list[frames.Answer]:
    """Says all of it, hangs up, and returns what `serve` had answered by then."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for command in commands:
            ours.sendall(frames.encode(command, 0))
        ours.shutdown(socket.SHUT_WR)
        try:
            serve(theirs)
        except EOFError:
            pass  # as `main` takes it
        else:
            assert not commands, "it ended before the node did"
        theirs.close()
        data = b""
        while piece := ours.recv(65536):
            data += piece
    answers = []
    while data:
        message, payload = frames.sizes(data)
        answers.append(frames.decode_answer(data[8 : 8 + message]))
        data = data[8 + message + payload :]
    return answers


def test_it_says_what_it_is_answers_in_order_and_ends_at_the_end_of_file() -> None:
    first, *rest = conversation(frames.EndSequence(0), frames.Tokenize("x"), frames.Unload(3))
    assert isinstance(first, frames.Ready) and "llama.cpp" in first.description and first.compared > 20
    assert rest == [frames.Done(), frames.Failed("engine", "the vocabulary is not open"), frames.Done()]


def test_an_engine_that_does_not_fit_is_the_last_thing_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatched() -> Engine:
        raise EngineMismatch("the wheel is another one")

    monkeypatch.setattr(worker_module, "Engine", mismatched)
    assert conversation() == [frames.Unusable("the wheel is another one")]


def test_main_ends_well_when_the_node_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda *_: pytest.fail("other files") if "oom_score" not in str(_[0]) else 3)
    monkeypatch.setattr(worker_module.signal, "signal", lambda *_: None)
    ours, theirs = socket.socketpair()
    ours.close()
    assert main(["--fd", str(theirs.detach())]) == 0
