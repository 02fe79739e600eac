"""What a decode step costs in each shard, in layers: the unit in which a node's speed is measured and told.

One row through a matrix takes the time in which its weights come out of memory, so bytes are the measure: a layer counts one
on the average, the output matrix behind the last one counts as many layers as it has bytes of one. The embedding is a
look-up of one row. Of a layer's experts only those that a token goes through count.
"""

from __future__ import annotations

from swarmd.models.architectures import EMBEDDING, OUTPUT, layer_of
from swarmd.models.catalog import KnownModel
from swarmd.models.gguf import BadGguf, GgufHeader

EXPERTS = "_exps."
"""In the names of tensors that hold a layer's experts, all in one."""


def decode_effort(known: KnownModel) -> tuple[float, ...]:
    """Of each shard, in layers; together the layers of the model and its output matrix."""
    header = known.header
    share = _expert_share(header)
    by_layer: dict[int, float] = {}
    sizes: dict[str, int] = {}
    for tensor in header.tensors:
        layer = layer_of(tensor.name)
        if layer is None:
            sizes[tensor.name] = tensor.size_bytes
        else:
            weight = tensor.size_bytes * (share if EXPERTS in tensor.name else 1.0)
            by_layer[layer] = by_layer.get(layer, 0.0) + weight
    mean = sum(by_layer.values()) / max(1, len(by_layer))
    if not mean:
        return tuple(float(spec.layers) for spec in known.manifest.shards)
    found = [
        sum(by_layer.get(layer, mean) for layer in range(spec.layer_start, spec.layer_end)) / mean
        for spec in known.manifest.shards
    ]
    found[-1] += sizes.get(OUTPUT, sizes.get(EMBEDDING, 0)) / mean
    return tuple(found)


def _expert_share(header: GgufHeader) -> float:
    """Of a layer's experts, that one token goes through."""
    architecture = header.text("general.architecture")
    try:
        used = header.integer(f"{architecture}.expert_used_count")
        count = header.integer(f"{architecture}.expert_count")
    except BadGguf:
        return 1.0
    return min(1.0, used / count) if used and count else 1.0
