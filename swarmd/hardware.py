"""What this machine has and how much of it is free. Reads the system, changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import platform
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from swarmd.domain.regions import region_of
from swarmd.kit.disk import Disk
from swarmd.kit.service import Ready

RESERVE_BYTES: Final = 256 * 1024 * 1024  # for this daemon's own buffers and for whatever else starts on the machine
RAM_SHARES: Final = {"minimal": 0.50, "moderate": 0.65, "maximum": 0.80}
"""Of all memory, by contribution. Even at maximum a fifth stays: a machine that swaps runs no model at a useful speed."""
SAMPLE_S: Final = 2.0  # the dashboard looks every 2 s
MEGABYTE: Final = 1_000_000
CPU_INFO: Final = Path("/proc/cpuinfo")
CPU_INFO_LIMIT: Final = 1024 * 1024  # bytes; machines with hundreds of cores have half of that
LOCALTIME: Final = Path("/etc/localtime")
ZONE_TABLES: Final = ("zone.tab", "zone1970.tab")  # the first has a row for each country, the second none for a few zones
ZONE_TABLE_LIMIT: Final = 256 * 1024  # bytes; they have 20 thousand
CONTAINER_INTERFACES: Final = ("docker", "br-", "veth", "virbr", "cni", "flannel", "podman")
"""Interfaces whose addresses nobody outside this machine can reach (design, section 6)."""

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


def interfaces() -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
    """The addresses of this machine with their networks, loopback too; without those of container bridges."""
    found: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
    for name, addresses in psutil.net_if_addrs().items():
        if name.startswith(CONTAINER_INTERFACES):
            continue
        for one in addresses:
            try:
                address = ipaddress.ip_address(one.address.split("%")[0])
                bits = int(ipaddress.ip_address(one.netmask)).bit_count() if one.netmask else address.max_prefixlen
            except ValueError:  # a hardware address
                continue
            found.append(ipaddress.ip_interface(f"{address}/{bits}"))
    return tuple(found)


def addresses() -> frozenset[str]:
    """Every IP address of this machine, those of container bridges too: a link may stand on one."""
    found: set[str] = set()
    for group in psutil.net_if_addrs().values():
        for one in group:
            with contextlib.suppress(ValueError):  # a hardware address
                found.add(str(ipaddress.ip_address(one.address.split("%")[0])))
    return frozenset(found)


def region(*, setting: str, environ: Mapping[str, str], disk: Disk, localtime: Path = LOCALTIME) -> str:
    """Where this machine stands, by `setting` or by its own clock and language; `??` where nothing says. Waits for disks."""
    tables: list[str] = []
    for folder in zoneinfo.TZPATH:
        for name in ZONE_TABLES:
            try:
                table = disk.read_bytes_now(Path(folder) / name, limit=ZONE_TABLE_LIMIT)
            except OSError as error:
                logger.debug("no table of time zones: %s", error)
                continue
            tables.append(table.decode(errors="replace"))
    locale = next((text for name in ("LC_ALL", "LC_TIME", "LANG") if (text := environ.get(name))), "")
    zone = _zone(environ, localtime)
    return region_of(setting=setting, zone=zone, zone_tables=tuple(tables), locale=locale)


def _zone(environ: Mapping[str, str], localtime: Path) -> str:
    """IANA name of the machine's time zone. Where the file is a copy and not a link, something that no table has."""
    try:
        text = environ.get("TZ", "").removeprefix(":") or str(localtime.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles
        logger.debug("no time zone: %s", error)
        return ""
    _, found, name = text.partition("zoneinfo/")  # TZ may be a path as well
    return (name if found else text).removeprefix("posix/")
