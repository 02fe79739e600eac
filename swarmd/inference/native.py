"""ctypes declarations of the llama.cpp C API inside the pinned `xllamacpp` wheel, and the check that they fit.

The struct layouts below belong to exactly one wheel version (design, section 4, point 8). `open_library` therefore
verifies the version and known default values in known places before anything else is called, and refuses otherwise with
one sentence. Nothing here has behaviour; `engine` builds on it.
"""

from __future__ import annotations

import ctypes as c
import importlib.metadata
from dataclasses import dataclass
from typing import Any

WHEEL_VERSION = "2026.10.11549"  # pyproject.toml pins the same one; a test compares them

_i32, _u32, _i64, _f32, _ptr, _flag, _size = c.c_int32, c.c_uint32, c.c_int64, c.c_float, c.c_void_p, c.c_bool, c.c_size_t

FLASH_ATTENTION_AUTO = -1
LOAD_BY_READING = 0  # in place of a mapping of the file
GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0 = 0, 1, 8


class EngineMismatch(Exception):
    """The installed wheel is not the one whose struct layouts we know."""


class ModelParams(c.Structure):
    _fields_ = [
        ("devices", _ptr), ("tensor_buft_overrides", _ptr), ("n_gpu_layers", _i32), ("split_mode", _i32),
        ("load_mode", _i32), ("lazy_mode", _i32), ("main_gpu", _i32), ("tensor_split", _ptr),
        ("progress_callback", _ptr), ("progress_callback_user_data", _ptr), ("kv_overrides", _ptr),
        ("vocab_only", _flag), ("check_tensors", _flag), ("use_extra_bufts", _flag), ("no_host", _flag),
        ("no_alloc", _flag), ("load_mtp", _flag),
    ]  # fmt: skip


class ContextParams(c.Structure):
    _fields_ = [
        ("n_ctx", _u32), ("n_batch", _u32), ("n_ubatch", _u32), ("n_seq_max", _u32), ("n_rs_seq", _u32),
        ("n_outputs_max", _u32), ("n_outputs_max_per_seq", _u32), ("n_threads", _i32), ("n_threads_batch", _i32),
        ("ctx_type", _i32), ("rope_scaling_type", _i32), ("pooling_type", _i32), ("attention_type", _i32),
        ("flash_attn_type", _i32), ("rope_freq_base", _f32), ("rope_freq_scale", _f32), ("yarn_ext_factor", _f32),
        ("yarn_attn_factor", _f32), ("yarn_beta_fast", _f32), ("yarn_beta_slow", _f32), ("yarn_orig_ctx", _u32),
        ("defrag_thold", _f32), ("cb_eval", _ptr), ("cb_eval_user_data", _ptr), ("type_k", _i32), ("type_v", _i32),
        ("abort_callback", _ptr), ("abort_callback_data", _ptr),
        ("unnamed", c.c_uint64),  # 8 bytes this build has between type_v and embeddings; 0 by default
        ("embeddings", _flag), ("offload_kqv", _flag), ("no_perf", _flag), ("op_offload", _flag), ("swa_full", _flag),
        ("kv_unified", _flag), ("samplers", _ptr), ("n_samplers", _size), ("ctx_other", _ptr),
    ]  # fmt: skip


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", _i32), ("token", _ptr), ("embd", _ptr), ("pos", _ptr), ("n_seq_id", _ptr), ("seq_id", _ptr),
        ("logits", _ptr),
    ]  # fmt: skip


class TypeTraits(c.Structure):
    """`struct ggml_type_traits`: how a tensor type is laid out and how it becomes float32."""

    _fields_ = [
        ("type_name", c.c_char_p), ("block_size", _i64), ("block_size_interleave", _i64), ("type_size", _size),
        ("is_quantized", _flag), ("to_float", _ptr), ("from_float_ref", _ptr),
    ]  # fmt: skip


class SamplerChainParams(c.Structure):
    _fields_ = [("no_perf", _flag)]


class LlamaLogitBias(c.Structure):
    _fields_ = [("token", _i32), ("bias", _f32)]


class LlgParserLimits(c.Structure):
    """Of llguidance, as are the next two: `llguidance.h` of the version that this wheel was built with."""

    _fields_ = [
        ("max_items_in_row", _size), ("initial_lexer_fuel", c.c_uint64), ("step_lexer_fuel", c.c_uint64),
        ("step_max_items", _size), ("max_lexer_states", _size), ("max_grammar_size", _size),
        ("precompute_large_lexemes", _flag),
    ]  # fmt: skip


class LlgConstraintInit(c.Structure):
    _fields_ = [
        ("tokenizer", _ptr), ("log_buffer_level", _u32), ("log_stderr_level", _u32), ("ff_tokens_ok", _flag),
        ("backtrack_ok", _flag), ("limits", LlgParserLimits),
        ("unnamed", c.c_uint64 * 4),  # room for fields of a later version, which would be written behind ours
    ]  # fmt: skip


class LlgTokenizerInit(c.Structure):
    _fields_ = [
        ("vocab_size", _u32), ("tok_eos", _u32), ("token_lens", _ptr), ("token_bytes", _ptr),
        ("tokenizer_json", c.c_char_p), ("tokenize_assumes_string", _flag), ("tokenize_fn", _ptr),
        ("use_approximate_greedy_tokenize_fn", _flag), ("tokenize_user_data", _ptr), ("slices", _ptr),
    ]  # fmt: skip


LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, _ptr)

# llama.cpp asks this callback twice per graph node, (tensor, ask, user_data) -> bool. It is declared with its first
# argument only: the C calling conventions of all our platforms let a callee ignore trailing arguments, and a callback
# with one argument and a C function behind it costs 0.1 us instead of 0.5 us. See engine.Tap.
EvalCallback = c.CFUNCTYPE(_flag, _ptr)

ToFloat = c.CFUNCTYPE(None, _ptr, _ptr, _i64)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "llama_version": (c.c_char_p,),
    "llama_print_system_info": (c.c_char_p,),
    "llama_backend_init": (None,),
    "llama_log_set": (None, LogCallback, _ptr),
    "llama_model_default_params": (ModelParams,),
    "llama_context_default_params": (ContextParams,),
    "llama_sampler_chain_default_params": (SamplerChainParams,),
    "llama_model_load_from_file": (_ptr, c.c_char_p, ModelParams),
    "llama_model_free": (None, _ptr),
    "llama_model_meta_val_str": (_i32, _ptr, c.c_char_p, _ptr, _size),
    "llama_model_n_embd": (_i32, _ptr),
    "llama_model_n_layer": (_i32, _ptr),
    "llama_model_n_swa": (_i32, _ptr),
    "llama_model_get_vocab": (_ptr, _ptr),
    "llama_init_from_model": (_ptr, _ptr, ContextParams),
    "llama_free": (None, _ptr),
    "llama_n_ctx": (_u32, _ptr),
    "llama_adapter_lora_init": (_ptr, _ptr, c.c_char_p),
    "llama_adapter_lora_free": (None, _ptr),
    "llama_set_adapters_lora": (_i32, _ptr, _ptr, _size, _ptr),  # context, array of adapters, how many, array of scales
    "llama_decode": (_i32, _ptr, Batch),
    "llama_get_logits_ith": (_ptr, _ptr, _i32),
    "llama_get_memory": (_ptr, _ptr),
    "llama_memory_clear": (None, _ptr, _flag),
    "llama_memory_seq_rm": (_flag, _ptr, _i32, _i32, _i32),
    "llama_memory_seq_cp": (None, _ptr, _i32, _i32, _i32, _i32),
    "llama_memory_seq_pos_min": (_i32, _ptr, _i32),
    "llama_memory_seq_pos_max": (_i32, _ptr, _i32),
    "llama_state_seq_get_size": (_size, _ptr, _i32),
    "llama_state_seq_get_data": (_size, _ptr, _ptr, _size, _i32),
    "llama_state_seq_set_data": (_size, _ptr, _ptr, _size, _i32),
    "llama_vocab_n_tokens": (_i32, _ptr),
    "llama_vocab_bos": (_i32, _ptr),
    "llama_vocab_eos": (_i32, _ptr),
    "llama_vocab_get_add_bos": (_flag, _ptr),
    "llama_vocab_is_eog": (_flag, _ptr, _i32),
    "llama_vocab_is_control": (_flag, _ptr, _i32),
    "llama_tokenize": (_i32, _ptr, c.c_char_p, _i32, _ptr, _i32, _flag, _flag),
    "llama_token_to_piece": (_i32, _ptr, _i32, c.c_char_p, _i32, _i32, _flag),
    "llama_sampler_chain_init": (_ptr, SamplerChainParams),
    "llama_sampler_chain_add": (None, _ptr, _ptr),
    "llama_sampler_chain_n": (_i32, _ptr),
    "llama_sampler_chain_remove": (_ptr, _ptr, _i32),
    "llama_sampler_free": (None, _ptr),
    "llama_sampler_accept": (None, _ptr, _i32),
    "llama_sampler_sample": (_i32, _ptr, _ptr, _i32),
    "llama_sampler_init_greedy": (_ptr,),
    "llama_sampler_init_dist": (_ptr, _u32),
    "llama_sampler_init_top_k": (_ptr, _i32),
    "llama_sampler_init_top_p": (_ptr, _f32, _size),
    "llama_sampler_init_min_p": (_ptr, _f32, _size),
    "llama_sampler_init_temp": (_ptr, _f32),
    "llama_sampler_init_penalties": (_ptr, _i32, _i32, _f32, _f32, _f32),  # vocabulary, window; since b10405
    "llama_sampler_init_logit_bias": (_ptr, _i32, _i32, c.POINTER(LlamaLogitBias)),  # vocabulary, count, pairs
    "llg_constraint_init_set_defaults": (None, c.POINTER(LlgConstraintInit), _ptr),
    "llg_new_tokenizer": (_ptr, c.POINTER(LlgTokenizerInit), c.c_char_p, _size),
    "llg_free_tokenizer": (None, _ptr),
    "llg_new_matcher": (_ptr, c.POINTER(LlgConstraintInit), c.c_char_p, c.c_char_p),
    "llg_free_matcher": (None, _ptr),
    "llg_matcher_get_error": (c.c_char_p, _ptr),
    "llg_matcher_is_stopped": (_flag, _ptr),
    "llg_matcher_compute_mask_into": (_i32, _ptr, _ptr, _size),
    "llg_matcher_consume_token": (_i32, _ptr, _u32),
    "ggml_get_name": (c.c_char_p, _ptr),
    "ggml_nbytes": (_size, _ptr),
    "ggml_backend_tensor_get": (None, _ptr, _ptr, _size, _size),
    "ggml_backend_tensor_set": (None, _ptr, _ptr, _size, _size),
    "ggml_get_type_traits": (c.POINTER(TypeTraits), _i32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutCheck:
    """What was compared at start-up. `passed` is true or `open_library` raised."""

    wheel_version: str
    compared: int
    passed: bool


class Library:
    """The loaded shared object; every function of `_SIGNATURES` is an attribute of `call`."""

    def __init__(self, shared_object: c.CDLL, check: LayoutCheck) -> None:
        self.call = shared_object
        self.check = check


def open_library() -> Library:
    """Loads the wheel's shared object and verifies that this file describes it. Raises EngineMismatch."""
    version = importlib.metadata.version("xllamacpp")
    if version != WHEEL_VERSION:
        raise EngineMismatch(
            f"the engine needs xllamacpp {WHEEL_VERSION} and {version} is installed: run 'make install', "
            "or pip install the pinned version"
        )
    import xllamacpp.xllamacpp as wheel

    library = c.CDLL(str(wheel.__file__))
    for name, (result, *arguments) in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise EngineMismatch(f"xllamacpp {version} does not export {name}: reinstall the pinned wheel") from None
        function.restype, function.argtypes = result, arguments
    return Library(library, _check_layout(library, version))


def _check_layout(library: Any, version: str) -> LayoutCheck:
    """Known defaults in known places (llama.h, ggml.h of this build): a shifted field shows up as a wrong value."""
    context, model = library.llama_context_default_params(), library.llama_model_default_params()
    expected: list[tuple[str, Any, Any]] = [
        ("n_ctx", context.n_ctx, 512), ("n_batch", context.n_batch, 2048), ("n_ubatch", context.n_ubatch, 512),
        ("n_seq_max", context.n_seq_max, 1), ("flash_attn_type", context.flash_attn_type, FLASH_ATTENTION_AUTO),
        ("yarn_ext_factor", context.yarn_ext_factor, -1.0), ("type_k", context.type_k, GGML_TYPE_F16),
        ("type_v", context.type_v, GGML_TYPE_F16), ("cb_eval", context.cb_eval, None),
        ("embeddings", context.embeddings, False), ("offload_kqv", context.offload_kqv, True),
        ("no_perf", context.no_perf, True), ("op_offload", context.op_offload, True),
        ("samplers", context.samplers, None), ("n_samplers", context.n_samplers, 0),
        ("main_gpu", model.main_gpu, 0), ("kv_overrides", model.kv_overrides, None),
        ("vocab_only", model.vocab_only, False), ("check_tensors", model.check_tensors, False),
        ("use_extra_bufts", model.use_extra_bufts, True), ("no_alloc", model.no_alloc, False),
    ]  # fmt: skip
    guidance = LlgConstraintInit()
    library.llg_constraint_init_set_defaults(c.byref(guidance), None)
    limits = guidance.limits
    expected += [
        ("max_items_in_row", limits.max_items_in_row, 2000), ("step_max_items", limits.step_max_items, 50_000),
        ("initial_lexer_fuel", limits.initial_lexer_fuel, 1_000_000),
        ("step_lexer_fuel", limits.step_lexer_fuel, 200_000), ("max_lexer_states", limits.max_lexer_states, 250_000),
        ("max_grammar_size", limits.max_grammar_size, 500_000),
        ("precompute_large_lexemes", limits.precompute_large_lexemes, True), ("unnamed", list(guidance.unnamed), [0] * 4),
    ]  # fmt: skip
    for kind, name, block, size in (
        (GGML_TYPE_F16, b"f16", 1, 2),
        (GGML_TYPE_Q8_0, b"q8_0", 32, 34),
        (12, b"q4_K", 256, 144),
    ):
        traits = library.ggml_get_type_traits(kind).contents
        expected += [
            (f"type {kind} name", traits.type_name, name),
            (f"type {kind} block", traits.block_size, block),
            (f"type {kind} size", traits.type_size, size),
            (f"type {kind} to_float", bool(traits.to_float), True),
        ]
    for name, found, wanted in expected:
        if found != wanted:
            raise EngineMismatch(
                f"the engine's struct layout is not the known one ({name} reads {found!r}, expected {wanted!r}): "
                f"reinstall xllamacpp {WHEEL_VERSION}"
            )
    return LayoutCheck(wheel_version=version, compared=len(expected), passed=True)
