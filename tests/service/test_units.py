"""The unit files, by systemd's own tools, and the node's work under what they forbid.

Where systemd-analyze is missing, `make unit` installs it or says so (tools/system_packages.sh); the tests fail then, and do
not skip.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import sandbox
from tests.meta.sources import ROOT

UNIT = ROOT / "systemd" / "swarmd.service"
USER_UNIT = ROOT / "systemd" / "user" / "swarmd.service"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux alone")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.fail("systemd-analyze is missing: sh tools/system_packages.sh")


@LINUX
@pytest.mark.parametrize(("unit", "scope"), [(UNIT, "--system"), (USER_UNIT, "--user")])
def test_systemd_understands_every_line(tmp_path: Path, unit: Path, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # which a user has who is logged in
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=.*$", f"ExecStart={sys.executable} run", unit.read_text(), flags=re.MULTILINE))
    done = analyze("verify", scope, "--man=no", str(copy))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    copy.write_text(copy.read_text() + "\n[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze("verify", scope, "--man=no", str(copy)).stderr, "and complains of others"


@LINUX
def test_the_exposure_is_below_two() -> None:
    shown = analyze("security", "--offline=true", "--threshold=20", str(UNIT))
    found = re.search(r"exposure level for swarmd.service: ([0-9.]+)", shown.stdout)
    assert found is not None and float(found.group(1)) < 2.0, shown.stdout
    assert shown.returncode == 0


@LINUX
def test_the_engine_works_under_the_filter_of_the_unit(tmp_path: Path) -> None:
    """Worker processes, memory that is never both writable and executable, the loop, sockets: what `doctor` uses."""
    if sandbox.library() is None:
        pytest.fail("libseccomp is missing: sh tools/system_packages.sh")
    probe = "import mmap, os; os.chown('.', 0, 0)"
    line = [sys.executable, str(ROOT / "tests" / "fakes" / "sandbox.py"), str(UNIT)]
    denied = subprocess.run([*line, sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "PermissionError" in denied.stderr, "the filter is there"
    done = subprocess.run(
        [*line, sys.executable, "-m", "swarmd", "doctor", "--json", "--data-dir", str(tmp_path)], capture_output=True,
        text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert '"reply speed"' in done.stdout and '"engine layout"' in done.stdout, done.stdout + done.stderr


def test_what_the_node_says_and_what_the_unit_expects_fit() -> None:
    for unit in (UNIT, USER_UNIT):
        text = unit.read_text()
        assert "\nType=notify\n" in text and "\nWatchdogSec=" in text and "\nNotifyAccess=main\n" in text
        assert "\nRestartForceExitStatus=3\n" in text, "with 3 the node asks to be started again"


def test_user_and_folder_are_those_of_the_unit() -> None:
    text, users = UNIT.read_text(), (ROOT / "systemd" / "sysusers.conf").read_text()
    folders = (ROOT / "systemd" / "tmpfiles.conf").read_text()
    assert "\nUser=swarmd\n" in text and re.search(r"^u swarmd - ", users, re.MULTILINE)
    assert "\nStateDirectory=swarmd\n" in text and re.search(
        r"^d /var/lib/swarmd 0700 swarmd swarmd -", folders, re.MULTILINE
    )


@LINUX
def test_sysusers_and_tmpfiles_are_read_by_their_tools(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for tool, name in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles", "tmpfiles.conf")):
        verb = ["--create"] if tool == "systemd-tmpfiles" else []
        try:
            done = subprocess.run(
                [tool, *verb, f"--root={tmp_path}", str(ROOT / "systemd" / name)], capture_output=True, text=True, timeout=60
            )
        except FileNotFoundError:
            pytest.fail(f"{tool} is missing: sh tools/system_packages.sh")
        assert "rror" not in done.stderr and "Unknown" not in done.stderr, done.stderr
    assert "swarmd:" in (tmp_path / "etc" / "passwd").read_text()
