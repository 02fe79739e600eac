from __future__ import annotations

from pathlib import Path

from swarmd.api.live_settings import Applied, LiveSettings
from swarmd.config.loading import Loaded, load
from swarmd.domain.events import SettingsChanged
from swarmd.domain.refusals import Invalid, NotFound
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk


def start(folder: Path, bus: EventBus, **environ: str) -> LiveSettings:
    environ |= {"HOME": str(folder)}
    loaded = load(folder / "config.toml", environ, {})
    assert isinstance(loaded, Loaded)
    return LiveSettings(loaded, environ=environ, flags={}, bus=bus, disk=Disk())


async def test_a_change_is_stored_before_it_is_told(tmp_path: Path) -> None:
    bus = EventBus()
    settings = start(tmp_path, bus)
    assert await settings.change({"max_batch_size": 3}) is None
    assert settings.current().inference.max_batch_size == 3
    assert bus.recent() == [SettingsChanged(keys=("inference.max_batch_size",))]
    assert start(tmp_path, bus).current().inference.max_batch_size == 3


async def test_nothing_changed_is_no_fact(tmp_path: Path) -> None:
    bus = EventBus()
    assert await start(tmp_path, bus).change({"max_batch_size": 8}) is None
    assert bus.recent() == []


async def test_refusals(tmp_path: Path) -> None:
    settings = start(tmp_path, EventBus())
    assert isinstance(await settings.change({"nonsense": 1}), Invalid)
    assert isinstance(await settings.reload(), NotFound)


async def test_reload_applies_what_is_live_and_reports_the_rest(tmp_path: Path) -> None:
    bus = EventBus()
    settings = start(tmp_path, bus)
    (tmp_path / "config.toml").write_text("[inference]\nmax_batch_size = 4\ncontext_tokens = 1024\n")
    applied = await settings.reload()
    assert applied == Applied(live={"inference.max_batch_size": 4}, restart={"inference.context_tokens": 1024})
    assert settings.current().inference.max_batch_size == 4
    assert settings.current().inference.context_tokens == 8192, "not before the restart"
    again = await settings.reload()
    assert isinstance(again, Applied) and not again.live and again.restart, "still waiting for the restart"


async def test_the_environment_still_wins_after_a_reload(tmp_path: Path) -> None:
    settings = start(tmp_path, EventBus(), SWARMD_INFERENCE_MAX_BATCH_SIZE="5")
    (tmp_path / "config.toml").write_text("[inference]\nmax_batch_size = 4\n")
    assert isinstance(await settings.reload(), Applied)
    assert settings.current().inference.max_batch_size == 5


async def test_a_stored_setting_that_needs_a_restart_is_not_in_force_before_it(tmp_path: Path) -> None:
    bus = EventBus()
    settings = start(tmp_path, bus)
    assert await settings.change({"inference.context_tokens": 1024}) is None
    assert settings.current().inference.context_tokens == 8192
    assert settings.waiting == {"inference.context_tokens": 1024}
    assert bus.recent() == [], "nothing has changed yet"
    assert start(tmp_path, bus).current().inference.context_tokens == 1024
    assert await settings.change({"inference.context_tokens": 8192}) is None, "and it can be taken back"
    assert settings.waiting == {}
    assert start(tmp_path, bus).current().inference.context_tokens == 8192


async def test_a_value_that_the_environment_sets_is_not_stored_under_it(tmp_path: Path) -> None:
    settings = start(tmp_path, EventBus(), SWARMD_INFERENCE_MAX_BATCH_SIZE="5")
    refusal = await settings.change({"inference.max_batch_size": 6})
    assert isinstance(refusal, Invalid) and "SWARMD_INFERENCE_MAX_BATCH_SIZE" in refusal.what
    assert not (tmp_path / "config.toml").exists()
