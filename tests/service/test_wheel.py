"""The wheel has all that a node needs, and works where nothing of this tree is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from swarmd import __version__
from tests.meta.sources import ROOT, tracked_files
from tools.release import build


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


def test_every_file_of_the_package_is_inside_and_no_test_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    ours = {str(path.relative_to(ROOT)) for path in tracked_files() if path.is_relative_to(ROOT / "swarmd")}
    assert not ours - inside, "static files, migrations, the built-in model, py.typed"
    for name in (
        "swarmd/py.typed", "swarmd/builtin/swarmd-builtin.gguf", "swarmd/api/static/index.html",
        "swarmd/systemd/swarmd.service", "swarmd/systemd/user/swarmd.service", "swarmd/systemd/sysusers.conf",
    ):  # fmt: skip
        assert name in inside
    info = f"swarmd-{__version__}.dist-info"
    assert {name.split("/")[0] for name in inside} == {"swarmd", info}
    assert f"{info}/licenses/LICENSE" in inside and f"{info}/entry_points.txt" in inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith(("tests/", "tools/"))]


def test_it_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Dependencies are those of this environment, by a path file; pipx installs them from an index."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "SWARMD_"))}

    def run(*arguments: str) -> str:
        line = [str(venv / "bin" / "swarmd"), *arguments]
        done = subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, env=environ | {"HOME": str(tmp_path)}, timeout=120
        )
        assert not done.stderr or arguments[0] == "doctor", done.stderr
        return done.stdout

    where = subprocess.run(
        [str(venv / "bin" / "python"), "-P", "-c", "import swarmd; print(swarmd.__file__)"], capture_output=True, text=True,
        env=environ, cwd=tmp_path, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site)), "it is the wheel's, not this tree's"
    assert f"swarmd {__version__}" in run("version")
    report = run("doctor", "--json")
    assert '"reply speed"' in report and "tokens/s (built-in model" in report
    run("service", "install", "--root", str(tmp_path / "image"), "--user")
    units = list((tmp_path / "image").rglob("swarmd.service"))
    assert len(units) == 1 and f"ExecStart={venv}/bin/swarmd run" in units[0].read_text()
