"""`swarmd chat`: a conversation. Replies stream; under each stands who computed it; lines that start with / are commands."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmd.cli.client import NodeClient
from swarmd.cli.conversation import Conversation, Wishes
from swarmd.cli.failure import INTERRUPTED, USAGE, Failure
from swarmd.cli.hops import stage_lines
from swarmd.cli.models import answer_text
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, absolute, find
from swarmd.cli.prompt import Prompt, history_path
from swarmd.cli.terminal import complain, say
from swarmd.kit.disk import PRIVATE, Disk

Model = Annotated[str, typer.Option("--model", "-m", help="Model id, or `auto`.")]
System = Annotated[str | None, typer.Option("--system", "-s", help="What the model should know beforehand.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest reply.")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0.0, max=2.0, help="0 picks the likeliest word.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed, the same reply.")]


class Ended(Exception):
    """/quit."""


def chat(
    question: Annotated[list[str] | None, typer.Argument(help="What to ask; without it, a conversation.")] = None,
    *,
    model: Model = "auto",
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Remember what was typed for the next time (Up arrow).")
    ] = True,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Talk with the swarm, and see which node computed what. In scripts use `swarmd ask`."""
    try:
        place = find(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file))
        wishes = Wishes(max_tokens=max_tokens, temperature=temperature, seed=seed)
        talk = Conversation(place=place, model=model, system=system, wishes=wishes)
        asked = " ".join(question) if question else None if sys.stdin.isatty() else sys.stdin.read().strip()
        if asked is None:
            converse(talk, history=history_path(os.environ) if history else None)
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


def converse(talk: Conversation, *, history: Path | None) -> None:
    """Until /quit, the end of the input, or Ctrl-C twice at the prompt; in a reply Ctrl-C ends that reply alone."""
    names = asyncio.run(_greet(talk))
    leaving = False
    with Prompt(lambda start: _endings(start, names), history=history) as prompt:
        while True:
            try:
                line = prompt.line()
            except EOFError:
                say("")
                return
            except KeyboardInterrupt:
                if leaving:
                    say("")
                    return
                leaving = True
                say("\n(once more, or /quit, to leave)", style="dim")
                continue
            leaving = False
            try:
                _take(talk, line)
            except Ended:
                return
            except Failure as failure:  # the conversation goes on: a node may come back
                complain(str(failure))
            except KeyboardInterrupt:
                say("\n(stopped; the question is forgotten: /retry or the Up arrow brings it back)", style="dim")


async def _greet(talk: Conversation) -> list[str]:
    """Who is asked, before somebody writes a long question to nobody. The names that can be talked to. Raises Failure."""
    async with NodeClient(talk.place) as node:
        rows = await node.models()
        talk.head = (await node.stats()).node_id[:16]
    able = [row.id for row in rows if answer_text(row).startswith("yes")]
    say(f"node {talk.head} at {talk.place.url}, model {talk.model}; /help lists commands, Ctrl-C stops a reply", style="dim")
    if not able:
        complain("no model can answer here now: `swarmd models` says why, `swarmd search` and `swarmd get` bring one")
    return able


def _take(talk: Conversation, line: str) -> None:
    """One line: a question or a command."""
    if not line.startswith("/"):
        if line:
            _question(talk, line)
        return
    word, _, rest = line.partition(" ")
    command = next((one for one in COMMANDS if word in one.words), None)
    if command is None:
        near = difflib.get_close_matches(word, [name for one in COMMANDS for name in one.words], n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists them"
        raise Failure(f"there is no command {word[:40]}: {hint}", exit_code=USAGE)
    command.run(talk, rest.strip())


def _question(talk: Conversation, text: str) -> None:
    talk.asked = text
    talk.ask(text)


def _help(_talk: Conversation, _rest: str) -> None:
    for one in COMMANDS:
        say(f"{', '.join(one.words)} {one.takes}".ljust(26) + one.doc)
    say('Several lines: between """ and """. TAB completes commands and models.', style="dim")


def _new(talk: Conversation, _rest: str) -> None:
    talk.forget()
    say("(a new conversation)", style="dim")


def _models(talk: Conversation, _rest: str) -> None:
    rows = asyncio.run(_rows(talk))
    for row in rows:
        mark = "*" if row[0] == talk.model else " "
        say(f"{mark} {row[0]}  ({row[1]})")
    if not rows:
        say("this node knows no model", style="dim")


async def _rows(talk: Conversation) -> list[tuple[str, str]]:
    async with NodeClient(talk.place) as node:
        return [(row.id, answer_text(row)) for row in await node.models()]


def _model(talk: Conversation, rest: str) -> None:
    if rest:
        talk.model = rest
    say(f"(model {talk.model})", style="dim")


def _system(talk: Conversation, rest: str) -> None:
    if rest:
        talk.system = None if rest == "-" else rest
    said = f"beforehand: {talk.system}" if talk.system else "nothing is said beforehand"
    say(f"({said})", style="dim")


def _set(talk: Conversation, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if name:
        talk.set(name, value.strip())
    wishes = talk.wishes
    say(f"(max_tokens {wishes.max_tokens}, temperature {wishes.temperature}, seed {wishes.seed})", style="dim")


def _nodes(talk: Conversation, _rest: str) -> None:
    last = talk.last
    if last is None or last.swarm is None:
        say("(there is no reply yet, or nobody said who made it)", style="dim")
        return
    for line in stage_lines(last.swarm, {}):
        say(line)
    first = "" if last.first_s is None else f"first token after {1000 * last.first_s:.0f} ms, "
    count = "" if last.usage is None else f"{last.usage.completion_tokens} tokens, "
    say(f"{first}{count}{last.swarm.tokens_per_second:.1f} tokens/s, {last.seconds:.1f} s in all", style="dim")
    if last.swarm.resumes:
        say(f"lost nodes were replaced {last.swarm.resumes} times in this reply", style="dim")


def _retry(talk: Conversation, _rest: str) -> None:
    if talk.asked is None:
        raise Failure("there is no question yet")
    if talk.turns and talk.turns[-2].content == talk.asked:
        talk.undo()
    talk.ask(talk.asked)


def _undo(talk: Conversation, _rest: str) -> None:
    taken = talk.undo()
    say("(nothing was said yet)" if taken is None else "(the last question and its reply are forgotten)", style="dim")


def _save(talk: Conversation, rest: str) -> None:
    if not rest:
        raise Failure("/save wants the name of a file", exit_code=USAGE)
    path = absolute(Path(rest))
    disk = Disk()
    if disk.exists_now(path):
        raise Failure(f"{path} exists already: give another name")
    try:
        disk.write_atomic_now(path, talk.as_markdown().encode(), mode=PRIVATE)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror or error}") from error
    say(f"(written to {path})", style="dim")


def _quit(_talk: Conversation, _rest: str) -> None:
    raise Ended


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A line that is no question."""

    words: tuple[str, ...]
    takes: str
    doc: str
    run: Callable[[Conversation, str], None]


COMMANDS: Final = (
    SlashCommand(("/help", "/?"), "", "this list", _help),
    SlashCommand(("/new",), "", "forget what was said", _new),
    SlashCommand(("/model",), "[NAME]", "whom to ask; without a name, who is asked", _model),
    SlashCommand(("/models",), "", "the models, and whether they can answer", _models),
    SlashCommand(("/system",), "[TEXT|-]", "what the model should know beforehand; - takes it back", _system),
    SlashCommand(("/set",), "[NAME VALUE]", "max_tokens, temperature, seed; without a value, take it back", _set),
    SlashCommand(("/nodes",), "", "which nodes made the last reply, and how long each took", _nodes),
    SlashCommand(("/retry",), "", "ask the last question again", _retry),
    SlashCommand(("/undo",), "", "forget the last question and its reply", _undo),
    SlashCommand(("/save",), "FILE", "write the conversation into a new file, as Markdown", _save),
    SlashCommand(("/quit", "/exit", "/bye"), "", "leave; so does Ctrl-D", _quit),
)


def _endings(start: str, models: list[str]) -> list[str]:
    """What a line that starts so may become."""
    if start.startswith("/model "):
        return [f"/model {name}" for name in models if f"/model {name}".startswith(start)]
    return [word for one in COMMANDS for word in one.words if start.startswith("/") and word.startswith(start)]
