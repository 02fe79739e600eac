"""Where the running node answers: `running.json` in its data folder, for commands that know only the folder.

Written when the API listens, removed when the node ends. A node that was killed leaves it behind, and by then its port may
be somebody else's: so it names the process, and counts only while that one lives. In a container with process numbers of its
own it counts for nothing outside; who asks from there goes by the settings, or says `--url`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Final

import msgspec
import psutil

from swarmd.kit.disk import PRIVATE, Disk

FILE_NAME: Final = "running.json"
LIMIT: Final = 4096  # bytes
SAME_START_S: Final = 5.0  # starts of processes are counted from the boot, whose time a clock that is set moves a little

logger = logging.getLogger(__name__)


class _Running(msgspec.Struct, frozen=True, kw_only=True):
    url: Annotated[str, msgspec.Meta(pattern=r"^http://[A-Za-z0-9.\-\[\]:%]{1,255}:[0-9]{1,5}/?$")]
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    started_at: float
    """Unix seconds: numbers of processes are given again."""


async def tell(folder: Path, url: str, *, disk: Disk) -> None:
    """A node that cannot write it runs all the same."""
    process = psutil.Process()
    running = _Running(url=url.rstrip("/"), pid=process.pid, started_at=process.create_time())
    try:
        await disk.write_atomic(folder / FILE_NAME, msgspec.json.encode(running), mode=PRIVATE)
    except OSError as error:
        logger.warning("%s cannot be written, so commands need --url where a port was chosen: %s", FILE_NAME, error)


async def forget(folder: Path, *, disk: Disk) -> None:
    try:
        await disk.remove(folder / FILE_NAME)
    except OSError as error:
        logger.warning("%s cannot be removed: %s", FILE_NAME, error)


def read_now(folder: Path, *, disk: Disk) -> str | None:
    """The URL of the node that runs on this folder, without a slash at its end; None: none runs, as far as can be seen."""
    try:
        running = msgspec.json.decode(disk.read_bytes_now(folder / FILE_NAME, limit=LIMIT), type=_Running)
        same = abs(psutil.Process(running.pid).create_time() - running.started_at) <= SAME_START_S
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, psutil.Error):
        return None
    return running.url.rstrip("/") if same else None
