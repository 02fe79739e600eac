"""One reply, as who asked for it sees it: pieces of text, and the stages cancelled when it turns away.

A stage that is lost is replaced between two pieces; the client sees a pause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from swarmd.domain.generation import Finish, GenerationFailed, Logprob, TokenChunk
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.structure import CallPiece
from swarmd.inference.head import Head, Picked
from swarmd.inference.prompting import TextStream
from swarmd.inference.tool_calls import SPOKEN, ToolCallParser

Resume = Callable[[Head, GenerationFailed], Awaitable[AsyncExitStack]]
"""Opens other stages in place of those that failed. Raises GenerationFailed when there are none."""


class Generation:
    """One reply: `async with generation:`, then `async for chunk in generation:`. Leaving the block cancels every stage."""

    def __init__(
        self,
        *,
        head: Head,
        stack: AsyncExitStack,
        resume: Resume,
        finished: Callable[[Head, str], None],
        calls: ToolCallParser | None = None,
    ) -> None:
        """`stack`: closes the stages. `calls`: reads the calls of tools in the text."""
        self._head, self._stack, self._resume, self._finished = head, stack, resume, finished
        self._calls = calls
        spoken = {token: text for token, text in head.texts.controls.items() if calls is not None and text in SPOKEN}
        self._text = TextStream(pieces=head.texts.pieces, stops=head.request.stop, spoken=spoken)
        self._sequence = 0
        self._consumed = 0
        self._outcome: str | None = None
        self._exhausted = False

    @property
    def plan(self) -> PipelinePlan:
        return self._head.plan

    @property
    def prompt_tokens(self) -> int:
        return self._head.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, that no stage has to compute."""
        return self._head.cached_tokens

    @property
    def history(self) -> Sequence[int]:
        """Token ids of prompt and reply so far."""
        return tuple(self._head.history)

    async def __aenter__(self) -> Self:
        self._head.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._head.stop()
        try:
            await self._stack.aclose()
        finally:
            self._finished(self._head, self._outcome or ("failed" if isinstance(error, GenerationFailed) else "cancelled"))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next piece of text with the logprobs of its tokens.

        Raises GenerationFailed when a stage is lost and nobody can take over.
        """
        if self._exhausted:
            raise StopAsyncIteration
        logprobs: list[tuple[Logprob, tuple[Logprob, ...]]] = []
        while True:
            picked = await self._picked()
            text = ""
            if picked.finish is not Finish.STOP:
                self._consumed += 1
                text = self._text.feed(picked.token)
                if picked.logprobs:
                    logprobs.append(self._logprobs(picked.logprobs))
            finish = picked.finish
            if self._text.stopped:
                finish = Finish.STOP
                self._head.stop()
            elif finish is not None:
                text += self._text.finish()
                finish = Finish.STOP if self._text.stopped else finish
            calls: tuple[CallPiece, ...] = ()
            if self._calls is not None:
                text, calls, finish = self._read_calls(self._calls, text, finish)
            if finish is None and not text and not calls:
                continue  # half a character, or what may become a stop string or a call
            chunk = TokenChunk(sequence=self._sequence, text=text, calls=calls, logprobs=tuple(logprobs), finish=finish)
            self._sequence += 1
            if finish is not None:
                self._exhausted = True
                self._outcome = Finish.LENGTH.value if finish is Finish.LENGTH else Finish.STOP.value
                chunk = replace(chunk, stopped_by=self._text.stopped_by, usage=self._head.usage(self._consumed))
            return chunk

    def _read_calls(
        self, parser: ToolCallParser, text: str, finish: Finish | None
    ) -> tuple[str, tuple[CallPiece, ...], Finish | None]:
        content, calls = parser.feed(text)
        if parser.over:
            self._head.stop()
            finish = Finish.STOP
        if finish is not None:
            rest, more = parser.finish()
            content, calls = content + rest, calls + more
            if finish is Finish.STOP and parser.calls and not parser.cut:  # else a stop text, or the model, broke it off
                finish = Finish.TOOL_CALLS
        return content, calls, finish

    async def _picked(self) -> Picked:
        while True:
            try:
                return await self._head.next()
            except GenerationFailed as failed:
                await self._stack.aclose()
                stack = await self._resume(self._head, failed)
                self._stack = stack
                self._head.go_on()

    def _logprobs(self, pairs: list[tuple[int, float]]) -> tuple[Logprob, tuple[Logprob, ...]]:
        pieces = self._head.texts.pieces
        named = [
            Logprob(
                token=token,
                text=pieces[token].decode(errors="replace") if 0 <= token < len(pieces) else "",
                logprob=logprob,
            )
            for token, logprob in pairs
        ]
        return named[0], tuple(named[1:])
