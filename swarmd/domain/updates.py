"""Versions and their order, and what is known about newer ones."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

VERSION_LIMIT = 40
"""Characters of a version's text: it becomes the name of a folder."""

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})(?:(a|b|rc)(0|[1-9][0-9]{0,5}))?")
_STAGES = {"a": 0, "b": 1, "rc": 2}
_FINAL = 3  # after all of them


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """`1.2.3`, or before it `1.2.3a1`, `1.2.3b1`, `1.2.3rc1`: the part of PEP 440 that releases of swarmd use. One text for
    each version, so that the text may be a name on disk."""

    text: str

    @property
    def order(self) -> tuple[int, ...]:
        found = _VERSION.fullmatch(self.text)
        assert found is not None, f"{self.text!r} was made without parse_version"
        stage, number = found.group(4), found.group(5)
        return (*map(int, found.group(1, 2, 3)), _STAGES.get(stage, _FINAL), int(number or 0))

    @property
    def is_prerelease(self) -> bool:
        return self.order[3] != _FINAL

    def __lt__(self, other: Version) -> bool:
        return self.order < other.order

    def __str__(self) -> str:
        return self.text


def parse_version(text: str) -> Version:
    """Raises ValueError for what is no version of ours."""
    if len(text) > VERSION_LIMIT or not _VERSION.fullmatch(text):
        raise ValueError(f"{text[:VERSION_LIMIT]!r} is no version: one looks like 1.2.3 or 1.2.3rc1")
    return Version(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInfo:
    """A newer version that this node could run."""

    current: Version
    latest: Version
    changelog: str
    published_at: str
    """RFC 3339, as the feed says."""
    sha256: str
    """Of its wheel, hex."""
    size_bytes: int
    downloaded: bool
    """It lies beside the running version and can be switched to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateState:
    """What the node knows about versions now."""

    current: Version
    channel: str
    """`disabled`, `stable` or `all` (with versions before the final one)."""
    info: UpdateInfo | None
    last_checked: float | None
    """Unix seconds."""
    last_error: str | None
    restart_required: bool
    """The node is about to end and come back as another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateApplied:
    """The switch to a version has been decided and written down."""

    version: Version
    running: int
    """Generations that still run, and are waited for."""
    patience_s: float
    """As long, at most."""
