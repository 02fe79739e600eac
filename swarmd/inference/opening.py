"""Opening the stages of a generation, all at once, and connecting their ends to its head.

A stage says from the beginning that it is alive, however long its shards take to load: who is silent is given up after
`head.SILENCE_S`, and another one can be asked.
"""

from __future__ import annotations

import asyncio
from array import array
from contextlib import AsyncExitStack

from swarmd.domain.ids import NodeId, SessionId, short
from swarmd.domain.plans import Stage
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, Refusal, StageFailed
from swarmd.inference.forwarding import Failed, Stages, StageSession, StepSender, steps_in_flight
from swarmd.inference.head import SILENCE_S, Feed, Head
from swarmd.kit.service import Spawn
from swarmd.peers.links import Links
from swarmd.transport.stream import LinkLost, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.generation import OpenStage, StageAlive, StageBroken, StageReady, StepDone
from swarmd.wire.messages import Refused

OPEN_DEADLINE_S = 600.0  # a stage may have to load its shards first: see workers.LOAD_DEADLINE_S
NOTHING = memoryview(b"")


class Opening:
    """Of one generation."""

    def __init__(self, node: NodeId, stages: Stages, links: Links, spawn: Spawn, head: Head, *, width: int) -> None:
        self._node, self._stages, self._links, self._spawn, self._head = node, stages, links, spawn, head
        self._window = min(len(head.plan.stages) + 1, steps_in_flight(width))
        self._positions: list[int] = []
        """That each stage has in its caches already."""
        self.refused_by: NodeId | None = None
        """Whose stage was the first that was not opened."""
        self._closed = False
        """What these stages still say is of no interest: others have taken over."""

    async def open(self, stack: AsyncExitStack, session: SessionId) -> Refusal | None:
        plan = self._head.plan
        requests = [self._request(session, number) for number in range(len(plan.stages))]
        # Each stage has a stack of its own: they open side by side, and a stack is for one at a time.
        stacks = [await stack.enter_async_context(AsyncExitStack()) for _ in requests]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._open_or_note(own, stage, request))
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
        self._head.connect(entry, window=self._window, positions=min(self._positions))
        stack.callback(self._close)
        return None

    def _close(self) -> None:
        self._closed = True

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
            cells=self._head.prompt_tokens + self._head.limit,
            predecessor=stages[number - 1].node if number else None,
            successor=None if tail else stages[number + 1].node,
            sampling=self._head.request.sampling if tail and not self._head.vectors else None,
            prefixes=tuple(self._head.prefixes),
            vectors=self._head.vectors,
            adapter=self._digest(),
            adapter_bytes=0 if self._head.request.adapter is None else self._head.request.adapter.size_bytes,
        )

    async def _open_or_note(self, stack: AsyncExitStack, stage: Stage, request: OpenStage) -> Feed | Refusal:
        outcome = await self._open_stage(stack, stage, request)
        if isinstance(outcome, Refusal) and self.refused_by is None:
            self.refused_by = stage.node
        return outcome

    async def _open_stage(self, stack: AsyncExitStack, stage: Stage, request: OpenStage) -> Feed | Refusal:
        head = self._head

        def failed(reason: str, *, culprit: NodeId | None = None) -> None:
            if not self._closed:
                head.fail(StageFailed(node=culprit or stage.node, reason=reason))

        produced = self._produced() if request.sampling is not None else NOTHING
        if stage.node == self._node:
            session = await stack.enter_async_context(
                self._stages.session(request, produced, head=self._answered, failed=failed)
            )
            if not isinstance(session, StageSession):
                return session
            self._positions.append(session.positions)
            return session.feed
        link = self._links.link(stage.node)
        if link is None:
            return StageFailed(node=stage.node, reason="the link to it is gone: try again")
        try:
            stream = await stack.enter_async_context(link.open(request, produced))
            return await self._greet(stream, stage, request.stage, failed)
        except (LinkLost, StreamReset, TooManyStreams) as error:
            return StageFailed(node=stage.node, reason=str(error))
        except TimeoutError:
            return StageFailed(node=stage.node, reason=f"it was not ready within {OPEN_DEADLINE_S:.0f} s")

    def _digest(self) -> bytes | None:
        adapter = self._head.request.adapter
        return None if adapter is None else adapter.digest

    def _produced(self) -> memoryview:
        """The reply so far, which counts for the penalties of whoever goes on with it."""
        return memoryview(array("i", self._head.history[self._head.prompt_tokens :])).cast("B")

    def _answered(self, done: StepDone, payload: memoryview) -> None:
        if not self._closed:
            self._head.answered(done, payload)

    async def _greet(self, stream: Stream, stage: Stage, number: int, failed: Failed) -> Feed | Refusal:
        match await self._first_words(stream):
            case StageReady(adapter=applied) if applied != self._digest():
                what = f"node {short(stage.node)} runs a version that applies no adapters: update it"
                return Invalid(what=what, param="lora_adapter")
            case StageReady(positions=positions) if positions % self._head.rows == 0 and (
                0 <= positions <= len(self._head.prefixes) * self._head.rows
            ):
                self._positions.append(positions)
            case StageReady(positions=positions):
                return StageFailed(node=stage.node, reason=f"it says that it has {positions} positions in its caches")
            case Refused(kind=kind, sentence=sentence):
                known = _kind_of(kind)
                return known(what=f"node {short(stage.node)}: {sentence}") if known else StageFailed(
                    node=stage.node, reason=sentence
                )  # fmt: skip
            case StageBroken(lacking=(needed, free)):
                layers = ((stage.layer_start, stage.layer_end),)
                return NoCapacity(node=stage.node, needed_bytes=needed, free_bytes=free, layers=layers)
            case StageBroken(reason=reason):
                return StageFailed(node=stage.node, reason=reason)
            case None:
                return StageFailed(node=stage.node, reason=f"it gave no sign of life for {SILENCE_S:.0f} s")
            case other:
                return StageFailed(node=stage.node, reason=f"it answered {type(other).__name__}")
        head = self._head
        head.await_signs(number)

        def arrived(message: object, payload: memoryview) -> None:
            if self._closed:
                return
            head.heard(number)
            match message:
                case StepDone():
                    head.answered(message, payload)
                case StageAlive():
                    pass
                case StageBroken(reason=reason, culprit=culprit):
                    failed(reason, culprit=culprit)
                case _:
                    failed(f"it sent {type(message).__name__}")

        stream.on_message(arrived, lambda failure: failed(str(failure or "it ended its stage")))
        return StepSender(stream, spawn=self._spawn, failed=failed).push

    async def _first_words(self, stream: Stream) -> object:
        """What it says besides being alive; None: nothing, not even that."""
        async with asyncio.timeout(OPEN_DEADLINE_S):
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        received = await stream.receive()
                except TimeoutError:
                    return None
                if received is None or not isinstance(received.message, StageAlive):
                    return StageBroken(reason="it ended its stage") if received is None else received.message


def _kind_of(name: str) -> type[Busy] | type[Invalid] | None:
    """Refusals of a stage that mean the same at the head, and so the same status to the client. What a stage has not found
    is none: the client asked for a model that there is, and a shard that was deleted may be found elsewhere in a moment."""
    return {"Busy": Busy, "Invalid": Invalid}.get(name)
