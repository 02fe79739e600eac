"""Version, check and apply, as the contract has them."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd.domain.refusals import Invalid, NoSpace, Refusal, UpdateFailed, UpdatesOff
from swarmd.domain.updates import UpdateInfo, parse_version
from tests.fakes.rim import LAN_CLIENT, Rim, keyed

FOUND = UpdateInfo(
    current=parse_version("0.1.0"), latest=parse_version("0.2.0"), changelog="better", published_at="2026-12-01T10:00:00Z",
    sha256="a" * 64, size_bytes=7_000_000, downloaded=True,
)  # fmt: skip


async def ask(rim: Rim, method: str, path: str, *, status: int = 200, key: bool = True) -> Any:
    async with rim.client(**(keyed() if key else {})) as client, client.request(method, path) as reply:
        assert reply.status == status, await reply.text()
        return await reply.json()


async def test_the_version_before_anybody_looked(rim: Rim) -> None:
    assert await ask(rim, "GET", "/api/admin/version", key=False) == {
        "current_version": "0.1.0", "latest_version": None, "update_available": False, "channel": "disabled",
        "last_checked": None, "last_error": None, "restart_required": False, "changelog": None,
    }  # fmt: skip


async def test_the_version_when_there_is_a_newer_one(rim: Rim) -> None:
    rim.updates.info = FOUND
    assert await ask(rim, "GET", "/api/admin/version") == {
        "current_version": "0.1.0", "latest_version": "0.2.0", "update_available": True, "channel": "stable",
        "last_checked": "2023-11-14T22:13:20.000Z", "last_error": None, "restart_required": False, "changelog": "better",
    }  # fmt: skip


async def test_check(rim: Rim) -> None:
    assert await ask(rim, "POST", "/api/admin/update/check") == {"status": "up_to_date", "current_version": "0.1.0"}
    rim.updates.info = FOUND
    assert await ask(rim, "POST", "/api/admin/update/check") == {
        "status": "update_available",
        "info": {
            "current_version": "0.1.0", "latest_version": "0.2.0", "changelog": "better",
            "published_at": "2026-12-01T10:00:00Z", "checksum_sha256": "a" * 64, "size_bytes": 7_000_000, "downloaded": True,
        },
    }  # fmt: skip


async def test_apply(rim: Rim) -> None:
    reply = await ask(rim, "POST", "/api/admin/update/apply")
    assert set(reply) == {"status", "version", "message"} and (reply["status"], reply["version"]) == ("applied", "0.2.0")
    assert "the 2 replies and stages that run have ended, in 120 s" in reply["message"]
    await ask(rim, "POST", "/api/admin/update/apply?retry=true")
    assert rim.updates.retried == [False, True]
    assert (await ask(rim, "POST", "/api/admin/update/apply?retry=2", status=400))["error"]["param"] == "retry"
    assert (await ask(rim, "GET", "/api/admin/version"))["restart_required"] is True


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (UpdatesOff(), 503, "updates_off"), (UpdateFailed(reason="no answer"), 502, "update_failed"),
        (Invalid(what="there is no newer version"), 400, "invalid_value"),
        (NoSpace(needed_bytes=2, free_bytes=1), 507, "no_space"),
    ],
)  # fmt: skip
async def test_what_is_refused(rim: Rim, refusal: Refusal, status: int, code: str) -> None:
    rim.updates.refusal = refusal
    reply = await ask(rim, "POST", "/api/admin/update/apply", status=status)
    assert reply["error"]["code"] == code and reply["error"]["message"] == refusal.sentence


@pytest.mark.parametrize("path", ["/api/admin/update/check", "/api/admin/update/apply"])
async def test_it_takes_the_key_and_this_machine(rim: Rim, path: str) -> None:
    await ask(rim, "POST", path, status=401, key=False)
    rim.address = LAN_CLIENT
    await ask(rim, "POST", path, status=403)
    assert rim.updates.retried == []
