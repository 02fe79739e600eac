"""The API key: 64 hex digits in `api_key` of the data folder, made once, readable by its owner only."""

from __future__ import annotations

import asyncio
import logging
import re
import stat
from pathlib import Path
from typing import Final

from swarmd.kit.disk import PRIVATE, Disk, TooLarge
from swarmd.kit.world import Entropy

FILE_NAME: Final = "api_key"
KEY_BYTES: Final = 32  # 256 bits: nobody guesses it, at any rate

_FILE_LIMIT: Final = 1024
_KEY_TEXT: Final = re.compile(rb"[!-~]{16,256}\s*")  # a key put there by hand may have another form: the setting's

logger = logging.getLogger(__name__)


class KeyFileError(Exception):
    """The file is there and holds no key. The sentence names it and the remedy; the node must not go on."""


async def ensure_api_key(folder: Path, *, setting: str, disk: Disk, entropy: Entropy) -> str:
    """The key in force: the setting `api.api_key` when it is not empty, else the file's, which is made now if need be.

    Raises KeyFileError or OSError; never overwrites a file.
    """
    if setting:
        return setting
    path = folder / FILE_NAME
    try:
        text = await disk.read_bytes(path, limit=_FILE_LIMIT)
        await asyncio.to_thread(_close_to_others, path)
    except FileNotFoundError:
        key = entropy.token(KEY_BYTES).hex()
        await disk.write_atomic(path, key.encode("ascii") + b"\n", mode=PRIVATE)
        return key
    except TooLarge:
        text = b""
    if not _KEY_TEXT.fullmatch(text):
        raise KeyFileError(f"{path} holds no API key (16 to 256 printable characters): delete it, and a new one is made")
    return text.decode("ascii").strip()


def _close_to_others(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & ~PRIVATE:
        path.chmod(PRIVATE)
        logger.warning("the key file %s could be read by other users and is closed to them now", path)
