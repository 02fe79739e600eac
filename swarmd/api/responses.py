"""`/v1/responses`: made, streamed, kept, followed later, cancelled, deleted, listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from swarmd.api import responses_shapes as shapes
from swarmd.api import views
from swarmd.api.answers import source_headers
from swarmd.api.calls import Call, Reply
from swarmd.api.event_buffer import EVENTS_LIMIT, FellBehind
from swarmd.api.openai import SEED_BYTES, client_of
from swarmd.api.replies import UnknownResponse, error_of
from swarmd.api.responses_archive import ResponseArchive, body_of, items_from, items_text
from swarmd.api.responses_prints import ResponsePrinter, opened, preview, text_of
from swarmd.api.responses_requests import ID, Asked, asked_of, inner_request
from swarmd.api.responses_runs import ResponseRuns, Run
from swarmd.api.responses_shapes import Item, ResponsesRequest
from swarmd.api.sse import EventStream, frame
from swarmd.api.targets import Target, Targets
from swarmd.domain.generation import GenerationRequest
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.responses import ResponseStatus, ResponseSummary
from swarmd.kit.world import Entropy

ID_BYTES: Final = 16  # contract: swarmllm.md 3.3
PAGE, PAGE_LIMIT = 20, 100  # contract: swarmllm.md 3.3, input items
LIST, LIST_LIMIT = 100, 500  # contract: the seed's "Responses API listing"
STATUS_LIMIT_BYTES: Final = 256  # contract: swarmllm.md 2.9
_STATUS: Final = "|".join(one.value for one in ResponseStatus)
STATUS_PATTERN: Final = f"^(({_STATUS})(,({_STATUS}))*)?$"
LIMIT_DIGITS: Final = 9


class ResponseHandlers:
    def __init__(
        self, *, targets: Targets, runs: ResponseRuns, archive: ResponseArchive, entropy: Entropy
    ) -> None:
        self._targets, self._runs, self._archive, self._entropy = targets, runs, archive, entropy

    async def create(self, call: Call) -> Any:
        body: ResponsesRequest = call.body
        id = f"resp_{self._entropy.token(ID_BYTES).hex()}"
        asked = asked_of(body, await _extras(call), response=id)
        if isinstance(asked, Invalid):
            return asked
        target = self._targets.find(body.model, body.lora_adapter)
        if isinstance(target, Refusal):
            return target
        own = await self._archive.resolved(asked.items)
        if isinstance(own, Refusal):
            return own
        before = await self._archive.conversation(body.previous_response_id) if body.previous_response_id else []
        if isinstance(before, Refusal):
            return before
        request = inner_request(
            asked, [*before, *own], request=call.request_id, model=target.model, client=client_of(call, body.user),
            fresh_seed=int.from_bytes(self._entropy.token(SEED_BYTES), "little"),
        )  # fmt: skip
        if isinstance(request, Invalid):
            return request
        return await self._answer(call, self._made(call, asked, id, target, own), target, request)

    async def retrieve(self, call: Call) -> Any:
        id, query = call.path["id"], call.request.query
        streamed = _flag(query.get("stream"), "stream")
        if isinstance(streamed, Invalid):
            return streamed
        if streamed:
            return await self._follow(call, id)
        if "starting_after" in query:
            return Invalid(what="starting_after goes with stream=true", param="starting_after")
        run = self._runs.live(id)
        if run is not None:
            return run.printer.body()
        stored = await self._archive.get(id)
        return _unknown(id) if stored is None else body_of(stored)

    async def delete(self, call: Call) -> shapes.ResponseDeleted | Refusal:
        id = call.path["id"]
        run = self._runs.live(id)
        if run is not None:
            await self._runs.cancel(run)
        self._runs.forget(id)
        if not await self._archive.delete(id):
            return _unknown(id)
        return shapes.ResponseDeleted(id=id, object="response", deleted=True)

    async def cancel(self, call: Call) -> Any:
        id = call.path["id"]
        run = self._runs.live(id)
        if run is not None and run.background:
            await self._runs.cancel(run)
        stored = await self._archive.get(id)
        if stored is None:
            return _unknown(id)
        if not stored.summary.background:
            what = "only a response that was made with background: true can be cancelled; others end with their connection"
            return Invalid(what=what, param="response_id")
        return body_of(stored)

    async def input_items(self, call: Call) -> shapes.ItemList | Refusal:
        id, query = call.path["id"], call.request.query
        limit = _number(query.get("limit"), "limit", default=PAGE, low=1, high=PAGE_LIMIT)
        if isinstance(limit, Invalid):
            return limit
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            return Invalid(what=f"order is asc or desc, not {order[:40]!r}", param="order")
        stored = await self._archive.get(id)
        if stored is None:
            return _unknown(id)
        items = items_from(stored.input_items)
        if order == "desc":
            items.reverse()
        if "after" in query:
            place = next((at for at, item in enumerate(items) if item.id == query["after"]), None)
            if place is None:
                return Invalid(what=f"{query['after'][:80]!r} is no input item of {id}", param="after")
            items = items[place + 1 :]
        page = items[:limit]
        return shapes.ItemList(
            object="list", data=page, first_id=page[0].id if page else None, last_id=page[-1].id if page else None,
            has_more=len(items) > limit,
        )  # fmt: skip

    async def listing(self, call: Call) -> shapes.StoredList | Refusal:
        query = call.request.query
        limit = _number(query.get("limit"), "limit", default=LIST, low=1, high=LIST_LIMIT)
        if isinstance(limit, Invalid):
            return limit
        statuses = _statuses(query.get("status", ""))
        if isinstance(statuses, Invalid):
            return statuses
        found, total = await self._archive.summaries(statuses=statuses, limit=limit)
        # A key may be shared: what was asked is shown only to whoever sits at the machine, and can read the file anyway.
        rows = [_row(one, live=self._runs.live(one.id) is not None, shown=call.caller.local) for one in found]
        return shapes.StoredList(object="list", data=rows, total=total)

    # -- the reply

    def _made(self, call: Call, asked: Asked, id: str, target: Target, own: Sequence[Item]) -> Run:
        body = asked.body
        out = opened(asked, id=id, created_at=int(call.now), model=target.name)
        summary = ResponseSummary(
            id=id, created_at=call.now, expires_at=call.now, model=target.name, status=ResponseStatus(out.status),
            background=out.background, previous=body.previous_response_id, input_tokens=None, output_tokens=None,
            input_preview=preview(text_of(own)), output_preview="",
        )  # fmt: skip
        return Run(
            printer=ResponsePrinter(out, asked.extras), summary=summary, input_items=items_text(own), stored=out.store,
            streamed=bool(body.stream),
        )  # fmt: skip

    async def _answer(self, call: Call, run: Run, target: Target, request: GenerationRequest) -> Any:
        first = run.printer.body() if run.background and not run.streamed else None
        refusal = self._runs.begin(run, target, request)
        if refusal is not None:
            return refusal
        if run.background:
            await run.begun.wait()
            if run.over.is_set() and not run.told:
                return run.lost
            headers = {**source_headers(target, None), "location": f"/v1/responses/{run.id}"}
            if run.streamed:
                return await _streamed(await call.open_stream(headers), run, -1)
            return Reply(body=first, status=202, headers=headers)
        try:
            if run.streamed:
                return await _streamed(await call.open_stream(source_headers(target, None)), run, -1, paces=True)
            await run.over.wait()
        finally:
            if not run.over.is_set():
                self._runs.give_up(run)
        return _whole(run, target)

    async def _follow(self, call: Call, id: str) -> Any:
        query = call.request.query
        after = _number(query.get("starting_after"), "starting_after", default=-1, low=0, high=None)
        if isinstance(after, Invalid):
            return after
        run = self._runs.followed(id)
        if run is None:
            if await self._archive.get(id) is None:
                return _unknown(id)
            what = f"the events of {id} are not kept any more, or were never streamed: fetch it without stream"
            return Invalid(what=what, param="stream")
        if after >= run.events.count:
            what = f"starting_after is {after}, and {id} has had {run.events.count} events so far"
            return Invalid(what=what, param="starting_after")
        if after + 1 < run.events.first:
            what = (
                f"of the events of {id} the last {EVENTS_LIMIT} at most are kept, from {run.events.first} on: "
                "fetch it without stream for the whole"
            )
            return Invalid(what=what, param="starting_after")
        return await _streamed(await call.open_stream(), run, after)


async def _streamed(stream: EventStream, run: Run, after: int, *, paces: bool = False) -> EventStream:
    """Events behind number `after`, until the last."""
    sent = after
    events = run.events.follow(after, paces=paces)
    try:
        async with stream.kept_alive(stream.comment):
            async for one in events:
                await stream.write(one)
                sent += 1
    except FellBehind:
        what = f"this client is {EVENTS_LIMIT} events behind: fetch {run.id} without stream"
        await stream.write(_lost(sent + 1, Invalid(what=what)))
    else:
        if not run.told:
            await stream.write(_lost(sent + 1, run.lost))
    finally:
        await events.aclose()
    await stream.finish()
    return stream


def _lost(number: int, refusal: Refusal) -> bytes:
    error = error_of(refusal).error
    event = shapes.ErrorEvent(type="error", sequence_number=number, code=error.code, message=error.message)
    return frame(event.type, event)


def _whole(run: Run, target: Target) -> Reply | Refusal:
    if not run.told:
        return run.lost
    if run.refusal is not None:
        return run.refusal
    headers: dict[str, str] = {}
    if run.plan is not None and run.printer.usage is not None:
        headers = {**source_headers(target, run.plan), "server-timing": views.server_timing(run.printer.usage)}
    return Reply(body=run.printer.body(), headers=headers)


async def _extras(call: Call) -> dict[str, msgspec.Raw]:
    """Fields of the body that ResponsesRequest has not. The body is JSON of an object: the server has decoded it."""
    fields = msgspec.json.decode(await call.request.read(), type=dict[str, msgspec.Raw])
    known = frozenset(ResponsesRequest.__struct_fields__)
    return {name: value for name, value in fields.items() if name not in known}


def _unknown(id: str) -> UnknownResponse:
    shown = id if ID.fullmatch(id) else id[:80]
    return UnknownResponse(what=f"response {shown!r} is not stored here: it may have expired, or been deleted")


def _flag(text: str | None, param: str) -> bool | Invalid:
    if text in (None, "false"):
        return False
    return True if text == "true" else Invalid(what=f"{param} is true or false", param=param)


def _number(text: str | None, param: str, *, default: int, low: int, high: int | None) -> int | Invalid:
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= LIMIT_DIGITS else None
    if number is None or number < low or (high is not None and number > high):
        upper = f" to {high}" if high is not None else " or more"
        return Invalid(what=f"{param} is a whole number, {low}{upper}, not {text[:40]!r}", param=param)
    return number


def _statuses(text: str) -> tuple[ResponseStatus, ...] | Invalid:
    if len(text.encode()) > STATUS_LIMIT_BYTES:
        return Invalid(what=f"status has more than {STATUS_LIMIT_BYTES} bytes", param="status")
    wanted: list[ResponseStatus] = []
    for name in text.split(",") if text else ():
        try:
            wanted.append(ResponseStatus(name))
        except ValueError:
            known = ", ".join(one.value for one in ResponseStatus)
            return Invalid(what=f"there is no status {name[:40]!r}: there are {known}", param="status")
    return tuple(dict.fromkeys(wanted))


def _row(one: ResponseSummary, *, live: bool, shown: bool) -> shapes.StoredRow:
    usage = None
    if one.input_tokens is not None and one.output_tokens is not None:
        usage = shapes.StoredUsage(input_tokens=one.input_tokens, output_tokens=one.output_tokens)
    return shapes.StoredRow(
        id=one.id, created_at=int(one.created_at), expires_at=int(one.expires_at), model=one.model,
        status=one.status.value, background=one.background, live=live, input_preview=one.input_preview if shown else None,
        output_text_preview=one.output_preview if shown else None, usage=usage,
    )  # fmt: skip
