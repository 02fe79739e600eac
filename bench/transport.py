"""How much a link costs over real sockets on 127.0.0.1: round trips of 8 KiB, and bulk, both ends in one process or in two.

    python bench/transport.py [--asyncio]

Without `--asyncio` the event loop is uvloop's, as in the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from swarmd.domain.peers import Endpoint, Purpose
from swarmd.kit.service import Supervisor
from swarmd.kit.world import real_world
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Doors
from swarmd.transport.rpc import Dispatcher, Link, Stream
from swarmd.wire.messages import message
from tests.fakes.authority import FakeAuthority

CHUNK = 8 * 1024 * 1024
CHUNKS = 64


@message(62001)
@dataclass(frozen=True, slots=True)
class Begin:
    kind: str


@message(62002)
@dataclass(frozen=True, slots=True)
class Piece:
    index: int


def serve_echo(first: Begin, payload: memoryview, stream: Stream) -> None:
    def back(piece: object, payload: memoryview) -> None:
        assert stream.send_now(piece, payload)

    stream.on_message(back, lambda failure: stream.end())


async def serve_bulk(first: Piece, payload: memoryview, stream: Stream) -> None:
    chunk = os.urandom(CHUNK)
    for index in range(CHUNKS):
        await stream.send(Piece(index), chunk)


async def open_doors(stack: AsyncExitStack, letter: str, *, listen: bool) -> tuple[Doors, Dispatcher, Supervisor]:
    world = real_world()
    supervisor = await stack.enter_async_context(Supervisor(letter, world=world))
    stack.push_async_callback(supervisor.stop)
    dispatcher = Dispatcher()
    dispatcher.accept(Begin, serve_echo)
    dispatcher.serve(Piece, serve_bulk)

    def adopt(connection: Connection) -> None:
        Link(connection, dispatcher=dispatcher, spawn=supervisor.spawn)

    doors = Doors(
        listen=Endpoint("127.0.0.1", 0) if listen else None,
        authority=FakeAuthority(letter),
        on_connection=adopt,
        spawn=supervisor.spawn,
        world=world,
    )
    await supervisor.start(doors)
    return doors, dispatcher, supervisor


async def client(endpoint: Endpoint, where: str) -> None:
    async with AsyncExitStack() as stack:
        doors, dispatcher, supervisor = await open_doors(stack, "a", listen=False)
        connection = await doors.dial(endpoint, expect=None, purpose=Purpose.CONTROL)
        assert isinstance(connection, Connection), connection
        link = Link(connection, dispatcher=dispatcher, spawn=supervisor.spawn)
        rounds, payload = 3000, os.urandom(8192)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = rounds

        def again(piece: object, payload: memoryview) -> None:
            nonlocal left
            left -= 1
            if left:
                stream.send_now(Piece(left), payload)
            else:
                done.set_result(None)

        stream = link.open(Begin("echo"))
        stream.on_message(again, lambda failure: None)
        begin = time.perf_counter()
        stream.send_now(Piece(left), payload)
        await done
        print(f"{where}: round trip of 8 KiB {(time.perf_counter() - begin) / rounds * 1e6:7.1f} us")
        stream.reset()
        begin = time.perf_counter()
        async with link.open(Piece(0), last=True) as bulk:
            while (await bulk.receive()) is not None:
                pass
        seconds = time.perf_counter() - begin
        print(f"{where}: bulk {CHUNK * CHUNKS / seconds / 1e9:6.2f} GB/s")
        link.close("done")


async def one_process() -> None:
    async with AsyncExitStack() as stack:
        doors, _, _ = await open_doors(stack, "b", listen=True)
        assert doors.endpoint is not None
        await client(doors.endpoint, "one process")


def run(main: object, use_asyncio: bool) -> None:
    if use_asyncio:
        asyncio.run(main)  # type: ignore[arg-type]
    else:
        uvloop.run(main)  # type: ignore[arg-type]


def server(pipe: object, use_asyncio: bool) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            doors, _, _ = await open_doors(stack, "b", listen=True)
            pipe.send(doors.endpoint)  # type: ignore[attr-defined]
            await asyncio.get_running_loop().create_future()

    run(main(), use_asyncio)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--asyncio", action="store_true")
    use_asyncio = parser.parse_args().asyncio
    run(one_process(), use_asyncio)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=server, args=(there, use_asyncio), daemon=True)
    process.start()
    run(client(here.recv(), "two processes"), use_asyncio)
    process.terminate()


if __name__ == "__main__":
    main()
