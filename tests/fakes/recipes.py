"""Which tensors and keys a random model of each architecture has, beyond the llama shape. Found by asking llama.cpp, which
refuses a file that lacks one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Scalar = float | bool | tuple[int, ...]

DENSE: Final = "ffn_gate ffn_up ffn_down"
ATTENTION: Final = "attn_norm attn_q attn_k attn_v attn_output"
EXPERTS: Final = "ffn_gate_inp ffn_gate_exps ffn_up_exps ffn_down_exps"
SHARED: Final = "ffn_gate_shexp ffn_up_shexp ffn_down_shexp"
HEAD_NORMS: Final = "attn_q_norm attn_k_norm"
AFTER: Final = "post_attention_norm post_ffw_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`layer`: names of a layer's tensors, a `+` behind a matrix or norm that has a bias too."""

    layer: str
    dense: str | None = None
    """Of the leading layers without experts."""
    keys: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Beyond those that every model has; without the architecture's name."""
    layer_norm: bool = False
    """Norms with a mean (and `attention.layer_norm_epsilon`)."""
    shapes: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tensors with another shape than usual: names of lengths, see `TinyModel` and `_Weights.lengths`."""
    output_norm: str = "output_norm"
    output_bias: bool = False
    embedding: float = 1.0
    """Deviation of the embedding: small where it is multiplied with sqrt(width)."""


_MOE: Final = {"expert_count": 4, "expert_used_count": 2}
_SHARED: Final = {**_MOE, "expert_shared_feed_forward_length": 96, "expert_feed_forward_length": 96}
_GRANITE: Final = {"embedding_scale": 0.7, "residual_scale": 0.9, "attention.scale": 0.25, "logit_scale": 8.0}
_MLA: Final = {
    "attention.q_lora_rank": 32, "attention.kv_lora_rank": 32, "rope.dimension_count": 16,
    "attention.key_length": 48, "attention.value_length": 32,
    "attention.key_length_mla": 48, "attention.value_length_mla": 32,
    "expert_shared_count": 1, "expert_feed_forward_length": 96,
    "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2, **_MOE,
}  # fmt: skip

RECIPES: Final = {
    "llama": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}"),
    "qwen2": Recipe(layer=f"attn_norm attn_q+ attn_k+ attn_v+ attn_output ffn_norm {DENSE}"),
    "qwen3": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE} {HEAD_NORMS}"),
    "gemma3": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE} {HEAD_NORMS} {AFTER}", embedding=0.06),
    "qwen3moe": Recipe(
        layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {EXPERTS}", keys={**_MOE, "expert_feed_forward_length": 96}
    ),
    "qwen2moe": Recipe(
        layer=f"attn_norm attn_q+ attn_k+ attn_v+ attn_output ffn_norm {EXPERTS} ffn_gate_inp_shexp {SHARED}", keys=_SHARED
    ),
    "gemma": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}", embedding=0.06),
    "gemma2": Recipe(
        layer=f"{ATTENTION} ffn_norm {DENSE} {AFTER}",
        keys={"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        embedding=0.06,
    ),
    "phi3": Recipe(layer="attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down", shapes={"ffn_up": "2F W"}),
    "deepseek2": Recipe(
        layer=(
            "attn_norm attn_q_a attn_q_a_norm attn_q_b attn_kv_a_mqa attn_kv_a_norm attn_k_b attn_v_b attn_output "
            f"ffn_norm {EXPERTS} exp_probs_b+ {SHARED}"
        ),
        dense=(
            "attn_norm attn_q_a attn_q_a_norm attn_q_b attn_kv_a_mqa attn_kv_a_norm attn_k_b attn_v_b attn_output "
            f"ffn_norm {DENSE}"
        ),
        keys=_MLA,
        shapes={"attn_output": "W HV", "attn_q": "HK W"},
    ),
    "glm4": Recipe(
        layer=f"attn_norm attn_q+ attn_k+ attn_v+ attn_output ffn_norm ffn_up ffn_down {AFTER}", shapes={"ffn_up": "2F W"},
        keys={"rope.dimension_count": 16},
    ),
    "olmo2": Recipe(
        layer=f"attn_q attn_k attn_v attn_output {DENSE} {HEAD_NORMS} {AFTER}",
        shapes={"attn_q_norm": "A", "attn_k_norm": "K"},
    ),
    "granite": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}", keys=_GRANITE),
    "granitemoe": Recipe(
        layer=f"{ATTENTION} ffn_norm {EXPERTS} {SHARED}",
        keys={**_GRANITE, **_MOE, "expert_shared_feed_forward_length": 96},
    ),
    "gpt-oss": Recipe(
        layer=(
            "attn_norm attn_q+ attn_k+ attn_v+ attn_output+ attn_sinks post_attention_norm ffn_gate_inp+ ffn_gate_exps+ "
            "ffn_up_exps+ ffn_down_exps+"
        ),
        keys={**_MOE, "expert_feed_forward_length": 96},
    ),
    "smollm3": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}"),
    "starcoder2": Recipe(
        layer="attn_norm+ attn_q+ attn_k+ attn_v+ attn_output+ ffn_norm+ ffn_up+ ffn_down+", layer_norm=True,
        output_norm="output_norm+",
    ),
    "command-r": Recipe(layer=f"{ATTENTION} {DENSE}", layer_norm=True, keys={"logit_scale": 0.0625}),
    "cohere2": Recipe(layer=f"{ATTENTION} {DENSE}", layer_norm=True, keys={"logit_scale": 0.0625}),
    "phi2": Recipe(
        layer="attn_norm+ attn_qkv+ attn_output+ ffn_up+ ffn_down+", layer_norm=True, output_bias=True,
        output_norm="output_norm+",
        keys={"rope.dimension_count": 16},
    ),
    "internlm2": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}"),
    "stablelm": Recipe(
        layer=f"attn_norm+ attn_q attn_k attn_v attn_output ffn_norm+ {DENSE}", layer_norm=True, output_norm="output_norm+",
        keys={"rope.dimension_count": 16, "use_parallel_residual": False},
    ),
    "exaone4": Recipe(layer=f"attn_q attn_k attn_v attn_output {HEAD_NORMS} {DENSE} {AFTER}"),
    "exaone": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}"),
    "ernie4_5": Recipe(layer=f"{ATTENTION} ffn_norm {DENSE}"),
    "hunyuan-dense": Recipe(layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {DENSE}"),
    "seed_oss": Recipe(layer=f"{ATTENTION} post_attention_norm {DENSE}"),
    "olmoe": Recipe(
        layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {EXPERTS}", keys=_MOE, shapes={"attn_q_norm": "A", "attn_k_norm": "K"}
    ),
    "mistral3": Recipe(
        layer=f"{ATTENTION} ffn_norm {DENSE}",
        keys={"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 16},
    ),
    "dots1": Recipe(
        layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {EXPERTS} exp_probs_b+ {SHARED}",
        dense=f"{ATTENTION} {HEAD_NORMS} ffn_norm {DENSE}",
        keys={**_MOE, "expert_feed_forward_length": 96, "expert_shared_count": 1, "expert_weights_scale": 2.5,
              "expert_weights_norm": True, "expert_gating_func": 2},
    ),
    "bailingmoe": Recipe(
        layer=f"{ATTENTION} ffn_norm {EXPERTS} {SHARED}",
        keys={**_MOE, "expert_feed_forward_length": 96, "expert_shared_count": 1, "expert_weights_scale": 1.5},
    ),
    "qwen2vl": Recipe(
        layer=f"attn_norm attn_q+ attn_k+ attn_v+ attn_output ffn_norm {DENSE}",
        keys={"rope.dimension_sections": (6, 5, 5, 0)},
    ),
    "qwen3vl": Recipe(
        layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {DENSE}",
        keys={"rope.dimension_sections": (6, 5, 5, 0), "n_deepstack_layers": 2},
    ),
    "qwen3vlmoe": Recipe(
        layer=f"{ATTENTION} {HEAD_NORMS} ffn_norm {EXPERTS}",
        keys={"rope.dimension_sections": (6, 5, 5, 0), "n_deepstack_layers": 2, **_MOE, "expert_feed_forward_length": 96},
    ),
    "minicpm": Recipe(
        layer=f"{ATTENTION} ffn_norm {DENSE}", keys={"embedding_scale": 0.7, "residual_scale": 0.9, "logit_scale": 0.25}
    ),
}
"""By `general.architecture`."""
