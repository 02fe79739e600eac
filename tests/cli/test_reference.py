"""docs/cli.md says what the parser says."""

from __future__ import annotations

from pathlib import Path

from swarmd.cli.outline import outline
from swarmd.cli.program import program
from swarmd.cli.reference import PAGE, cli_reference, write

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    assert (ROOT / PAGE).read_text() == cli_reference(), "run python -m swarmd.cli.reference"


def test_it_has_every_command_and_option() -> None:
    page = (ROOT / PAGE).read_text()
    for command in (one for child in outline(program()).children for one in child.walk()):
        assert f"### swarmd {command.name}\n" in page
        assert all(f"`{one.names[0]}" in page for one in command.options if "--help" not in one.names)


def test_write(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    write(tmp_path)
    assert (tmp_path / PAGE).read_text() == (ROOT / PAGE).read_text()
