"""The pure parts of `make swarm`: how shards are shared out, which ports, what is said. Three nodes: tests/journeys."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import sys
from pathlib import Path

import pytest
from rich.console import Console

from swarmd.api import views
from swarmd.cli.failure import Failure
from swarmd.domain.ids import ModelId
from tests.fakes.rim import OWN, PEER, model_view
from tools.swarm import (
    PORTS,
    Member,
    Screen,
    Swarm,
    choose_ports,
    droppable,
    ending_text,
    members_in,
    span_text,
    thirds,
    within,
)


@pytest.mark.parametrize("count", range(20))
def test_thirds_cover_everything_once_and_nearly_evenly(count: int) -> None:
    parts = thirds(count)
    assert [index for part in parts for index in part] == [*range(count)]
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if count > 1:
        assert max(sizes) < count, "no node holds everything"


def test_the_builtin_model_goes_three_three_two() -> None:
    assert thirds(8) == (range(3), range(3, 6), range(6, 8))
    assert [span_text(part) for part in thirds(8)] == ["shards 0-2", "shards 3-5", "shards 6-7"]
    assert [span_text(part) for part in thirds(2)] == ["shard 0", "shard 1", "no shard"]


def test_ports_are_the_wanted_ones_where_they_are_free() -> None:
    assert choose_ports(PORTS, lambda port: True) == [8800, 8820, 8840]


def test_a_port_is_free_with_its_peer_port_only() -> None:
    assert choose_ports(PORTS, lambda port: port not in (8810, 8820)) == [8801, 8821, 8840]
    assert choose_ports((8800, 8800), lambda port: True) == [8800, 8801]
    assert choose_ports((8800, 8810), lambda port: True) == [8800, 8811], "8810 is the first one's peer port"
    with pytest.raises(Failure, match="no port"):
        choose_ports((65000,), lambda port: False)


def test_a_shard_is_dropped_only_when_its_new_holder_has_it() -> None:
    me, other = OWN[:16], PEER[:16]
    model = ModelId("m")
    row = views.model_row(model_view(model, (OWN,), (OWN,), (OWN, PEER), (PEER,)), node=OWN)
    assert droppable(row, range(1), {0: me, 1: other, 2: other, 3: other}) == [2]


def test_ports_and_folders_are_kept_between_runs(tmp_path: Path) -> None:
    first = members_in(tmp_path / "swarm", fresh=False)
    (tmp_path / "swarm" / "node-1").mkdir()
    again = members_in(tmp_path / "swarm", fresh=False)
    assert [member.port for member in again] == [member.port for member in first]
    assert (tmp_path / "swarm" / "node-1").exists()
    members_in(tmp_path / "swarm", fresh=True)
    assert not (tmp_path / "swarm" / "node-1").exists()


def test_only_the_first_node_brings_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWARMD_NODE_LISTEN_PORT", "1")
    nodes = [Member(number=number, port=8800, folder=tmp_path / f"node-{number}") for number in (1, 2)]
    builtin = [node.environment()["SWARMD_UI_BUILTIN_MODEL"] for node in nodes]
    assert builtin == ["true", "false"]
    assert "SWARMD_NODE_LISTEN_PORT" not in nodes[0].environment(), "the caller's settings are not for three nodes"
    assert nodes[0].log == tmp_path / "node-1.log"


def test_endings_in_words() -> None:
    assert ending_text(-9) == "was killed by SIGKILL"
    assert ending_text(1) == "ended with exit code 1"


def test_without_a_terminal_steps_are_plain_lines() -> None:
    text = io.StringIO()
    screen = Screen(Console(file=text))
    with screen.step("linking") as detail:
        detail("one of two")
    first, second = text.getvalue().splitlines()
    assert first == "linking ..."
    assert second.startswith("  ok  linking (")
    assert "\x1b" not in text.getvalue()


class Listening(Member):
    """Not a node: a process that listens on its port, or ends with 1."""

    @property
    def command(self) -> list[str]:
        words = "import socket, sys, time; kept = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
        return [sys.executable, "-c", words, str(self.port)]


async def test_a_port_that_was_taken_after_we_looked_is_left_to_who_has_it(tmp_path: Path) -> None:
    """Two swarms that started in the same second chose the same ports, and one of them gave up."""
    text = io.StringIO()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        member = Listening(number=1, port=port, folder=tmp_path / "node-1")
        beside = Member(number=2, port=port + 1, folder=tmp_path / "node-2")
        swarm = Swarm([member, beside], Screen(Console(file=text, width=160)), question="?")
        keeping = asyncio.create_task(swarm.keep(member))
        try:
            async with asyncio.timeout(20):
                while (tried := member.port) == port or not await asyncio.to_thread(answers, tried):
                    assert not keeping.done(), keeping
                    await asyncio.sleep(0.02)
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            assert member.process is not None
            member.process.kill()
            await member.process.wait()
    assert member.port not in (port, port + 1)
    assert json.loads((tmp_path / "ports.json").read_text()) == [member.port, port + 1]
    assert f"was taken meanwhile: node 1 is started on {member.port}" in text.getvalue()


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


async def test_a_deadline_is_a_sentence() -> None:
    with pytest.raises(Failure, match="node 2 was not ready within 0 s"):
        async with within(0.01, "node 2 was not ready"):
            await asyncio.sleep(10)
