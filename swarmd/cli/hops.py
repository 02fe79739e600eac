"""The line under a reply: which node ran which layers, and where the time of a token went. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

from swarmd.api.openai_shapes import Swarm

SHOWN_DIGITS = 8  # of a node id: enough for the nodes of one swarm, short enough for three of them in a line


def hop_count(head: str | None, nodes: list[str]) -> int:
    """Crossings between machines per token: from the head through the stages and back to it.

    `head`: short id of the node that was asked; None: unknown, taken for the first stage.
    """
    ring = [head or nodes[0], *nodes, head or nodes[0]] if nodes else []
    return sum(one != other for one, other in pairwise(ring))


class HasLayers(Protocol):
    """Part of a model."""

    @property
    def layers(self) -> tuple[int, int]:
        """From, to; the end is not included."""
        ...


def layers_text(stage: HasLayers) -> str:
    """`layer 3`, `layers 3-5`: the last one included, as people count."""
    first, end = stage.layers
    return f"layer {first}" if end - first == 1 else f"layers {first}-{end - 1}"


def stage_lines(swarm: Swarm, names: Mapping[str, str]) -> list[str]:
    """One line per stage. `names`: what to call a node instead of its id."""
    shown = [names.get(stage.node, stage.node[:SHOWN_DIGITS]) for stage in swarm.stages]
    width = max((len(name) for name in shown), default=0)
    return [
        f"{name:<{width}}  {layers_text(stage):<11}  {stage.compute_ms:6.2f} ms a token in the engine, "
        f"{stage.node_ms:6.2f} ms in the node"
        for name, stage in zip(shown, swarm.stages, strict=True)
    ]


def hop_line(swarm: Swarm, head: str | None, names: Mapping[str, str]) -> str:
    """`node a (layers 0-2, 1.23 ms) -> node b (...) | 61.0 tokens/s, 2 hops of 0.35 ms, prompt 12 ms`."""
    stages = " -> ".join(
        f"{names.get(stage.node, stage.node[:SHOWN_DIGITS])} ({layers_text(stage)}, {stage.compute_ms:.2f} ms)"
        for stage in swarm.stages
    )
    hops = hop_count(head, [stage.node for stage in swarm.stages])
    links = f"{hops} hops of {swarm.link_ms / hops:.2f} ms" if hops else "no hop"
    return f"{stages} | {swarm.tokens_per_second:.1f} tokens/s, {links}, prompt {swarm.prefill_ms:.0f} ms"
