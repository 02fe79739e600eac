"""The contract's adapters, word for word, and how requests name one."""

from __future__ import annotations

from typing import Any

import pytest

from swarmd.domain.adapters import NewAdapter
from swarmd.domain.refusals import BadFile, Invalid
from tests.fakes.rim import SPREAD, TINY, Rim, adapter, keyed

PATH = "/api/admin/adapters"
BODY = {
    "id": "my-adapter", "name": "My Adapter", "base_model": TINY, "rank": 16, "alpha": 32.0,
    "path": "adapters/my-adapter.safetensors",
}  # fmt: skip
HELLO = [{"role": "user", "content": "hello"}]


async def fetch(rim: Rim, method: str, path: str, *, status: int = 200, key: bool = True, **more: Any) -> Any:
    async with rim.client(**(keyed() if key else {})) as client, client.request(method, path, **more) as reply:
        assert reply.status == status, await reply.text()
        return await reply.json()


async def test_one_is_added_listed_and_removed(rim: Rim) -> None:
    assert await fetch(rim, "GET", PATH, key=False) == {"adapters": []}
    assert await fetch(rim, "POST", PATH, json=BODY) == {"status": "ok", "adapter": BODY}
    assert rim.adapters.asked == [
        NewAdapter(id="my-adapter", name="My Adapter", base_model=TINY, rank=16, alpha=32.0, path=BODY["path"])
    ]
    assert await fetch(rim, "GET", PATH, key=False) == {"adapters": [BODY]}
    removed = await fetch(rim, "DELETE", f"{PATH}/my-adapter")
    assert removed == {"status": "ok", "message": "Adapter 'my-adapter' removed"}
    again = await fetch(rim, "DELETE", f"{PATH}/my-adapter", status=400)
    assert "my-adapter" in again["error"]["message"]


async def test_without_id_rank_and_alpha(rim: Rim) -> None:
    body = {"name": "x", "base_model": TINY, "path": "x.safetensors"}
    assert (await fetch(rim, "POST", PATH, json=body))["adapter"]["id"].count("-") == 4
    assert (rim.adapters.asked[0].id, rim.adapters.asked[0].rank, rim.adapters.asked[0].alpha) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ""}, "name"), ({"name": 7}, "name"), ({"path": ""}, "path"), ({"path": None}, "path"),
        ({"base_model": "x" * 257}, "base_model"), ({"rank": 0}, "rank"), ({"rank": 1.5}, "rank"), ({"alpha": "a"}, "alpha"),
        ({"id": "x" * 65}, "id"),
    ],
)  # fmt: skip
async def test_a_bad_body_names_its_field(rim: Rim, changed: dict[str, object], field: str) -> None:
    reply = await fetch(rim, "POST", PATH, json={**BODY, **changed}, status=400)
    assert reply["error"]["param"] == field
    assert not rim.adapters.asked


async def test_refusals_below_keep_their_field(rim: Rim) -> None:
    for refusal in (Invalid(what="outside", param="path"), BadFile(what="no safetensors", param="path")):
        rim.adapters.says = refusal
        reply = await fetch(rim, "POST", PATH, json=BODY, status=400)
        assert (reply["error"]["message"], reply["error"]["param"]) == (refusal.sentence, "path")


async def test_writes_need_the_key(rim: Rim) -> None:
    await fetch(rim, "POST", PATH, json=BODY, status=401, key=False)
    await fetch(rim, "DELETE", f"{PATH}/x", status=401, key=False)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_request_names_an_adapter_in_either_way(rim: Rim, path: str) -> None:
    rim.adapters.rows["style"] = mine = adapter("style", TINY)
    what = {"messages": HELLO} if "chat" in path else {"prompt": "hello"}
    for asked, name in (
        ({"model": f"{TINY}:style"}, f"{TINY}:style"),
        ({"model": TINY, "lora_adapter": "style"}, f"{TINY}:style"),
        ({"model": f"{TINY}:style", "lora_adapter": "style"}, f"{TINY}:style"),
        ({"model": "auto", "lora_adapter": "style"}, f"{TINY}:style"),
        ({"model": TINY}, TINY),
        ({"model": TINY, "lora_adapter": None}, TINY),
        ({"model": TINY, "lora_adapter": ""}, TINY),
    ):
        reply = await fetch(rim, "POST", path, json={**asked, **what})
        assert reply["model"] == name
        request = rim.pipeline.requests[-1]
        assert request.model == TINY and request.adapter == (mine.ref if "style" in name else None)


async def test_names_that_fit_nothing_are_refused_by_name(rim: Rim) -> None:
    rim.adapters.rows["style"] = adapter("style", TINY)
    for asked, status, word, code in (
        ({"model": f"{TINY}:nobody"}, 404, "nobody", "adapter_not_found"),
        ({"model": TINY, "lora_adapter": "nobody"}, 404, "nobody", "adapter_not_found"),
        ({"model": "other:style"}, 404, "other:style", "model_not_found"),
        ({"model": f"{SPREAD}:style"}, 400, str(TINY), None),
        ({"model": SPREAD, "lora_adapter": "style"}, 400, str(TINY), None),
        ({"model": f"{TINY}:style", "lora_adapter": "other"}, 400, "other", None),
    ):
        reply = await fetch(rim, "POST", "/v1/chat/completions", json={**asked, "messages": HELLO}, status=status)
        error = reply["error"]
        assert word in error["message"] and (code is None or error["code"] == code), asked
        if status == 400:
            assert error["param"] in ("model", "lora_adapter")
    assert not rim.pipeline.requests


async def test_models_list_what_can_be_asked_for(rim: Rim) -> None:
    rim.adapters.rows["style"] = adapter("style", TINY)
    rim.adapters.rows["lost"] = adapter("lost", "gone")  # type: ignore[arg-type]  # its model was removed
    listed = [card["id"] for card in (await fetch(rim, "GET", "/v1/models"))["data"]]
    assert listed == [TINY, f"{TINY}:style", SPREAD]
    card = await fetch(rim, "GET", f"/v1/models/{TINY}:style")
    assert card["id"] == f"{TINY}:style" and card["context_length"]
    assert (await fetch(rim, "GET", f"/v1/models/{TINY}:x", status=404))["error"]["code"] == "adapter_not_found"
