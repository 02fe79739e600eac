"""The worker process: one model, its loaded shards, one command after the other.

Started by the node as `python -m swarmd.inference.worker --fd N`; N is its end of a socket pair. It ends when the node
does (end of file), so a killed node leaves nothing behind. It knows no bus, no peers and no asyncio.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from swarmd.domain.generation import Sampling
from swarmd.domain.structure import Grammar
from swarmd.inference import worker_frames as frames
from swarmd.inference.chat_template import TemplateFailure, render
from swarmd.inference.engine import (
    ContextShape,
    Embeddings,
    Engine,
    EngineFailure,
    Hidden,
    LoadedShard,
    NoCells,
    OutOfMemory,
    Picked,
    Sampler,
    Vocabulary,
)
from swarmd.inference.guidance import Guidance, GuidanceFailure, Guide
from swarmd.inference.native import EngineMismatch
from swarmd.inference.prefixes import Prefixes, State
from swarmd.inference.slots import KEPT, Slots
from swarmd.inference.vectors import vector_rows, vector_sums

OOM_SCORE = 800  # of 1000: when the machine runs out of memory, the kernel takes the worker, not the node

RENDER_BYTES = 512 * 1024 * 1024
"""What rendering may add to the process: a prompt of 8 million characters, at up to 4 bytes each, a dozen times over."""

BUFFER_BYTES = 1 << 16  # a decode step of the widest models (16384 numbers); a prefill chunk gets a buffer of its own


class Worker:
    """Answers commands. Raises nothing that a command could cause: those become `Failed`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shards: dict[int, LoadedShard] = {}
        self._slots = Slots(0, self)
        self._samplers: dict[int, Sampler] = {}
        self._prefixes = Prefixes(self)
        self._coming: dict[int, frames.Prefix] = {}
        """Of sequences: to be kept once it is computed."""
        self._vocabulary: Vocabulary | None = None
        self._pieces: list[bytes] = []
        self._controls: dict[str, int] = {}
        self._ends: list[int] = []
        self._guidance: Guidance | None = None
        """Of this vocabulary, made when the first grammar comes: some tenths of a second for a large one."""

    def answer(self, command: frames.Command, payload: memoryview) -> tuple[frames.Answer, bytes | memoryview]:
        try:
            return self._carry_out(command, payload)
        except OutOfMemory as error:
            return frames.Failed("memory", str(error)), b""
        except EngineFailure as error:
            return frames.Failed("engine", str(error)), b""
        except TemplateFailure as error:
            return frames.Failed("template", str(error)), b""
        except GuidanceFailure as error:
            return frames.Failed("grammar", str(error)), b""
        except MemoryError:
            return frames.Failed("memory", "Python ran out of memory in the worker"), b""

    def _carry_out(self, command: frames.Command, payload: memoryview) -> tuple[frames.Answer, bytes | memoryview]:
        match command:
            case frames.Step():
                return self._step(command, payload)
            case frames.Load():
                return self._load(command), b""
            case frames.Unload(shard):
                loaded = self._shards.pop(shard, None)
                if loaded:
                    loaded.close()
                    self._prefixes = Prefixes(self)
                    self._coming.clear()
            case frames.LoadAdapter() | frames.UnloadAdapter():
                self._change_adapters(command)
            case frames.OpenVocabulary(path):
                return self._open_vocabulary(path)
            case frames.RenderChat():
                return frames.Tokenized(), self._render(command)
            case frames.CheckGrammar(grammar):
                self._guide(grammar).close()
            case frames.Tokenize(text, whole):
                vocabulary = self._need_vocabulary()
                ids = vocabulary.tokenize(text, special=whole, add_bos=whole or vocabulary.adds_bos)
                return frames.Tokenized(), _ids(ids)
            case frames.StartSequence():
                return self._start(command, payload), b""
            case frames.EndSequence(sequence):
                self._end(sequence)
            case frames.Rollback(sequence, position):
                self._slots.roll_back(sequence, position)
            case frames.CopySequence(source, target, end):
                copy = self._slots.slot(target)
                for shard in self._shards.values():
                    shard.copy_sequence(self._slots.slot(source).number, copy.number, end=end)
                copy.end = end
        return frames.Done(), b""

    def _start(self, command: frames.StartSequence, payload: memoryview) -> frames.Started:
        sequence = command.sequence
        self._end(sequence)
        if command.sampling:
            sampler = self._samplers[sequence] = self._sampler(command.sampling)  # `_end` closes it, whatever fails
            for token in np.frombuffer(payload, np.int32).tolist():
                sampler.accept(token)
        return frames.Started(self._take_up(sequence, command.prefix) if command.prefix else 0)

    def _step(self, command: frames.Step, payload: memoryview) -> tuple[frames.Answer, bytes | memoryview]:
        started = time.perf_counter_ns()
        runs = command.runs
        rows = runs[0].count if len(runs) == 1 else sum(run.count for run in runs)
        first = self._need_shard(command.first)
        chain = [first]
        if command.last != command.first:
            chain += [self._need_shard(index) for index in range(command.first + 1, command.last + 1)]
        if command.first == 0:
            tokens = np.frombuffer(payload, np.int32)
            if len(tokens) != rows:
                raise EngineFailure(f"a step of {rows} rows came with {len(tokens)} tokens")
            hidden = first.embed(tokens)
        else:
            hidden = _hidden(payload, rows, first.width)
        if not 0 < rows <= first.shape.rows:
            raise EngineFailure(f"a step has 1 to {first.shape.rows} rows, not {rows}")
        for _, sequence, _ in command.outputs:
            if not command.logits and sequence not in self._samplers:
                raise EngineFailure(f"sequence {sequence} was not started with a sampler")
        runs = [
            frames.Run(self._slots.numbered(run.sequence, run.position, run.count), run.position, run.count) for run in runs
        ]
        outputs = [row for row, _, _ in command.outputs]
        normed = vector_rows(runs, command.vectors) if command.vectors else ()
        for shard in chain:
            if shard.adapter != command.adapter:
                shard.use_adapter(command.adapter)
            try:
                result = shard.step(runs, hidden, outputs, normed)
            except NoCells:
                if not self._slots.make_room():
                    raise
                result = shard.step(runs, hidden, outputs, normed)
            if result is not None:
                hidden = result
        tail = chain[-1]
        if not tail.last:
            elapsed = (time.perf_counter_ns() - started) // 1000
            return frames.Stepped(elapsed, []), hidden.data.cast("B")
        if command.logits:
            data = b"".join(tail.logits(row).tobytes() for row in outputs)
            return frames.Stepped((time.perf_counter_ns() - started) // 1000, []), data
        picked = [self._pick(tail, *output) for output in command.outputs]
        vectors = vector_sums(runs, command.vectors, hidden) if normed else b""
        elapsed = (time.perf_counter_ns() - started) // 1000
        return frames.Stepped(elapsed, [(p.token, list(p.logprobs)) for p in picked]), vectors

    def _pick(self, tail: LoadedShard, row: int, sequence: int, position: int) -> Picked:
        return self._samplers[sequence].pick(tail, row, position)

    def _load(self, command: frames.Load) -> frames.Loaded:
        if command.shard in self._shards:
            raise EngineFailure(f"shard {command.shard} is already loaded")
        # llama.cpp aborts where a step has fewer rows than there are sequences.
        sequences = max(command.sequences, min(command.sequences + KEPT, command.rows))
        if not self._shards:
            self._slots = Slots(sequences, self)
        shape = ContextShape(cells=command.cells, sequences=sequences, rows=command.rows, threads=command.threads)
        at = command.embeddings
        table = at and Embeddings(
            offset_bytes=at.offset_bytes, kind=at.kind, rows=at.rows, width=at.width, row_bytes=at.row_bytes, scale=at.scale
        )
        shard = LoadedShard(self._engine, Path(command.path), last=command.last, embeddings=table, shape=shape)
        self._shards[command.shard] = shard
        return frames.Loaded(command.shard, shard.layers, shard.width)

    def _change_adapters(self, command: frames.LoadAdapter | frames.UnloadAdapter) -> None:
        if isinstance(command, frames.LoadAdapter):
            path = None if command.path is None else Path(command.path)
            self._need_shard(command.shard).load_adapter(command.number, path)
            return
        for shard in self._shards.values():
            shard.unload_adapter(command.number)

    def _open_vocabulary(self, path: str) -> tuple[frames.Answer, bytes]:
        vocabulary = Vocabulary(self._engine, Path(path))
        if self._vocabulary:
            self._vocabulary.close()
        self._vocabulary, self._guidance = vocabulary, None
        pieces = self._pieces = [vocabulary.piece(token, special=False) for token in range(vocabulary.size)]
        self._ends = [token for token in range(vocabulary.size) if vocabulary.ends_generation(token)]
        self._controls = {
            vocabulary.piece(token, special=True).decode(errors="replace"): token
            for token in range(vocabulary.size)
            if vocabulary.is_control(token)
        }
        opened = frames.VocabularyOpen(
            vocabulary.bos, vocabulary.eos, vocabulary.adds_bos, self._ends, [len(piece) for piece in pieces],
            tuple((token, name) for name, token in self._controls.items()),
        )  # fmt: skip
        return opened, b"".join(pieces)

    def _guide(self, grammar: Grammar) -> Guide:
        self._need_vocabulary()
        if self._guidance is None:
            self._guidance = Guidance(
                self._engine.library, pieces=self._pieces, names=self._controls, ends=self._ends
            )
        return self._guidance.guide(grammar)

    def _render(self, command: frames.RenderChat) -> bytes:
        vocabulary = self._need_vocabulary()
        bos, eos = (
            vocabulary.piece(token, special=True).decode(errors="replace") if token >= 0 else ""
            for token in (vocabulary.bos, vocabulary.eos)
        )
        try:
            with _little_memory(RENDER_BYTES):
                text = render(
                    command.template, command.messages, command.tools, bos=bos, eos=eos, now=datetime.now().astimezone()
                )
        except MemoryError:
            raise TemplateFailure(f"it needs more than {RENDER_BYTES >> 20} MB of memory") from None
        # A template that writes the first token itself must not get a second one.
        add_bos = vocabulary.adds_bos and not (bos and text.startswith(bos))
        return _ids(vocabulary.tokenize(text, special=True, add_bos=add_bos))

    def tidy(self) -> None:
        """Keeps prefixes that have just become whole: behind the answer, for which the next stage waits."""
        for sequence in [sequence for sequence, prefix in self._coming.items() if self._is_whole(sequence, prefix)]:
            prefix = self._coming.pop(sequence)
            shards = range(prefix.first, prefix.last + 1)
            number = self._slots.slot(sequence).number
            with contextlib.suppress(MemoryError):  # then it is computed again the next time
                self._prefixes.keep(number, prefix.keys, shards, prefix.rows, prefix.budget_bytes)

    def _is_whole(self, sequence: int, prefix: frames.Prefix) -> bool:
        return self._slots.slot(sequence).end == len(prefix.keys) * prefix.rows

    def _take_up(self, sequence: int, prefix: frames.Prefix) -> int:
        """Positions of a new sequence that are in the cache already."""
        self._prefixes.shrink(prefix.budget_bytes)
        shards = range(prefix.first, prefix.last + 1)
        if not prefix.keys or not prefix.budget_bytes or any(index not in self._shards for index in shards):
            return 0
        slot = self._slots.slot(sequence)
        slot.end = self._prefixes.restore(slot.number, prefix.keys, shards, prefix.rows)
        if prefix.keep and not self._prefixes.knows(prefix.keys, shards):
            self._coming[sequence] = prefix
        return slot.end

    def save(self, number: int, shards: Sequence[int]) -> dict[int, State] | None:
        """For prefixes."""
        states: dict[int, State] = {}
        for index in shards:
            state = self._need_shard(index).save(number)
            if state is None:
                return None
            states[index] = state
        return states

    def restore(self, number: int, states: Mapping[int, State], positions: int) -> bool:
        """For prefixes."""
        for index, state in states.items():
            if not self._need_shard(index).restore(number, state):
                self.forget(number, 0)
                return False
        self.forget(number, positions)
        return True

    def _end(self, sequence: int) -> None:
        self._coming.pop(sequence, None)
        sampler = self._samplers.pop(sequence, None)
        if sampler:
            sampler.close()
        self._slots.end(sequence)

    def forget(self, number: int, position: int) -> None:
        """For slots."""
        for shard in self._shards.values():
            shard.forget(number, position)

    def share(self, number: int, other: int, position: int) -> None:
        """For slots."""
        for shard in self._shards.values():
            shard.copy_sequence(number, other, start=position)

    def move_together(self, numbers: Sequence[int]) -> None:
        """For slots. One shard after the other, so that a copy of one's caches is in memory at a time; where there is no
        room for it, or a sliding window has begun to overwrite them, everything stays where it is."""
        for index, shard in self._shards.items():
            try:
                states = [shard.save(number) for number in numbers]
            except MemoryError:
                return
            whole = [state for state in states if state is not None]
            if len(whole) < len(numbers):
                return
            for number in numbers:
                shard.forget(number)
            for number, state in zip(numbers, whole, strict=True):
                if not shard.restore(number, state):
                    raise EngineFailure(f"the caches of shard {index} did not fit where they had been")

    def _sampler(self, sampling: frames.SamplingAs) -> Sampler:
        tail = next((shard for shard in self._shards.values() if shard.last), None)
        if tail is None:
            raise EngineFailure("tokens are picked behind the last shard, which is not loaded")
        guide = None if sampling.grammar is None else self._guide(sampling.grammar)
        return Sampler(
            self._engine, _sampling(sampling), vocabulary_size=tail.vocabulary_size, cells=tail.shape.cells, guide=guide
        )

    def _need_shard(self, index: int) -> LoadedShard:
        shard = self._shards.get(index)
        if shard is None:
            raise EngineFailure(f"shard {index} is not loaded")
        return shard

    def _need_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            raise EngineFailure("the vocabulary is not open")
        return self._vocabulary


@contextlib.contextmanager
def _little_memory(more: int) -> Generator[None]:
    """While the block runs, the process may grow by `more` bytes; then Python raises MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: then the machine's memory is the limit
        yield
        return
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _ids(tokens: list[int]) -> bytes:
    return np.array(tokens, np.int32).tobytes()


def _hidden(payload: memoryview, rows: int, width: int) -> Hidden:
    hidden = np.frombuffer(payload, np.float32)
    if hidden.size != rows * width:
        raise EngineFailure(f"a step of {rows} rows of width {width} came with {hidden.size} numbers")
    return hidden.reshape(rows, width)


def _sampling(sampling: frames.SamplingAs) -> Sampling:
    return Sampling(
        temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty, presence_penalty=sampling.presence_penalty,
        repeat_penalty=sampling.repeat_penalty, seed=sampling.seed, top_logprobs=sampling.top_logprobs,
        logit_bias=sampling.logit_bias, grammar=sampling.grammar,
    )  # fmt: skip


def _commands(connection: socket.socket) -> Iterator[tuple[frames.Command, memoryview]]:
    """Commands with their payloads, each valid until the next one. Raises EOFError when the node is gone, BadFrame.

    One buffer for nearly all frames, filled by as few system calls as possible. `poll` goes first because a thread that
    sleeps in `recv` is woken for nothing when the node reads our answer: the socket has room again.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    usual = bytearray(BUFFER_BYTES)
    buffer, filled = usual, 0

    def fill(needed: int) -> None:
        nonlocal filled
        while filled < needed:
            poll.poll()
            count = connection.recv_into(memoryview(buffer)[filled:])
            if count == 0:
                raise EOFError
            filled += count

    while True:
        fill(frames.HEADER.size)
        message_bytes, payload_bytes = frames.sizes(buffer)
        body = frames.HEADER.size + message_bytes
        end = body + payload_bytes
        if end > len(buffer):
            buffer = bytearray(end)
            buffer[:filled] = usual[:filled]
        fill(end)
        view = memoryview(buffer)
        yield frames.decode_command(view[frames.HEADER.size : body]), view[body:end]
        memoryview(usual)[: filled - end] = view[end:filled]  # a larger buffer was filled to its end and no further
        buffer, filled = usual, filled - end


def serve(connection: socket.socket) -> None:
    """Answers commands until the node closes its end."""

    def send(answer: frames.Answer, payload: bytes | memoryview = b"") -> None:
        # One write for header and message; the payload follows without a copy when it is large.
        head = frames.encode(answer, len(payload))
        if len(payload) <= BUFFER_BYTES:
            connection.sendall(head + payload)
        else:
            connection.sendall(head)
            connection.sendall(payload)

    try:
        engine = Engine()
    except EngineMismatch as error:
        send(frames.Unusable(str(error)))
        return
    send(frames.Ready(engine.describe(), engine.check.wheel_version, engine.check.compared))
    worker = Worker(engine)
    for command, payload in _commands(connection):
        send(*worker.answer(command, payload))
        worker.tidy()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="swarmd-worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="this process's end of the socket pair")
    fd: int = parser.parse_args(arguments).fd
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the node decides when we end
    with contextlib.suppress(OSError):  # not Linux, or not allowed: then the kernel's own guess stands
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    with socket.socket(fileno=fd) as connection, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
