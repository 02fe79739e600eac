"""Releases are made, signed and published; what nodes would not take is not published."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from swarmd import __version__
from swarmd.identity.keys import NodeKey
from swarmd.updates.feed import Feed, open_feed
from tests.fakes.releases import KEY, as_version
from tools import release
from tools.release import build, locked_hashes, main, make_key, pins, publish, read_key, release_of

OTHER = NodeKey(bytes([8]) * 32)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


def test_a_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    assert read_key(tmp_path / "key").node == key.node and (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        make_key(tmp_path / "key")


def test_from_key_to_feed_on_the_command_line(tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, feed, notes = tmp_path / "key", tmp_path / "site" / "feed.json", tmp_path / "notes.md"
    notes.write_text("Faster.")
    assert main(["key", str(key)]) == 0
    public = capsys.readouterr().out.strip()
    assert main(["publish", str(wheel), "--key", str(key), "--feed", str(feed), "--changelog", str(notes)]) == 0
    assert (feed.parent / wheel.name).read_bytes() == wheel.read_bytes()
    assert main(["show", str(feed), "--signed-by", public]) == 0
    assert f"{__version__}  " in capsys.readouterr().out
    assert main(["show", str(feed), "--signed-by", OTHER.node]) == 1
    found = open_feed(feed.read_bytes(), trusted=[public], seen=0)
    assert isinstance(found, Feed) and found.releases[0].changelog == "Faster."


def test_a_release_names_all_that_it_needs(tmp_path: Path, wheel: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        f"blake3=={pins(['blake3'])['blake3']} \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\nother==1\n"
    )
    found = release_of(wheel, lock=lock)
    names = [line.split("==")[0] for line in found.requirements]
    assert {"aiohttp", "xllamacpp", "numpy", "yarl", "click"} - set(names) <= {"click"} and "pytest" not in names
    line = next(line for line in found.requirements if line.startswith("blake3=="))
    assert line.endswith(f" --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}")
    assert (found.min_python, found.version) == ("3.11", __version__)
    assert locked_hashes(lock)["blake3", pins(["blake3"])["blake3"]] == ["a" * 64, "b" * 64]


def test_each_feed_is_newer_and_keeps_the_releases_before(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "KEPT", 2)
    feed = tmp_path / "site" / "feed.json"
    for sequence, version in enumerate(("0.2.0", "0.3.0", "0.4.0"), 2):
        made = as_version(wheel, version, tmp_path)
        with zipfile.ZipFile(made) as archive:
            assert archive.testzip() is None
        published = publish(release_of(made), [made], feed=feed, keys=[KEY])
        assert published.sequence == sequence
    assert [one.version for one in published.releases] == ["0.4.0", "0.3.0"]
    with pytest.raises(SystemExit, match="is not a feed that one of these keys signed"):
        publish(release_of(wheel), [wheel], feed=feed, keys=[OTHER])
    publish(release_of(wheel), [wheel], feed=feed, keys=[OTHER, KEY])
    for key in (KEY, OTHER):
        assert isinstance(open_feed(feed.read_bytes(), trusted=[key.node], seen=5), Feed), "a key is replaced with both"


def test_a_requirement_that_is_not_installed_as_wanted() -> None:
    with pytest.raises(SystemExit, match="make install"):
        pins(["aiohttp<1"])


def test_the_command_says_what_it_can() -> None:
    shown = subprocess.run([sys.executable, "-m", "tools.release", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in shown.stdout for verb in ("key", "build", "publish", "show"))
