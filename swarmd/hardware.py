"""What this machine has and how much of it is free. Reads the system, changes nothing."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from swarmd.kit.disk import Disk
from swarmd.kit.service import Ready

RESERVE_BYTES: Final = 256 * 1024 * 1024  # for this daemon's own buffers and for whatever else starts on the machine
RAM_SHARES: Final = {"minimal": 0.50, "moderate": 0.65, "maximum": 0.80}
"""Of all memory, by contribution. Even at maximum a fifth stays: a machine that swaps runs no model at a useful speed."""
SAMPLE_S: Final = 2.0  # the dashboard looks every 2 s
MEGABYTE: Final = 1_000_000
CPU_INFO: Final = Path("/proc/cpuinfo")
CPU_INFO_LIMIT: Final = 1024 * 1024  # bytes; machines with hundreds of cores have half of that

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareView:
    """One reading. The GPU is None as long as the engine runs on the CPU alone."""

    cpu_name: str
    cpu_cores: int
    """Physical cores, as llama.cpp should use them; logical ones where the system does not tell."""
    total_ram_bytes: int
    used_ram_bytes: int
    free_ram_bytes: int
    """What programs could still take without swapping: caches of the system count as free."""
    process_rss_bytes: int
    """Of this process and the workers it started."""
    total_disk_bytes: int
    used_disk_bytes: int
    free_disk_bytes: int
    """Of the file system with the data folder."""
    memory_bandwidth_gbps: float | None = None
    """None until somebody measured it."""
    gpu_name: str | None = None


Read = Callable[[], HardwareView]


class Hardware:
    """A service that keeps a fresh reading, so that `snapshot` never waits for a disk or a process table."""

    name = "hardware"

    def __init__(self, *, folder: Path, disk: Disk, read: Read | None = None) -> None:
        """`folder`: whose file system counts. `read`: where the numbers come from; a test has its own machine."""
        self._read: Read = read or SystemReader(folder=folder, disk=disk)
        self._latest: HardwareView | None = None

    async def run(self, ready: Ready) -> None:
        while True:
            self._latest = await asyncio.to_thread(self._read)
            ready()
            await asyncio.sleep(SAMPLE_S)

    def snapshot(self) -> HardwareView:
        """At most SAMPLE_S old."""
        if self._latest is None:  # asked before the service runs: once, at start-up
            self._latest = self._read()
        return self._latest

    def free_ram_for_workers(self, *, max_ram_mb: int, contribution: str, workers_rss_bytes: int) -> int:
        """Bytes that workers may take beyond what they have; 0 when none.

        The machine's free memory needs no correction: what workers already use is gone from it. The limit does: it is
        for all workers together, so `workers_rss_bytes` comes off it. Memory is read anew, since a shard that was just
        loaded must count.
        """
        snapshot = self.snapshot()
        limit = max_ram_mb * MEGABYTE if max_ram_mb else int(snapshot.total_ram_bytes * RAM_SHARES[contribution])
        return max(0, min(self.available_ram_bytes() - RESERVE_BYTES, limit - workers_rss_bytes))

    def available_ram_bytes(self) -> int:
        """Now, not SAMPLE_S ago, on the real machine."""
        read = self._read
        return read.available_ram_bytes() if isinstance(read, SystemReader) else self.snapshot().free_ram_bytes


class SystemReader:
    """psutil and /proc."""

    def __init__(self, *, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._cpu_name = cpu_name(disk)
        self._process = psutil.Process()

    def __call__(self) -> HardwareView:
        memory = psutil.virtual_memory()
        folder = self._folder
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        disk = psutil.disk_usage(str(folder))
        return HardwareView(
            cpu_name=self._cpu_name,
            cpu_cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
            total_ram_bytes=memory.total,
            used_ram_bytes=memory.total - memory.available,
            free_ram_bytes=memory.available,
            process_rss_bytes=self._rss_bytes(),
            total_disk_bytes=disk.total,
            used_disk_bytes=disk.used,
            free_disk_bytes=disk.free,
        )

    @staticmethod
    def available_ram_bytes() -> int:
        return psutil.virtual_memory().available

    def _rss_bytes(self) -> int:
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue  # it ended meanwhile
        return total


def cpu_name(disk: Disk) -> str:
    """As the vendor prints it; the architecture where the system does not say."""
    try:
        text = disk.read_bytes_now(CPU_INFO, limit=CPU_INFO_LIMIT).decode(errors="replace")
    except OSError as error:
        logger.debug("no processor name: %s", error)
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"
