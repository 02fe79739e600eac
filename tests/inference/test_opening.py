"""What stages answer when they are opened, and what the head makes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from swarmd.domain.adapters import AdapterRef
from swarmd.domain.ids import NodeId, SessionId
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, Refusal, StageFailed
from swarmd.inference.opening import Opening
from swarmd.transport.stream import LinkLost
from swarmd.wire.events import TooManyStreams
from swarmd.wire.generation import OpenStage, StageBroken, StageReady, StepDone
from swarmd.wire.messages import Refused
from tests.fakes.heads import NODES, started


class Answering:
    """A stream whose stage says one thing; an exception: it cannot be opened, or breaks."""

    def __init__(self, first: object) -> None:
        self.first = first

    async def receive(self) -> Answering:
        if isinstance(self.first, Exception):
            raise self.first
        return self

    @property
    def message(self) -> object:
        return self.first

    def on_message(self, *_: object) -> None:
        pass


class Linked:
    """Links to stages that answer what they are told; None: there is no link."""

    def __init__(self, answers: dict[NodeId, object]) -> None:
        self.answers, self.opened, self.closed = answers, list[OpenStage](), 0

    def link(self, node: NodeId) -> object:
        return None if self.answers[node] is None else _Link(self, self.answers[node])


class _Link:
    def __init__(self, links: Linked, answer: object) -> None:
        self.links, self.answer = links, answer

    @asynccontextmanager
    async def open(self, request: OpenStage, _produced: object) -> AsyncGenerator[Answering]:
        self.links.opened.append(request)
        try:
            yield Answering(self.answer)
        finally:
            self.links.closed += 1


async def opened(first: object, second: object) -> tuple[Refusal | None, Linked]:
    head, _ = started(3)
    links = Linked({NODES[0]: first, NODES[1]: second})
    async with AsyncExitStack() as stack:
        opening = Opening(NodeId("f" * 64), None, links, None, head, width=64)
        return await opening.open(stack, SessionId("1" * 32)), links


async def test_every_stage_is_told_its_neighbours_and_the_tail_alone_how_to_sample() -> None:
    refusal, links = await opened(StageReady(), StageReady())
    assert refusal is None
    first, second = links.opened
    assert (first.predecessor, first.successor, first.sampling) == (None, NODES[1], None)
    assert (second.predecessor, second.successor) == (NODES[0], None)
    assert second.sampling is not None and first.cells == second.cells == 1003


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Refused(kind="Busy", sentence="all seats are taken"), Busy, "node bbbbbbbbbbbbbbbb: all seats are taken"),
        (Refused(kind="WorkerFailed", sentence="it crashed"), StageFailed, "it crashed"),
        (StageBroken(reason="no memory", lacking=(9, 4)), NoCapacity, ""),
        (StageBroken(reason="its disk is gone"), StageFailed, "its disk is gone"),
        (StepDone(0, [1], [[]], []), StageFailed, "it answered StepDone"),
        (LinkLost("the cable"), StageFailed, "the cable"),
        (TooManyStreams("of them"), StageFailed, "of them"),
        (TimeoutError(), StageFailed, "gave no sign of life for 2 s"),
        (None, StageFailed, "the link to it is gone"),
    ],
)
async def test_the_first_no_is_the_answer_and_closes_the_others(answer: object, kind: type, words: str) -> None:
    refusal, links = await opened(StageReady(), answer)
    assert isinstance(refusal, kind) and words in refusal.sentence
    assert links.closed == len(links.opened), "nothing stays open"


async def test_who_refused_is_told_also_where_the_refusal_does_not_say_it() -> None:
    head, _ = started(3)
    links = Linked({NODES[0]: StageReady(), NODES[1]: Refused(kind="NotFound", sentence="the shard is not here")})
    async with AsyncExitStack() as stack:
        opening = Opening(NodeId("f" * 64), None, links, None, head, width=64)
        await opening.open(stack, SessionId("1" * 32))
    assert opening.refused_by == NODES[1]


async def with_adapter(*answers: object) -> tuple[Refusal | None, Linked]:
    head, _ = started(3)
    head.request = replace(head.request, adapter=AdapterRef(digest=b"d" * 32, size_bytes=7))
    links = Linked(dict(zip(NODES, answers, strict=False)))
    async with AsyncExitStack() as stack:
        opening = Opening(NodeId("f" * 64), None, links, None, head, width=64)
        return await opening.open(stack, SessionId("1" * 32)), links


async def test_every_stage_is_told_the_adapter_by_its_digest() -> None:
    ready = StageReady(adapter=b"d" * 32)
    refusal, links = await with_adapter(ready, ready)
    assert refusal is None
    assert [(request.adapter, request.adapter_bytes) for request in links.opened] == [(b"d" * 32, 7)] * 2


@pytest.mark.parametrize("old", [StageReady(), StageReady(adapter=b"e" * 32)])
async def test_a_stage_that_does_not_apply_the_adapter_is_not_run(old: StageReady) -> None:
    """An older version ignores the field, and would compute something else without a word."""
    refusal, links = await with_adapter(StageReady(adapter=b"d" * 32), old)
    assert isinstance(refusal, Invalid) and "applies no adapters" in refusal.sentence
    assert links.closed == len(links.opened)
