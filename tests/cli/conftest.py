"""The commands against the real HTTP rim, which runs in a thread of its own: a command makes its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from swarmd.cli.place import Place
from swarmd.cli.program import program
from tests.fakes.rim import KEY, Rim, running


@dataclass
class Cli:
    """`swarmd` with the options that lead to the rim."""

    rim: Rim
    url: str
    key_file: Path
    folder: Path

    def __call__(self, *arguments: str, input: str | None = None, key: bool = True) -> Result:
        options = ["--url", self.url, "--data-dir", str(self.folder)]
        if key:
            options += ["--api-key-file", str(self.key_file)]
        return CliRunner().invoke(program(), [*arguments, *options], input=input)

    @property
    def place(self) -> Place:
        return Place(url=self.url, key=KEY, key_path=self.key_file)


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    up, made = threading.Event(), list[Cli]()
    stop: list[Callable[[], Any]] = []

    async def serve() -> None:
        done = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(done.set))
        loop = asyncio.get_running_loop()
        async with running(Rim(tmp_path)) as rim:
            made.append(Cli(rim=rim, url=rim.url, key_file=tmp_path / "key", folder=tmp_path / "data"))
            up.set()
            await done.wait()

    (tmp_path / "key").write_text(KEY + "\n")
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert up.wait(10), "the rim did not come up"
    yield made[0]
    stop[0]()
    thread.join(10)


@pytest.fixture
def nowhere() -> str:
    """A URL where nobody listens."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
