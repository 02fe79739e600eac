"""A download that is killed again and again: what it costs, and whether the file is right in the end.

    python -m bench.resume [--size 1G] [--kills 200] [--seed 1] [--folder FOLDER]
    python -m bench.resume --faults 1000

A process downloads from the local hub, another process, with the engine as the node has it; it is killed (SIGKILL) at random
moments and started again. The line is so slow, all connections together, that as many kills fit into one file. The bytes are
those that the hub gave to its sockets, and those that the client's program saw; both may be 1.02 times the file and 8 MiB
for each kill.

`--faults` has no kills: bytes flipped, bodies cut, links expired and so on by lot, over whole files and shards by range,
until so many have happened; every byte that was kept is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.hub.contents import Pattern

ROOT = Path(__file__).resolve().parent.parent
REPO, NAME = "owner/name", "model.gguf"
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LIFE_S = 0.4  # at most, from the first bytes on
PART = 0.8  # of the file, all lives together: the rest is for the last one, and what was lost comes again
EARLY = 0.1  # of the kills come before the first request
SHARE, PER_KILL = 1.02, 8 << 20  # what may be fetched: of the size, and for each kill
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A local hub in a process of its own, with one file."""

    url: str
    endpoint: str
    sha256: str
    size: int

    def tell(self, method: str, path: str, said: object = None) -> Any:
        body = None if said is None else json.dumps(said).encode()
        request = urllib.request.Request(f"{self.endpoint}/{path}", data=body, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=START_S) as response:
            return json.load(response)

    def pace(self, megabytes_s: float) -> None:
        """From now on the line carries so much, all connections together."""
        fault = {"fault": "Slow", "rate": megabytes_s * 1e6, "shared": True}
        self.tell("POST", "__faults__", {"faults": [fault], "origin": "cdn"})

    @property
    def sent(self) -> int:
        return int(self.tell("GET", "__stats__")["sent"].get(f"{REPO}/{NAME}", 0))


@contextlib.contextmanager
def hub_process(folder: Path, size: int) -> Iterator[Hub]:
    """`folder` gets the file, which is sent from there."""
    repository = folder / REPO
    repository.mkdir(parents=True)
    path = Pattern(size).write_to(repository / NAME)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    command = [sys.executable, "-m", "tests.hub", "--root", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        assert process.stdout is not None
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        url = f"{endpoint}/{REPO}/resolve/main/{NAME}"
        hub = Hub(url=url, endpoint=endpoint, sha256=sha256, size=size)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(url, headers={"Range": "bytes=0-0"}), timeout=START_S
        ):
            hub.tell("DELETE", "__stats__")  # it has hashed the file now
        yield hub
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Nursery:
    """A process with everything imported that makes a downloading child whenever it is told to."""

    def __init__(self, hub: Hub, target: Path, connections: int) -> None:
        self._counter = target.with_name("received")
        self._counter.write_bytes(bytes(8))
        said = [hub.url, str(hub.size), hub.sha256, str(target), str(connections), str(self._counter)]
        command = [sys.executable, "-m", "bench.resume", "--nursery", *said]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

    @property
    def received(self) -> int:
        """Bytes that the children's engines were given."""
        return int(struct.unpack("<Q", self._counter.read_bytes())[0])

    def live(self, kill_after_s: float | None, *, early: bool = False) -> bool:
        """One child, killed so long after its first bytes (`early`: after its start). Whether it ended by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self.received
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if kill_after_s is not None:
            limit = time.monotonic() + START_S
            while not early and self.received == before and time.monotonic() < limit:
                time.sleep(0.001)
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):  # the nursery has not waited for it yet, or it has ended
                os.kill(child, signal.SIGKILL)
        status = int(self._process.stdout.readline())
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the download ended with {status}")
        return status == 0


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What came out of it. Bytes."""

    size: int
    kills: int
    sent: int
    received: int
    seconds: float

    @property
    def allowed(self) -> float:
        return SHARE * self.size + PER_KILL * self.kills

    def __str__(self) -> str:
        waste = (self.sent - self.size) / max(1, self.kills)
        return (
            f"{self.size / 2**20:.0f} MiB, killed {self.kills} times, {self.seconds:.0f} s: identical; the hub sent "
            f"{self.sent / self.size:.3f} times the file, the client saw {self.received / self.size:.3f}, allowed are "
            f"{self.allowed / self.size:.3f}; {waste / 2**20:.2f} MiB for each kill"
        )


def killed(folder: Path, *, size: int, kills: int, seed: int, life_s: float = LIFE_S) -> Resumed:
    """Raises RuntimeError when the file is not what it should be."""
    lots, started, done, target = random.Random(seed), time.monotonic(), 0, folder / "target" / NAME
    target.parent.mkdir()
    with hub_process(folder / "hub", size) as hub, Nursery(hub, target, 16) as nursery:
        hub.pace(PART * size / (kills * life_s / 2) / 1e6)
        for _ in range(kills):
            early = lots.random() < EARLY
            if nursery.live(lots.uniform(0.0, 0.05 if early else life_s), early=early):
                break
            done += 1
        else:
            nursery.live(None)
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        left = sorted(one.name for one in target.parent.iterdir() if one.name not in (NAME, "received"))
        if found != hub.sha256 or left:
            raise RuntimeError(f"the file has the hash {found}, and {left} was left beside it")
        seconds = time.monotonic() - started
        return Resumed(size=size, kills=done, sent=hub.sent, received=nursery.received, seconds=seconds)


# --- in the child -------------------------------------------------------------------------------------------------------


async def download(url: str, size: int, sha256: str, target: Path, connections: int, counter: mmap.mmap) -> None:
    from swarmd.downloads.engine import Engine
    from swarmd.downloads.files import Files
    from swarmd.downloads.ranges import RangeClient, RemoteFile
    from swarmd.kit.disk import Disk
    from swarmd.kit.world import real_world

    world, endpoint = real_world(), url.partition(f"/{REPO}/")[0]
    client = RangeClient(
        world=world, hub=lambda: endpoint, token=lambda: None, proxy=lambda: None, user_agent="bench"
    )
    engine = Engine(client=client, world=world, connections=lambda: connections, bytes_per_s=lambda: None)
    file = RemoteFile(url=url, size_bytes=size, name=NAME, sha256=sha256)
    seen = struct.unpack("<Q", counter[:8])[0]

    def received(count: int) -> None:
        nonlocal seen
        seen += count
        counter[:8] = struct.pack("<Q", seen)

    await Files(engine=engine, disk=Disk()).fetch(file, target, received=received)
    await client.close()


def nursery(url: str, size: str, sha256: str, target: str, connections: str, counter: str) -> None:
    import uvloop

    import swarmd.downloads.files  # noqa: F401 - before the first child, so that none has to

    with Path(counter).open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        for _ in sys.stdin:
            child = os.fork()
            if not child:
                status = 1
                try:
                    uvloop.run(download(url, int(size), sha256, Path(target), int(connections), shared))
                    status = 0
                finally:
                    os._exit(status)
            print(child, flush=True)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)


# --- faults -------------------------------------------------------------------------------------------------------------


async def storm(folder: Path, count: int, seed: int) -> None:
    from swarmd.domain import models
    from swarmd.models import manifest
    from swarmd.shards import cutting, landing, serving, storage
    from tests.fakes.landings import SMALL
    from tests.fakes.storm import Outcome, Storm
    from tests.hub.hub import LocalHub

    for module in (models, manifest, storage, landing, serving, cutting):
        module.CHUNK_BYTES = SMALL  # as in the tests: so that a tiny model has many chunks
    started = time.monotonic()

    def told(outcome: Outcome) -> None:
        if sys.stderr.isatty():
            print(f"\r{outcome.faults} faults", end="", file=sys.stderr, flush=True)

    async with LocalHub() as hub:
        made = Storm(hub, folder, seed)
        try:
            outcome = await made.blow(count, told=told)
        finally:
            await made.close()
    kinds = ", ".join(f"{kind} {number}" for kind, number in outcome.kinds.most_common())
    print(f"{outcome.faults} faults in {time.monotonic() - started:.0f} s: {kinds}")
    print(
        f"{outcome.files} files, {outcome.shards['sealed']} shards with hashes, {outcome.shards['unsealed']} without; "
        f"{outcome.kept / 1e6:.0f} MB kept of {outcome.fetched / 1e6:.0f} MB fetched; {outcome.tries} were begun again; "
        f"wrong: {outcome.wrong or 'none'}"
    )
    if outcome.wrong:
        raise SystemExit(1)


def size_of(text: str) -> int:
    return int(text.rstrip("KMG")) * UNITS.get(text[-1], 1)


def main() -> None:
    if sys.argv[1:2] == ["--nursery"]:
        nursery(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="bench.resume", description=__doc__)
    parser.add_argument("--size", type=size_of, default="1G")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, help="this many faults in place of kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the disk to use: twice the size. Default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        if options.faults is not None:
            asyncio.run(storm(Path(scratch), options.faults, options.seed))
            return
        found = killed(Path(scratch), size=options.size, kills=options.kills, seed=options.seed)
    print(found)
    if max(found.sent, found.received) > found.allowed:
        raise SystemExit("more was fetched than allowed")


if __name__ == "__main__":
    main()
