"""A file from a hub, against huggingface_hub and aria2c: 1 GiB from the local hub, which sends it with sendfile.

    python -m bench.download [--size 1G] [--rounds 5] [--folder FOLDER]...
    python -m bench.download --memory

Ours is the engine as the node has it, and always with SHA-256. The others are huggingface_hub's own download function, with
plain HTTP, and `aria2c -x8 -s8`, which reserves its file as ours does; each without a hash and with one: huggingface_hub has
none, so the file is hashed afterwards; aria2c has `--checksum`. All take turns, round by round. Each turn has a process of
its own; of the Python ones the time counts from the call on, since a node has started long before, and of aria2c all of it,
which is 20 ms. What is in the page cache is not on the disk: the time with an fsync is told beside.

`--memory`: the most that our process takes for 1 GiB and for 4 GiB over 16 connections.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench.resume import NAME, REPO, ROOT, Hub, hub_process, size_of

SHARED_MEMORY = Path("/dev/shm")  # a file system in memory, wherever Linux runs
OURS_WIDE = "ours, all connections"
WAYS = ("ours", "huggingface_hub", "huggingface_hub + SHA-256", "aria2c", "aria2c + SHA-256")
MEMORY_MB = 150
CONNECTIONS = 16
SETTLE_S = 4.0
"""Before each turn. A virtual machine may give free memory back to its host two seconds after a file was deleted; who begins
within them writes into pages that are there, and who comes later pays for each. So all of them come later."""


def line(name: str, size: int, runs: list[dict[str, float]], ours: float, synced_ours: float) -> str:
    seconds = [one["seconds"] for one in runs]
    median = statistics.median(seconds)
    synced = statistics.median(one["synced"] for one in runs)
    cpu, most = statistics.median(one["cpu"] for one in runs), max(one["rss"] for one in runs)
    return (
        f"  {name:26} {median:5.2f} s {size / median / 1e6:5.0f} MB/s ({min(seconds):.2f} to {max(seconds):.2f})  synced "
        f"{synced:5.2f} s  ours {median / ours:4.2f} times as fast, {synced / synced_ours:4.2f} "
        f"synced  {cpu:4.2f} s of processor  {most:3.0f} MB"
    )


def measure(folder: Path, size: int, rounds: int) -> None:
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    ways = [way for way in WAYS if shutil.which("aria2c") or not way.startswith("aria2c")]
    home = SHARED_MEMORY if SHARED_MEMORY.is_dir() else folder
    with tempfile.TemporaryDirectory(dir=home) as served, hub_process(Path(served), size) as hub:
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    runs[way].append(turn(way, hub, Path(scratch)))
    ours = statistics.median(one["seconds"] for one in runs["ours"])
    print(f"{size / 2**30:.2f} GiB to {folder}, {rounds} rounds in turns; median (range)")
    for way in ways:
        print(line(way, size, runs[way], ours, statistics.median(one["synced"] for one in runs["ours"])))
    best = min(statistics.median(one["seconds"] for one in runs[way]) for way in ways[1:])
    pairs = [
        min(runs[way][number]["seconds"] for way in ways[1:]) / runs["ours"][number]["seconds"] for number in range(rounds)
    ]
    print(
        f"  against the fastest of the others: {best / ours:.2f} of medians; round by round "
        f"{', '.join(f'{one:.2f}' for one in sorted(pairs))}"
    )


def turn(way: str, hub: Hub, scratch: Path) -> dict[str, float]:
    target = scratch / NAME
    time.sleep(SETTLE_S)
    if way.startswith("aria2c"):
        command = ["aria2c", "-q", "-x8", "-s8", "--file-allocation=falloc", "-d", str(scratch), "-o", NAME, hub.url]
        if "SHA" in way:
            command.append(f"--checksum=sha-256={hub.sha256}")
        started = time.perf_counter()
        usage = run(command)
        seconds = time.perf_counter() - started
    else:
        said = json.dumps([way, hub.url, hub.endpoint, hub.sha256, hub.size, str(target)])
        usage = run([sys.executable, "-m", "bench.download", "--turn", said, str(scratch / "out")])
        seconds = json.loads((scratch / "out").read_text())
    started = time.perf_counter()
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return {"seconds": seconds, "synced": seconds + time.perf_counter() - started, **usage}


def run(command: list[str]) -> dict[str, float]:
    """Seconds of processor and MB of memory that it took."""
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return {"cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024}


# --- in the child -------------------------------------------------------------------------------------------------------


def turn_here(said: str, out: Path) -> None:
    way, url, endpoint, sha256, size, target = json.loads(said)
    work = ours if way.startswith("ours") else genuine
    if way == OURS_WIDE:
        from swarmd.downloads import engine

        engine.Pace = functools.partial(engine.Pace, wanted=CONNECTIONS)  # not as many as pay, but all from the start
    out.write_text(json.dumps(work(url, endpoint, sha256 if work is ours or "SHA" in way else "", size, Path(target))))


def ours(url: str, endpoint: str, sha256: str, size: int, target: Path) -> float:
    import uvloop

    from swarmd.downloads.engine import Engine
    from swarmd.downloads.files import Files
    from swarmd.downloads.ranges import RangeClient, RemoteFile
    from swarmd.kit.disk import Disk
    from swarmd.kit.world import real_world

    class Unsynced(Disk):
        """Its syncs are measured apart, as those of the others are."""

        def _sync(self, path: Path, flags: int) -> None:
            pass

    async def work() -> float:
        world = real_world()
        client = RangeClient(
            world=world, hub=lambda: endpoint, token=lambda: None, proxy=lambda: None, user_agent="bench"
        )
        engine = Engine(client=client, world=world, connections=lambda: CONNECTIONS, bytes_per_s=lambda: None)
        file = RemoteFile(url=url, size_bytes=size, name=NAME, sha256=sha256)
        started = time.perf_counter()
        await Files(engine=engine, disk=Unsynced()).fetch(file, target)
        seconds = time.perf_counter() - started
        await client.close()
        return seconds

    return uvloop.run(work())


def genuine(_: str, endpoint: str, sha256: str, __: int, target: Path) -> float:
    from tests.hub.client import environment

    os.environ.update(environment(target.parent / "home", endpoint))
    from huggingface_hub import hf_hub_download

    started = time.perf_counter()
    found = hf_hub_download(REPO, NAME, local_dir=target.parent, endpoint=endpoint, token=False)
    if sha256:
        with Path(found).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return time.perf_counter() - started


# --- memory -------------------------------------------------------------------------------------------------------------


def memory(folder: Path) -> None:
    for size in (1 << 30, 4 << 30):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            with hub_process(Path(scratch) / "hub", size) as hub:
                found = turn(OURS_WIDE, hub, Path(scratch))
                most = hub.tell("GET", "__stats__")["most_open"]["cdn"]
            print(f"{size >> 30} GiB over {most} connections: {found['rss']:.0f} MB at most, {found['seconds']:.1f} s")
            if found["rss"] > MEMORY_MB:
                raise SystemExit(f"that is more than {MEMORY_MB} MB")


def main() -> None:
    if sys.argv[1:2] == ["--turn"]:
        turn_here(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(prog="bench.download", description=__doc__)
    parser.add_argument("--size", type=size_of, default="1G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--folder", type=Path, action="append", help="where to; default: in memory, and a temporary folder")
    options = parser.parse_args()
    if options.memory:
        memory((options.folder or [None])[0] or Path(tempfile.gettempdir()))
        return
    if subprocess.run(["sh", str(ROOT / "tools" / "download_packages.sh")], check=False).returncode:
        print("measured without aria2c")
    for folder in options.folder or [SHARED_MEMORY, Path(tempfile.gettempdir())]:
        if folder.is_dir():
            measure(folder, options.size, options.rounds)


if __name__ == "__main__":
    main()
