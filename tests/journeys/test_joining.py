"""Walk (c): nodes join with a code over real sockets, find each other, and come back after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from swarmd.discovery.join import Joined
from swarmd.discovery.short_words import SECOND
from swarmd.domain.membership import InviteState, NewInvite
from swarmd.domain.peers import Purpose
from swarmd.domain.refusals import BadCode, NoAnswer
from swarmd.kit.world import real_world
from tests.fakes.linked import Node, joined, open_node
from tests.fakes.nodes import running


async def test_three_nodes_join_meet_and_meet_again_after_a_restart(tmp_path: Path) -> None:
    world = real_world()
    files = {seed: tmp_path / f"{seed}.db" for seed in (1, 2, 3)}
    async with open_node(1, world=world, folder=tmp_path, database=files[1]) as a:
        async with (
            open_node(2, world=world, folder=tmp_path, database=files[2]) as b,
            open_node(3, world=world, folder=tmp_path, database=files[3]) as c,
        ):
            await joined(b, a)
            await joined(c, a)
            await _all_up(a, b, c)
        async with (  # both were restarted, on other ports
            open_node(2, world=world, folder=tmp_path, database=files[2]) as b,
            open_node(3, world=world, folder=tmp_path, database=files[3]) as c,
        ):
            await _all_up(a, b, c)


async def _all_up(*nodes: Node) -> None:
    async with asyncio.timeout(20):
        while not all(
            one.links.link(other.id, purpose) for one in nodes for other in nodes if one is not other for purpose in Purpose
        ):
            await asyncio.sleep(0.02)


async def test_a_short_code_over_real_sockets_wrong_once_and_then_right(tmp_path: Path) -> None:
    async with running(tmp_path / "a") as a, running(tmp_path / "b") as b, running(tmp_path / "c") as c:
        made = await a.codes.short_code()
        assert isinstance(made, NewInvite), made
        number, first, second = made.code.split("-")
        wrong = SECOND[SECOND.index(second) - 1]
        refused = await b.joiner.join(f"{number}-{first}-{wrong}@{a.peer_endpoint}")
        assert isinstance(refused, BadCode), refused
        assert isinstance(await c.joiner.join(f"{made.code}@{a.peer_endpoint}"), NoAnswer)
        made = await a.codes.short_code()
        assert isinstance(made, NewInvite), made
        joined = await b.joiner.join(f"{made.code.upper()}@{a.peer_endpoint}")
        assert isinstance(joined, Joined), joined
        assert (joined.inviter, joined.endpoint, joined.linked) == (a.node, a.peer_endpoint, True)
        invites = await a.codes.invites()
        assert {invite.state for invite in invites} == {InviteState.BURNT, InviteState.USED}


async def test_a_stranger_on_the_socket_reads_nothing(tmp_path: Path) -> None:
    async with open_node(1, world=real_world(), folder=tmp_path) as a:
        await a.code()
        for knock in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), bytes([1, 1]) + bytes(500), bytes([1, 0]) + b"x" * 300):
            reader, writer = await asyncio.open_connection(a.at.host, a.at.port)
            writer.write(knock)
            with contextlib.suppress(ConnectionResetError):  # as good an answer
                assert await reader.read() == b""
            writer.close()
