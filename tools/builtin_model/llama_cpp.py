"""A small ctypes door to llama.cpp in the `xllamacpp` wheel, enough to ask a model questions on the CPU.

The tools use it so that they run without a node. The struct layouts belong to one version of the wheel (2026.10.11549);
the check of known defaults below refuses any other.
"""

import ctypes as C
from pathlib import Path

import numpy as np
import xllamacpp.xllamacpp as wheel

I32, U32, F32, PTR, FLAG = C.c_int32, C.c_uint32, C.c_float, C.c_void_p, C.c_bool
ERROR_LEVEL = 4  # ggml's log level for errors


class ModelParams(C.Structure):
    """llama_model_params; only the fields this file sets or checks have to be right, and the size."""

    _fields_ = [
        ("devices", PTR), ("tensor_buft_overrides", PTR), ("n_gpu_layers", I32), ("split_mode", I32),
        ("load_mode", I32), ("lazy_mode", I32), ("main_gpu", I32), ("tensor_split", PTR), ("progress_callback", PTR),
        ("progress_callback_user_data", PTR), ("kv_overrides", PTR), ("vocab_only", FLAG), ("check_tensors", FLAG),
        ("use_extra_bufts", FLAG), ("no_host", FLAG), ("no_alloc", FLAG), ("load_mtp", FLAG),
    ]  # fmt: skip


class ContextParams(C.Structure):
    """llama_context_params. `unnamed` is 8 bytes of this build between type_v and embeddings, zero by default."""

    _fields_ = [
        ("n_ctx", U32), ("n_batch", U32), ("n_ubatch", U32), ("n_seq_max", U32), ("n_rs_seq", U32),
        ("n_outputs_max", U32), ("n_outputs_max_per_seq", U32), ("n_threads", I32), ("n_threads_batch", I32),
        ("ctx_type", I32), ("rope_scaling_type", I32), ("pooling_type", I32), ("attention_type", I32),
        ("flash_attn_type", I32), ("rope_freq_base", F32), ("rope_freq_scale", F32), ("yarn_ext_factor", F32),
        ("yarn_attn_factor", F32), ("yarn_beta_fast", F32), ("yarn_beta_slow", F32), ("yarn_orig_ctx", U32),
        ("defrag_thold", F32), ("cb_eval", PTR), ("cb_eval_user_data", PTR), ("type_k", I32), ("type_v", I32),
        ("abort_callback", PTR), ("abort_callback_data", PTR), ("unnamed", C.c_uint64), ("embeddings", FLAG),
        ("offload_kqv", FLAG), ("no_perf", FLAG), ("op_offload", FLAG), ("swa_full", FLAG), ("kv_unified", FLAG),
        ("samplers", PTR), ("n_samplers", C.c_size_t), ("ctx_other", PTR),
    ]  # fmt: skip


class Batch(C.Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", I32), ("token", C.POINTER(I32)), ("embd", C.POINTER(F32)), ("pos", C.POINTER(I32)),
        ("n_seq_id", C.POINTER(I32)), ("seq_id", C.POINTER(C.POINTER(I32))), ("logits", C.POINTER(C.c_int8)),
    ]  # fmt: skip


library = C.CDLL(wheel.__file__)


def function(name: str, result: object, *args: object):
    """A C function with its types set."""
    f = getattr(library, name)
    f.restype, f.argtypes = result, args
    return f


LogCallback = C.CFUNCTYPE(None, C.c_int, C.c_char_p, PTR)
model_defaults = function("llama_model_default_params", ModelParams)
context_defaults = function("llama_context_default_params", ContextParams)
load_model = function("llama_model_load_from_file", PTR, C.c_char_p, ModelParams)
new_context = function("llama_init_from_model", PTR, PTR, ContextParams)
batch_init = function("llama_batch_init", Batch, I32, I32, I32)
decode = function("llama_decode", I32, PTR, Batch)
logits_ith = function("llama_get_logits_ith", C.POINTER(F32), PTR, I32)
get_vocab = function("llama_model_get_vocab", PTR, PTR)
vocab_size = function("llama_vocab_n_tokens", I32, PTR)
is_end = function("llama_vocab_is_eog", FLAG, PTR, I32)
get_memory = function("llama_get_memory", PTR, PTR)
memory_clear = function("llama_memory_clear", None, PTR, FLAG)
tokenize = function("llama_tokenize", I32, PTR, C.c_char_p, I32, C.POINTER(I32), I32, FLAG, FLAG)
token_to_piece = function("llama_token_to_piece", I32, PTR, I32, C.c_char_p, I32, I32, FLAG)

problems: list[str] = []


def _on_log(level: int, text: bytes, _: object) -> None:
    if level >= ERROR_LEVEL:
        problems.append(text.decode(errors="replace").strip())


_keep_callback = LogCallback(_on_log)  # C holds only its address, so Python must keep it alive
function("llama_log_set", None, LogCallback, PTR)(_keep_callback, None)
function("llama_backend_init", None)()

_d = context_defaults()
if (_d.n_batch, _d.n_ubatch, _d.type_k, _d.type_v, _d.yarn_ext_factor) != (2048, 512, 1, 1, -1.0):
    raise ImportError("this xllamacpp wheel is not the version the struct layouts were written for")


class Llama:
    """One model with one context, for one conversation at a time."""

    def __init__(self, path: Path, n_ctx: int = 1024, threads: int = 2) -> None:
        model_params = model_defaults()
        model_params.n_gpu_layers = 0
        self.model = load_model(str(path).encode(), model_params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path.name}: {'; '.join(problems[-3:])}")
        params = context_defaults()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_outputs_max_per_seq = n_ctx
        params.n_threads = params.n_threads_batch = threads
        self.context = new_context(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot make a context: {'; '.join(problems[-3:])}")
        self.vocab = get_vocab(self.model)
        self.n_vocab = vocab_size(self.vocab)
        self.batch = batch_init(n_ctx, 0, 1)

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text; `special` says whether chat marks in it count as marks."""
        data = text.encode()
        room = len(data) + 8
        buffer = (I32 * room)()
        count = tokenize(self.vocab, data, len(data), buffer, room, False, special)
        assert count >= 0, count
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        buffer = C.create_string_buffer(256)
        count = token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:count]

    def clear(self) -> None:
        """Forgets the conversation."""
        memory_clear(get_memory(self.context), True)

    def logits(self, tokens: list[int], start: int) -> np.ndarray:
        """Runs tokens from position `start` on; the scores after each of them, one row per token."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, start + i, 1, 0, 1
        status = decode(self.context, b)
        if status:
            raise RuntimeError(f"llama_decode: {status}")
        rows = (np.ctypeslib.as_array(logits_ith(self.context, i), (self.n_vocab,)).copy() for i in range(len(tokens)))
        return np.stack(list(rows))

    def greedy(self, prompt: str, limit: int = 160) -> str:
        """The reply at temperature 0."""
        self.clear()
        tokens, out = self.tokens(prompt, special=True), bytearray()
        position = 0
        for _ in range(limit):
            scores = self.logits(tokens, position)[-1]
            position += len(tokens)
            tokens = [int(scores.argmax())]
            if is_end(self.vocab, tokens[0]):
                break
            out += self.piece(tokens[0])
        return out.decode(errors="replace")
