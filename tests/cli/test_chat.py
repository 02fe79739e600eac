"""`swarmd chat`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import pytest

from swarmd.cli.chat import Conversation
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
    assert result.exit_code == 1
    assert "no connected node holds shard 2" in result.stderr


def test_a_conversation_remembers_and_forgets(cli: Cli) -> None:
    talk = Conversation(cli.place, model="auto", system="S", max_tokens=9, temperature=None)
    talk.ask("one")
    talk.ask("two")
    talk.forget()
    talk.ask("three")
    said = [[turn.content for turn in request.messages] for request in cli.rim.pipeline.requests]
    assert said == [["S", "one"], ["S", "one", "Hello!", "two"], ["S", "three"]]


def test_a_question_that_failed_is_not_remembered(cli: Cli) -> None:
    talk = Conversation(cli.place, model="auto", system=None, max_tokens=None, temperature=None)
    cli.rim.pipeline.says = no_coverage()
    with pytest.raises(Failure):
        talk.ask("one")
    cli.rim.pipeline.says = None
    talk.ask("two")
    assert [turn.content for turn in cli.rim.pipeline.requests[-1].messages] == ["two"]


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
