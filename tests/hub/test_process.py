"""The hub as a process of its own, and its sockets in rough hands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.hub import server
from tests.hub.client import environment
from tests.hub.contents import Pattern
from tests.hub.hub import LocalHub

ROOT = Path(__file__).parents[2]


@contextmanager
def process(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    command = [sys.executable, "-m", "tests.hub", *map(str, arguments)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        yield running, json.loads(running.stdout.readline())
    finally:
        running.terminate()
        running.wait(10)
        running.stdout.close()


async def test_a_folder_is_served_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "root/o/n").mkdir(parents=True)
    (tmp_path / "root/o/n/a.txt").write_text("hello")
    stats = tmp_path / "stats.json"
    with process("--root", tmp_path / "root", "--made", "m/n/w.gguf=64K", "--stats", stats) as (running, line):
        assert line["repositories"] == ["o/n", "m/n"] and line["pid"] == running.pid
        endpoint = str(line["endpoint"])
        async with aiohttp.ClientSession(requote_redirect_url=False) as session:
            async with session.get(f"{endpoint}/o/n/resolve/main/a.txt") as reply:
                assert await reply.text() == "hello"
            rule = {"faults": [{"fault": "Short", "by": 5}], "origin": "cdn", "times": 1}
            async with session.post(f"{endpoint}/__faults__", json=rule) as reply:
                assert reply.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                async with session.get(f"{endpoint}/m/n/resolve/main/w.gguf") as reply:
                    await reply.read()
            async with session.get(f"{endpoint}/m/n/resolve/main/w.gguf") as reply:
                assert await reply.read() == Pattern(64 << 10).read(0, 64 << 10)
            async with session.get(f"{endpoint}/__stats__") as reply:
                assert (await reply.json())["sent"]["m/n/w.gguf"] == 2 * (64 << 10) - 5
            async with session.delete(f"{endpoint}/__stats__") as reply:
                assert reply.status == 200
            async with session.post(f"{endpoint}/__faults__", data=b"{") as reply:
                assert reply.status == 400
        # The genuine client in a process of its own, told by its environment alone.
        program = "import huggingface_hub as h; print(h.snapshot_download('m/n'))"
        variables = {"PATH": os.environ["PATH"], **environment(tmp_path / "home", endpoint)}
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=variables, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(client.communicate(), 60)
        assert (Path(out.decode().strip()) / "w.gguf").stat().st_size == 64 << 10
        assert Path(out.decode().strip()).is_relative_to(tmp_path / "home")
        running.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait, 10) == 0
    counted = json.loads(stats.read_text())
    assert counted["kinds"]["storage-get"] == 1 and counted["open"] == {"hub": 0, "cdn": 0}
    assert {one["kind"] for one in counted["requests"]} >= {"info", "tree", "resolve-head"}


@pytest.mark.parametrize(
    "arguments", [["--made", "a/b=1"], ["--made", "a/b/c=1X"], ["--root", "/nowhere"], ["--made", "a/b/c=1", "--token", "x"]]
)
def test_arguments_that_are_not_understood(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "tests.hub", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("local hub: ") and "Traceback" not in done.stderr


def test_only_this_machine_is_served() -> None:
    for host in ("0.0.0.0", "192.0.2.1"):
        with pytest.raises(ValueError, match="loopback"):
            LocalHub(host=host)


async def talk(hub: LocalHub, said: bytes) -> bytes:
    """Everything a connection answers to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))
    try:
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"a" * 200_000, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /a/b/resolve/main/../../x HTTP/1.1\r\n\r\n", 401),
        (b"GET /api/models?limit=x HTTP/1.1\r\n\r\n", 400),
        (b"GET /api/models?cursor=%00 HTTP/1.1\r\n\r\n", 400),
        (b"GET /api/models?expand=secrets HTTP/1.1\r\n\r\n", 400),
        (b"GET /__other__ HTTP/1.1\r\n\r\n", 404),
        (b"PUT /o/n/resolve/main/a HTTP/1.1\r\n\r\n", 405),
    ],
)
async def test_requests_that_are_none(said: bytes, status: int) -> None:
    async with LocalHub() as hub:
        assert (await talk(hub, said)).startswith(b"HTTP/1.1 %d " % status)


async def test_requests_in_one_piece_are_answered_one_after_the_other() -> None:
    async with LocalHub() as hub:
        hub.repo("o/n").file("a.txt", "one").file("b.txt", "two")
        asked = b"".join(b"GET /o/n/resolve/main/%s.txt HTTP/1.1\r\n\r\n" % name for name in (b"a", b"b"))
        answered = await talk(hub, asked)
        assert answered.count(b"HTTP/1.1 200 OK") == 2 and answered.index(b"one") < answered.index(b"two")
        assert hub.counters.connections["hub"] == 1


async def test_no_more_connections_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    async with LocalHub() as hub:
        address = ("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1]))
        streams = [await asyncio.open_connection(*address) for _ in range(3)]
        async with asyncio.timeout(5):
            assert await streams[2][0].read() == b""
        streams[0][1].write(b"GET /api/models HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await streams[0][0].readline()).startswith(b"HTTP/1.1 200")
        for _, writer in streams:
            writer.close()
        assert hub.counters.most_open["hub"] == 2


async def test_a_file_that_became_shorter_ends_the_connection(tmp_path: Path) -> None:
    path = Pattern(100_000).write_to(tmp_path / "a.gguf")
    async with LocalHub() as hub, aiohttp.ClientSession(requote_redirect_url=False) as session:
        url = hub.endpoint + "/o/n/resolve/main/a.gguf"
        hub.repo("o/n").file("a.gguf", path)
        async with session.head(url):
            pass
        os.truncate(path, 10)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get(url) as reply:
                await reply.read()


async def test_closing_ends_what_is_under_way() -> None:
    async with LocalHub() as hub:
        hub.repo("o/n").file("a.txt", Pattern(64 << 20), lfs=False)
        connection = socket.create_connection(("127.0.0.1", int(hub.endpoint.rsplit(":", 1)[1])))
        connection.sendall(b"GET /o/n/resolve/main/a.txt HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            while not hub.counters.sent["o/n/a.txt"]:
                await asyncio.sleep(0.01)
    connection.close()
    assert hub.counters.open["hub"] == 0
