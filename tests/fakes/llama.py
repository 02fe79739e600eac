"""The smallest thing that runs a GGUF with the real llama.cpp: for tests that compare, not for use.

It shares only the struct declarations with `swarmd.inference`, so what it proves of a shard file it proves of the file.
"""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from swarmd.inference.native import Library, LogCallback, ToFloat, open_library
from swarmd.models.shard_file import EmbeddingTable

Rows = list[tuple[int, int, int]]
"""(sequence, position, token)"""

_EVAL = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_bool, c.c_void_p)
_BATCH = 128  # rows of the largest step
_CONTEXT = 256


class Llama:
    """The library with a log that tests can read. One per process: llama.cpp has one log callback."""

    def __init__(self) -> None:
        self.library: Library = open_library()
        self.log: list[str] = []
        self._on_log = LogCallback(lambda _level, text, _data: self.log.append(text.decode(errors="replace")))
        self.library.call.llama_log_set(self._on_log, None)
        self.library.call.llama_backend_init()

    def close(self) -> None:
        self.library.call.llama_log_set(LogCallback(), None)

    def vocabulary_size(self, path: Path) -> int:
        """Of a file loaded with `vocab_only`."""
        call = self.library.call
        parameters = call.llama_model_default_params()
        parameters.vocab_only = True
        model = call.llama_model_load_from_file(str(path).encode(), parameters)
        assert model, "".join(self.log[-8:])
        try:
            return int(call.llama_vocab_n_tokens(call.llama_model_get_vocab(model)))
        finally:
            call.llama_model_free(model)

    def tokenize(self, path: Path, text: str) -> list[int]:
        """With a file loaded with `vocab_only`; special tokens are recognised."""
        call = self.library.call
        parameters = call.llama_model_default_params()
        parameters.vocab_only = True
        model = call.llama_model_load_from_file(str(path).encode(), parameters)
        assert model, "".join(self.log[-8:])
        try:
            out = (c.c_int32 * 512)()
            raw = text.encode()
            count = call.llama_tokenize(call.llama_model_get_vocab(model), raw, len(raw), out, len(out), False, True)
            return list(out[:count])
        finally:
            call.llama_model_free(model)

    def embed(self, path: Path, table: EmbeddingTable, tokens: list[int], scale: float) -> npt.NDArray[np.float32]:
        """(tokens, columns): rows of the table in a shard file, converted by ggml itself, as a worker does it."""
        traits = self.library.call.ggml_get_type_traits(table.type).contents
        assert traits.type_size * (table.columns // traits.block_size) == table.row_bytes
        out = np.empty((len(tokens), table.columns), np.float32)
        data = path.read_bytes()[table.file_offset : table.file_offset + table.size_bytes]
        for row, token in zip(out, tokens, strict=True):
            raw = data[token * table.row_bytes : (token + 1) * table.row_bytes]
            if traits.to_float:
                ToFloat(traits.to_float)(raw, row.ctypes.data, table.columns)
            else:  # F32 is the one type without a conversion
                row[:] = np.frombuffer(raw, np.float32)
        return out * np.float32(scale) if scale != 1.0 else out


class NativeModel:
    """A model and a context. `tap`: the tensor whose value `run` returns, the hidden state behind the last layer.

    One thread unless told otherwise: OpenMP's threads spin while they wait for each other, and on a busy machine a chain
    of tiny models with two threads each takes a hundred times as long.
    """

    def __init__(
        self, llama: Llama, path: Path, *, tap: str | None = None, entry: str | None = None, threads: int = 1,
        adapter: Path | None = None, pooling: int | None = None,
    ) -> None:  # fmt: skip
        """`entry`: hidden states go in as the value of this tensor, in place of what llama.cpp makes of tokens. `pooling`:
        for `vectors`, the number of a pooling type of llama.cpp."""
        self._call = call = llama.library.call
        self._tap, self._hidden = tap, None
        self._entry, self._entering = entry, None
        parameters = call.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = call.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, "".join(llama.log[-8:])
        context = call.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max = _CONTEXT, _BATCH, _BATCH, 4
        context.n_outputs_max_per_seq, context.kv_unified = _BATCH, True
        context.n_threads = context.n_threads_batch = threads
        if pooling is not None:
            context.embeddings, context.pooling_type = True, pooling
        self._pooling = pooling
        self._callback = _EVAL(self._on_tensor)  # llama.cpp keeps the pointer
        if tap is not None or entry is not None:
            context.cb_eval = c.cast(self._callback, c.c_void_p)
        self._context = call.llama_init_from_model(self._model, context)
        assert self._context, "".join(llama.log[-8:])
        if adapter is not None:
            self.use(self.adapter(llama, adapter))
        self.width = int(call.llama_model_n_embd(self._model))
        self.vocab = int(call.llama_vocab_n_tokens(call.llama_model_get_vocab(self._model)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._call.llama_free(self._context)
        self._call.llama_model_free(self._model)

    def adapter(self, llama: Llama, path: Path) -> int:
        loaded = self._call.llama_adapter_lora_init(self._model, str(path).encode())
        assert loaded, "".join(llama.log[-8:])
        return int(loaded)

    def use(self, adapter: int | None) -> None:
        """An adapter of this model for all further steps; None: none."""
        count = 0 if adapter is None else 1
        pointers, scales = (c.c_void_p * 1)(adapter), (c.c_float * 1)(1.0)
        assert self._call.llama_set_adapters_lora(self._context, c.addressof(pointers), count, c.addressof(scales)) == 0

    def run(self, rows: Rows, hidden: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """One step; `hidden` (rows, width) in place of the tokens. Returns the tapped value, or the logits (rows, vocab)."""
        self._decode(rows, hidden)
        if self._tap is not None:
            assert self._hidden is not None and self._hidden.shape == (len(rows), self.width)
            return self._hidden
        return np.stack([self._logits(row) for row in range(len(rows))])

    def vectors(self, rows: Rows) -> npt.NDArray[np.float32]:
        """One step of an embedding context: (rows, width) without pooling, else (sequences, width)."""
        self._decode(rows, None)
        if self._pooling == 0:
            return np.stack([self._vector("llama_get_embeddings_ith", row) for row in range(len(rows))])
        return np.stack([self._vector("llama_get_embeddings_seq", one) for one in sorted({one for one, _, _ in rows})])

    def _vector(self, function: str, number: int) -> npt.NDArray[np.float32]:
        found = getattr(self._call, function)
        found.restype, found.argtypes = c.c_void_p, (c.c_void_p, c.c_int32)
        pointer = found(self._context, number)
        return np.ctypeslib.as_array(c.cast(pointer, c.POINTER(c.c_float)), (self.width,)).copy()

    def _decode(self, rows: Rows, hidden: npt.NDArray[np.float32] | None) -> None:
        count = len(rows)
        sequences = [(c.c_int32 * 1)(sequence) for sequence, _, _ in rows]
        arrays = (
            (c.c_int32 * count)(*(token for _, _, token in rows)),
            (c.c_int32 * count)(*(position for _, position, _ in rows)),
            (c.c_int32 * count)(*([1] * count)),
            (c.c_void_p * count)(*(c.addressof(sequence) for sequence in sequences)),
            (c.c_int8 * count)(*([1] * count)),
        )
        from swarmd.inference.native import Batch

        batch = Batch(n_tokens=count)
        token, batch.pos, batch.n_seq_id, batch.seq_id, batch.logits = (c.addressof(array) for array in arrays)
        if hidden is None:
            batch.token = token
        else:
            hidden = np.ascontiguousarray(hidden, np.float32)
            assert hidden.shape == (count, self.width)
            if self._entry is None:
                batch.embd = hidden.ctypes.data
            else:
                nothing = (c.c_int32 * count)()
                batch.token, self._entering = c.addressof(nothing), hidden
        status = self._call.llama_decode(self._context, batch)
        assert status == 0, f"llama_decode returned {status}"
        assert self._entering is None, f"no tensor {self._entry} came by"

    def ends(self, token: int) -> bool:
        return bool(self._call.llama_vocab_is_eog(self._call.llama_model_get_vocab(self._model), token))

    def text(self, tokens: list[int]) -> str:
        """Without special tokens; bytes that are no UTF-8 replaced."""
        vocab, piece, raw = self._call.llama_model_get_vocab(self._model), c.create_string_buffer(64), b""
        for token in tokens:
            size = self._call.llama_token_to_piece(vocab, token, piece, len(piece), 0, False)
            raw += piece.raw[:size]
        return raw.decode(errors="replace")

    def forget(self, sequence: int, position: int) -> None:
        memory = self._call.llama_get_memory(self._context)
        assert self._call.llama_memory_seq_rm(memory, sequence, position, -1)

    def state_bytes(self, sequence: int) -> int:
        """Of a sequence's part of the cache, written out."""
        return int(self._call.llama_state_seq_get_size(self._context, sequence))

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        pointer = self._call.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(c.cast(pointer, c.POINTER(c.c_float)), (self.vocab,)).copy()

    def _on_tensor(self, tensor: int, ask: bool, _data: int | None) -> bool:
        if self._entering is not None and self._call.ggml_get_name(tensor) == (self._entry or "").encode():
            if not ask:
                assert self._call.ggml_nbytes(tensor) == self._entering.nbytes
                self._call.ggml_backend_tensor_set(tensor, self._entering.ctypes.data, 0, self._entering.nbytes)
                self._entering = None
            return True
        if self._tap is None or self._call.ggml_get_name(tensor) != self._tap.encode():
            return not ask
        if not ask:
            size = self._call.ggml_nbytes(tensor)
            self._hidden = np.empty((size // 4 // self.width, self.width), np.float32)
            self._call.ggml_backend_tensor_get(tensor, self._hidden.ctypes.data, 0, size)
        return True
