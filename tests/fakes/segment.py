"""A network segment in memory: what one node announces, the others hear at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from swarmd.discovery.lan import Heard, NoMulticast, Notice, Update


@dataclass
class FakeSegment:
    """As `discovery.lan.Multicast`, for all nodes of a test."""

    broken: str = ""
    """Why there is no multicast."""
    notices: dict[str, Notice] = field(default_factory=dict)
    ears: list[Heard] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, notice: Notice, heard: Heard) -> AsyncIterator[Update]:
        async with self.browse(notice.hosts, heard):

            async def update(notice: Notice) -> None:
                self.say(notice)

            self.say(notice)
            try:
                yield update
            finally:
                del self.notices[notice.name]
                self._tell(notice.name, None)

    @asynccontextmanager
    async def browse(self, hosts: tuple[str, ...], heard: Heard) -> AsyncIterator[None]:
        if self.broken:
            raise NoMulticast(self.broken)
        self.ears.append(heard)
        for name, notice in self.notices.items():
            heard(name, notice)
        try:
            yield
        finally:
            self.ears.remove(heard)

    def say(self, notice: Notice) -> None:
        self.notices[notice.name] = notice
        self._tell(notice.name, notice)

    def _tell(self, name: str, notice: Notice | None) -> None:
        for heard in list(self.ears):
            heard(name, notice)
