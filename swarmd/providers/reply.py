"""A reply in the making, whatever wire it comes over: from pieces to chunks with numbers, an end and a usage."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.domain.generation import Finish, Logprob, TokenChunk, Usage
from swarmd.domain.structure import CallPiece
from swarmd.kit.world import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one event of a wire says. Counts are None where it does not say."""

    text: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[tuple[Logprob, tuple[Logprob, ...]], ...] = ()
    finish: Finish | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ended: bool = False
    """Nothing comes behind it."""


class ReplyInTheMaking:
    """Numbers the chunks and keeps finish and usage for the last one, which is where readers expect both."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._asked_at = clock.ticks()
        self._first_at: float | None = None
        self._sequence = 0
        self._called = False
        self.finish: Finish | None = None
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0

    def add(self, piece: Piece) -> TokenChunk | None:
        """None: it has nothing for a reader."""
        self.finish = piece.finish or self.finish
        self._prompt_tokens = _newer(piece.prompt_tokens, self._prompt_tokens)
        self._completion_tokens = _newer(piece.completion_tokens, self._completion_tokens)
        self._cached_tokens = _newer(piece.cached_tokens, self._cached_tokens)
        if not piece.text and not piece.calls:
            return None
        self._called = self._called or bool(piece.calls)
        if self._first_at is None:
            self._first_at = self._clock.ticks()
        return self._numbered(TokenChunk(
            sequence=self._sequence, text=piece.text, calls=piece.calls, logprobs=piece.logprobs
        ))  # fmt: skip

    def last(self) -> TokenChunk:
        """The wire has ended as it should, with a finish."""
        assert self.finish is not None, "a reply without a finish was cut off"
        now = self._clock.ticks()
        first = now if self._first_at is None else self._first_at
        usage = Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=self._completion_tokens,
            prefill_ms=(first - self._asked_at) * 1e3, decode_ms=(now - first) * 1e3, stages=(), link_ms=0.0,
            cached_tokens=self._cached_tokens,
        )  # fmt: skip
        finish = self.finish  # servers do not agree on what a reply with calls ends with
        if finish is not Finish.LENGTH:
            finish = Finish.TOOL_CALLS if self._called else Finish.STOP
        return self._numbered(TokenChunk(sequence=self._sequence, text="", finish=finish, usage=usage))

    def _numbered(self, chunk: TokenChunk) -> TokenChunk:
        self._sequence += 1
        return chunk


def _newer(value: int | None, before: int) -> int:
    return before if value is None else value
