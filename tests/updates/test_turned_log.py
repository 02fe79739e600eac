"""A log that does not fill the disk."""

from __future__ import annotations

from pathlib import Path

from swarmd.updates.turned_log import TurnedLog


def test_it_is_turned_over_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "log" / "swarmd.log"
    log = TurnedLog(path, size=10, kept=3)
    for number in range(6):
        log.write(f"line {number}\n".encode())
    log.close()
    assert [one.name for one in sorted(path.parent.iterdir())] == ["swarmd.log", "swarmd.log.1", "swarmd.log.2"]
    assert path.read_text() == "line 5\n" and path.with_name("swarmd.log.2").read_text() == "line 3\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = TurnedLog(tmp_path / "log")
        log.write(text)
        log.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_disk_that_fails_costs_lines_alone(tmp_path: Path) -> None:
    log = TurnedLog(tmp_path / "log")
    log.close()
    log.write(b"to nobody\n")  # a descriptor that is closed fails as a full disk does
