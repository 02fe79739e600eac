"""`swarmd chat`: one question, or a conversation. The reply streams; under it stands who computed it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from swarmd.api.openai_shapes import Swarm
from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.failure import INTERRUPTED, USAGE, Failure
from swarmd.cli.hops import hop_line
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Place, Url, find
from swarmd.cli.terminal import complain, output, say
from swarmd.domain.ids import SHORT_NODE_DIGITS

QUIT: Final = ("/quit", "/exit", "/bye")
NEW: Final = "/new"


async def stream_answer(
    node: NodeClient,
    model: str,
    turns: Sequence[Turn],
    write: Callable[[str], None],
    *,
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> tuple[str, Swarm | None]:
    """Writes the reply piece by piece; returns all of it, and where its time went. Raises Failure."""
    parts: list[str] = []
    swarm: Swarm | None = None
    async with contextlib.aclosing(node.chat(model, turns, max_tokens=max_tokens, temperature=temperature)) as pieces:
        async for piece in pieces:
            if piece.text:
                parts.append(piece.text)
                write(piece.text)
            swarm = piece.swarm or swarm
    return "".join(parts), swarm


class Conversation:
    """What was said so far, and with whom."""

    def __init__(
        self, place: Place, *, model: str, system: str | None, max_tokens: int | None, temperature: float | None
    ) -> None:
        self._place, self._model, self._max_tokens, self._temperature = place, model, max_tokens, temperature
        self._opening = [Turn(role="system", content=system)] if system else []
        self._turns = [*self._opening]

    def forget(self) -> None:
        self._turns = [*self._opening]

    def ask(self, question: str) -> None:
        """Prints the reply. Raises Failure, or KeyboardInterrupt after the node was told to stop; then nothing is kept."""
        turns = [*self._turns, Turn(role="user", content=question)]
        reply = asyncio.run(self._answer(turns))
        self._turns = [*turns, Turn(role="assistant", content=reply)]

    async def _answer(self, turns: Sequence[Turn]) -> str:
        async with NodeClient(self._place) as node:
            head = (await node.stats()).node_id[:SHORT_NODE_DIGITS]
            reply, swarm = await stream_answer(
                node, self._model, turns, _write, max_tokens=self._max_tokens, temperature=self._temperature
            )
        say("")
        if swarm is not None:
            say(hop_line(swarm, head, {}), style="dim")
        return reply


def chat(
    question: Annotated[list[str] | None, typer.Argument(help="What to ask; without it, a conversation.")] = None,
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="Model id, or `auto`.")] = "auto",
    system: Annotated[str | None, typer.Option("--system", help="What the model should know beforehand.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest reply.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, max=2.0, help="0 picks the likeliest word.")
    ] = None,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Ask the swarm, and see which node computed what."""
    try:
        place = find(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file))
        talk = Conversation(place, model=model, system=system, max_tokens=max_tokens, temperature=temperature)
        asked = " ".join(question) if question else None if sys.stdin.isatty() else sys.stdin.read().strip()
        if asked is None:
            _converse(talk)
        elif asked:
            talk.ask(asked)
        else:
            raise Failure("nothing was asked: give a question, or run it on a terminal", exit_code=USAGE)
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        say("\n(stopped)")
        raise typer.Exit(INTERRUPTED) from None


def _converse(talk: Conversation) -> None:
    """Until /quit, end of file, or Ctrl-C at the prompt; Ctrl-C in a reply ends the reply alone."""
    say(f"{NEW} forgets what was said, {QUIT[0]} ends; Ctrl-C stops a reply", style="dim")
    while True:
        try:
            line = output().input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            say("")
            return
        if line in QUIT:
            return
        if line == NEW:
            talk.forget()
        elif line:
            _answer_or_say_why(talk, line)


def _answer_or_say_why(talk: Conversation, line: str) -> None:
    try:
        talk.ask(line)
    except Failure as failure:  # the conversation goes on: a node may come back
        complain(str(failure))
    except KeyboardInterrupt:
        say("\n(stopped)")


def _write(text: str) -> None:
    say(text, end="")
    sys.stdout.flush()
