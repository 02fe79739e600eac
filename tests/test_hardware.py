"""What the machine has, real and made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swarmd.hardware import RESERVE_BYTES, Hardware, HardwareView, cpu_name
from swarmd.kit.disk import Disk
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World

GB = 1_000_000_000
VIEW = HardwareView(
    cpu_name="test", cpu_cores=2, total_ram_bytes=16 * GB, used_ram_bytes=4 * GB, free_ram_bytes=12 * GB,
    process_rss_bytes=1, total_disk_bytes=3, used_disk_bytes=1, free_disk_bytes=2,
)  # fmt: skip


def machine(view: HardwareView) -> Hardware:
    return Hardware(folder=Path("/"), disk=Disk(), read=lambda: view)


async def test_this_machine_has_sound_numbers(tmp_path: Path, world: World) -> None:
    hardware = Hardware(folder=tmp_path / "not" / "there", disk=Disk())
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(hardware)
        view = hardware.snapshot()
    assert view.cpu_cores >= 1 and view.cpu_name
    assert 0 < view.process_rss_bytes < view.total_ram_bytes
    assert view.used_ram_bytes + view.free_ram_bytes == view.total_ram_bytes
    assert 0 < view.total_disk_bytes >= view.free_disk_bytes
    assert hardware.free_ram_for_workers(max_ram_mb=0, contribution="minimal", workers_rss_bytes=0) >= 0


def test_the_limit_is_a_share_or_a_number_for_all_workers_together() -> None:
    free = machine(VIEW).free_ram_for_workers
    assert free(max_ram_mb=0, contribution="minimal", workers_rss_bytes=0) == 8 * GB
    assert free(max_ram_mb=0, contribution="minimal", workers_rss_bytes=6 * GB) == 2 * GB
    assert free(max_ram_mb=0, contribution="moderate", workers_rss_bytes=0) == 10.4 * GB
    assert free(max_ram_mb=1000, contribution="maximum", workers_rss_bytes=0) == GB
    assert free(max_ram_mb=1000, contribution="maximum", workers_rss_bytes=2 * GB) == 0


def test_what_is_taken_by_others_is_not_free() -> None:
    full = machine(replace(VIEW, free_ram_bytes=GB))
    assert full.free_ram_for_workers(max_ram_mb=0, contribution="maximum", workers_rss_bytes=0) == GB - RESERVE_BYTES
    none = machine(replace(VIEW, free_ram_bytes=RESERVE_BYTES - 1))
    assert none.free_ram_for_workers(max_ram_mb=0, contribution="maximum", workers_rss_bytes=0) == 0


class CpuInfo(Disk):
    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_bytes_now(self, path: Path, *, limit: int) -> bytes:
        if self.text is None:
            raise FileNotFoundError(path)
        return self.text.encode()


def test_the_processor_has_a_name() -> None:
    assert cpu_name(CpuInfo("processor\t: 0\nmodel name\t: Abacus 9000\nflags\t: x\n")) == "Abacus 9000"
    assert cpu_name(CpuInfo("processor : 0\n"))
    assert cpu_name(CpuInfo(None))
