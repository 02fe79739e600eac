"""The head of a generation whose stages are a list of steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import numpy as np

from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.plans import PipelinePlan, Stage
from swarmd.inference.generation import Generation
from swarmd.inference.head import REPLAY_ROWS, Head
from swarmd.inference.tool_calls import ToolCallParser
from swarmd.inference.workers import PREFILL_ROWS, Texts
from swarmd.wire.generation import StepDone, StepOn

MODEL = ModelId("tiny")
NODES = (NodeId("a" * 64), NodeId("b" * 64))
END = 9
PIECES = (b"a", b"b", b"c", b"\xc3", b"\xa4", b"<", b">", b"x", b"y", b"")
TRACE = [(1000, 2000), (3000, 5000)]


class Tail:
    """Where the head's steps go: keeps them, and answers when told to."""

    def __init__(self) -> None:
        self.steps: list[tuple[StepOn, list[int]]] = []
        self.answered = 0
        self.head: Head | None = None

    def feed(self, step: StepOn, payload: memoryview) -> None:
        self.steps.append((step, np.frombuffer(payload, np.int32).tolist()))

    @property
    def waiting(self) -> int:
        return len(self.steps) - self.answered

    def answer(self, token: int | None = None, logprobs: list[tuple[int, float]] | None = None) -> None:
        """To the oldest step; prefill steps are answered without a token until one samples."""
        step, _ = self.steps[self.answered]
        self.answered += 1
        self.head.answered(StepDone(step.number, [token] * step.sample, [logprobs or []] * step.sample, TRACE))

    def answer_several(self, *tokens: int) -> None:
        """To the oldest step, which carries a proposal."""
        step, _ = self.steps[self.answered]
        assert step.sample == len(tokens), step
        self.answered += 1
        self.head.answered(StepDone(step.number, list(tokens), [[] for _ in tokens], TRACE))


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def plan() -> PipelinePlan:
    stages = tuple(
        Stage(node=node, first_shard=i, last_shard=i, layer_start=2 * i, layer_end=2 * i + 2) for i, node in enumerate(NODES)
    )
    return PipelinePlan(model=MODEL, layout="0" * 32, stages=stages, predicted_token_ms=None)


def started(
    prompt: int, *, limit: int = 1000, window: int = 3, stop: tuple[str, ...] = (), ticks: Callable[[], float] = float,
    proposals: int = 0,
) -> tuple[Head, Tail]:
    request = GenerationRequest(request=RequestId("r"), model=MODEL, prompt="p", max_tokens=limit, stop=stop)
    texts = Texts(pieces=PIECES, ends=frozenset({END}))
    head = Head(
        request=request, plan=plan(), tokens=[i % 9 for i in range(prompt)], texts=texts, rows=PREFILL_ROWS,
        replay_rows=REPLAY_ROWS, limit=limit, proposals=proposals, ticks=ticks,
    )  # fmt: skip
    tail = Tail()
    tail.head = head
    head.connect(tail.feed, window=window)
    head.start()
    return head, tail


def generation_of(head: Head, calls: ToolCallParser | None = None) -> Generation:
    async def nobody(_: Head, failed: GenerationFailed) -> AsyncExitStack:
        raise failed

    return Generation(head=head, stack=AsyncExitStack(), resume=nobody, finished=lambda _head, _outcome: None, calls=calls)


def telling(hear: Callable[[str], object]) -> Callable[..., None]:
    """As `forwarding.Failed`: hears the reason."""

    def failed(reason: str, *, culprit: NodeId | None = None) -> None:
        hear(reason)

    return failed
