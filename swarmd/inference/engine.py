"""The engine: one shard as a llama.cpp model and context of its own, plus vocabulary and sampling.

A shard file is a GGUF that llama.cpp runs as a small model (`models/shard_file`). The hidden state goes in as
`llama_batch.embd`, or where an architecture does not take it so as the value of the graph's first tensor (`Family.entry`).
It comes out through `cb_eval` on the tensor `l_out-<last layer>`, the value before the final norm; the last shard yields
logits instead. That this equals the whole model bit for bit is proven by tests, not assumed.

Runs in the worker process only. One `Engine` per process; nothing here is safe for concurrent use, because a worker has
one thread that takes one step after the other.
"""

from __future__ import annotations

import collections
import ctypes as c
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import numpy.typing as npt

from swarmd.domain.generation import Sampling
from swarmd.inference.guidance import Guide
from swarmd.inference.native import (
    FLASH_ATTENTION_AUTO,
    GGML_TYPE_F32,
    LOAD_BY_READING,
    Batch,
    EvalCallback,
    LayoutCheck,
    Library,
    LlamaLogitBias,
    LogCallback,
    ToFloat,
    open_library,
)
from swarmd.inference.prefixes import State
from swarmd.inference.worker_frames import NO_TOKEN, Run
from swarmd.models.architectures import FAMILIES

Hidden = npt.NDArray[np.float32]
"""Shape (rows, width), C-contiguous."""
Tokens = npt.NDArray[np.int32]
"""Shape (rows,)."""

LOG_LINES = 24  # of llama.cpp, kept as evidence for a failed load; its load log ends with the reason
ARCHITECTURE_BYTES = 64  # of its name: the longest llama.cpp knows has 20
PIECE_BYTES = 512  # first guess for one token's text; longer ones are asked for again with the size llama.cpp reports

GREEDY_BELOW = 1e-6
"""A temperature below this picks the likeliest token all the same, and logits divided by it leave float32."""


class EngineFailure(Exception):
    """llama.cpp refused or failed; the message carries its own last log lines."""


class NoCells(EngineFailure):
    """The step needs more KV cells than are free; nothing of it was done."""


class OutOfMemory(EngineFailure):
    """The context or the model did not get its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextShape:
    """How large the caches and buffers of a shard are."""

    cells: int
    """KV cells, shared by all sequences."""
    sequences: int
    """Most sequences that may be in use at once."""
    rows: int
    """Most rows of one step."""
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Where a first shard's embedding table lies in its file, and what its rows are multiplied with."""

    offset_bytes: int
    kind: int
    """ggml type id."""
    rows: int
    width: int
    row_bytes: int
    scale: float


class Engine:
    """The wheel's library, initialised once per process. Raises EngineMismatch when it is not the known one."""

    def __init__(self) -> None:
        self.library: Library = open_library()
        self._lines: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._on_log = LogCallback(self._keep_line)  # llama.cpp keeps the pointer, so this object must live on
        self.library.call.llama_log_set(self._on_log, None)
        self.library.call.llama_backend_init()

    @property
    def check(self) -> LayoutCheck:
        return self.library.check

    def describe(self) -> str:
        """Version of llama.cpp and the processor features it uses, one line."""
        call = self.library.call
        return f"llama.cpp {call.llama_version().decode()}; {call.llama_print_system_info().decode().strip(' |')}"

    def evidence(self) -> str:
        """The last lines llama.cpp logged, for an error message."""
        return " / ".join(line for line in list(self._lines)[-4:] if line)

    def _keep_line(self, level: int, text: bytes, _data: int) -> None:
        line = text.decode(errors="replace").strip()
        if line:
            self._lines.append(line)


class Tap:
    """Takes one tensor's value out of a running graph, and ends the run there; or puts one in, or both.

    llama.cpp offers every graph node to `cb_eval`: first "do you want it?", and if so, again when it is computed. There
    are some 34 nodes per layer, so the answer "no" must cost next to nothing: it comes from a C-implemented dict lookup on
    the tensor's address, and only unknown addresses reach Python (`_Nodes.__missing__`). Addresses belong to one graph
    and are reused by the next, so a remembered "no" can become wrong; then a wanted tensor is not seen, `missed` or `take`
    says so, and the step is run again with nothing remembered. A wrong "yes" cannot happen: names are compared each time.
    """

    def __init__(self, library: Library, *, tensor: str | None, entry: str | None, width: int) -> None:
        """`tensor`: whose value is taken. `entry`: whose value is replaced (`Family.entry`)."""
        self._nodes = _Nodes(library, tensor, entry, width)
        self.callback = EvalCallback(self._nodes.__getitem__)

    def want(self, *, wanted: bool, goes_on: bool = False) -> None:
        """Whether the next steps are to be tapped, which they are at first; `goes_on`: and run to their end."""
        self._nodes.wanted_now, self._nodes.goes_on = wanted, goes_on

    def enter(self, hidden: Hidden) -> None:
        """What the entry's value is to be in the next step. It must outlive that."""
        self._nodes.entering = hidden

    @property
    def missed(self) -> bool:
        """Whether the step that has just run did not have its entry replaced: what it computed is worth nothing."""
        return self._nodes.entering is not None

    def take(self) -> Hidden | None:
        """The value captured in the last step; None when the wanted tensor did not come by."""
        value, self._nodes.value = self._nodes.value, None
        return value

    def forget_graph(self) -> None:
        self._nodes.clear()


class _Nodes(dict[int, bool]):
    def __init__(self, library: Library, wanted: str | None, entry: str | None, width: int) -> None:
        super().__init__()
        self._call, self._width = library.call, width
        self._names = frozenset(name.encode() for name in (wanted, entry) if name is not None)
        self._wanted = None if wanted is None else wanted.encode()
        self._announced = False
        self.wanted_now, self.goes_on = True, False
        self.value: Hidden | None = None
        self.entering: Hidden | None = None

    def __missing__(self, tensor: int) -> bool:
        name = self._call.ggml_get_name(tensor)
        if name not in self._names:
            self[tensor] = False
            return False
        if name == self._wanted and not self.wanted_now:
            return False  # not remembered: the next step may want it
        if not self._announced:
            self._announced = True
            return True
        self._announced = False
        size = self._call.ggml_nbytes(tensor)
        if name != self._wanted:
            hidden = self.entering
            if hidden is not None and hidden.nbytes == size:
                self._call.ggml_backend_tensor_set(tensor, _address(hidden), 0, size)
                self.entering = None
            return True  # the graph goes on
        value = np.empty((size // (4 * self._width), self._width), np.float32)
        self._call.ggml_backend_tensor_get(tensor, _address(value), 0, size)
        self.value = value
        return self.goes_on  # else the rest of the graph, a norm and an output matrix, is not computed


class _BatchBuffers:
    """A llama_batch over numpy buffers, so that filling it is a few vector operations instead of a loop per row."""

    def __init__(self, rows: int, *, tokens: bool) -> None:
        """`tokens`: what goes in are tokens, all 0, because hidden states come in another way (`Tap.enter`)."""
        self._tokens = np.zeros(rows, np.int32) if tokens else None
        self.positions = np.zeros(rows, np.int32)
        self.sequences = np.zeros(rows, np.int32)
        self.counts = np.ones(rows, np.int32)
        self.outputs = np.zeros(rows, np.int8)
        self.pointers = (self.sequences.ctypes.data + 4 * np.arange(rows, dtype=np.uint64)).astype(np.uint64)
        self.batch = Batch(
            n_tokens=0, token=None if self._tokens is None else self._tokens.ctypes.data, embd=None,
            pos=self.positions.ctypes.data, n_seq_id=self.counts.ctypes.data,
            seq_id=self.pointers.ctypes.data, logits=self.outputs.ctypes.data,
        )  # fmt: skip

    def fill(self, runs: Sequence[Run], hidden: Hidden, outputs: Sequence[int] | None) -> Batch:
        """`outputs`: the row numbers wanted; None for all. `hidden` must outlive the decode call."""
        if len(hidden) == len(runs) == 1:  # a token of one sequence: half as long, and this is a part of every token's time
            run = runs[0]
            self.positions[0], self.sequences[0] = run.position, run.sequence
            self.outputs[0] = outputs is None or len(outputs)
            at = 1
        else:
            at = self._fill_rows(runs, outputs)
        self.batch.n_tokens = at
        if self._tokens is None:
            self.batch.embd = _address(hidden)
        return self.batch

    def _fill_rows(self, runs: Sequence[Run], outputs: Sequence[int] | None) -> int:
        at = 0
        for run in runs:
            end = at + run.count
            self.positions[at:end] = np.arange(run.position, run.position + run.count, dtype=np.int32)
            self.sequences[at:end] = run.sequence
            at = end
        if outputs is None:
            self.outputs[:at] = 1
        else:
            self.outputs[:at] = 0
            self.outputs[list(outputs)] = 1
        return at


class LoadedShard:
    """One shard in memory: model, context, caches. `close` gives the memory back; the worker goes on."""

    def __init__(
        self, engine: Engine, path: Path, *, last: bool, embeddings: Embeddings | None, shape: ContextShape
    ) -> None:
        """Raises OutOfMemory or EngineFailure."""
        self._engine, self._call, self.shape, self.last = engine, engine.library.call, shape, last
        parameters = self._call.llama_model_default_params()
        parameters.n_gpu_layers = 0
        # Most quantised weights are packed anew for the processor's vector instructions. A mapping of the file would stay in
        # memory beside them: twice the size.
        parameters.load_mode = LOAD_BY_READING
        self._model: int = self._call.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise _load_failure(engine, f"llama.cpp cannot load {path.name}")
        self.width: int = self._call.llama_model_n_embd(self._model)
        self.layers: int = self._call.llama_model_n_layer(self._model)
        self._window: int = self._call.llama_model_n_swa(self._model)
        self.vocabulary_size: int = self._call.llama_vocab_n_tokens(self._call.llama_model_get_vocab(self._model))
        family = FAMILIES.get(self._architecture())
        self._entry = family.entry if family else None
        out = "result_norm" if last else f"l_out-{self.layers - 1}"
        self._tap = Tap(engine.library, tensor=out, entry=self._entry, width=self.width)
        self.context: int = self._call.llama_init_from_model(self._model, self._context_parameters())
        if not self.context:
            self._call.llama_model_free(self._model)
            raise OutOfMemory(f"no memory for the context of {path.name}: {engine.evidence()}")
        self._memory = self._call.llama_get_memory(self.context)
        self._buffers = _BatchBuffers(shape.rows, tokens=self._entry is not None)
        self.adapter = 0
        """Applied to all steps, by the worker's number; 0: none."""
        self._adapters: dict[int, int | None] = {0: None}
        """llama.cpp's, by number; None: it changes nothing in these layers."""
        self._lookup = _Lookup(engine.library, path, embeddings) if embeddings else None

    def _architecture(self) -> str:
        name = c.create_string_buffer(ARCHITECTURE_BYTES)
        self._call.llama_model_meta_val_str(self._model, b"general.architecture", name, len(name))
        return name.value.decode(errors="replace")

    def _context_parameters(self) -> Any:
        parameters = self._call.llama_context_default_params()
        shape = self.shape
        parameters.n_ctx, parameters.n_seq_max = shape.cells, shape.sequences
        parameters.n_batch = parameters.n_ubatch = shape.rows
        # Every row of an inner shard is an output; of the last one only the rows to sample from.
        parameters.n_outputs_max = parameters.n_outputs_max_per_seq = shape.rows
        parameters.kv_unified = True  # one pool of cells for all sequences: a short chat leaves room for a long one
        parameters.n_threads = parameters.n_threads_batch = shape.threads
        parameters.flash_attn_type = FLASH_ATTENTION_AUTO
        parameters.cb_eval = c.cast(self._tap.callback, c.c_void_p)
        return parameters

    def embed(self, tokens: Tokens) -> Hidden:
        """Rows of the embedding table as the architecture feeds them to layer 0. Raises EngineFailure on a bad token id."""
        if self._lookup is None:
            raise AssertionError("only the first shard has the embedding table")
        return self._lookup.rows(tokens)

    def step(
        self, runs: Sequence[Run], hidden: Hidden, outputs: Sequence[int] | None = None, normed: Sequence[int] = ()
    ) -> Hidden | None:
        """Runs all rows through this shard's layers.

        hidden: (rows, width) float32. Returns the hidden state behind the last layer, same shape. The last shard returns
        that of the rows in `normed` behind the final norm, (len(normed), width), or None when there are none; the logits of
        the rows in `outputs` (None: of all) can then be read. Raises EngineFailure (no free KV cells, bad batch).
        """
        if not self.last:
            return self._tapped(self._buffers.fill(runs, hidden, None), runs, hidden, len(hidden))
        outputs = range(len(hidden)) if outputs is None else outputs
        self._tap.want(wanted=bool(normed), goes_on=bool(outputs))
        wanted = sorted({*outputs, *normed}) if normed else outputs
        batch = self._buffers.fill(runs, hidden, wanted)
        value = self._tapped(batch, runs, hidden, len(wanted) if normed else None)
        if value is None or len(wanted) == len(normed):
            return value
        place = {row: at for at, row in enumerate(wanted)}
        return value[[place[row] for row in normed]]

    def _tapped(self, batch: Batch, runs: Sequence[Run], hidden: Hidden, rows: int | None) -> Hidden | None:
        """`rows`: that are to come out; None: nothing is."""
        complete, value = self._run(batch, hidden, rows)
        if not complete:
            self._tap.forget_graph()
            for run in runs:
                self.forget(run.sequence, run.position)
            complete, value = self._run(batch, hidden, rows)
            if not complete:
                raise EngineFailure(f"the hidden state of layer {self.layers - 1} did not go in or come out of llama.cpp")
        return value

    def _run(self, batch: Batch, hidden: Hidden, rows: int | None) -> tuple[bool, Hidden | None]:
        """Whether the hidden states went in and came out, and what came out."""
        if self._entry is not None:
            self._tap.enter(hidden)
        self._decode(batch)
        value = self._tap.take()
        came_out = rows is None or (value is not None and len(value) == rows)
        return came_out and not self._tap.missed, value

    def _decode(self, batch: Batch) -> None:
        status = self._call.llama_decode(self.context, batch)
        if status == 1:
            raise NoCells("the KV cache has no free cells for this step")
        if status != 0:
            raise EngineFailure(f"llama_decode failed with {status}: {self._engine.evidence()}")

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Shape (vocabulary_size,), float32: a view that the next step overwrites. Last shard only."""
        address = self._call.llama_get_logits_ith(self.context, row)
        if not address:
            raise EngineFailure(f"row {row} was not an output of the last step")
        return np.ctypeslib.as_array(c.cast(address, c.POINTER(c.c_float)), (self.vocabulary_size,))

    def forget(self, sequence: int, position: int = 0) -> None:
        """Drops the cache of a sequence from `position` on: rollback, or release with 0. Raises EngineFailure."""
        if not self._call.llama_memory_seq_rm(self._memory, sequence, position if position > 0 else -1, -1):
            raise EngineFailure(f"sequence {sequence} cannot be rolled back to {position}")

    def copy_sequence(self, source: int, target: int, *, start: int = -1, end: int = -1) -> None:
        """Gives `target` the cache of positions [start, end) of `source`, without computing it; -1: from or to its end."""
        self._call.llama_memory_seq_cp(self._memory, source, target, start, end)

    def save(self, sequence: int) -> State | None:
        """A copy of a sequence's cache; None where it may not be whole: what lies behind a sliding window is overwritten
        whenever somebody needs the room."""
        if self._window and self._call.llama_memory_seq_pos_max(self._memory, sequence) >= self._window:
            return None
        state = np.empty(self._call.llama_state_seq_get_size(self.context, sequence), np.uint8)
        written = self._call.llama_state_seq_get_data(self.context, state.ctypes.data, state.nbytes, sequence)
        return state if written == state.nbytes else None

    def restore(self, sequence: int, state: State) -> bool:
        """The cache as it was saved, in cells that are free now. False: there are not enough, and nothing is changed."""
        read = self._call.llama_state_seq_set_data(self.context, state.ctypes.data, state.nbytes, sequence)
        return bool(read == state.nbytes)

    def load_adapter(self, number: int, path: Path | None) -> None:
        """`path`: its slice for these layers; None: it changes none of them. Raises OutOfMemory or EngineFailure."""
        loaded: int | None = None
        if path is not None:
            loaded = self._call.llama_adapter_lora_init(self._model, str(path).encode())
            if not loaded:
                raise _load_failure(self._engine, f"llama.cpp cannot load the adapter {path.name}")
        self._adapters[number] = loaded

    def unload_adapter(self, number: int) -> None:
        loaded = self._adapters.pop(number, None)
        if self.adapter == number:
            self._set_adapter(None)
            self.adapter = 0
        if loaded:
            self._call.llama_adapter_lora_free(loaded)

    def use_adapter(self, number: int) -> None:
        """For all steps from now on; 0: none. llama.cpp plans its memory anew, which takes as long as some steps."""
        if number not in self._adapters:
            raise EngineFailure(f"adapter {number} is not loaded")
        wanted = self._adapters[number]
        if wanted != self._adapters[self.adapter]:
            self._set_adapter(wanted)
        self.adapter = number

    def _set_adapter(self, loaded: int | None) -> None:
        adapters, scales = (c.c_void_p * 1)(loaded), (c.c_float * 1)(1.0)
        count = 0 if loaded is None else 1
        if self._call.llama_set_adapters_lora(self.context, c.addressof(adapters), count, c.addressof(scales)) != 0:
            raise EngineFailure(f"llama.cpp does not take an adapter: {self._engine.evidence()}")
        if self._tap:
            self._tap.forget_graph()  # the next one has other nodes, at addresses that were others' before

    def close(self) -> None:
        self._call.llama_free(self.context)
        self._call.llama_model_free(self._model)
        if self._lookup:
            self._lookup.close()


class _Lookup:
    """The embedding table, memory-mapped; rows become float32 by ggml's own conversion, so they equal what it computes."""

    def __init__(self, library: Library, path: Path, table: Embeddings) -> None:
        self._table = table
        self._scale = np.float32(table.scale)
        size = table.rows * table.row_bytes
        self._bytes = np.memmap(path, np.uint8, "r", table.offset_bytes, (size,))
        self._address = self._bytes.ctypes.data
        traits = library.call.ggml_get_type_traits(table.kind).contents
        self._to_float: Callable[[int, int, int], None] | None = ToFloat(traits.to_float) if traits.to_float else None
        if self._to_float is None and table.kind != GGML_TYPE_F32:
            raise EngineFailure(f"llama.cpp cannot convert embeddings of ggml type {table.kind}")

    def rows(self, tokens: Tokens) -> Hidden:
        table = self._table
        out = np.empty((len(tokens), table.width), np.float32)
        target = _address(out) if len(tokens) else 0
        for i, token in enumerate(tokens.tolist()):
            if not 0 <= token < table.rows:
                raise EngineFailure(f"token id {token} is outside 0..{table.rows - 1}")
            start = token * table.row_bytes
            if self._to_float is None:
                out[i] = self._bytes[start : start + table.row_bytes].view(np.float32)
            else:
                self._to_float(self._address + start, target, table.width)
            target += 4 * table.width
        if table.scale != 1.0:
            out *= self._scale
        return out

    def close(self) -> None:
        del self._bytes


class Vocabulary:
    """Tokenizer and token texts of a model, from its vocabulary-only file."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Raises EngineFailure."""
        self._call = engine.library.call
        parameters = self._call.llama_model_default_params()
        parameters.vocab_only, parameters.n_gpu_layers = True, 0
        self._model: int = self._call.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise _load_failure(engine, f"llama.cpp cannot read the vocabulary {path.name}")
        self._vocab: int = self._call.llama_model_get_vocab(self._model)
        self.size: int = self._call.llama_vocab_n_tokens(self._vocab)
        self.bos: int = self._call.llama_vocab_bos(self._vocab)
        self.eos: int = self._call.llama_vocab_eos(self._vocab)
        self.adds_bos: bool = self._call.llama_vocab_get_add_bos(self._vocab)

    def tokenize(self, text: str, *, special: bool, add_bos: bool) -> list[int]:
        """Token ids. `special`: the text may contain control tokens, as a rendered chat template does."""
        data = text.encode()
        room = len(data) + 8  # at most one token per byte, and a few added ones
        ids = np.empty(room, np.int32)
        count = self._call.llama_tokenize(self._vocab, data, len(data), ids.ctypes.data, room, add_bos, special)
        if count < 0:
            raise EngineFailure("llama.cpp needs more tokens than the text has bytes")
        return [int(token) for token in ids[:count]]

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes a token stands for; control tokens are empty unless `special`."""
        buffer = c.create_string_buffer(PIECE_BYTES)
        size = self._call.llama_token_to_piece(self._vocab, token, buffer, PIECE_BYTES, 0, special)
        if size < 0:
            buffer = c.create_string_buffer(-size)
            size = self._call.llama_token_to_piece(self._vocab, token, buffer, -size, 0, special)
        return buffer.raw[:size]

    def is_control(self, token: int) -> bool:
        return bool(self._call.llama_vocab_is_control(self._vocab, token))

    def ends_generation(self, token: int) -> bool:
        return bool(self._call.llama_vocab_is_eog(self._vocab, token))

    def close(self) -> None:
        self._call.llama_model_free(self._model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A sampled token. `logprobs`: of the picked one first, then the likeliest; empty unless asked for."""

    token: int
    logprobs: tuple[tuple[int, float], ...] = ()


class Sampler:
    """llama.cpp's sampler chain for one sequence. Randomness comes from (seed, position) alone, never from history."""

    def __init__(
        self, engine: Engine, sampling: Sampling, *, vocabulary_size: int, cells: int, guide: Guide | None = None
    ) -> None:
        """`guide`: of `sampling.grammar`; closed along with this."""
        call = self._call = engine.library.call
        self._sampling, self._guide = sampling, guide
        self._chain: int = call.llama_sampler_chain_init(call.llama_sampler_chain_default_params())

        def add(sampler: int) -> None:
            call.llama_sampler_chain_add(self._chain, sampler)

        if sampling.logit_bias:  # first, as in llama.cpp's own server: penalties and the rest see biased logits
            pairs = (LlamaLogitBias * len(sampling.logit_bias))(*sampling.logit_bias)
            add(call.llama_sampler_init_logit_bias(vocabulary_size, len(pairs), pairs))
        if sampling.repeat_penalty != 1.0 or sampling.frequency_penalty != 0.0 or sampling.presence_penalty != 0.0:
            # Over everything this generation has produced, as the OpenAI contract words its penalties.
            add(
                call.llama_sampler_init_penalties(
                    vocabulary_size, cells, sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
                )
            )
        self._greedy = sampling.temperature < GREEDY_BELOW
        if self._greedy:
            add(call.llama_sampler_init_greedy())
            return
        if sampling.top_k > 0:
            add(call.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1.0:
            add(call.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0.0:
            add(call.llama_sampler_init_min_p(sampling.min_p, 1))
        add(call.llama_sampler_init_temp(sampling.temperature))

    def pick(self, shard: LoadedShard, row: int, position: int) -> Picked:
        """Samples the token that follows `position` from the logits of `row` of the shard's last step."""
        logprobs = self._raw_logprobs(shard, row) if self._sampling.top_logprobs is not None else None
        if self._guide is not None:
            allowed = self._guide.allowed()
            if allowed is None:
                return Picked(token=NO_TOKEN)
            shard.logits(row)[~allowed] = -np.inf
        if self._greedy:
            token = int(self._call.llama_sampler_sample(self._chain, shard.context, row))
        else:
            self._call.llama_sampler_chain_add(
                self._chain, self._call.llama_sampler_init_dist(keyed_seed(self._sampling.seed, position))
            )
            token = int(self._call.llama_sampler_sample(self._chain, shard.context, row))
            last = self._call.llama_sampler_chain_n(self._chain) - 1
            self._call.llama_sampler_free(self._call.llama_sampler_chain_remove(self._chain, last))
        if self._guide is not None and not self._guide.accept(token):
            return Picked(token=NO_TOKEN)
        if logprobs is None:
            return Picked(token=token)
        count = self._sampling.top_logprobs or 0
        likeliest = np.argsort(-logprobs, kind="stable")[:count]
        shown = [token, *(int(other) for other in likeliest)]
        return Picked(token=token, logprobs=tuple((t, float(logprobs[t])) for t in shown))

    def accept(self, token: int) -> None:
        """Counts a token that was produced elsewhere, so that penalties and grammar are right after a replay. Raises
        EngineFailure when the grammar has no place for it."""
        if self._guide is not None and not self._guide.accept(token):
            raise EngineFailure("the reply so far does not fit its grammar")
        self._call.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        self._call.llama_sampler_free(self._chain)
        if self._guide is not None:
            self._guide.close()

    @staticmethod
    def _raw_logprobs(shard: LoadedShard, row: int) -> npt.NDArray[np.float64]:
        logits = shard.logits(row).astype(np.float64)
        logits -= logits.max()
        return logits - np.log(np.exp(logits).sum())


def keyed_seed(seed: int, position: int) -> int:
    """32 bits from (request seed, position): the same on every node, so any tail continues identically (design, 7)."""
    low = seed % (1 << 64)  # any number will do: a peer's request must not be able to end the worker
    digest = blake3.blake3(low.to_bytes(8, "little") + position.to_bytes(8, "little")).digest(4)
    return int.from_bytes(digest, "little")


def _address(array: Hidden) -> int:
    """Where an array's numbers begin. `array.ctypes.data` says the same, at many times the cost."""
    return c.addressof(c.c_char.from_buffer(array.data))


def _load_failure(engine: Engine, what: str) -> EngineFailure:
    evidence = engine.evidence()
    memory = any(word in evidence.lower() for word in ("alloc", "out of memory", "cannot allocate"))
    return (OutOfMemory if memory else EngineFailure)(f"{what}: {evidence}")
