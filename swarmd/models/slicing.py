"""Where a model is cut into shards, and which of them a node takes.

The walk is that of swarmllm.md 4.1: whole layers, first shard with the embedding, last with output norm and head. It
depends on the tensor table and the target size alone, so two nodes that cut the same file get the same shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from blake3 import blake3

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import UnsupportedModel
from swarmd.models.architectures import (
    EMBEDDING,
    EVERY_SHARD,
    LAST_SHARD,
    Architecture,
    check_supported,
    layer_of,
)
from swarmd.models.gguf import GgufHeader, TensorInfo

LAYOUT_BYTES: Final = 16  # an id, not a defence: what is defended is the hash of every payload and the signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One shard before its bytes are known: layers `[layer_start, layer_end)` and the tensors that go with them."""

    index: int
    layer_start: int
    layer_end: int
    tensors: tuple[TensorInfo, ...]
    """In file order; their bytes in this order are the payload."""
    size_bytes: int
    """Of the payload."""


def plan_layout(header: GgufHeader, shard_size_bytes: int) -> tuple[Cut, ...] | UnsupportedModel:
    """The shards of this model, each of about `shard_size_bytes` (> 0) where whole layers allow it.

    As many as the file's tensors need at that size, at least 1, at most one for each place where the architecture can
    be cut. A tied embedding counts once for that number, though first and last shard both hold it.
    """
    assert shard_size_bytes > 0, f"a shard of {shard_size_bytes} bytes"
    architecture = check_supported(header)
    if isinstance(architecture, UnsupportedModel):
        return architecture
    starts = tuple(range(0, architecture.layer_count, architecture.cut_period))
    total = sum(tensor.size_bytes for tensor in header.tensors)
    count = min(max(-(-total // shard_size_bytes), 1), len(starts))
    groups = cuts_at(header, architecture, (*starts, architecture.layer_count))
    sizes = [group.size_bytes for group in groups]

    def bounds(shards: int) -> tuple[int, ...]:
        return (0, *(groups[end - 1].layer_end for end in _walk(sizes, shards)))

    def loads(shards: int) -> bool:
        return not any(end - start in architecture.unloadable_runs for start, end in pairwise(bounds(shards)))

    # As many shards as layers always load, since no run of one layer is among those that do not.
    count = next((more for more in range(count, len(starts)) if loads(more)), len(starts))
    return cuts_at(header, architecture, bounds(count))


def _walk(sizes: list[int], count: int) -> list[int]:
    """Ends of `count` runs over `sizes`, none empty: a run ends when it has reached its share of what was left."""
    ends: list[int] = []
    left, size = sum(sizes), 0
    for position, group in enumerate(sizes, start=1):
        size += group
        slots = count - len(ends)
        if slots > 1 and (size * slots >= left or len(sizes) - position == slots - 1):
            ends.append(position)
            left, size = left - size, 0
    return [*ends, len(sizes)]


def cuts_at(header: GgufHeader, architecture: Architecture, bounds: tuple[int, ...]) -> tuple[Cut, ...]:
    """The shards between consecutive `bounds`, which start at 0 and end at the layer count."""
    assert bounds[0] == 0 and bounds[-1] == architecture.layer_count, f"bounds {bounds}"
    assert all(start < end and start % architecture.cut_period == 0 for start, end in pairwise(bounds)), f"bounds {bounds}"
    shard_of = [index for index, (start, end) in enumerate(pairwise(bounds)) for _ in range(start, end)]
    last = len(bounds) - 2
    held: list[list[TensorInfo]] = [[] for _ in range(last + 1)]
    for tensor in header.tensors:
        for index in _shards_with(tensor.name, shard_of, last, tied=architecture.tied):
            held[index].append(tensor)
    return tuple(
        Cut(
            index=index,
            layer_start=start,
            layer_end=end,
            tensors=tuple(held[index]),
            size_bytes=sum(tensor.size_bytes for tensor in held[index]),
        )
        for index, (start, end) in enumerate(pairwise(bounds))
    )


def _shards_with(name: str, shard_of: list[int], last: int, *, tied: bool) -> tuple[int, ...]:
    """The shards that hold a tensor; distinct, ascending."""
    layer = layer_of(name)
    if layer is not None:
        return (shard_of[layer],)
    if name in EVERY_SHARD:
        return tuple(range(last + 1))
    if name in LAST_SHARD:
        return (last,)
    if name == EMBEDDING and tied and last:
        return (0, last)  # the head of the model needs its rows, the tail needs it as the output matrix
    return (0,)


def layout_id(header: GgufHeader, cuts: tuple[Cut, ...]) -> str:
    """32 hex digits over the tensor table and the cuts. Metadata does not count: a new chat template keeps the layout."""
    lines = [f"{tensor.name} {tensor.type} {tensor.dims} {tensor.offset_bytes}" for tensor in header.tensors]
    lines += [f"{cut.index} {cut.layer_start} {cut.layer_end} {' '.join(t.name for t in cut.tensors)}" for cut in cuts]
    return blake3("\n".join(("swarmd layout 1", *lines)).encode()).hexdigest(length=LAYOUT_BYTES)


def fair_share(node: NodeId, model: ModelId, shard_count: int, peers: int) -> tuple[int, ...]:
    """The shards this node takes when all take equally many (design, ruling 8); sorted.

    ceil(shard_count / (peers + 1)) consecutive shards from a start given by BLAKE3(node id ‖ model id). A run that would
    pass the last shard begins so much earlier: gone on with at shard 0, it would be two runs of layers, and one hop more
    for every token. What that leaves to nobody is divided by `economy.sharing`.
    """
    assert shard_count > 0 and peers >= 0, f"{shard_count} shards, {peers} peers"
    share = -(-shard_count // (peers + 1))
    start = int.from_bytes(blake3(bytes.fromhex(node) + model.encode()).digest(length=8), "big") % shard_count
    start = min(start, shard_count - share)
    return tuple(range(start, start + share))
