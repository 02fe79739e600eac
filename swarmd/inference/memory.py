"""What a shard takes in memory, forecast from its header: compared with free memory before anything is loaded.

Measured against workers of a 1.1B-shaped model whole and in parts (python -m bench.predict), the forecast is within 10 %.
"""

from __future__ import annotations

from typing import Final

from swarmd.models.architectures import EMBEDDING, OUTPUT
from swarmd.models.catalog import KnownModel
from swarmd.models.shard_file import unused_bytes

WORKER_BYTES: Final = 64_000_000  # Python, numpy and llama.cpp's library: once for each worker, beside its shards
ACTIVATIONS: Final = 16  # of a chunk's rows that llama.cpp has in its buffers at once, each as wide as a hidden state
NUMBER_BYTES: Final = 4  # float32
REPACKED: Final = frozenset({2, 12, 20, 39})
"""Types (ggml's Q4_0, Q4_K, IQ4_NL and MXFP4) whose weights ggml packs anew for the processor's vector instructions. An
output matrix of one of them is in memory twice: llama.cpp keeps the one it would look rows up in as it is."""


def shard_bytes(known: KnownModel, index: int, *, cells: int, rows: int) -> int:
    """Weights, caches for `cells` positions and compute buffers for steps of so many `rows`. The embedding table is mapped,
    not loaded, unless it is the output matrix too."""
    manifest = known.manifest
    spec = manifest.shards[index]
    last = index == len(manifest.shards) - 1
    table = known.files[index].embedding
    is_output = last and known.architecture.tied
    weights = spec.size_bytes - (0 if table is None or is_output else table.size_bytes)
    buffers = rows * manifest.width * NUMBER_BYTES * ACTIVATIONS
    if last:
        weights += _second_output(known) + unused_bytes(known.architecture)
        buffers += rows * manifest.vocab_size * NUMBER_BYTES
    return weights + known.architecture.kv_bytes_per_token(spec.layers) * cells + buffers


def _second_output(known: KnownModel) -> int:
    sizes = {tensor.name: tensor for tensor in known.header.tensors if tensor.name in (OUTPUT, EMBEDDING)}
    output = sizes.get(OUTPUT) or sizes.get(EMBEDDING)
    return output.size_bytes if output is not None and output.type in REPACKED else 0
