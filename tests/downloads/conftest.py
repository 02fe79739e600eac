"""A hub with one file, and what fetches from it. Waits between tries are a hundredth of what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmd.downloads.engine import Engine
from swarmd.downloads.files import Files
from swarmd.downloads.ranges import RangeClient, RemoteFile
from swarmd.kit.disk import Disk
from tests.fakes.lines import impatient_world
from tests.hub.contents import Pattern
from tests.hub.hub import LocalHub

REPO = "owner/name"
NAME = "model.gguf"
LABEL = f"{REPO}/{NAME}"
SIZE = (5 << 20) + 12_345
DATA = Pattern(SIZE).read(0, SIZE)


@dataclass
class Setup:
    """What is changed here holds for the next request."""

    hub: LocalHub
    folder: Path
    token: str | None = None
    proxy: str | None = None
    connections: int = 4
    bytes_per_s: float | None = None
    stall_s: float = 5.0

    def __post_init__(self) -> None:
        self.world = impatient_world()
        self.clients: list[RangeClient] = []
        self.path = self.folder / "target" / NAME

    def client(self) -> RangeClient:
        client = RangeClient(
            world=self.world, hub=lambda: self.hub.endpoint, token=lambda: self.token, proxy=lambda: self.proxy,
            user_agent="swarmd-test", stall_s=self.stall_s,
        )  # fmt: skip
        self.clients.append(client)
        return client

    def engine(self, client: RangeClient | None = None) -> Engine:
        return Engine(
            client=client or self.client(), world=self.world, connections=lambda: self.connections,
            bytes_per_s=lambda: self.bytes_per_s,
        )  # fmt: skip

    def files(self, disk: Disk | None = None) -> Files:
        return Files(engine=self.engine(), disk=disk or Disk())

    def remote(self, name: str = NAME, *, hashed: bool = True) -> RemoteFile:
        commit = self.hub.repo(REPO).head
        blob = commit.files[name]
        return RemoteFile(
            url=f"{self.hub.endpoint}/{REPO}/resolve/{commit.sha}/{name}",
            size_bytes=blob.size,
            name=f"{REPO}/{name}",
            sha256=blob.sha256 if hashed and blob.lfs else None,
            git_sha1=blob.oid if hashed and not blob.lfs else None,
        )

    @property
    def sent(self) -> int:
        """Bytes of the file that storage sent."""
        return self.hub.counters.sent[LABEL]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[LocalHub], Setup]]:
    made: list[Setup] = []

    def setup(hub: LocalHub) -> Setup:
        made.append(Setup(hub, tmp_path))
        return made[-1]

    yield setup
    for one in made:
        for client in one.clients:
            await client.close()


@pytest.fixture
async def at(make: Callable[[LocalHub], Setup]) -> AsyncIterator[Setup]:
    async with LocalHub() as hub:
        hub.repo(REPO).file(NAME, Pattern(SIZE)).file("config.json", b'{"a": 1}\n').file("empty.txt", b"")
        yield make(hub)
