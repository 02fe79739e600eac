"""What the machine has, real and made up."""

from __future__ import annotations

import zoneinfo
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from swarmd.hardware import RESERVE_BYTES, Hardware, HardwareView, addresses, cpu_name, interfaces, region
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


def test_interfaces_come_with_their_networks_and_without_container_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(address: str, netmask: str | None) -> object:
        return SimpleNamespace(address=address, netmask=netmask)

    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {
        "lo": [one("127.0.0.1", "255.0.0.0")],
        "eth0": [
            one("192.168.1.5", "255.255.255.0"), one("fd00::5", "ffff:ffff:ffff:ffff::"), one("fe80::1%eth0", None),
            one("02:42:ac:11:00:02", None),
        ],
        **{name: [one("172.17.0.1", "255.255.0.0")] for name in ("docker0", "br-12", "veth1", "virbr0", "cni0", "podman1")},
    })  # fmt: skip
    assert [str(found) for found in interfaces()] == ["127.0.0.1/8", "192.168.1.5/24", "fd00::5/64", "fe80::1/128"]


def test_the_region_is_read_from_the_clock_and_the_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path / "none"), str(tmp_path / "zoneinfo")))
    (tmp_path / "zoneinfo" / "Europe").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "zone.tab").write_text("NO\t+5955+01045\tEurope/Oslo\n")
    (tmp_path / "zoneinfo" / "Europe" / "Oslo").write_text("")
    localtime = tmp_path / "localtime"

    def found(setting: str = "", **environ: str) -> str:
        return region(setting=setting, environ=environ, disk=Disk(), localtime=localtime)

    assert found(LANG="de_AT.UTF-8") == "AT" and found() == "??", "no zone is told here"
    localtime.symlink_to(tmp_path / "zoneinfo" / "Europe" / "Oslo")
    assert found(LANG="de_AT.UTF-8") == "NO"
    assert found(LANG="de_AT.UTF-8", TZ="UTC0") == "AT"
    assert found(TZ=f":{tmp_path}/zoneinfo/posix/Europe/Oslo") == "NO"
    assert found(LANG="de_AT.UTF-8", LC_ALL="fr_FR", TZ="UTC0") == "FR", "as the C library ranks them"
    assert found("us") == "US"
    localtime.unlink()
    localtime.symlink_to(localtime)
    assert found() == "??"


def test_every_address_of_the_machine_counts() -> None:
    found = addresses()
    assert "127.0.0.1" in found
    assert {str(one.ip) for one in interfaces()} <= found
