"""`swarmd ask`: for scripts and pipes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from swarmd.cli.ask import CONTEXT_LIMIT, prompt_of
from swarmd.cli.failure import Failure
from tests.cli.conftest import Cli
from tests.fakes.rim import no_coverage


def asked(cli: Cli) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in cli.rim.pipeline.requests[-1].messages]


def test_the_reply_alone_is_on_stdout(cli: Cli) -> None:
    result = cli("ask", "What", "is", "a", "shard?")
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")
    assert "aaaaaaaa (layers 0-1, 4.00 ms)" in result.stderr and "tokens/s" in result.stderr
    assert asked(cli) == [("user", "What is a shard?")]
    quiet = cli("ask", "-q", "Hi")
    # The rim runs in this process, and what it logs may come in between: nothing of the command's own is there.
    assert quiet.stdout == "Hello!\n" and "tokens/s" not in quiet.stderr


def test_stdin_is_the_context_or_the_question(cli: Cli) -> None:
    cli("ask", "-s", "Be brief.", "What changed?", input="a diff\n")
    assert asked(cli) == [("system", "Be brief."), ("user", "a diff\n\nWhat changed?")]
    cli("ask", input="Hi\n")
    assert asked(cli) == [("user", "Hi")]


def test_nothing_and_too_much_is_wrong_usage(cli: Cli) -> None:
    result = cli("ask", input=" \n")
    assert (result.exit_code, "nothing was asked" in result.stderr) == (2, True)
    assert cli.rim.pipeline.requests == []
    with pytest.raises(Failure, match="no model takes so much"):
        prompt_of("Hi", "x" * (CONTEXT_LIMIT + 1))


def test_for_programs(cli: Cli) -> None:
    result = cli("ask", "--json", "--seed", "7", "--max-tokens", "3", "--temperature", "0", "Hi")
    found = json.loads(result.stdout)
    assert found["reply"] == "Hello!" and found["finish_reason"] == "stop" and "tokens/s" not in result.stderr
    assert found["swarm"]["stages"][0]["layers"] == [0, 2]
    assert found["usage"]["completion_tokens"] > 0 and 0 < found["first_token_seconds"] <= found["seconds"]
    sampling = cli.rim.pipeline.requests[0].sampling
    assert (sampling.seed, sampling.temperature, cli.rim.pipeline.requests[0].max_tokens) == (7, 0.0, 3)


def test_what_goes_wrong_has_its_exit_code_and_an_empty_stdout(cli: Cli) -> None:
    cli.rim.pipeline.says = no_coverage()
    busy = cli("ask", "-m", "spread-q8", "Hi")
    assert (busy.exit_code, busy.stdout) == (7, "") and "no connected node holds shard 2" in busy.stderr
    cli.rim.pipeline.says = None
    unknown = cli("ask", "-m", "no-such", "Hi")
    assert (unknown.exit_code, unknown.stdout) == (6, "")
    keyless = cli("ask", "Hi", key=False)
    assert (keyless.exit_code, keyless.stdout) == (8, "")


def test_stdin_that_is_no_text_is_a_sentence(nowhere: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "swarmd", "ask", "Hi", "--url", nowhere], input=b"\xff\xfe\x00", capture_output=True,
        check=False, timeout=60, env={"PYTHONUTF8": "1", "PATH": "", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr == b"swarmd: stdin is no text: a question is asked in UTF-8\n"
