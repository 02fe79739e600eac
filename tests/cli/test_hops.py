"""The line that says who computed what."""

from __future__ import annotations

from swarmd.api.openai_shapes import Swarm, SwarmStage
from swarmd.cli.hops import hop_count, hop_line, layers_text, stage_lines

A, B, C = "a" * 16, "b" * 16, "c" * 16


def swarm(*nodes: str, link_ms: float = 0.9) -> Swarm:
    stages = [
        SwarmStage(node=node, layers=(3 * at, 3 * at + 3), compute_ms=0.5, node_ms=0.75) for at, node in enumerate(nodes)
    ]
    return Swarm(stages=stages, link_ms=link_ms, tokens_per_second=61.04, prefill_ms=12.3)


def test_crossings_are_counted_around_the_ring() -> None:
    assert hop_count(A, [A]) == 0
    assert hop_count(A, [A, B, C]) == 3
    assert hop_count(A, [A, B]) == 2
    assert hop_count(A, [B]) == 2, "the head asks one other node for everything"
    assert hop_count(None, [B, C]) == 2
    assert hop_count(A, []) == 0


def test_the_line_names_nodes_layers_speed_and_links() -> None:
    line = hop_line(swarm(A, B, C), A, {A: "node 1"})
    assert line == (
        "node 1 (layers 0-2, 0.50 ms) -> bbbbbbbb (layers 3-5, 0.50 ms) -> cccccccc (layers 6-8, 0.50 ms)"
        " | 61.0 tokens/s, 3 hops of 0.30 ms, prompt 12 ms"
    )


def test_a_node_alone_has_no_hop() -> None:
    assert "no hop" in hop_line(swarm(A, link_ms=0.0), A, {})


def test_one_line_per_stage_with_names_of_one_width() -> None:
    lines = stage_lines(swarm(A, B), {A: "node 1"})
    assert len(lines) == 2
    assert lines[0].startswith("node 1    layers 0-2") and "0.50 ms a token" in lines[0]
    assert lines[1].startswith("bbbbbbbb  layers 3-5")


def test_a_single_layer_is_no_range() -> None:
    assert layers_text(SwarmStage(node=A, layers=(7, 8), compute_ms=0, node_ms=0)) == "layer 7"
