"""Downloads, and the hub they may come from."""

from __future__ import annotations

from swarmd.api import download_shapes as shapes
from swarmd.api import download_views as views
from swarmd.api.calls import Call
from swarmd.api.ports import Downloads, HubDesk, Models
from swarmd.api.replies import about
from swarmd.domain.ids import parse_model_id
from swarmd.domain.refusals import IdTaken, Invalid, Refusal
from swarmd.models.manifest import REPO_ID, REPO_ID_MAX, is_filename


class DownloadHandlers:
    def __init__(self, *, downloads: Downloads, hub: HubDesk, models: Models) -> None:
        self._downloads, self._hub, self._models = downloads, hub, models

    # -- the hub

    async def search(self, call: Call) -> list[shapes.HubRepoRow] | Refusal:
        """`query` is the seed's name, `q` the one clients use (swarmllm.md 2.12); `query` wins."""
        texts: dict[str, str] = {}
        for name in ("query", "q"):
            texts[name] = call.request.query.get(name, "").strip()
            if len(texts[name]) > shapes.SEARCH_MAX or not texts[name].isprintable():
                what = f"a search is one line of at most {shapes.SEARCH_MAX} characters, not {texts[name][:80]!r}"
                return Invalid(what=what, param=name)
        text = texts["query"] or texts["q"]
        if not text:
            return []
        found = await self._hub.search(text)
        return found if isinstance(found, Refusal) else views.repo_rows(found)

    async def probe(self, call: Call) -> shapes.HubProbe | Refusal:
        repo_id, filename = (call.request.query.get(name, "") for name in ("repo_id", "filename"))
        if (fault := _place_fault(repo_id, filename)) is not None:
            return fault
        found = await self._hub.probe(repo_id, filename)
        return about(found, "filename") if isinstance(found, Refusal) else views.probe(found)

    async def download_shards(self, call: Call) -> shapes.DownloadStarted | Refusal:
        body: shapes.DownloadShards = call.body
        if (fault := _place_fault(body.repo_id, body.filename) or _wish_fault(body)) is not None:
            return fault
        try:
            model = None if body.model_id is None else parse_model_id(body.model_id)
        except ValueError as error:
            return Invalid(what=str(error), param="model_id")
        chosen = tuple(sorted(body.shards)) if body.shards else None
        started = await self._hub.fetch(
            body.repo_id, body.filename, shards=chosen, fair_share=body.peer_fair_share, model=model
        )
        if isinstance(started, Refusal):
            return about(started, "model_id" if model is not None and isinstance(started, IdTaken) else "filename")
        return shapes.DownloadStarted(
            status="started",
            model_id=started.model,
            shards=list(chosen or ()),
            peer_fair_share=body.peer_fair_share,
            all_shards=body.all_shards,
        )

    async def source(self, call: Call) -> shapes.HubOrigin | Refusal:
        found = await self._hub.origin(call.model)
        return found if isinstance(found, Refusal) else views.origin(found)

    # -- the queue

    async def downloads(self, _call: Call) -> shapes.DownloadList:
        found = self._downloads.acquisitions()
        known = {view.model: view for one in found if (view := self._models.view(one.model)) is not None}
        rows = views.download_rows(found, known=known)
        return shapes.DownloadList(downloads=rows, total=len(rows))

    async def cancel(self, call: Call) -> shapes.DownloadChanged | Refusal:
        refusal = await self._downloads.cancel(call.model)
        if refusal is not None:
            return about(refusal, "model")  # 400 in the contract
        return shapes.DownloadChanged(status="cancelled", model_id=call.model)

    async def pause(self, call: Call) -> shapes.DownloadChanged | Refusal:
        refusal = await self._downloads.pause(call.model)
        return refusal or shapes.DownloadChanged(status="paused", model_id=call.model)

    async def resume(self, call: Call) -> shapes.DownloadChanged | Refusal:
        refusal = await self._downloads.resume(call.model)
        return refusal or shapes.DownloadChanged(status="resumed", model_id=call.model)

    async def place(self, call: Call) -> shapes.DownloadMoved | Refusal:
        body: shapes.DownloadPlace = call.body
        refusal = await self._downloads.move(call.model, body.place)
        if refusal is not None:
            return refusal
        moved = self._downloads.acquisition(call.model)
        return shapes.DownloadMoved(
            status="moved", model_id=call.model, place=body.place if moved is None else moved.place
        )


def _place_fault(repo_id: str, filename: str) -> Invalid | None:
    """Both go into an address of the hub and into names of files, so nothing but ordinary characters passes."""
    if len(repo_id) > REPO_ID_MAX or not REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        what = f"a repository is owner/name, at most {REPO_ID_MAX} letters, digits, '-', '_' and '.': not {repo_id[:80]!r}"
        return Invalid(what=what, param="repo_id")
    if not is_filename(filename) or "." in filename.split("/"):
        what = f"a file is a name that ends with .gguf, of letters, digits, '-', '_', '.' and '/': not {filename[:80]!r}"
        return Invalid(what=what, param="filename")
    return None


def _wish_fault(body: shapes.DownloadShards) -> Invalid | None:
    if bool(body.shards) + body.peer_fair_share + body.all_shards != 1:
        what = "say what is wanted by exactly one of shards (a list of indices), peer_fair_share and all_shards"
        return Invalid(what=what, param="shards")
    if body.shards and (twice := next((one for one in body.shards if body.shards.count(one) > 1), None)) is not None:
        return Invalid(what=f"shard {twice} is in the list twice", param="shards")
    return None
