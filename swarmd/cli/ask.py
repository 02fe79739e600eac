"""`swarmd ask`: one question for scripts and pipes. The reply alone is on stdout, who computed it on stderr."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer
from msgspec import Struct

from swarmd.api.openai_shapes import Swarm, UsageOut
from swarmd.cli.chat import MaxTokens, Model, Seed, System, Temperature
from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.conversation import Reply, Wishes, stream_answer, write_out
from swarmd.cli.failure import USAGE, Failure
from swarmd.cli.hops import hop_line
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import errors, finish, printable, say, say_json
from swarmd.domain.ids import SHORT_NODE_DIGITS

CONTEXT_LIMIT: Final = 8 * 1024 * 1024  # bytes of stdin: more than any model's context holds


class Answer(Struct, frozen=True, kw_only=True):
    """What `ask --json` prints."""

    model: str
    reply: str
    finish_reason: str | None
    """`stop`, or `length` where the reply was cut."""
    first_token_seconds: float | None
    seconds: float
    usage: UsageOut | None
    swarm: Swarm | None
    """Which nodes answered, and where the time went."""


def ask(
    question: Annotated[list[str] | None, typer.Argument(help="What to ask; what comes on stdin is its context.")] = None,
    *,
    model: Model = "auto",
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but the reply, also on stderr.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Ask one question and print the reply. Text on stdin goes before the question, or is the question."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    wishes = Wishes(max_tokens=max_tokens, temperature=temperature, seed=seed)
    finish(_ask(chosen, question or [], model, system, wishes, quiet=quiet, as_json=as_json))


def prompt_of(question: str, context: str) -> str:
    """What the model is told. Raises Failure where there is nothing to ask, or too much."""
    if len(context) > CONTEXT_LIMIT:
        raise Failure(f"stdin has more than {CONTEXT_LIMIT} bytes: no model takes so much", exit_code=USAGE)
    parts = [part for part in (context.strip(), question.strip()) if part]
    if not parts:
        raise Failure("nothing was asked: give a question, or write it to stdin", exit_code=USAGE)
    return "\n\n".join(parts)


def _context() -> str:
    """What was piped in; nothing on a terminal, where nobody was asked to type."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read(CONTEXT_LIMIT + 1).decode()
    except UnicodeDecodeError:
        raise Failure("stdin is no text: a question is asked in UTF-8", exit_code=USAGE) from None
    except OSError:  # it is closed
        return ""


async def _ask(
    chosen: Chosen, words: list[str], model: str, system: str | None, wishes: Wishes, *, quiet: bool, as_json: bool
) -> None:
    asked = Turn(role="user", content=prompt_of(" ".join(words), _context()))
    turns = [*([Turn(role="system", content=system)] if system else []), asked]
    async with NodeClient(find(chosen)) as node:
        head = None if quiet or as_json else (await node.stats()).node_id[:SHORT_NODE_DIGITS]
        reply = await stream_answer(node, model, turns, _nowhere if as_json else write_out, wishes)
    if as_json:
        say_json(as_answer(reply))
        return
    say("")
    if not quiet:
        _say_who(reply, head)


def as_answer(reply: Reply) -> Answer:
    return Answer(
        model=reply.model, reply=reply.text, finish_reason=reply.finish_reason, first_token_seconds=reply.first_s,
        seconds=reply.seconds, usage=reply.usage, swarm=reply.swarm,
    )  # fmt: skip


def _nowhere(_text: str) -> None:
    """The reply is printed when it is whole."""


def _say_who(reply: Reply, head: str | None) -> None:
    if reply.swarm is not None:
        errors().print(printable(hop_line(reply.swarm, head, {})), style="dim", markup=False, soft_wrap=True)
    if reply.finish_reason == "length":
        errors().print("(the reply was cut: --max-tokens allows more)", style="dim", markup=False, soft_wrap=True)
