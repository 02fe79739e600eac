"""Several replies to one request, side by side (`n`).

Each goes through admission like a request of its own. One of them at a time waits there, so that they neither fill the
queue nor wait for one another in it: whoever finds no place while others of the same request still run waits for those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from swarmd.api.ports import Generation, Opener
from swarmd.domain.generation import GenerationFailed, GenerationRequest, TokenChunk
from swarmd.domain.ids import RequestId
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Busy, Refusal

CHOICES_LIMIT: Final = 8  # as many as the places a node has by default can hold twice over; the contract allows 128
CHUNKS_WAITING: Final = 32  # of all choices, for a client that reads slowly; then the stages wait
SEED_STEP: Final = 1 << 48  # between the seeds of two choices: far from those that a client counts up by itself


def choices_of(request: GenerationRequest, count: int) -> list[GenerationRequest]:
    """The same request with an id and a seed for each choice; the first one is the request itself."""
    return [
        request
        if index == 0
        else replace(
            request,
            request=RequestId(f"{request.request}-{index}"),
            sampling=replace(request.sampling, seed=request.sampling.seed ^ (index * SEED_STEP)),
        )
        for index in range(count)
    ]


class Choices:
    """What comes of them: `async for index, chunk in choices`, in the order in which it comes."""

    def __init__(
        self,
        plan: PipelinePlan,
        chunks: AsyncIterator[tuple[int, TokenChunk]],
        *,
        prompt_tokens: int = 0,
        cached_tokens: int = 0,
    ) -> None:
        """`plan`: of the first choice, as the tokens of its prompt, which are 0 where nobody knows them before the end."""
        self.plan, self._chunks = plan, chunks
        self.prompt_tokens, self.cached_tokens = prompt_tokens, cached_tokens

    def __aiter__(self) -> AsyncIterator[tuple[int, TokenChunk]]:
        """Raises GenerationFailed when one of them cannot go on; then the others are of no use either."""
        return self._chunks


@asynccontextmanager
async def opened(generations: Opener, requests: Sequence[GenerationRequest]) -> AsyncGenerator[Choices | Refusal]:
    """Runs within the block; leaving it, cancelled or not, ends every choice. A refusal of the first one is the answer."""
    first = await generations.open(requests[0])
    if isinstance(first, Refusal):
        yield first
        return
    if len(requests) == 1:
        async with first:
            yield _choices(first, _numbered(first))
        return
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first)
        several = _Several(generations)
        fault: Exception | None = None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(several.run_first(first, stack))]
            tasks += [group.create_task(several.run(index, requests[index])) for index in range(1, len(requests))]
            try:
                yield _choices(first, several.chunks(len(requests)))
            except Exception as caught:  # noqa: BLE001 - raised below: out of the group, which would wrap it
                fault = caught
            finally:
                for task in tasks:
                    task.cancel()
        if fault is not None:
            raise fault


def _choices(first: Generation, chunks: AsyncIterator[tuple[int, TokenChunk]]) -> Choices:
    return Choices(first.plan, chunks, prompt_tokens=first.prompt_tokens, cached_tokens=first.cached_tokens)


async def _numbered(generation: Generation) -> AsyncGenerator[tuple[int, TokenChunk]]:
    async for chunk in generation:
        yield 0, chunk


class _Several:
    def __init__(self, generations: Opener) -> None:
        self._generations = generations
        self._queue: asyncio.Queue[tuple[int, TokenChunk | Refusal]] = asyncio.Queue(CHUNKS_WAITING)
        self._turn = asyncio.Lock()
        self._running = 1
        self._left = asyncio.Event()

    async def chunks(self, count: int) -> AsyncGenerator[tuple[int, TokenChunk]]:
        while count:
            index, chunk = await self._queue.get()
            if isinstance(chunk, Refusal):
                raise GenerationFailed(chunk)
            yield index, chunk
            count -= chunk.finish is not None

    async def run_first(self, generation: Generation, stack: AsyncExitStack) -> None:
        try:
            await self._pass_on(0, generation)
        finally:
            await stack.aclose()  # its place is free for the others now
            self._leave()

    async def run(self, index: int, request: GenerationRequest) -> None:
        generation = await self._open(request)
        if isinstance(generation, Refusal):
            await self._queue.put((index, generation))
            return
        try:
            async with generation:
                await self._pass_on(index, generation)
        finally:
            self._leave()

    async def _open(self, request: GenerationRequest) -> Generation | Refusal:
        async with self._turn:
            while True:
                self._left.clear()
                generation = await self._generations.open(request)
                if not isinstance(generation, Refusal):
                    self._running += 1
                    return generation
                if not isinstance(generation, Busy) or not self._running:
                    return generation
                await self._left.wait()

    async def _pass_on(self, index: int, generation: Generation) -> None:
        try:
            async for chunk in generation:
                await self._queue.put((index, chunk))
        except GenerationFailed as failure:
            await self._queue.put((index, failure.refusal))

    def _leave(self) -> None:
        self._running -= 1
        self._left.set()
