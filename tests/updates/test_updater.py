"""When updates are looked for, what is told, and what leads to a restart; hours pass in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmd.config.settings import Settings, with_values
from swarmd.domain.events import UpdateAvailable
from swarmd.domain.refusals import Invalid, Refusal, UpdateFailed, UpdatesOff
from swarmd.domain.updates import UpdateApplied, UpdateState, Version, parse_version
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.updates.feed import Feed, Release, WheelFile
from swarmd.updates.releases import FeedFailed
from swarmd.updates.updater import FRESH_S, Updater
from swarmd.updates.versions import Versions
from tests.fakes.releases import KEY
from tools.release import sign

OLD = parse_version("0.1.0")
URL = "https://example.org/feed.json"


class FakeReleases:
    """As `updates.releases.Releases`: answers what it was given."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = FeedFailed("nobody there")
        self.asked_at: list[float] = []

    async def feed(self, url: str) -> bytes:
        assert url == URL
        self.asked_at.append(asyncio.get_running_loop().time())
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeStaging:
    """As `updates.staging.Staging`: a version is there when it was asked for."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.refusal: Refusal | None = None
        self.staged: list[str] = []

    async def stage(self, release: Release, feed_url: str) -> Refusal | None:
        if self.refusal is None:
            self.staged.append(release.version)
            place = self.versions.python(release.number)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            (self.versions.place(release.number) / "whole").touch()
        return self.refusal

    async def prune(self, keep: list[Version]) -> None:
        pass


class Scene:
    def __init__(self, folder: Path, world: World, **settings: Any) -> None:
        self.settings = with_values(Settings(), {"updates.feed_url": URL, "updates.signed_by": KEY.node} | settings)
        self.releases, self.versions, self.bus, self.stop = FakeReleases(), Versions(folder), EventBus(), asyncio.Event()
        self.staging, self.world = FakeStaging(self.versions), world
        self.running, self.closed = 0, False
        self.heard: list[UpdateAvailable] = []

    def publish(self, *versions: str, sequence: int = 1, **fields: Any) -> None:
        releases = [
            Release(
                version=one, wheel=WheelFile(file=f"swarmd-{one}-py3-none-any.whl", size_bytes=1, sha256="a" * 64),
                published_at="2026-12-01T10:00:00Z", changelog=f"what {one} brings", **fields,
            )
            for one in versions
        ]  # fmt: skip
        self.releases.answer = sign(Feed(sequence=sequence, releases=releases), [KEY])

    def close_doors(self) -> None:
        self.closed = True

    def make(self, supervisor: Supervisor) -> Updater:
        return Updater(
            current=OLD, settings=lambda: self.settings, versions=self.versions, releases=self.releases,  # type: ignore[arg-type]
            staging=self.staging, running=lambda: self.running, close_doors=self.close_doors, stop=self.stop,  # type: ignore[arg-type]
            spawn=supervisor.spawn, disk=Disk(), world=self.world, bus=self.bus,
        )  # fmt: skip

    @asynccontextmanager
    async def updater(self, *, serve: bool = False) -> AsyncIterator[Updater]:
        with self.bus.spy() as spy:
            async with Supervisor("test", world=self.world) as supervisor:
                updater = self.make(supervisor)
                await updater.load()
                if serve:
                    await supervisor.start(updater)
                yield updater
            self.heard = [fact for fact in spy.facts if isinstance(fact, UpdateAvailable)]


def known(state: UpdateState | Refusal) -> UpdateState:
    assert isinstance(state, UpdateState), state
    return state


async def test_found_told_once_and_remembered(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.0.9", "0.1.0", "0.2.0", "0.3.0rc1")
    async with scene.updater() as updater:
        assert (updater.state().info, updater.state().last_checked, updater.state().channel) == (None, None, "stable")
        for _ in range(2):
            info = known(await updater.check()).info
            assert info is not None and (info.latest.text, info.changelog, info.downloaded) == (
                "0.2.0",
                "what 0.2.0 brings",
                False,
            )
        assert updater.state().last_checked == pytest.approx(world.clock.now(), abs=5)
    assert [(fact.current_version, fact.latest_version, fact.downloaded) for fact in scene.heard] == [
        ("0.1.0", "0.2.0", False)
    ]
    assert scene.staging.staged == [] and scene.heard[0].published_at == "2026-12-01T10:00:00Z"
    async with scene.updater() as updater:
        info = updater.state().info
        assert info is not None and info.latest.text == "0.2.0", "after a restart, without asking"


async def test_versions_before_the_final_one_when_they_are_wanted(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world, **{"updates.include_prereleases": True})
    scene.publish("0.2.0", "0.3.0rc1")
    async with scene.updater() as updater:
        state = known(await updater.check())
        assert state.info is not None and (state.info.latest.text, state.channel) == ("0.3.0rc1", "all")


async def test_an_older_feed_is_not_believed_after_a_restart_either(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0", sequence=9)
    async with scene.updater() as updater:
        known(await updater.check())
    scene.publish("0.1.5", sequence=8)
    async with scene.updater() as updater:
        refused = await updater.check()
        assert isinstance(refused, UpdateFailed) and "is an old one (number 8, and number 9 was seen)" in refused.sentence
        assert updater.state().last_error is not None and "old one" in updater.state().last_error
        info = updater.state().info
        assert info is not None and info.latest.text == "0.2.0"


@pytest.mark.parametrize("settings", [{"updates.feed_url": ""}, {"updates.signed_by": ""}])
async def test_without_a_feed_or_a_key_nothing_is_looked_for(tmp_path: Path, world: World, settings: dict[str, str]) -> None:
    scene = Scene(tmp_path, world, **settings)
    async with scene.updater() as updater:
        assert isinstance(await updater.check(), UpdatesOff) and isinstance(await updater.apply(), UpdatesOff)
    assert scene.releases.asked_at == []


async def test_a_key_that_is_not_trusted_any_more(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0")
    async with scene.updater() as updater:
        known(await updater.check())
    scene.settings = with_values(scene.settings, {"updates.signed_by": "b" * 64})
    async with scene.updater() as updater:
        assert updater.state().info is None, "what was kept is looked at again"
        assert isinstance(await updater.check(), UpdateFailed)


async def test_apply_writes_the_trial_closes_the_doors_drains_and_ends(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world, **{"updates.drain_seconds": 1})
    scene.publish("0.2.0")
    scene.running = 2
    async with scene.updater() as updater:
        applied = await updater.apply()
        assert applied == UpdateApplied(version=parse_version("0.2.0"), running=2, patience_s=1.0)
        trial = scene.versions.state().trial
        assert trial is not None and trial.version.text == "0.2.0" and scene.closed
        assert updater.restarting and updater.state().restart_required and not scene.stop.is_set()
        assert await updater.apply() is applied, "asked twice, it restarts once"
        scene.running = 0
        async with asyncio.timeout(5):
            await scene.stop.wait()
    assert [fact.downloaded for fact in scene.heard] == [False, True]


@pytest.mark.looptime
async def test_a_reply_that_does_not_end_is_waited_for_and_no_longer(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0")
    scene.running = 1
    async with scene.updater() as updater:
        before = world.clock.monotonic()
        assert isinstance(await updater.apply(), UpdateApplied)
        await scene.stop.wait()
        assert 119 < world.clock.monotonic() - before < 122


@pytest.mark.parametrize(
    ("versions", "words"),
    [(("0.1.0",), "no newer version"), (("0.0.9",), "no newer version"), ((), "names no version")],
)
async def test_nothing_to_apply(tmp_path: Path, world: World, versions: tuple[str, ...], words: str) -> None:
    scene = Scene(tmp_path, world)
    scene.publish(*versions)
    async with scene.updater() as updater:
        refused = await updater.apply()
        assert isinstance(refused, Invalid), refused
        assert words in refused.sentence or "is what runs" in refused.sentence or "is older" in refused.sentence
    assert scene.versions.state().trial is None and not scene.closed


async def test_another_python_is_said(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0", min_python="3.99")
    async with scene.updater() as updater:
        assert known(await updater.check()).info is None
        refused = await updater.apply()
        assert isinstance(refused, Invalid) and "needs Python 3.99" in refused.sentence


async def test_one_that_was_rolled_back_is_said_and_tried_again_only_when_a_person_wants_it(
    tmp_path: Path, world: World
) -> None:
    scene = Scene(tmp_path, world, **{"updates.mode": "install", "updates.drain_seconds": 0})
    scene.publish("0.2.0")
    scene.versions.roll_back(parse_version("0.2.0"), "did not become ready within 60 s")
    async with scene.updater() as updater:
        state = known(await updater.check())
        assert (
            state.info is None and state.last_error == "version 0.2.0 was rolled back: it did not become ready within 60 s"
        )
        refused = await updater.apply()
        assert isinstance(refused, Invalid) and "--retry" in refused.sentence
        assert isinstance(await updater.apply(retry=True), UpdateApplied)


async def test_what_cannot_be_staged_is_not_switched_to(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0")
    scene.staging.refusal = Invalid(what="the wheel is cut short")
    async with scene.updater() as updater:
        assert await updater.apply() == scene.staging.refusal
        assert not updater.restarting and updater.state().last_error == "the wheel is cut short"
    assert scene.versions.state().trial is None


@pytest.mark.looptime
async def test_it_looks_by_itself_every_hour_or_so(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.1.0")
    async with scene.updater(serve=True):
        await asyncio.sleep(6 * 3600)
    gaps = [b - a for a, b in zip(scene.releases.asked_at, scene.releases.asked_at[1:], strict=False)]
    assert 30 <= scene.releases.asked_at[0] <= 121 and len(gaps) >= 4
    assert all(3240 <= gap <= 3961 for gap in gaps) and len(set(gaps)) == len(gaps), "not all nodes in one second"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("mode", "staged", "ended"), [("off", [], False), ("notify", [], False), ("download", ["0.2.0"], False)]
)
async def test_what_it_does_by_itself(tmp_path: Path, world: World, mode: str, staged: list[str], ended: bool) -> None:
    scene = Scene(tmp_path, world, **{"updates.mode": mode})
    scene.publish("0.2.0")
    async with scene.updater(serve=True):
        await asyncio.sleep(200)
    assert (scene.staging.staged, scene.stop.is_set(), bool(scene.heard)) == (staged, ended, mode != "off")


@pytest.mark.looptime
async def test_it_installs_itself_when_nothing_runs(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world, **{"updates.mode": "install"})
    scene.publish("0.2.0")
    scene.running = 1
    async with scene.updater(serve=True) as updater:
        await asyncio.sleep(600)
        assert not updater.restarting and scene.staging.staged == ["0.2.0"]
        scene.running = 0
        await scene.stop.wait()
        assert updater.restarting


@pytest.mark.looptime
async def test_a_feed_that_does_not_answer_is_asked_again_in_an_hour(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    async with scene.updater(serve=True) as updater:
        await asyncio.sleep(200)
        assert updater.state().last_error == "nobody there"
        scene.publish("0.2.0")
        await asyncio.sleep(2 * 3600)
        assert updater.state().last_error is None and updater.state().info is not None


@pytest.mark.looptime
async def test_apply_asks_the_feed_unless_it_just_did(tmp_path: Path, world: World) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.1.0")
    async with scene.updater() as updater:
        for pause_s in (0.0, 1.0, FRESH_S):
            await asyncio.sleep(pause_s)
            assert isinstance(await updater.apply(), Invalid)
    assert len(scene.releases.asked_at) == 2


async def test_a_full_disk_at_the_switch_is_said_and_the_node_goes_on(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, world)
    scene.publish("0.2.0")

    def full(_: Version) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene.versions, "begin_trial", full)
    async with scene.updater() as updater:
        said = await updater.apply()
        assert isinstance(said, UpdateFailed) and "No space left" in said.sentence
        assert not scene.closed and not updater.restarting and not scene.stop.is_set()
