"""Keys that the node's surroundings give it: variables of its environment, and a file `.env` in its data folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from swarmd.kit.disk import Disk, TooLarge
from swarmd.providers.known import TWELVE

FILE_NAME: Final = ".env"  # contract: swarmllm.md 1.5
FILE_LIMIT: Final = 64 * 1024  # bytes; twelve keys have two thousand

KEY_FORM: Final = re.compile(r"[!-~]{8,512}")
"""Of the twelve. A shorter one could not be struck out of the log without striking out words."""

_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=\s*(.*?)\s*")
_NAMES: Final = frozenset(name for known in TWELVE for name in known.environment)


def keys_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Name of one of the twelve to its key, as far as there are usable ones."""
    found: dict[str, str] = {}
    for known in TWELVE:
        for name in known.environment:
            key = environ.get(name, "").strip()
            if KEY_FORM.fullmatch(key):
                found[known.name] = key
                break
    return found


def read_file_now(folder: Path, *, disk: Disk) -> dict[str, str]:
    """Variables in the file, those of providers alone. No file, or none that can be read: none."""
    try:
        text = disk.read_bytes_now(folder / FILE_NAME, limit=FILE_LIMIT).decode()
    except (OSError, TooLarge, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line)) is not None and match[1] in _NAMES:
            value = match[2]
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else value
    return found
