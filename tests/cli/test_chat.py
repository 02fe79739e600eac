"""`swarmd chat`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.cli.chat import COMMANDS, Ended, _endings, _take
from swarmd.cli.conversation import Conversation
from swarmd.cli.failure import Failure
from tests.cli.conftest import Cli
from tests.fakes.rim import no_coverage, script


def test_one_question(cli: Cli) -> None:
    result = cli("chat", "What", "is", "a", "shard?")
    assert result.exit_code == 0, result.output
    reply, line = result.stdout.splitlines()
    assert reply == "Hello!"
    assert "aaaaaaaa (layers 0-1, 4.00 ms) -> bbbbbbbb (layers 2-3, 6.00 ms)" in line
    assert "tokens/s" in line and "2 hops of 0.75 ms" in line
    (request,) = cli.rim.pipeline.requests
    assert [(turn.role, turn.content) for turn in request.messages] == [("user", "What is a shard?")]


def test_a_question_through_a_pipe(cli: Cli) -> None:
    assert "Hello!" in cli("chat", "--system", "Be brief.", input="Hi\n").stdout
    (request,) = cli.rim.pipeline.requests
    assert [(turn.role, turn.content) for turn in request.messages] == [("system", "Be brief."), ("user", "Hi")]


def test_no_question_is_wrong_usage(cli: Cli) -> None:
    result = cli("chat", input="")
    assert result.exit_code == 2
    assert "nothing was asked" in result.stderr


def test_a_refusal_is_its_sentence(cli: Cli) -> None:
    cli.rim.pipeline.says = no_coverage()
    result = cli("chat", "-m", "spread-q8", "Hi")
    assert result.exit_code == 7
    assert "no connected node holds shard 2" in result.stderr


def test_ctrl_c_stops_the_reply_on_every_node(cli: Cli) -> None:
    """As a process with a real signal, in the middle of a reply that never ends."""
    cli.rim.pipeline.script = [*script("one")[:1], asyncio.Event()]
    command = [sys.executable, "-m", "swarmd", "chat", "Hi", "--url", cli.url, "--api-key-file", str(cli.key_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as chat:
        assert chat.stdout is not None
        assert chat.stdout.read(3) == "one"
        chat.send_signal(signal.SIGINT)
        rest, complaints = chat.communicate(timeout=20)
    assert chat.returncode == 130
    assert rest == "\n(stopped)\n"
    assert complaints == ""
    deadline = 100
    while cli.rim.pipeline.active and deadline:
        time.sleep(0.05)
        deadline -= 1
    assert cli.rim.pipeline.active == 0, "the node goes on with a reply that nobody reads"


@pytest.fixture
def talk(cli: Cli) -> Conversation:
    return Conversation(place=cli.place, model="auto")


def test_commands_of_a_conversation(
    cli: Cli, talk: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(line: str) -> str:
        _take(talk, line)
        return capsys.readouterr().out

    assert all(word in said("/help") for one in COMMANDS for word in one.words)
    assert "no reply yet" in said("/nodes")
    assert "nothing was said" in said("/undo")
    assert "Hello!" in said("one")
    assert "layers 0-1" in said("/nodes") and "tokens/s" in said("/nodes")
    assert "Hello!" in said("/retry")
    assert [turn.content for turn in cli.rim.pipeline.requests[-1].messages] == ["one"], "the first reply is forgotten"
    assert "yes, alone" in said("/models")
    assert "tiny-q8" in said("/model tiny-q8") and talk.model == "tiny-q8"
    assert "Be brief." in said("/system Be brief.") and "nothing" in said("/system -")
    assert "temperature 0.5" in said("/set temperature 0.5")
    assert "written to" in said(f"/save {tmp_path / 'talk.md'}")
    assert "## Question\n\none\n" in (tmp_path / "talk.md").read_text()
    said("two")
    assert [turn.content for turn in cli.rim.pipeline.requests[-1].messages] == ["one", "Hello!", "two"]
    assert "forgotten" in said("/undo") and len(talk.turns) == 2
    said("/new")
    assert talk.turns == []
    with pytest.raises(Ended):
        _take(talk, "/quit")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/hlep", "did you mean /help?"), ("/xyzzy", "/help lists them"), ("/set colour red", "cannot be set"),
        ("/set temperature 9", "0 to 2"), ("/set seed x", "0 to 4294967295"), ("/save", "name of a file"),
        ("/save /", "exists already"), ("/save /proc/nothing/here", "cannot be written"), ("/retry", "no question yet"),
    ],
)  # fmt: skip
def test_wrong_commands_are_sentences(talk: Conversation, line: str, says: str) -> None:
    with pytest.raises(Failure, match=says):
        _take(talk, line)


def test_tab_completes_commands_and_models() -> None:
    assert _endings("/mod", ["tiny-q8"]) == ["/model", "/models"]
    assert _endings("/model t", ["tiny-q8", "spread-q8"]) == ["/model tiny-q8"]
    assert _endings("What", ["tiny-q8"]) == []


class Terminal:
    """`swarmd chat` as a person sees it."""

    def __init__(self, cli: Cli, home: Path) -> None:
        self.main, other = pty.openpty()
        command = [sys.executable, "-m", "swarmd", "chat", "--url", cli.url, "--api-key-file", str(cli.key_file)]
        environment = {**os.environ, "HOME": str(home), "TERM": "xterm", "XDG_STATE_HOME": str(home)}
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def until(self, text: str) -> None:
        """Reads on until it is there, behind what was found before."""
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.main], [], [], 0.2)[0]:
                self.seen += os.read(self.main, 65536).decode(errors="replace")
        self.seen = self.seen.split(text, 1)[1]


@pytest.fixture
def terminal(cli: Cli, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(cli, tmp_path / "home")
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.process.kill()
    made.process.wait(10)
    os.close(made.main)


def test_ctrl_c_stops_the_reply_and_not_the_program(cli: Cli, terminal: Terminal, tmp_path: Path) -> None:
    cli.rim.pipeline.script = [*script("one")[:1], asyncio.Event()]
    terminal.until("Ctrl-C stops a reply")
    terminal.until("> ")
    terminal.type("Hi\n")
    terminal.until("one")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("(stopped")
    cli.rim.pipeline.script = script("two", "")
    terminal.until("> ")
    terminal.type("/retry\n")
    terminal.until("two")
    terminal.until("tokens/s")
    terminal.until("> ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until("once more, or /quit")
    terminal.type("/quit\n")
    assert terminal.process.wait(10) == 0
    history = tmp_path / "home" / "swarmd" / "chat_history"
    assert history.read_text() == "Hi\n/retry\n/quit\n" and history.stat().st_mode & 0o777 == 0o600
