"""Makes releases of swarmd: a key, the wheel, and the signed feed that nodes read (docs/updates.md).

    python -m tools.release key release.key                     # once; prints the public key for updates.signed_by
    python -m tools.release build dist                          # the wheel of this tree
    python -m tools.release publish dist/swarmd-*.whl --key release.key --feed site/feed.json --changelog notes.md
    python -m tools.release show site/feed.json --signed-by KEY

`publish` puts the wheel beside the feed, adds the release to it, counts it up and signs it anew. Serve the folder by https.
The requirements of a release are those of the wheel and of what they need, in the versions that are installed here. Hashes
for them come from `--lock FILE` (a requirements file with hashes) and from `--wheelhouse FOLDER`, whose wheels go beside the
feed too. """

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.parser import BytesParser
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from swarmd.domain.updates import parse_version
from swarmd.identity.keys import SEED_BYTES, NodeKey, Signed
from swarmd.updates.feed import BadFeed, Envelope, Feed, Release, Signature, WheelFile, open_feed

ROOT = Path(__file__).parents[1]
KEPT = 16  # releases in a feed: whoever is further behind goes to the newest all the same


def make_key(path: Path) -> NodeKey:
    """Raises FileExistsError: a key is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(os.urandom(SEED_BYTES).hex() + "\n")
    return read_key(path)


def read_key(path: Path) -> NodeKey:
    return NodeKey(bytes.fromhex(path.read_text().strip()))


def build(out: Path) -> Path:
    """The wheel of this tree, with hatchling from this environment."""
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.glob("*.whl"))
    line = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(line, check=True)
    made = sorted(out.glob("*.whl"), key=lambda path: (path not in before, path.stat().st_mtime))
    return made[-1]


def metadata_of(wheel: Path) -> tuple[str, str, list[str]]:
    """Version, minimum Python and requirements, as the wheel says."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        found = BytesParser().parsebytes(archive.read(name))
    needed = found.get("Requires-Python", ">=3.11").removeprefix(">=")
    return found["Version"], ".".join(needed.split(".")[:2]), found.get_all("Requires-Dist") or []


def pins(requirements: Iterable[str]) -> dict[str, str]:
    """All that is needed, with what that needs, in the versions that are installed here."""
    found: dict[str, str] = {}
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        package = importlib.metadata.distribution(name)
        if not requirement.specifier.contains(package.version, prereleases=True):
            raise SystemExit(f"{requirement} is wanted, and {package.version} is installed here: run make install")
        found[name] = package.version
        waiting += package.requires or []
    return dict(sorted(found.items()))


def locked_hashes(lock: Path) -> dict[tuple[str, str], list[str]]:
    """From a requirements file with hashes, however it breaks its lines."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        match = re.match(r"\s*([A-Za-z0-9._-]+)==([^\s;]+)", line)
        if match:
            key = (canonicalize_name(match.group(1)), match.group(2))
            found.setdefault(key, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def file_row(path: Path) -> WheelFile:
    data = path.read_bytes()
    return WheelFile(file=path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def release_of(
    wheel: Path,
    *,
    changelog: str = "",
    wheelhouse: Path | None = None,
    lock: Path | None = None,
    published_at: str | None = None,
) -> Release:
    version, python, requirements = metadata_of(wheel)
    parse_version(version)
    hashes = locked_hashes(lock) if lock is not None else {}
    house = [file_row(path) for path in sorted(wheelhouse.glob("*.whl"))] if wheelhouse is not None else []
    for row in house:
        name, number, _, _ = parse_wheel_filename(row.file)
        hashes.setdefault((name, str(number)), []).append(row.sha256)
    lines = [
        f"{name}=={number}" + "".join(f" --hash=sha256:{one}" for one in dict.fromkeys(hashes.get((name, number), [])))
        for name, number in pins(requirements).items()
    ]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Release(
        version=version, wheel=file_row(wheel), published_at=published_at or now, changelog=changelog, min_python=python,
        requirements=lines, wheelhouse=house,
    )  # fmt: skip


def sign(feed: Feed, keys: Sequence[NodeKey]) -> bytes:
    text = msgspec.json.encode(feed).decode()
    signatures = [Signature(by=key.node, signature=key.sign(Signed.RELEASES, text.encode()).hex()) for key in keys]
    return msgspec.json.format(msgspec.json.encode(Envelope(feed=text, signatures=signatures)), indent=1)


def publish(release: Release, files: Sequence[Path], *, feed: Path, keys: Sequence[NodeKey]) -> Feed:
    """Files first, the feed last and by rename: nobody sees a release whose files are not there."""
    before = Feed(sequence=1, releases=[])
    if feed.exists():
        found = open_feed(feed.read_bytes(), trusted=[key.node for key in keys], seen=0)
        if isinstance(found, BadFeed):
            raise SystemExit(f"{feed} is not a feed that one of these keys signed: {found.sentence}")
        before = found
    feed.parent.mkdir(parents=True, exist_ok=True)
    for path in files:
        if path.resolve().parent != feed.parent.resolve():
            shutil.copyfile(path, feed.parent / path.name)
    releases = [release, *(one for one in before.releases if one.version != release.version)]
    releases = sorted(releases, key=lambda one: one.number, reverse=True)[:KEPT]
    after = Feed(sequence=before.sequence + 1, releases=releases)
    data = sign(after, keys)
    checked = open_feed(data, trusted=[keys[0].node], seen=before.sequence)
    if isinstance(checked, BadFeed):
        raise SystemExit(f"no node would take this feed: {checked.sentence}")
    part = feed.with_name(f".{feed.name}.part")
    part.write_bytes(data)
    part.replace(feed)
    return after


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    key = verbs.add_parser("key", help="make a release key")
    key.add_argument("path", type=Path)
    made = verbs.add_parser("build", help="build the wheel of this tree")
    made.add_argument("out", type=Path)
    publishing = verbs.add_parser("publish", help="add a wheel to the feed, and sign it")
    publishing.add_argument("wheel", type=Path)
    publishing.add_argument("--feed", type=Path, required=True)
    publishing.add_argument(
        "--key", type=Path, action="append", required=True, help="may be repeated while a key is replaced"
    )
    publishing.add_argument("--changelog", type=Path)
    publishing.add_argument("--wheelhouse", type=Path)
    publishing.add_argument("--lock", type=Path)
    shown = verbs.add_parser("show", help="check a feed as a node does")
    shown.add_argument("feed", type=Path)
    shown.add_argument("--signed-by", required=True)
    options = parser.parse_args(arguments)
    match options.verb:
        case "key":
            print(make_key(options.path).node)
        case "build":
            print(build(options.out))
        case "publish":
            notes = options.changelog.read_text() if options.changelog else ""
            release = release_of(options.wheel, changelog=notes, wheelhouse=options.wheelhouse, lock=options.lock)
            house = sorted(options.wheelhouse.glob("*.whl")) if options.wheelhouse else []
            keys = [read_key(path) for path in options.key]
            feed = publish(release, [options.wheel, *house], feed=options.feed, keys=keys)
            print(f"feed {feed.sequence}: {', '.join(one.version for one in feed.releases)}")
        case _:
            found = open_feed(options.feed.read_bytes(), trusted=options.signed_by.replace(",", " ").split(), seen=0)
            if isinstance(found, BadFeed):
                print(found.sentence)
                return 1
            for one in found.releases:
                print(f"{one.version}  {one.published_at}  {one.wheel.file}  {len(one.requirements)} requirements")
    return 0


if __name__ == "__main__":
    sys.exit(main())
