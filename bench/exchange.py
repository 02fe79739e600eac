"""A model from peers, against scp and rsync: 1 GiB over loopback, encrypted and verified, with the bytes on the disk.

    python -m bench.exchange [--rounds 8] [--folder FOLDER] [--holders 4]

Ours are `swarmd run` processes, asked through their API: the time is from the request to the answer that all shards are
held, hashed as a whole and synced. scp and rsync go through an sshd that is started here with a key, a configuration and a
port of its own, and copy as many bytes; they sync nothing, so the sync of the file they wrote is measured with them, and
the time of scp without it is shown beside. All take turns, round by round; the first one does not count. What is compared is
the best of each: a virtual machine gives free memory back to its host within seconds, and a copy into pages that have to be
asked back takes twice as long, whoever makes it.

The limit of the receiver is what it takes from one holder at full speed; four holders to one must come within a tenth of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench import random_model
from bench.fleet import ROOT, Node, swarm, until

SHAPE = random_model.Shape(layers=39, width=2048, heads=32, kv_heads=4, feed_forward=5632, vocabulary=32000)  # 1.02 GiB
SHARD_MB = 512.0  # the default of the settings
PORT, SSH_PORT = 18700, 18690
LOOK_S = 0.05  # a look costs both sides a millisecond
FETCH_S = 300.0


@dataclass
class Ssh:
    """An sshd of our own."""

    folder: Path
    pid: int = 0

    def cpu_s(self) -> float:
        """Of the server, the clients and what they started, as far as they have ended."""
        return cpu_s(self.pid) + sum(os.times()[2:4])

    @property
    def words(self) -> list[str]:
        return [
            "-i", str(self.folder / "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-F", "none",
        ]  # fmt: skip

    def scp(self, source: Path, target: Path) -> list[str]:
        return ["scp", "-q", "-P", str(SSH_PORT), *self.words, f"127.0.0.1:{source}", str(target)]

    def rsync(self, source: Path, target: Path) -> list[str]:
        shell = " ".join(["ssh", "-p", str(SSH_PORT), *self.words])
        return ["rsync", "--whole-file", "-e", shell, f"127.0.0.1:{source}", str(target)]


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[Ssh]:
    folder.mkdir(mode=0o700, parents=True)
    ssh = Ssh(folder)
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized")
    config = folder / "config"
    lines = [
        f"Port {SSH_PORT}", "ListenAddress 127.0.0.1", f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}", f"PidFile {folder / 'pid'}", "UsePAM no",
        "PasswordAuthentication no", "StrictModes no", "Subsystem sftp internal-sftp",
    ]  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where its unprivileged half lives
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert sshd is not None, "looked for before"
    process = subprocess.Popen([sshd, "-D", "-f", str(config), "-E", str(folder / "log")])
    ssh.pid = process.pid
    try:
        for _ in range(100):
            knock = ["ssh", "-p", str(SSH_PORT), *ssh.words, "127.0.0.1", "true"]
            check = subprocess.run(knock, stderr=subprocess.DEVNULL, check=False)  # it says so while nobody listens yet
            if check.returncode == 0:
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"sshd does not answer: {(folder / 'log').read_text()[-500:]}")
        yield ssh
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def copied(ssh: Ssh, command: list[str], target: Path) -> tuple[float, float, float]:
    """Seconds with the bytes on the disk, without waiting for that, and of the processors."""
    target.unlink(missing_ok=True)
    used, started = ssh.cpu_s(), time.perf_counter()
    subprocess.run(command, check=True)
    without = time.perf_counter() - started
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - started, without, ssh.cpu_s() - used


def rss_mb(node: Node, what: str) -> float:
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(what))


@dataclass
class Fetches:
    """Of one swarm: the last node fetches from the others."""

    session: aiohttp.ClientSession
    nodes: list[Node]
    model: str
    seconds: list[float] = field(default_factory=list)
    """Of all rounds."""
    peaks_mb: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def fetch(self, node: Node) -> tuple[float, float]:
        """Seconds, and the most memory that the node had meanwhile (MB)."""
        peak, started = 0.0, time.perf_counter()
        await node.call(self.session, "POST", f"/api/admin/models/{self.model}/add", {})
        while not await self._complete(node):
            peak = max(peak, rss_mb(node, "VmRSS"))
            if time.perf_counter() - started > FETCH_S:
                raise RuntimeError(f"{self.model} was not fetched within {FETCH_S:.0f} s")
            await asyncio.sleep(LOOK_S)
        return time.perf_counter() - started, peak

    async def _complete(self, node: Node) -> bool:
        status = await node.call(self.session, "GET", f"/api/admin/models/{self.model}/status")
        if isinstance(status["state"], dict):
            raise RuntimeError(f"{self.model} was not fetched: {status}")
        return bool(status["state"] == "complete")

    async def one_round(self) -> None:
        last = self.nodes[-1]
        await until(lambda: self._offered(last), 60, "every holder to be known")
        before = self._cpu_s()
        seconds, peak = await self.fetch(last)
        self.cpu.append(self._cpu_s() - before)
        self.seconds.append(seconds)
        self.peaks_mb.append(peak)
        await last.call(self.session, "DELETE", f"/api/admin/models/{self.model}")

    def _cpu_s(self) -> float:
        return sum(cpu_s(node.process.pid) for node in self.nodes)

    async def heard(self, node: Node) -> bool:
        """Of the model's name."""
        return any(row["id"] == self.model for row in await node.call(self.session, "GET", "/api/admin/models"))

    async def _offered(self, node: Node) -> bool:
        """By all others."""
        rows = await node.call(self.session, "GET", "/api/admin/models")
        row: Any = next((row for row in rows if row["id"] == self.model), None)
        # After the first round only the name is known, and the manifest comes again with the shards.
        return row is not None and all(shard["holders"] >= len(self.nodes) - 1 for shard in row["shards"])


@contextlib.asynccontextmanager
async def holders(folder: Path, model: Path, *, count: int, first_port: int) -> AsyncIterator[Fetches]:
    """`count` nodes with the whole model, and one without."""
    environment = {"SWARMD_AUTO_MANAGE_ENABLED": "false", "SWARMD_RESOURCES_MAX_DISK_MB": "100000"}
    async with swarm(
        folder, count=count + 1, threads=1, first_port=first_port, megabytes=SHARD_MB, environment=environment
    ) as (session, nodes):
        name = (await nodes[0].call(session, "POST", "/api/admin/models", {"path": str(model)}))["model_id"]
        fetches = Fetches(session, nodes, name)
        for node in nodes[1:-1]:
            await until(lambda node=node: fetches.heard(node), 60, "the model to be known")
            await fetches.fetch(node)
        yield fetches


@dataclass
class Copies:
    """Of one way to copy the file that is no swarm."""

    ssh: Ssh
    command: list[str]
    target: Path
    seconds: list[float] = field(default_factory=list)
    unsynced: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def one_round(self) -> None:
        seconds, unsynced, used = await asyncio.to_thread(copied, self.ssh, self.command, self.target)
        self.seconds.append(seconds)
        self.unsynced.append(unsynced)
        self.cpu.append(used)
        self.target.unlink()


def line(name: str, size: int, seconds: list[float], ours: list[float], cpu: list[float]) -> str:
    """Without the first round. The best one is the least disturbed: medians compare the disturbances as well."""
    seconds, ours, cpu = seconds[1:], ours[1:], cpu[1:]
    median, best = statistics.median(seconds), min(seconds)
    against, used = statistics.median(ours) / median, min(cpu)
    return (
        f"{name:28} {median:6.2f} s, best {best:5.2f} s ({size / best / 1e6:4.0f} MB/s)  "
        f"speed {against:5.2f}, best {min(ours) / best:5.2f}  {used:5.2f} s of processors at best"
    )


async def measure(rounds: int, folder: Path, count: int) -> None:
    model = random_model.write(folder / "exchange.gguf", SHAPE)
    size = model.stat().st_size
    target = folder / "copy"
    with ssh_server(folder / "ssh") as ssh:
        scp, rsync = (Copies(ssh, command(model, target), target) for command in (ssh.scp, ssh.rsync))
        async with (
            holders(folder / "one", model, count=1, first_port=PORT) as one,
            holders(folder / "many", model, count=count, first_port=PORT + 100) as many,
        ):
            idle = rss_mb(many.nodes[-1], "VmRSS")
            os.sync()
            ways = [one, scp, many, rsync]
            for number in range(rounds + 1):
                for way in ways[number % 4 :] + ways[: number % 4]:  # whoever comes after a slow one has a disadvantage
                    await way.one_round()
    print(f"{size / 2**30:.2f} GiB over loopback, {rounds} rounds in turns; speed against ours, one holder")
    print(line("ours, one holder", size, one.seconds, one.seconds, one.cpu))
    print(line(f"ours, {count} holders", size, many.seconds, one.seconds, many.cpu))
    print(line("scp, synced", size, scp.seconds, one.seconds, scp.cpu))
    print(line("scp, left in the page cache", size, scp.unsynced, one.seconds, scp.cpu))
    print(line("rsync over ssh, synced", size, rsync.seconds, one.seconds, rsync.cpu))
    print(
        f"the receiver's memory: {idle:.0f} MB before, {max(one.peaks_mb):.0f} MB at most with one holder, "
        f"{max(many.peaks_mb):.0f} MB with {count}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.exchange", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--holders", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; 9 GB of it are used. Default: a temporary one")
    options = parser.parse_args()
    subprocess.run(["sh", str(ROOT / "tools" / "exchange_packages.sh")], check=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        asyncio.run(measure(options.rounds, Path(scratch), options.holders))


if __name__ == "__main__":
    main()
