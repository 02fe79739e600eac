"""What happened to generations, stages and steps on this node since its start, for `/metrics`.

Readers get the objects themselves: everything belongs to the event loop, so nothing changes while they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from swarmd.domain.generation import Usage
from swarmd.domain.ids import NodeId
from swarmd.kit.tallies import Histogram

OUTCOMES: Final = ("stop", "length", "embedded", "cancelled", "failed", "refused")
"""How a request of this node's clients may end; `refused`: before its first step."""
NODES_LIMIT: Final = 32
"""Nodes with figures of their own: a model has seldom more stages. Further ones share one entry, `None`."""

WAIT_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PROMPT_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TOKEN_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Also of a stage's part in a token, and of the wire's."""
BATCH: Final = (1, 2, 4, 8, 16, 32)  # up to batching.SHARED_ROWS


class StageTally:
    """One node's part in the decode steps of this head."""

    __slots__ = ("compute_s", "node_s")

    def __init__(self) -> None:
        self.compute_s, self.node_s = Histogram(TOKEN_S), Histogram(TOKEN_S)


class Tallies:
    """One per node."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.queue_s = Histogram(WAIT_S)
        self.prefill_s = Histogram(PROMPT_S)
        self.first_token_s = Histogram(PROMPT_S)
        """From the place in the queue to the first token."""
        self.token_s = Histogram(TOKEN_S)
        """Between two tokens of a reply; those of one step share its time."""
        self.link_s = Histogram(TOKEN_S)
        """Of a decode step outside all nodes."""
        self.hops = 0
        """Ways between two nodes in those steps."""
        self.stages: dict[NodeId | None, StageTally] = {}
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.embedded_tokens = 0
        self.proposed_tokens = self.accepted_tokens = 0
        self.resumes = 0
        self.batch_steps, self.compute_s = Histogram(BATCH), 0.0
        """Of this node's workers: steps that shared a batch of decoding, seconds in the engine."""
        self.rows = 0
        self.worker_deaths = 0

    def ended(self, outcome: str) -> None:
        """A request of a client. An outcome that is none of OUTCOMES counts as failed."""
        self.requests[outcome if outcome in self.requests else "failed"] += 1

    def generated(self, usage: Usage, *, waited_s: float) -> None:
        """A reply has ended. `waited_s`: from the place in the queue to the first step."""
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.proposed_tokens += usage.proposed_tokens
        self.accepted_tokens += usage.accepted_tokens
        if usage.completion_tokens:
            self.prefill_s.add(usage.prefill_ms / 1e3)
            self.first_token_s.add(waited_s + usage.prefill_ms / 1e3)

    def decoded(
        self, nodes: Sequence[NodeId], trace: Sequence[tuple[int, int]], seconds: float, tokens: int
    ) -> None:
        """One decode step is back after so long, with so many tokens that counted. `trace`: as in `StepDone`."""
        on_nodes = 0
        for node, (compute_us, node_us) in zip(nodes, trace, strict=True):
            tally = self.stages.get(node) or self._stage(node)
            tally.compute_s.add(compute_us / 1e6)
            tally.node_s.add(node_us / 1e6)
            on_nodes += node_us
        if tokens:
            self.token_s.add(seconds / tokens, tokens)
        if len(nodes) > 1:
            self.link_s.add(max(0.0, seconds - on_nodes / 1e6))
            self.hops += len(nodes)

    def computed(self, steps: int, rows: int, compute_us: int, *, shared: bool) -> None:
        """A worker is done with a batch. `shared`: of decoding, which several users may share."""
        if shared:
            self.batch_steps.add(steps)
        self.rows += rows
        self.compute_s += compute_us / 1e6

    def _stage(self, node: NodeId) -> StageTally:
        key = node if len(self.stages) < NODES_LIMIT else None
        return self.stages.setdefault(key, StageTally())
