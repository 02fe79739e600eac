"""The page and the example file say what the declarations say."""

from __future__ import annotations

import tomllib
from pathlib import Path

from swarmd.config.loading import read_file
from swarmd.config.reference import EXAMPLE, PAGE, settings_example, settings_reference, write
from swarmd.config.settings import KEYS

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    assert (ROOT / PAGE).read_text() == settings_reference(), "run python -m swarmd.config.reference"


def test_the_example_is_current() -> None:
    assert (ROOT / EXAMPLE).read_text() == settings_example(), "run python -m swarmd.config.reference"


def test_the_example_uncommented_is_a_valid_file_of_defaults(tmp_path: Path) -> None:
    lines = settings_example().splitlines()
    names = {key.name for key in KEYS.values()}
    text = "\n".join(line[2:] if line[2:].split(" = ")[0] in names else line for line in lines)
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert read_file(path) == {path: key.default for path, key in KEYS.items()}
    assert all(not table for table in tomllib.loads(settings_example()).values())


def test_write_makes_both(tmp_path: Path) -> None:
    write(tmp_path)
    assert (tmp_path / PAGE).read_text() == settings_reference()
    assert (tmp_path / EXAMPLE).read_text() == settings_example()
