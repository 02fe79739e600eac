"""Builds the environment of a release beside the one that runs, from files whose hashes were signed.

    <data>/versions/0.2.0/files/   its wheel, and what came from the wheelhouse
    <data>/versions/0.2.0/venv     made by the interpreter that runs
    <data>/versions/0.2.0/whole    written last; without it the folder counts for nothing and is made anew

Where the dependencies come from, one by one: what the running environment has in just the pinned version is linked or copied
from it, so an update that needs nothing new needs no network but the feed's. What is missing comes from the wheelhouse
beside the feed, and what is not there from pip's package index, and from it only files whose hashes the feed names.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarmd.domain.refusals import Invalid, NoSpace, Refusal
from swarmd.domain.updates import Version
from swarmd.kit.disk import Disk
from swarmd.updates.feed import WHEEL_LIMIT, Release, WheelFile
from swarmd.updates.releases import Releases
from swarmd.updates.versions import WHOLE, Versions

NEEDED_BYTES: Final = 500_000_000  # an environment with engine and numpy has 300 MB, and less where files are linked
STEP_S: Final = 900.0  # for pip on a slow line; a machine of two cores needs some seconds
WORDS_LIMIT: Final = 2000  # characters of what pip said last
PIP: Final = (
    "-P",
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "--quiet",
    "install",
    "--no-deps",
    "--no-compile",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a release's requirements."""

    name: str
    """Normalised."""
    version: str
    line: str
    has_hash: bool


class Staging:
    def __init__(self, *, versions: Versions, releases: Releases, disk: Disk, environ: Mapping[str, str]) -> None:
        self._versions, self._releases, self._disk = versions, releases, disk
        self._environ = {
            name: text for name, text in environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "SWARMD_"))
        }

    async def stage(self, release: Release, feed_url: str) -> Refusal | None:
        """None: it is there. Raises FeedFailed or OSError. Cancelled, or killed, it leaves nothing that counts."""
        place = self._versions.place(release.number)
        if self._versions.is_staged(release.number) and await self.is_genuine(release):
            return None
        free = await self._disk.free_bytes(place)
        if free < NEEDED_BYTES:
            return NoSpace(needed_bytes=NEEDED_BYTES, free_bytes=free)
        await self._disk.remove_folder(place)
        await self._disk.make_folder(place / "files", mode=0o700)
        refusal: Refusal | None = None
        try:
            refusal = await self._build(release, feed_url, place)
        finally:
            if not self._versions.is_staged(release.number):
                await self._disk.remove_folder(place)
        return refusal

    async def is_genuine(self, release: Release) -> bool:
        """The wheel that was staged is still the one that was signed."""
        path = self._versions.place(release.number) / "files" / release.wheel.file
        try:
            return await asyncio.to_thread(_sha256_now, path) == release.wheel.sha256
        except OSError:
            return False

    async def prune(self, keep: Sequence[Version]) -> None:
        """Environments that no node starts any more."""
        for version in self._versions.staged():
            if version not in keep:
                logger.info("the files of version %s are removed", version)
                await self._disk.remove_folder(self._versions.place(version))

    async def _build(self, release: Release, feed_url: str, place: Path) -> Refusal | None:
        refusal = await self._releases.file(feed_url, release.wheel, place / "files" / release.wheel.file)
        if refusal is not None:
            return refusal
        python = self._versions.python(release.number)
        said = await self._run(sys.executable, "-m", "venv", "--without-pip", str(place / "venv"))
        if said is not None:
            return Invalid(what=f"no environment could be made for version {release.version}: {said}")
        pins = [_pin(line) for line in release.requirements]
        missing, has_pip = await asyncio.to_thread(_take_over_now, pins, _packages(place))
        if not has_pip and await self._run(str(python), "-P", "-m", "ensurepip", "--default-pip") is not None:
            return Invalid(
                what="this environment has no pip, with which updates are installed: install swarmd anew with pipx"
            )
        refusal = await self._install_missing(release, feed_url, place, missing)
        if refusal is not None:
            return refusal
        said = await self._run(str(python), *PIP, "--no-index", str(place / "files" / release.wheel.file))
        if said is not None:
            return Invalid(what=f"version {release.version} could not be installed: {said}")
        return await self._finish(release, python, place)

    async def _install_missing(self, release: Release, feed_url: str, place: Path, missing: list[Pin]) -> Refusal | None:
        if not missing:
            return None
        house = {
            (_normal(one.file.split("-")[0]), one.file.split("-")[1]): one for one in release.wheelhouse if "-" in one.file
        }
        from_house = [pin for pin in missing if (pin.name, pin.version) in house]
        for pin in from_house:
            wheel: WheelFile = house[pin.name, pin.version]
            refusal = await self._releases.file(feed_url, wheel, place / "files" / wheel.file)
            if refusal is not None:
                return refusal
        python, lines = str(self._versions.python(release.number)), [f"{pin.name}=={pin.version}" for pin in from_house]
        if lines:
            said = await self._run(python, *PIP, "--no-index", "-f", str(place / "files"), *lines)
            if said is not None:
                return Invalid(what=f"what version {release.version} needs could not be installed: {said}")
        others = [pin for pin in missing if pin not in from_house]
        without = [pin.name for pin in others if not pin.has_hash]
        if without:
            return Invalid(
                what=f"version {release.version} needs {', '.join(without[:5])} in another version than is here, and the "
                "feed says neither a hash nor has the wheel"
            )
        if others:
            listing = place / "files" / "requirements.txt"
            await self._disk.write_atomic(listing, "".join(f"{pin.line}\n" for pin in others).encode())
            said = await self._run(python, *PIP, "--only-binary", ":all:", "--require-hashes", "-r", str(listing))
            if said is not None:
                return Invalid(what=f"what version {release.version} needs could not be fetched: {said}")
        return None

    async def _finish(self, release: Release, python: Path, place: Path) -> Refusal | None:
        said = await self._run(
            str(python), "-P", "-c", "import swarmd, swarmd.app, swarmd.cli; print(swarmd.__version__)", out=True
        )
        if said != release.version:
            return Invalid(what=f"version {release.version} does not run here: {said}")
        await asyncio.to_thread(os.sync)  # thousands of small files: before we say that they are there
        await self._disk.write_atomic(place / WHOLE, f"{release.wheel.sha256}\n".encode())
        return None

    async def _run(self, *command: str, out: bool = False) -> str | None:
        """None: it went well. Else its last words; with `out` what it printed, in both cases."""
        process = await asyncio.create_subprocess_exec(
            *command, env=self._environ, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self._versions.folder,
        )  # fmt: skip
        words = b""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(STEP_S):
                while data := await process.stdout.read(65536):
                    words = (words + data)[-WORDS_LIMIT:]
                code = await process.wait()
        except TimeoutError:
            return f"it took longer than {STEP_S:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = words.decode(errors="replace").strip()
        if out or code:
            return (text if out else " ".join(text.split())) or f"exit code {code}"
        return None


def _pin(line: str) -> Pin:
    name, _, rest = line.partition("==")
    version = re.split(r"[\s;]", rest, maxsplit=1)[0]
    return Pin(_normal(name), version, line, "--hash=" in line)


def _normal(name: str) -> str:
    """Of a package, as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _packages(place: Path) -> Path:
    return place / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _take_over_now(pins: Sequence[Pin], target: Path) -> tuple[list[Pin], bool]:
    """Links or copies what this environment has in the pinned version, and pip in any. What it has not, and whether it has
    pip."""
    missing: list[Pin] = []
    for pin in pins:
        try:
            found = importlib.metadata.distribution(pin.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(pin)
            continue
        if found.version != pin.version or not _link_now(found, target):
            missing.append(pin)
    try:
        return missing, _link_now(importlib.metadata.distribution("pip"), target)
    except importlib.metadata.PackageNotFoundError:
        return missing, False


def _link_now(package: importlib.metadata.Distribution, target: Path) -> bool:
    """False: nobody knows which files it has. Commands, which lie outside of the packages' folder, nobody here calls."""
    for name in package.files or ():
        if ".." in name.parts or name.is_absolute():
            continue
        source, copy = Path(str(package.locate_file(name))), target / name
        if not source.is_file():
            if name.suffix == ".pyc":
                continue
            return False
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.hardlink_to(source)
        except FileExistsError:
            continue
        except OSError:  # another file system, or files of somebody else (fs.protected_hardlinks)
            shutil.copy2(source, copy)  # with its time: compiled files go by that of their source
    return bool(package.files)


def _sha256_now(path: Path) -> str:
    hasher, left = hashlib.sha256(), WHEEL_LIMIT
    with path.open("rb") as file:
        while left > 0 and (data := file.read(1024 * 1024)):
            hasher.update(data)
            left -= len(data)
    return hasher.hexdigest()
