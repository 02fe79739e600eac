"""The Responses API, beyond the seed's listing of it: fields of the OpenAI contract, rules from swarmllm.md 3.3."""

from __future__ import annotations

import msgspec

from swarmd.api.responses_archive import KEPT_S, items_text, stored_response
from swarmd.api.responses_prints import ResponsePrinter, opened
from swarmd.api.responses_requests import Asked, Reference, asked_of
from swarmd.api.responses_shapes import ResponsesRequest
from swarmd.domain.refusals import Busy
from swarmd.domain.responses import ResponseStatus, ResponseSummary
from tests.contract.our_rows import SWARM
from tests.contract.row import KEY, Refused, Row, nothing
from tests.fakes.rim import TINY, Rim, no_coverage

ID = "resp_" + "1" * 32
NOBODY = "resp_" + "0" * 32
BODY = {"model": TINY, "input": "Hello"}

MESSAGE = {
    "type": "=message", "id": "str", "status": "=completed|=incomplete|=in_progress",
    "role": "=user|=assistant|=system|=developer",
    "content": [
        (
            {"type": "=output_text", "text": "str", "annotations": ["any"], "logprobs": ["any"]},
            {"type": "=input_text", "text": "str"},
        )
    ],
}  # fmt: skip
RESPONSE = {
    "id": "str", "object": "=response", "created_at": "int", "model": "str",
    "status": "=queued|=in_progress|=completed|=incomplete|=failed|=cancelled", "background": "bool",
    "completed_at": "int|null", "error": "null", "incomplete_details": "null", "instructions": "str|null",
    "max_output_tokens": "int|null", "max_tool_calls": "int|null", "output": [MESSAGE], "parallel_tool_calls": "bool",
    "previous_response_id": "str|null", "prompt_cache_key": "str|null",
    "reasoning": {"effort": "null", "summary": "null"}, "safety_identifier": "str|null", "service_tier": "=default",
    "store": "bool", "temperature": "num", "text": {"format": {"type": "=text"}, "verbosity": "=medium"},
    "tool_choice": "str", "tools": ["any"], "top_logprobs": "int", "top_p": "num", "truncation": "=disabled",
    "usage": (
        "null",
        {
            "input_tokens": "int", "input_tokens_details": {"cached_tokens": "int", "cache_write_tokens": "int"},
            "output_tokens": "int", "output_tokens_details": {"reasoning_tokens": "int"}, "total_tokens": "int",
        },
    ),
    "user": "str|null", "metadata": {"*": "str"}, "swarm?": SWARM,
}  # fmt: skip


async def kept(rim: Rim) -> None:
    """One in the background that was cancelled before it began."""
    asked = asked_of(msgspec.convert(BODY | {"background": True}, ResponsesRequest), {}, response=ID)
    assert isinstance(asked, Asked)
    now = rim.world.clock.now()
    printer = ResponsePrinter(opened(asked, id=ID, created_at=int(now), model=TINY), {})
    printer.cancelled()
    summary = ResponseSummary(
        id=ID, created_at=now, expires_at=now + KEPT_S, model=TINY, status=ResponseStatus.CANCELLED, background=True,
        previous=None, input_tokens=None, output_tokens=None, input_preview="Hello", output_preview="",
    )  # fmt: skip
    items = [item for item in asked.items if not isinstance(item, Reference)]
    await rim.archive.add(stored_response(summary, body=printer.body(), output=[], input_items=items_text(items)))


def busy(rim: Rim) -> None:
    rim.pipeline.says = Busy(what="full")


def uncovered(rim: Rim) -> None:
    rim.pipeline.says = no_coverage()


def _unknown(path: str) -> Refused:
    return Refused(status=404, when="nobody stored it", path=path, code="response_not_found", param="response_id")


ROWS = (
    Row(
        method="POST", path="/v1/responses", access=KEY, body=BODY, reply=RESPONSE, live=True,
        live_body={"model": "auto", "input": "Hello", "max_output_tokens": 60, "temperature": 0},
        refused=[
            Refused(status=404, when="nobody knows the model", body=BODY | {"model": "unknown"}, code="model_not_found"),
            Refused(status=400, when="no input", body={"model": TINY}, param="input"),
            Refused(status=400, when="too hot", body=BODY | {"temperature": 3}, param="temperature"),
            Refused(status=400, when="a tool of the server's", body=BODY | {"tools": [{"type": "web_search"}]},
                    param="tools[0]"),
            Refused(status=400, when="an image", param="input[0].content[0]",
                    body=BODY | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            Refused(status=400, when="it continues nothing", body=BODY | {"previous_response_id": NOBODY},
                    param="previous_response_id", code="previous_response_not_found"),
            Refused(status=400, when="a field of chat", body=BODY | {"max_tokens": 5}, param="max_tokens"),
            Refused(status=400, when="in the background and not stored", body=BODY | {"background": True, "store": False},
                    param="background"),
            Refused(status=503, when="nobody holds a shard of it", arrange=uncovered, code="no_coverage"),
            Refused(status=503, when="the node is full", arrange=busy, code="busy"),
        ],
    ),
    Row(
        method="GET", path="/v1/responses/{id}", access=KEY, filled=f"/v1/responses/{ID}", arrange=kept, reply=RESPONSE,
        more=[("no stream is asked for", nothing, f"/v1/responses/{ID}?stream=false")],
        refused=[
            _unknown(f"/v1/responses/{NOBODY}"),
            _unknown(f"/v1/responses/{NOBODY}?stream=true"),
            Refused(status=400, when="no events are kept", path=f"/v1/responses/{ID}?stream=true", param="stream"),
            Refused(status=400, when="maybe a stream", path=f"/v1/responses/{ID}?stream=maybe", param="stream"),
            Refused(status=400, when="behind an event and no stream", path=f"/v1/responses/{ID}?starting_after=3",
                    param="starting_after"),
            Refused(status=400, when="before the first event", path=f"/v1/responses/{ID}?stream=true&starting_after=-1",
                    param="starting_after"),
        ],
    ),
    Row(
        method="DELETE", path="/v1/responses/{id}", access=KEY, filled=f"/v1/responses/{ID}", arrange=kept,
        reply={"id": "str", "object": "=response", "deleted": "bool"}, refused=[_unknown(f"/v1/responses/{NOBODY}")],
    ),
    Row(
        method="POST", path="/v1/responses/{id}/cancel", access=KEY, filled=f"/v1/responses/{ID}/cancel", arrange=kept,
        reply=RESPONSE, refused=[_unknown(f"/v1/responses/{NOBODY}/cancel")],
    ),
    Row(
        method="GET", path="/v1/responses/{id}/input_items", access=KEY, filled=f"/v1/responses/{ID}/input_items",
        arrange=kept,
        reply={
            "object": "=list", "data": [MESSAGE], "first_id": "str|null", "last_id": "str|null", "has_more": "bool",
        },
        refused=[
            _unknown(f"/v1/responses/{NOBODY}/input_items"),
            Refused(status=400, when="more than 100", path=f"/v1/responses/{ID}/input_items?limit=101", param="limit"),
            Refused(status=400, when="behind none of them", path=f"/v1/responses/{ID}/input_items?after=x", param="after"),
            Refused(status=400, when="no order", path=f"/v1/responses/{ID}/input_items?order=up", param="order"),
        ],
    ),
)  # fmt: skip
