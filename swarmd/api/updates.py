"""`/api/admin/version` and `/api/admin/update/*`: which version runs, which is newer, and the switch.

Shapes: swarmllm.md 2.7. Check and apply are for this machine and the key (design, section 12, point 12).
"""

from __future__ import annotations

from msgspec import Struct

from swarmd.api.calls import Call
from swarmd.api.ports import Updates
from swarmd.api.views import time_text
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.updates import UpdateInfo as Info
from swarmd.domain.updates import UpdateState


class Version(Struct, frozen=True, kw_only=True):
    current_version: str
    latest_version: str | None
    update_available: bool
    channel: str
    """`disabled`, `stable` or `all`."""
    last_checked: str | None
    last_error: str | None
    restart_required: bool
    """The node is about to end and come back as another version."""
    changelog: str | None


class UpdateInfo(Struct, frozen=True, kw_only=True):
    current_version: str
    latest_version: str
    changelog: str
    published_at: str
    checksum_sha256: str
    size_bytes: int
    downloaded: bool


class UpToDate(Struct, frozen=True, kw_only=True):
    status: str
    current_version: str


class UpdateFound(Struct, frozen=True, kw_only=True):
    status: str
    info: UpdateInfo


class Applied(Struct, frozen=True, kw_only=True):
    status: str
    version: str
    message: str


class UpdateHandlers:
    def __init__(self, *, updates: Updates) -> None:
        self._updates = updates

    async def version(self, _call: Call) -> Version:
        state = self._updates.state()
        return Version(
            current_version=state.current.text, latest_version=None if state.info is None else state.info.latest.text,
            update_available=state.info is not None, channel=state.channel,
            last_checked=None if state.last_checked is None else time_text(state.last_checked),
            last_error=state.last_error, restart_required=state.restart_required,
            changelog=None if state.info is None else state.info.changelog,
        )  # fmt: skip

    async def check(self, _call: Call) -> UpToDate | UpdateFound | Refusal:
        state = await self._updates.check()
        return state if isinstance(state, Refusal) else found(state)

    async def apply(self, call: Call) -> Applied | Refusal:
        retry = call.request.query.get("retry", "false")
        if retry not in ("true", "false"):
            return Invalid(what=f"retry cannot be {retry[:20]!r}: it is true or false", param="retry")
        applied = await self._updates.apply(retry=retry == "true")
        if isinstance(applied, Refusal):
            return applied
        return Applied(status="applied", version=applied.version.text, message=message(applied.running, applied.patience_s))


def found(state: UpdateState) -> UpToDate | UpdateFound:
    if state.info is None:
        return UpToDate(status="up_to_date", current_version=state.current.text)
    return UpdateFound(status="update_available", info=info_row(state.info))


def info_row(info: Info) -> UpdateInfo:
    return UpdateInfo(
        current_version=info.current.text, latest_version=info.latest.text, changelog=info.changelog,
        published_at=info.published_at, checksum_sha256=info.sha256, size_bytes=info.size_bytes, downloaded=info.downloaded,
    )  # fmt: skip


def message(running: int, patience_s: float) -> str:
    if not running:
        return "the node restarts now; if the new version is not ready within 60 s, this one comes back by itself"
    what = "1 reply or stage" if running == 1 else f"{running} replies and stages"
    return f"the node restarts when the {what} that run have ended, in {patience_s:.0f} s at the latest"
