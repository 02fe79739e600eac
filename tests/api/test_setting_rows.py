from __future__ import annotations

from pathlib import Path

from swarmd.api.live_settings import LiveSettings
from swarmd.api.setting_rows import setting_list
from swarmd.config.loading import Loaded, load
from swarmd.config.settings import KEYS
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from tests.fakes.rim import KEY, Rim, running


def start(folder: Path, **environ: str) -> LiveSettings:
    environ |= {"HOME": str(folder)}
    loaded = load(folder / "config.toml", environ, {"node.listen_port": 9000})
    assert isinstance(loaded, Loaded)
    return LiveSettings(loaded, environ=environ, flags={"node.listen_port": 9000}, bus=EventBus(), disk=Disk())


async def test_every_setting_is_a_row_with_what_a_form_needs(tmp_path: Path) -> None:
    rows = {row.key: row for row in setting_list(start(tmp_path)).settings}
    assert list(rows) == list(KEYS)
    row = rows["inference.max_batch_size"]
    assert (row.type, row.low, row.high, row.default, row.value) == ("number", 1, 256, 8, 8)
    assert row.live and row.writable
    assert rows["node.contribution"].choices == ["minimal", "moderate", "maximum"]
    assert all(row.doc and row.range for row in rows.values())


async def test_where_a_value_comes_from_and_what_waits_for_a_restart(tmp_path: Path) -> None:
    settings = start(tmp_path, SWARMD_INFERENCE_MAX_BATCH_SIZE="5")
    assert await settings.change({"inference.context_tokens": 1024, "inference.queue_requests": 3}) is None
    rows = {row.key: row for row in setting_list(settings).settings}
    assert (rows["inference.context_tokens"].value, rows["inference.context_tokens"].waiting) == (8192, 1024)
    assert (rows["inference.queue_requests"].value, rows["inference.queue_requests"].waiting) == (3, None)
    assert rows["inference.queue_requests"].source == "file"
    batch, port = rows["inference.max_batch_size"], rows["node.listen_port"]
    assert (batch.source, batch.writable) == ("environment", False)
    assert batch.why_not is not None and "SWARMD_INFERENCE_MAX_BATCH_SIZE" in batch.why_not
    assert (port.source, port.writable) == ("flag", False)


async def test_a_secret_is_never_in_it(tmp_path: Path) -> None:
    key = "k3y-of-this-node-0123456789"
    (tmp_path / "config.toml").write_text(f'[api]\napi_key = "{key}"\n')
    rows = {row.key: row for row in setting_list(start(tmp_path)).settings}
    row = rows["api.api_key"]
    assert (row.value, row.waiting, row.secret, row.writable) == (None, None, True, False)
    assert key not in repr(rows)


async def test_over_http_a_path_is_changed_and_a_refusal_names_it(tmp_path: Path) -> None:
    async with running(Rim(tmp_path)) as rim, rim.client(authorization=f"Bearer {KEY}") as client:
        async with client.put("/api/admin/config", json={"inference.queue_seconds": 7}) as reply:
            assert await reply.json() == {"status": "ok"}
        async with client.get("/api/admin/config/schema") as reply:
            rows = {row["key"]: row for row in (await reply.json())["settings"]}
        assert rows["inference.queue_seconds"]["value"] == 7
        async with client.put("/api/admin/config", json={"inference.queue_seconds": 0}) as reply:
            error = (await reply.json())["error"]
        assert reply.status == 400
        assert error["param"] == "inference.queue_seconds" and "1 to 3600" in error["message"]
        async with client.put("/api/admin/config", json={"node.data_dir": "/"}) as reply:
            assert reply.status == 400 and "only be set in the settings file" in await reply.text()
