"""What is on disk about versions, after kills and damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from swarmd.domain.updates import Version, parse_version
from swarmd.updates.versions import ATTEMPTS, REMEMBERED, State, Versions

OLD, NEW, NEXT = parse_version("0.1.0"), parse_version("0.2.0"), parse_version("0.3.0")


def stage(versions: Versions, *staged: Version) -> None:
    for version in staged:
        versions.python(version).parent.mkdir(parents=True)
        versions.python(version).touch()
        (versions.place(version) / "whole").touch()


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


def test_a_new_node_runs_what_was_installed(versions: Versions) -> None:
    assert (
        versions.next(OLD) is None and versions.current() is None and versions.staged() == () and versions.state() == State()
    )


def test_the_way_of_a_version(versions: Versions) -> None:
    stage(versions, NEW)
    assert versions.next(OLD) is None, "staged is not wanted"
    versions.begin_trial(NEW)
    assert versions.next(OLD) == NEW and versions.current() is None
    versions.commit(NEW)
    assert versions.next(OLD) == NEW and versions.current() == NEW and versions.state().trial is None
    assert (versions.folder / "current").readlink() == Path("0.2.0"), "a folder that is moved stays whole"
    versions.commit(NEW)  # killed between link and state, and done again
    assert versions.current() == NEW and versions.staged() == (NEW,)


def test_whoever_installs_something_newer_runs_that(versions: Versions) -> None:
    stage(versions, NEW, NEXT)
    versions.commit(NEW)
    assert versions.next(NEW) is None and versions.next(NEXT) is None and versions.next(OLD) == NEW
    versions.begin_trial(NEXT)
    assert versions.next(NEXT) is None


def test_a_version_whose_files_are_gone_is_none(versions: Versions) -> None:
    stage(versions, NEW)
    versions.commit(NEW)
    versions.begin_trial(NEXT)
    assert versions.next(OLD) == NEW
    shutil.rmtree(versions.place(NEW))
    assert versions.next(OLD) is None and versions.current() is None


def test_rolled_back_is_remembered_until_somebody_wants_it_anew(versions: Versions) -> None:
    stage(versions, NEW)
    versions.begin_trial(NEW)
    versions.roll_back(NEW, "x" * 10_000)
    assert len(versions.state().rolled_back["0.2.0"]) == 500 and not versions.is_staged(NEW)
    versions.begin_trial(NEW)
    assert versions.state().rolled_back == {}
    for number in range(REMEMBERED + 5):
        versions.roll_back(parse_version(f"1.0.{number}"), "no")
    assert len(versions.state().rolled_back) == REMEMBERED and f"1.0.{REMEMBERED + 4}" in versions.state().rolled_back


def test_a_kill_in_the_middle_of_going_back(versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(versions, NEW)
    (tmp_path / "state.sqlite").write_text("old")
    versions.begin_trial(NEW)
    versions.keep_database(NEW)
    (tmp_path / "state.sqlite").write_text("new")
    (tmp_path / "state.sqlite-wal").write_text("more of the new")
    versions.keep_database(NEW)  # a second attempt keeps what the first one kept
    with monkeypatch.context() as patch:
        patch.setattr(Versions, "_restore", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            versions.roll_back(NEW, "no")
    trial = versions.state().trial
    assert trial is not None and trial.attempts >= ATTEMPTS, "it is not started again"
    versions.roll_back(NEW, "no")
    assert (tmp_path / "state.sqlite").read_text() == "old" and not (tmp_path / "state.sqlite-wal").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"trial": null}', '{"trial": {"version": "../x", "attempts": 0}, "rolled_back": {}}',
             '{"trial": {"version": "0.2.0"}, "rolled_back": {}}', '{"trial": 7, "rolled_back": {}}'],
)  # fmt: skip
def test_a_damaged_state_is_none(versions: Versions, text: str) -> None:
    versions.folder.mkdir()
    (versions.folder / "state.json").write_text(text)
    assert versions.state() == State()


@pytest.mark.parametrize("target", ["../../elsewhere", "/usr", "0.2"])
def test_the_link_leads_to_a_version_and_nowhere_else(versions: Versions, target: str) -> None:
    versions.folder.mkdir()
    (versions.folder / "current").symlink_to(target)
    assert versions.current() is None


def test_half_a_copy_of_the_database_does_not_stay(versions: Versions, tmp_path: Path) -> None:
    stage(versions, NEW)
    (tmp_path / "state.sqlite").write_text("old")
    (tmp_path / "state.sqlite-wal").mkdir()  # cannot be copied
    with pytest.raises(OSError):
        versions.keep_database(NEW)
    assert {path.name for path in versions.place(NEW).iterdir()} == {"venv", "whole"}


def test_a_kill_while_a_version_is_removed_leaves_none_that_could_be_started(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(versions, NEW)
    versions.begin_trial(NEW)
    monkeypatch.setattr("swarmd.updates.versions.shutil.rmtree", lambda *_, **__: None)
    versions.roll_back(NEW, "no")
    assert versions.place(NEW).exists() and not versions.is_staged(NEW)
