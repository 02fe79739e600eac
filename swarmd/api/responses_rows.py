"""Rows of `/v1/responses` for the table of routes."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from swarmd.api import responses_shapes as shapes
from swarmd.api.responses import LIST_LIMIT, PAGE_LIMIT, STATUS_LIMIT_BYTES, STATUS_PATTERN, ResponseHandlers
from swarmd.api.route import LOCAL_READ, WRITE, Query, Route

INCLUDE: Final = Query(name="include", doc="Taken and not needed: what a response has is always in it.")


def responses_rows(responses: ResponseHandlers) -> tuple[Route, ...]:
    """All with the key, as everything below /v1: what is stored is what somebody asked."""
    return (
        Route(
            method="POST", path="/v1/responses", guard=WRITE, handler=responses.create, request=shapes.ResponsesRequest,
            reply=shapes.ResponseOut, streams=shapes.EVENTS, status=(200, 202, 400, 404, 503), hang_up_cancels=True,
            doc="A reply, whole or as server-sent events; in the background it is answered with 202 and goes on by itself.",
        ),
        Route(
            method="GET", path="/v1/responses/{id}", guard=WRITE, handler=responses.retrieve, reply=shapes.ResponseOut,
            streams=shapes.EVENTS, status=(200, 400, 404),
            query=(
                Query(name="stream", type=bool, doc="Its events, live or replayed."),
                Query(name="starting_after", type=Annotated[int, Meta(ge=0)],
                      doc="With `stream`: only events behind the one with this sequence_number."),
                INCLUDE,
                Query(name="include_obfuscation", doc="Taken; nothing is obfuscated here."),
            ),
            doc="A stored response, or its events.",
        ),
        Route(
            method="DELETE", path="/v1/responses/{id}", guard=WRITE, handler=responses.delete, reply=shapes.ResponseDeleted,
            status=(200, 404), doc="Delete a stored response; one that still runs is cancelled.",
        ),
        Route(
            method="POST", path="/v1/responses/{id}/cancel", guard=WRITE, handler=responses.cancel, reply=shapes.ResponseOut,
            status=(200, 400, 404), doc="Cancel a response in the background; one that has ended stays as it is.",
        ),
        Route(
            method="GET", path="/v1/responses/{id}/input_items", guard=WRITE, handler=responses.input_items,
            reply=shapes.ItemList, status=(200, 400, 404),
            query=(
                Query(name="after", doc="Id of an item: those behind it."),
                Query(name="limit", type=Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]),
                Query(name="order", type=Literal["asc", "desc"], doc="The last one first, unless it is asc."),
                INCLUDE,
            ),
            doc="What a response was asked, item by item.",
        ),
        Route(
            # Not READ: opening the reads must not show passers-by who asks what.
            method="GET", path="/api/admin/responses", guard=LOCAL_READ, handler=responses.listing,
            reply=shapes.StoredList, status=(200, 400),
            query=(
                Query(name="limit", type=Annotated[int, Meta(ge=1, le=LIST_LIMIT)]),
                Query(name="status", type=Annotated[str, Meta(max_length=STATUS_LIMIT_BYTES, pattern=STATUS_PATTERN)],
                      doc="Several with commas: queued, in_progress, completed, incomplete, failed, cancelled."),
            ),
            doc="Stored responses, the newest first, with previews for callers on this machine.",
        ),
    )  # fmt: skip
