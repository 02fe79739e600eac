"""What was said so far in `swarmd chat`, and the next question: the reply as it comes, and under it who computed it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from swarmd.api.openai_shapes import Swarm, UsageOut
from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.failure import USAGE, Failure
from swarmd.cli.hops import hop_line
from swarmd.cli.place import Place
from swarmd.cli.terminal import say
from swarmd.domain.ids import SHORT_NODE_DIGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply."""

    text: str
    swarm: Swarm | None
    usage: UsageOut | None
    finish_reason: str | None
    model: str
    """Who answered, where `auto` was asked."""
    first_s: float | None
    """Seconds from the question to the first piece of text; None: there was none."""
    seconds: float


@dataclass(slots=True, kw_only=True)
class Wishes:
    """How a reply is to be made. What is None is for the node to choose."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None


async def stream_answer(
    node: NodeClient, model: str, turns: Sequence[Turn], write: Callable[[str], None], wishes: Wishes
) -> Reply:
    """Writes the reply piece by piece and returns all of it. Raises Failure."""
    clock = asyncio.get_running_loop().time
    started, first = clock(), None
    parts: list[str] = []
    swarm, usage, reason, who = None, None, None, model
    pieces = node.chat(model, turns, max_tokens=wishes.max_tokens, temperature=wishes.temperature, seed=wishes.seed)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if piece.text:
                first = clock() if first is None else first
                parts.append(piece.text)
                write(piece.text)
            swarm, usage = piece.swarm or swarm, piece.usage or usage
            reason, who = piece.finish_reason or reason, piece.model or who
    return Reply(
        text="".join(parts), swarm=swarm, usage=usage, finish_reason=reason, model=who,
        first_s=None if first is None else first - started, seconds=clock() - started,
    )  # fmt: skip


def write_out(text: str) -> None:
    """A piece of a reply, at once."""
    say(text, end="")
    sys.stdout.flush()


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One talk with one model, which may be changed in between."""

    place: Place
    model: str
    system: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    turns: list[Turn] = field(default_factory=list[Turn])
    """Questions and replies by turns, without the system's text."""
    last: Reply | None = None
    asked: str | None = None
    """The last question, also one whose reply failed or was stopped."""
    head: str | None = None
    """Short id of the node that is asked."""

    def forget(self) -> None:
        self.turns.clear()

    def undo(self) -> str | None:
        """Takes the last question and its reply back; the question, or None where nothing was said."""
        if not self.turns:
            return None
        question = self.turns[-2].content
        del self.turns[-2:]
        return question

    def ask(self, question: str) -> None:
        """Prints the reply. Raises Failure, or KeyboardInterrupt after the node was told to stop; then nothing is kept."""
        reply = asyncio.run(self._answer([*self.turns, Turn(role="user", content=question)]))
        self.turns += [Turn(role="user", content=question), Turn(role="assistant", content=reply.text)]

    async def _answer(self, turns: Sequence[Turn]) -> Reply:
        opening = [Turn(role="system", content=self.system)] if self.system else []
        async with NodeClient(self.place) as node:
            self.head = (await node.stats()).node_id[:SHORT_NODE_DIGITS]
            self.last = await stream_answer(node, self.model, [*opening, *turns], write_out, self.wishes)
        say("")
        if self.last.swarm is not None:
            say(hop_line(self.last.swarm, self.head, {}), style="dim")
        return self.last

    def set(self, name: str, text: str) -> None:
        """One of the wishes by its name; an empty text takes it back. Raises Failure for what it cannot be."""
        try:
            match name:
                case "max_tokens":
                    self.wishes.max_tokens = _number(text, 1, 1 << 20) if text else None
                case "seed":
                    self.wishes.seed = _number(text, 0, (1 << 32) - 1) if text else None
                case "temperature":
                    value = float(text) if text else None
                    if value is not None and not 0.0 <= value <= 2.0:
                        raise ValueError
                    self.wishes.temperature = value
                case _:
                    raise Failure(f"{name[:40]!r} cannot be set: max_tokens, temperature and seed can", exit_code=USAGE)
        except ValueError:
            raise Failure(f"{text[:40]!r} is no {name}: {_RANGES[name]}", exit_code=USAGE) from None

    def as_markdown(self) -> str:
        """Everything that was said, to be kept."""
        opening = [Turn(role="system", content=self.system)] if self.system else []
        heads = {"user": "Question", "assistant": "Reply", "system": "Beforehand"}
        return "\n".join(f"## {heads[turn.role]}\n\n{turn.content}\n" for turn in (*opening, *self.turns))


_RANGES: Final = {"max_tokens": "a whole number from 1 on", "seed": "0 to 4294967295", "temperature": "0 to 2"}


def _number(text: str, low: int, high: int) -> int:
    value = int(text)
    if not low <= value <= high:
        raise ValueError
    return value
