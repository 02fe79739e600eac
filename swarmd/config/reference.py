"""The settings as a page and as an example file, both printed from the declarations.

`python -m swarmd.config.reference` writes them; a test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from swarmd.config.settings import KEYS, SECTIONS, Key, Value
from swarmd.kit.disk import Disk

PAGE: Final = Path("docs/settings.md")
EXAMPLE: Final = Path("config/swarmd.toml")

_HEAD: Final = """\
# Settings

Every setting of the node. A value comes from, later ones winning: the default, the settings file (`config.toml` in the
data folder, or `--config`), the environment variable, the command line. Unknown names and values out of range are
refused at the start. *Live* settings take effect while the node runs (`PUT /api/admin/config`, or
`POST /api/admin/config/reload` after editing the file); the others at the next start.

The file stores only what differs from the defaults. An example with every setting:
[config/swarmd.toml](../config/swarmd.toml).

This page is printed from `swarmd/config/settings.py` by `python -m swarmd.config.reference`.
"""

_EXAMPLE_HEAD: Final = """\
# Settings of swarmd: every one, with its default, commented out. Copy what you change to `config.toml` in the data
# folder, or start with `--config FILE`. Printed by `python -m swarmd.config.reference`.
"""


def settings_reference() -> str:
    """The page `docs/settings.md`: one Markdown table for each section."""
    parts = [_HEAD]
    for section in SECTIONS:
        rows = [
            f"| `{key.name}` | {_shown(key)} | {key.range} | {'live' if key.declared.live else 'restart'} "
            f"| {key.declared.doc} | `{key.environment}` |"
            for key in _of(section)
        ]
        head = ["| Key | Default | Values | Change | What it is | Environment |", "|---|---|---|---|---|---|"]
        parts.append("\n".join([f"## [{section}]", "", *head, *rows]) + "\n")
    return "\n".join(parts)


def settings_example() -> str:
    """The file `config/swarmd.toml`: every setting with its default, commented out."""
    parts = [_EXAMPLE_HEAD]
    for section in SECTIONS:
        lines = [f"[{section}]"]
        for key in _of(section):
            lines.append(f"# {key.declared.doc}")
            lines.append(f"# {key.range}; {'live' if key.declared.live else 'after a restart'}")
            lines.append(f"# {key.name} = {toml_value(key.default)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def toml_value(value: Value) -> str:
    """A default as TOML writes it; defaults hold no character that needs escaping."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'


def _of(section: str) -> list[Key]:
    return [key for key in KEYS.values() if key.section == section]


def _shown(key: Key) -> str:
    return f"`{toml_value(key.default)}`"


def write(root: Path) -> None:
    disk = Disk()
    for path, text in ((PAGE, settings_reference()), (EXAMPLE, settings_example())):
        disk.make_folder_now((root / path).parent)
        disk.write_atomic_now(root / path, text.encode())


if __name__ == "__main__":
    write(Path.cwd())
