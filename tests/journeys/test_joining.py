"""Walk (c): nodes join with a code over real sockets, find each other, and come back after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from swarmd.domain.peers import Purpose
from swarmd.kit.world import real_world
from tests.fakes.linked import Node, joined, open_node


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


async def test_a_stranger_on_the_socket_reads_nothing(tmp_path: Path) -> None:
    async with open_node(1, world=real_world(), folder=tmp_path) as a:
        await a.code()
        for knock in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), bytes([1, 1]) + bytes(500), bytes([1, 0]) + b"x" * 300):
            reader, writer = await asyncio.open_connection(a.at.host, a.at.port)
            writer.write(knock)
            with contextlib.suppress(ConnectionResetError):  # as good an answer
                assert await reader.read() == b""
            writer.close()
