"""An environment for a release: where each piece comes from, and what is refused. Real environments, wheels of a few
bytes."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.domain.refusals import Invalid, NoSpace, Refusal
from swarmd.domain.updates import parse_version
from swarmd.kit.disk import Disk
from swarmd.updates.feed import Release, WheelFile
from swarmd.updates.releases import FeedFailed, Releases
from swarmd.updates.staging import Staging
from swarmd.updates.versions import Versions
from tests.fakes.releases import FeedFolder, feed_folder

VERSION = parse_version("0.2.0")
PACKAGES = {"swarmd/__init__.py": '__version__ = "0.2.0"\n', "swarmd/app.py": "", "swarmd/cli.py": ""}
HERE = importlib.metadata.version("typing_extensions")


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    rows = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for one, text in rows.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{one},sha256={digest},{len(text)}\n"
            archive.writestr(one, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


def row(path: Path) -> WheelFile:
    data = path.read_bytes()
    return WheelFile(file=path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FeedFolder]:
    with feed_folder(tmp_path / "feed") as folder:
        yield folder


def release(feed: FeedFolder, files: dict[str, str] = PACKAGES, **fields: object) -> Release:
    made = wheel(feed.folder, "swarmd", "0.2.0", files)
    return Release(version="0.2.0", wheel=row(made), published_at="2026-12-01T10:00:00Z", **fields)  # type: ignore[arg-type]


async def stage(data: Path, found: Release, feed: FeedFolder, disk: Disk | None = None) -> Refusal | None:
    releases = Releases(proxy=lambda: None, user_agent="swarmd/test", disk=Disk())
    staging = Staging(versions=Versions(data), releases=releases, disk=disk or Disk(), environ=os.environ)
    return await staging.stage(found, feed.url)


def refused(said: Refusal | None) -> str:
    assert isinstance(said, Invalid), said
    return said.sentence


async def test_what_is_here_is_taken_over_and_what_is_not_comes_from_the_wheelhouse(
    tmp_path: Path, feed: FeedFolder
) -> None:
    other = wheel(feed.folder, "swarmd_test_part", "1.5", {"swarmd_test_part.py": "HERE = 7\n"})
    found = release(feed, requirements=[f"typing-extensions=={HERE}", "swarmd-test-part==1.5"], wheelhouse=[row(other)])
    assert await stage(tmp_path, found, feed) is None
    versions = Versions(tmp_path)
    assert versions.staged() == (VERSION,)
    code = "import swarmd_test_part, typing_extensions as t; print(swarmd_test_part.HERE, t.__file__)"
    line = [str(versions.python(VERSION)), "-P", "-c", code]
    said = subprocess.run(line, capture_output=True, text=True, check=True, env={}).stdout
    assert said.startswith("7 ") and str(tmp_path) in said, "of its own, whatever becomes of this environment"
    names = subprocess.run(
        [*line[:2], "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True, env={}
    ).stdout.lower()
    assert "pytest" not in names and "pip==" in names, "only what the release names"
    stamp = (versions.place(VERSION) / "whole").stat().st_mtime_ns
    assert await stage(tmp_path, found, feed) is None
    assert (versions.place(VERSION) / "whole").stat().st_mtime_ns == stamp, "once is enough"
    (versions.place(VERSION) / "files" / found.wheel.file).write_bytes(b"changed")
    assert await stage(tmp_path, found, feed) is None
    assert (versions.place(VERSION) / "whole").stat().st_mtime_ns != stamp, "somebody was at its files: anew"


async def test_what_is_nowhere_is_refused_and_nothing_is_left(tmp_path: Path, feed: FeedFolder) -> None:
    found = release(feed, requirements=["swarmd-test-part==1.5"])
    assert "needs swarmd-test-part in another version than is here" in refused(await stage(tmp_path, found, feed))
    assert list((tmp_path / "versions").iterdir()) == []


async def test_a_wheel_that_does_not_run_is_refused(tmp_path: Path, feed: FeedFolder) -> None:
    for files, words in (
        (PACKAGES | {"swarmd/app.py": "raise SystemExit('it misses a part')"}, "it misses a part"),
        (PACKAGES | {"swarmd/__init__.py": "__version__ = '0.2.1'\n"}, "does not run here: 0.2.1"),
    ):
        assert words in refused(await stage(tmp_path, release(feed, files), feed))
    assert Versions(tmp_path).staged() == ()


async def test_a_file_that_is_not_the_signed_one_is_refused_before_anything_is_built(
    tmp_path: Path, feed: FeedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object, **__: object) -> str:
        raise AssertionError("nothing is run")

    monkeypatch.setattr(Staging, "_run", run)
    found = release(feed)
    path = feed.folder / found.wheel.file
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert "cut short" in refused(await stage(tmp_path, found, feed))
    path.write_bytes(data[:-1] + b"x")
    assert "its SHA-256 is another" in refused(await stage(tmp_path, found, feed))
    path.unlink()
    with pytest.raises(FeedFailed, match="404"):
        await stage(tmp_path, found, feed)
    assert list((tmp_path / "versions").iterdir()) == []


async def test_a_full_disk(tmp_path: Path, feed: FeedFolder) -> None:
    class Full(Disk):
        def free_bytes_now(self, path: Path) -> int:
            return 1

    assert isinstance(await stage(tmp_path, release(feed), feed, Full()), NoSpace)


async def test_what_a_kill_left_counts_for_nothing(tmp_path: Path, feed: FeedFolder) -> None:
    rest = Versions(tmp_path).python(VERSION)
    rest.parent.mkdir(parents=True)
    rest.symlink_to(sys.executable)
    assert Versions(tmp_path).staged() == ()
    assert await stage(tmp_path, release(feed), feed) is None
    assert Versions(tmp_path).staged() == (VERSION,)


async def test_old_versions_are_removed(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for text in ("0.1.1", "0.2.0", "0.3.0"):
        path = versions.python(parse_version(text))
        path.parent.mkdir(parents=True)
        path.touch()
        (versions.folder / text / "whole").touch()
    releases = Releases(proxy=lambda: None, user_agent="swarmd/test", disk=Disk())
    await Staging(versions=versions, releases=releases, disk=Disk(), environ={}).prune([VERSION, parse_version("0.3.0")])
    assert [one.text for one in versions.staged()] == ["0.2.0", "0.3.0"]
