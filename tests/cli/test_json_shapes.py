"""--json: every command has it, and prints the one shape that is documented."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from swarmd.cli.json_shapes import SHAPES, shape_name
from swarmd.cli.outline import outline
from swarmd.cli.program import program
from tests.cli.conftest import Cli
from tests.fakes.rim import PEER, REPO, SPREAD, acquisition

SPOKEN = {
    "run", "chat", "logs", "completion", "config path", "up", "down", "service install", "service uninstall",
    "service status",
}  # fmt: skip
"""What has no --json: a node's own output, a talk, a log, a script, a path; what is done to this machine, told meanwhile."""
WITH_VERBS = {"downloads", "providers", "responses", "update"}
"""Say something themselves, too."""

RUNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ask": (("ask", "Hi"),),
    "responses": (("responses",),),
    "status": (("status",),),
    "bench": (("bench", "-n", "1"),),
    "models": (("models",),),
    "search": (("search", "x"),),
    "get": (("get", REPO, "--no-wait"), ("get", "tiny-q8")),
    "downloads": (("downloads",),),
    "downloads pause": (("downloads", "pause", SPREAD),),
    "downloads resume": (("downloads", "resume", SPREAD),),
    "downloads cancel": (("downloads", "cancel", SPREAD),),
    "downloads move": (("downloads", "move", SPREAD, "0"),),
    "load": (("load", "tiny-q8"),),
    "unload": (("unload", "tiny-q8"),),
    "rm": (("rm", "tiny-q8", "--yes"),),
    "model add": (("model", "add", "/x.gguf"),),
    "model list": (("model", "list"),),
    "model fetch": (("model", "fetch", "tiny-q8"),),
    "model remove": (("model", "remove", "tiny-q8", "--yes"),),
    "adapters list": (("adapters", "list"),),
    "adapters add": (("adapters", "add", "tiny-q8", "style.safetensors", "--id", "style"),),
    "adapters rm": (("adapters", "rm", "style"),),
    "providers": (("providers",),),
    "providers set": (("providers", "set", "groq"),),
    "providers add": (("providers", "add", "gpu", "http://10.0.0.1/v1"),),
    "providers remove": (("providers", "remove", "groq"),),
    "providers key-source": (("providers", "key-source", "env"),),
    "providers subscription": (("providers", "subscription", "off"),),
    "autopilot": (("autopilot",), ("autopilot", "off")),
    "lock": (("lock", "tiny-q8", "0"),),
    "unlock": (("unlock", "tiny-q8", "0"),),
    "invite": (("invite",), ("invite", "--uses", "2"), ("invite", "--short"), ("invite", "--list")),
    "join": (("join", "swarm://abc"),),
    "peers": (("peers",), ("peers", "--links")),
    "members": (("members",),),
    "revoke": (("revoke", PEER, "--yes"),),
    "credits": (("credits",), ("credits", "--entries"), ("credits", "--peers")),
    "update": (("update",),),
    "update check": (("update", "check"),),
    "update apply": (("update", "apply", "--no-wait"),),
    "config list": (("config", "list"),),
    "config get": (("config", "get", "node.contribution"),),
    "config set": (("config", "set", "node.contribution", "minimal"),),
}
ELSEWHERE = {"doctor", "version", "help", "responses show", "responses cancel", "responses rm"}
"""Their own tests: what needs no node, and what needs a response first."""


def test_every_command_that_prints_has_json_and_a_shape() -> None:
    leaves = [command for command in outline(program()).walk() if not command.children or command.name in WITH_VERBS]
    with_json = {command.name for command in leaves for one in command.options if "--json" in one.names}
    assert {command.name for command in leaves} - with_json == SPOKEN
    assert with_json == set(SHAPES) == set(RUNS) | ELSEWHERE


@pytest.mark.parametrize("command", RUNS)
def test_it_prints_what_is_documented_and_nothing_else(cli: Cli, command: str) -> None:
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD)
    if command == "adapters rm":
        cli("adapters", "add", "tiny-q8", "style.safetensors", "--id", "style")
    for arguments in RUNS[command]:
        result = cli(*arguments, "--json", input="gsk-0123456789" if command == "providers set" else None)
        assert result.exit_code == 0, result.output
        found = [_read(result.stdout, shape) for shape in SHAPES[command]]
        assert sum(found) >= 1, (arguments, result.stdout)


def _read(text: str, shape: object) -> bool:
    """Whether it is that shape, with no field too few."""
    try:
        value = msgspec.json.decode(text, type=shape, strict=True)
    except msgspec.ValidationError:
        return False
    # Encoded again it has the same fields: nothing was printed that the shape does not know.
    return bool(msgspec.json.decode(msgspec.json.encode(value)) == msgspec.json.decode(text))


def test_commands_without_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SWARMD_")]:
        monkeypatch.delenv(name)
    for command in ("version", "help exit-codes"):
        result = CliRunner().invoke(program(), [*command.split(), "--json"])
        assert result.exit_code == 0 and _read(result.stdout, SHAPES[command.split()[0]][0])
    assert shape_name(list[int]) == "list of int" and shape_name(int) == "int"
