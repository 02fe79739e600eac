"""Opening the stages of a generation, all at once, and connecting their ends to its head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from swarmd.domain.ids import NodeId, SessionId, short
from swarmd.domain.plans import Stage
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, NotFound, Refusal, StageFailed
from swarmd.inference.forwarding import Stages, StageSession, StepSender, steps_in_flight
from swarmd.inference.head import Feed, Head
from swarmd.kit.service import Spawn
from swarmd.peers.links import Links
from swarmd.transport.stream import LinkLost, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.generation import OpenStage, StageBroken, StageReady, StepDone
from swarmd.wire.messages import Refused

OPEN_DEADLINE_S = 600.0  # a stage may have to load its shards first: see workers.LOAD_DEADLINE_S


class Opening:
    """Of one generation."""

    def __init__(self, node: NodeId, stages: Stages, links: Links, spawn: Spawn, head: Head, *, width: int) -> None:
        self._node, self._stages, self._links, self._spawn, self._head = node, stages, links, spawn, head
        self._window = min(len(head.plan.stages) + 1, steps_in_flight(width))

    async def open(self, stack: AsyncExitStack, session: SessionId) -> Refusal | None:
        plan = self._head.plan
        requests = [self._request(session, number) for number in range(len(plan.stages))]
        # Each stage has a stack of its own: they open side by side, and a stack is for one at a time.
        stacks = [await stack.enter_async_context(AsyncExitStack()) for _ in requests]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._open_stage(own, stage, request))
                for own, stage, request in zip(stacks, plan.stages, requests, strict=True)
            ]
            for next_one in asyncio.as_completed(tasks):
                refusal = await next_one
                if isinstance(refusal, Refusal):
                    for task in tasks:
                        task.cancel()  # nobody waits for a slow load when the answer is known
                    return refusal
        entry = tasks[0].result()
        assert not isinstance(entry, Refusal), "the first refusal was returned"
        self._head.connect(entry, window=self._window)
        return None

    def _request(self, session: SessionId, number: int) -> OpenStage:
        stages = self._head.plan.stages
        stage = stages[number]
        tail = number == len(stages) - 1
        return OpenStage(
            session=session,
            model=self._head.plan.model,
            layout=self._head.plan.layout,
            stage=number,
            stages=len(stages),
            first_shard=stage.first_shard,
            last_shard=stage.last_shard,
            cells=len(self._head.history) + self._head.limit,
            predecessor=stages[number - 1].node if number else None,
            successor=None if tail else stages[number + 1].node,
            sampling=self._head.request.sampling if tail else None,
        )

    async def _open_stage(self, stack: AsyncExitStack, stage: Stage, request: OpenStage) -> Feed | Refusal:
        head = self._head

        def failed(reason: str) -> None:
            head.fail(StageFailed(node=stage.node, reason=reason))

        if stage.node == self._node:
            session = await stack.enter_async_context(self._stages.session(request, head=head.answered, failed=failed))
            return session.feed if isinstance(session, StageSession) else session
        link = self._links.link(stage.node)
        if link is None:
            return StageFailed(node=stage.node, reason="the link to it is gone: try again")
        try:
            stream = await stack.enter_async_context(link.open(request))
            return await self._greet(stream, stage, failed)
        except (LinkLost, StreamReset, TooManyStreams) as error:
            return StageFailed(node=stage.node, reason=str(error))
        except TimeoutError:
            return StageFailed(node=stage.node, reason=f"it was not ready within {OPEN_DEADLINE_S:.0f} s")

    async def _greet(self, stream: Stream, stage: Stage, failed: Callable[[str], None]) -> Feed | Refusal:
        async with asyncio.timeout(OPEN_DEADLINE_S):
            first = await stream.receive()
        match first.message if first else None:
            case StageReady():
                pass
            case Refused(kind=kind, sentence=sentence):
                known = _kind_of(kind)
                return known(what=f"node {short(stage.node)}: {sentence}") if known else StageFailed(
                    node=stage.node, reason=sentence
                )  # fmt: skip
            case StageBroken(lacking=(needed, free)):
                return NoCapacity(node=stage.node, needed_bytes=needed, free_bytes=free)
            case StageBroken(reason=reason):
                return StageFailed(node=stage.node, reason=reason)
            case other:
                return StageFailed(node=stage.node, reason=f"it answered {type(other).__name__}")
        head = self._head

        def arrived(message: object, _payload: memoryview) -> None:
            match message:
                case StepDone():
                    head.answered(message)
                case StageBroken(reason=reason):
                    failed(reason)
                case _:
                    failed(f"it sent {type(message).__name__}")

        stream.on_message(arrived, lambda failure: failed(str(failure or "it ended its stage")))
        return StepSender(stream, spawn=self._spawn, failed=failed).push


def _kind_of(name: str) -> type[Busy] | type[Invalid] | type[NotFound] | None:
    """Refusals of a stage that mean the same at the head, and so the same status to the client."""
    return {"Busy": Busy, "Invalid": Invalid, "NotFound": NotFound}.get(name)
