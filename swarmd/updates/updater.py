"""Looks for new versions, stages them, and switches: the part of updates that runs in the node.

The switch itself is not done here. `apply` stages, writes the trial down, lets running replies end and asks the node to stop
with exit code 3; the launcher starts the new version and judges it. Publishes `UpdateAvailable`. Never installs what no key
of `updates.signed_by` signed, nor anything older than what runs. """

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from swarmd.config.settings import Settings, UpdatesSettings
from swarmd.domain.events import UpdateAvailable
from swarmd.domain.refusals import Invalid, Refusal, UpdateFailed, UpdatesOff
from swarmd.domain.updates import UpdateApplied, UpdateInfo, UpdateState, Version
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.service import Ready, Spawn
from swarmd.kit.world import World
from swarmd.updates.feed import FEED_LIMIT, BadFeed, Feed, Release, address_problem, newest, open_feed, refusal
from swarmd.updates.releases import FeedFailed, Releases
from swarmd.updates.staging import Staging
from swarmd.updates.versions import Versions

FEED_NAME: Final = "feed.json"
FIRST_S: Final = (30.0, 120.0)  # after the start: the first minute belongs to links and models
JITTER: Final = 0.1  # of the interval, to both sides, so that a thousand nodes do not ask in one second
FRESH_S: Final = 60.0  # so old a check is good enough for `apply`
IDLE_S: Final = 5.0  # between looks whether replies run, before an update installs itself
DRAIN_LOOK_S: Final = 0.1
LONGEST_IDLE_S: Final = 3600.0  # a node that is never idle is drained after this all the same

logger = logging.getLogger(__name__)


class Updater:
    """Service. One per node."""

    name = "updates"

    def __init__(
        self,
        *,
        current: Version,
        settings: Callable[[], Settings],
        versions: Versions,
        releases: Releases,
        staging: Staging,
        running: Callable[[], int],
        close_doors: Callable[[], None],
        stop: asyncio.Event,
        spawn: Spawn,
        disk: Disk,
        world: World,
        bus: EventBus,
    ) -> None:
        """`running`: replies and stages that run now; `close_doors`: no new ones; `stop`: ends the node."""
        self._current, self._settings, self._versions = current, settings, versions
        self._releases, self._staging, self._running, self._close_doors = releases, staging, running, close_doors
        self._stop, self._spawn, self._disk, self._world, self._bus = stop, spawn, disk, world, bus
        self._turn = asyncio.Lock()
        self._feed: Feed | None = None
        self._last_checked: float | None = None
        self._checked_at: float | None = None
        self._last_error: str | None = None
        self._told: tuple[str, bool] | None = None
        self._applied: UpdateApplied | None = None

    @property
    def restarting(self) -> bool:
        """The node ends to come back as another version."""
        return self._applied is not None

    async def load(self) -> None:
        """The feed as it was seen last: an older one is not believed after a restart either."""
        try:
            data = await self._disk.read_bytes(self._feed_path, limit=FEED_LIMIT)
        except OSError:
            return
        feed = open_feed(data, trusted=self._trusted(), seen=0)
        if isinstance(feed, BadFeed):
            logger.info("the release feed that was kept is not used: %s", feed.sentence)
            return
        self._feed = feed

    async def run(self, ready: Ready) -> None:
        ready()
        try:
            current = self._versions.current()
            await self._staging.prune([self._current, *([current] if current else []), *self._candidate_versions()])
        except OSError as error:
            logger.warning("old versions could not be removed: %s", error)
        await asyncio.sleep(self._world.entropy.uniform(*FIRST_S))
        while True:
            updates = self._settings().updates
            if updates.mode != "off" and updates.feed_url:
                await self._by_itself()
            interval_s = updates.check_interval_hours * 3600.0
            await asyncio.sleep(interval_s * self._world.entropy.uniform(1 - JITTER, 1 + JITTER))

    def state(self) -> UpdateState:
        updates, release = self._settings().updates, self._candidate()
        channel = "all" if updates.include_prereleases else "stable"
        return UpdateState(
            current=self._current, channel=channel if updates.mode != "off" and updates.feed_url else "disabled",
            info=None if release is None else self._info(release), last_checked=self._last_checked,
            last_error=self._last_error or self._rolled_back(), restart_required=self.restarting,
        )  # fmt: skip

    async def check(self) -> UpdateState | Refusal:
        """Asks the feed now. Downloads only where the mode says so."""
        async with self._turn:
            if (said := await self._check()) is not None:
                return said
            if self._settings().updates.mode in ("download", "install"):
                said = await self._stage()
                if said is not None:
                    self._last_error = said.sentence
            return self.state()

    async def apply(self, *, retry: bool = False) -> UpdateApplied | Refusal:
        """Stages the newest version if need be, and switches to it. `retry`: also to one that was rolled back."""
        async with self._turn:
            if self._applied is not None:
                return self._applied
            now, checked_at = self._world.clock.monotonic(), self._checked_at
            if (checked_at is None or now - checked_at > FRESH_S) and (said := await self._check()) is not None:
                return said
            release = self._candidate(retry=retry)
            if release is None:
                return Invalid(what=self._why_none())
            said = await self._stage(release)
            if said is not None:
                self._last_error = said.sentence
                return said
            try:
                self._versions.begin_trial(release.number)
            except OSError as error:
                self._last_error = f"the switch to {release.version} cannot be written down: {error.strerror or error}"
                return UpdateFailed(reason=self._last_error)
            self._close_doors()
            patience_s = float(self._settings().updates.drain_seconds)
            self._applied = UpdateApplied(version=release.number, running=self._running(), patience_s=patience_s)
            self._spawn(self._drain(patience_s), name="drain before the update")
            logger.info("switching to version %s; %d replies and stages run", release.version, self._applied.running)
            return self._applied

    # -- one after the other, under `_turn`

    async def _check(self) -> Refusal | None:
        updates = self._settings().updates
        if not updates.feed_url or not self._trusted():
            return UpdatesOff()
        try:
            if (problem := address_problem(updates.feed_url)) is not None:
                raise FeedFailed(problem)
            data = await self._releases.feed(updates.feed_url)
            feed = open_feed(data, trusted=self._trusted(), seen=0 if self._feed is None else self._feed.sequence)
            if isinstance(feed, BadFeed):
                raise FeedFailed(feed.sentence)
            await self._disk.make_folder(self._versions.folder, mode=0o700)
            await self._disk.write_atomic(self._feed_path, data)  # before it is believed
        except (FeedFailed, OSError) as error:
            self._last_error = str(error)
            logger.info("looking for updates failed: %s", error)
            return UpdateFailed(reason=str(error))
        self._feed, self._last_error = feed, None
        self._last_checked, self._checked_at = self._world.clock.now(), self._world.clock.monotonic()
        self._tell()
        return None

    async def _stage(self, release: Release | None = None) -> Refusal | None:
        """None: it is there, or there is nothing to stage."""
        release = release or self._candidate()
        if release is None:
            return None
        try:
            said = await self._staging.stage(release, self._settings().updates.feed_url)
        except (FeedFailed, OSError) as error:
            said = UpdateFailed(reason=str(error))
        if said is None:
            self._tell()
        else:
            logger.warning("version %s could not be staged: %s", release.version, said.sentence)
        return said

    async def _by_itself(self) -> None:
        state = await self.check()
        if isinstance(state, Refusal) or state.info is None or self._settings().updates.mode != "install":
            return
        if not state.info.downloaded:
            return
        await self._idle(LONGEST_IDLE_S, look_s=IDLE_S)
        if isinstance(said := await self.apply(), Refusal):
            logger.warning("version %s was not installed: %s", state.info.latest, said.sentence)

    async def _drain(self, patience_s: float) -> None:
        await asyncio.sleep(DRAIN_LOOK_S)  # the reply that says so goes out first
        await self._idle(patience_s, look_s=DRAIN_LOOK_S)
        self._stop.set()

    async def _idle(self, patience_s: float, *, look_s: float) -> None:
        """Until nothing runs, or so long."""
        until = self._world.clock.monotonic() + patience_s
        while self._running() and self._world.clock.monotonic() < until:  # noqa: ASYNC110  there is no event for a sum
            await asyncio.sleep(look_s)

    # -- what is known

    @property
    def _feed_path(self) -> Path:
        return self._versions.folder / FEED_NAME

    def _trusted(self) -> frozenset[str]:
        return frozenset(_keys(self._settings().updates))

    def _candidate(self, *, retry: bool = False) -> Release | None:
        """The newest release that this node would switch to."""
        if self._feed is None:
            return None
        rolled_back = () if retry else self._versions.state().rolled_back
        fit = [one for one in self._feed.releases if refusal(one, current=self._current, rolled_back=rolled_back) is None]
        return newest(Feed(sequence=1, releases=fit), prereleases=self._settings().updates.include_prereleases)

    def _candidate_versions(self) -> list[Version]:
        release = self._candidate()
        return [] if release is None else [release.number]

    def _why_none(self) -> str:
        assert self._feed is not None, "it was checked"
        latest = newest(self._feed, prereleases=self._settings().updates.include_prereleases)
        if latest is None:
            return "the release feed names no version"
        said = refusal(latest, current=self._current, rolled_back=self._versions.state().rolled_back)
        return "there is no newer version" if said is None else f"there is nothing to update to: {said.sentence}"

    def _rolled_back(self) -> str | None:
        """Of a version that the feed still names."""
        rolled_back = self._versions.state().rolled_back
        for release in self._feed.releases if self._feed is not None else ():
            if release.version in rolled_back and release.number > self._current:
                return f"version {release.version} was rolled back: it {rolled_back[release.version]}"
        return None

    def _info(self, release: Release) -> UpdateInfo:
        return UpdateInfo(
            current=self._current, latest=release.number, changelog=release.changelog, published_at=release.published_at,
            sha256=release.wheel.sha256, size_bytes=release.wheel.size_bytes,
            downloaded=self._versions.is_staged(release.number),
        )  # fmt: skip

    def _tell(self) -> None:
        """Once for each version, and once more when it lies here."""
        release = self._candidate()
        if release is None:
            return
        info = self._info(release)
        if self._told == (release.version, info.downloaded):
            return
        self._told = (release.version, info.downloaded)
        self._bus.publish(
            UpdateAvailable(
                current_version=info.current.text, latest_version=info.latest.text, changelog=info.changelog,
                published_at=info.published_at, downloaded=info.downloaded,
            )
        )  # fmt: skip


def _keys(updates: UpdatesSettings) -> list[str]:
    return [key for key in updates.signed_by.replace(",", " ").split() if key]
