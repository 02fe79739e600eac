"""Responses that are kept: thirty days, bounded in number and bytes, written before anybody is told of them.

What a node had under way when it ended, killed or not, is marked as failed when it starts again, with a code and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from swarmd.api.replies import NodeStopped, NoPrevious, error_of
from swarmd.api.responses_requests import Reference
from swarmd.api.responses_shapes import CallItem, Item, ResponseErrorOut
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.responses import ResponseStatus, ResponseSummary, ResponseTurn, StoredResponse
from swarmd.kit.world import Clock
from swarmd.store import responses as sql
from swarmd.store.database import Database, Transaction

KEPT_S: Final = 30 * 24 * 3600  # contract: swarmllm.md 3.3
COUNT_LIMIT: Final = 20_000  # one every two minutes for a month; of 10 KiB each they are well within the bytes
BYTES_LIMIT: Final = 512 * 1024 * 1024
CHAIN_LIMIT: Final = 512  # turns of a conversation; more fit into no context
CHAIN_LIMIT_BYTES: Final = 8 * 1024 * 1024  # of JSON; a prompt may have half of that

_ITEMS: Final = msgspec.json.Decoder(list[Item])


class ResponseArchive:
    def __init__(
        self, *, db: Database, clock: Clock, count_limit: int = COUNT_LIMIT, bytes_limit: int = BYTES_LIMIT
    ) -> None:
        self._db, self._clock = db, clock
        self._count_limit, self._bytes_limit = count_limit, bytes_limit

    async def recover(self) -> int:
        """Before anything runs: what was under way has failed. How many."""
        error = msgspec.to_builtins(failure_of(NodeStopped()))
        ids = await sql.read_open(self._db)
        for id in ids:
            stored = await sql.read_response(self._db, id)
            assert stored is not None, "nobody deletes while the node starts"
            body = {**msgspec.json.decode(stored.body), "status": ResponseStatus.FAILED.value, "error": error}
            summary = replace(stored.summary, status=ResponseStatus.FAILED)
            async with self._db.transaction() as tx:
                await sql.update_response(tx, replace(stored, summary=summary, body=_json(body)))
        return len(ids)

    async def add(self, stored: StoredResponse) -> None:
        async with self._db.transaction() as tx:
            await sql.insert_response(tx, stored)
            await self._trim(tx)

    async def update(self, stored: StoredResponse) -> bool:
        """False: it was deleted meanwhile."""
        async with self._db.transaction() as tx:
            there = await sql.update_response(tx, stored)
            await self._trim(tx)
        return there

    async def get(self, id: str) -> StoredResponse | None:
        stored = await sql.read_response(self._db, id)
        # Those that have expired are swept once an hour, and are gone before.
        return stored if stored is not None and stored.summary.expires_at > self._clock.now() else None

    async def delete(self, id: str) -> bool:
        async with self._db.transaction() as tx:
            return await sql.delete_response(tx, id)

    async def sweep(self) -> int:
        """Deletes what has expired. How many."""
        async with self._db.transaction() as tx:
            return await sql.delete_expired(tx, now=self._clock.now())

    async def count(self) -> int:
        return await sql.count_responses(self._db)

    async def summaries(
        self, *, statuses: Sequence[ResponseStatus], limit: int
    ) -> tuple[tuple[ResponseSummary, ...], int]:
        """The newest first, and how many there are in all; of these statuses only, unless there are none."""
        return await sql.read_summaries(self._db, statuses=statuses, limit=limit)

    async def conversation(self, previous: str) -> list[Item] | Refusal:
        """The items of a response and of all it continues, the oldest first."""
        turns: list[ResponseTurn] = []
        size_bytes = 0
        id: str | None = previous
        while id is not None:
            turn = await sql.read_turn(self._db, id)
            if turn is None:
                behind = "" if id == previous else f", which {previous[:64]!r} continues,"
                return NoPrevious(what=f"response {id[:64]!r}{behind} is not stored here: send its items as input")
            if turn.status.is_open:
                return Invalid(what=f"response {id} is still {turn.status.value}: wait for it", param="previous_response_id")
            turns.append(turn)
            size_bytes += len(turn.input_items) + len(turn.output)
            if len(turns) > CHAIN_LIMIT or size_bytes > CHAIN_LIMIT_BYTES:
                what = (
                    f"the conversation before this request has more than {CHAIN_LIMIT} turns or {CHAIN_LIMIT_BYTES} bytes: "
                    "begin another, with what matters of it as input"
                )
                return Invalid(what=what, param="previous_response_id")
            id = turn.previous
        return [item for turn in reversed(turns) for item in _items_of(turn)]

    async def resolved(self, items: Sequence[Item | Reference]) -> list[Item] | Refusal:
        """With stored items in place of references."""
        found: list[Item] = []
        turns: dict[str, ResponseTurn | None] = {}
        for number, item in enumerate(items):
            if not isinstance(item, Reference):
                found.append(item)
                continue
            response = item.response
            if response is not None and response not in turns:
                turns[response] = await sql.read_turn(self._db, response)
            turn = turns.get(response) if response is not None else None
            meant = next((one for one in _items_of(turn) if one.id == item.id), None) if turn is not None else None
            if meant is None:
                what = f"item {item.id[:64]!r} is not stored here: send the item itself"
                return Invalid(what=what, param=f"input[{number}]")
            found.append(meant)
        return found

    async def _trim(self, tx: Transaction) -> None:
        await sql.trim_responses(tx, count=self._count_limit, size_bytes=self._bytes_limit)


def failure_of(refusal: Refusal) -> ResponseErrorOut:
    """As it stands in a response: what the same refusal is over HTTP."""
    error = error_of(refusal).error
    return ResponseErrorOut(code=error.code, message=error.message, type=error.type, param=error.param)


def stored_response(
    summary: ResponseSummary, *, body: Mapping[str, Any], output: Sequence[Item], input_items: str
) -> StoredResponse:
    """`body`: the response object; `input_items`: as `items_text` makes it."""
    rest = {name: value for name, value in body.items() if name != "output"}
    return StoredResponse(summary=summary, body=_json(rest), output=items_text(output), input_items=input_items)


def body_of(stored: StoredResponse) -> dict[str, Any]:
    """The response object."""
    return {**msgspec.json.decode(stored.body), "output": msgspec.json.decode(stored.output)}


def items_text(items: Sequence[Item]) -> str:
    return _json(items)


def items_from(text: str) -> list[Item]:
    return _ITEMS.decode(text)


def _items_of(turn: ResponseTurn) -> list[Item]:
    """A call that broke off was never made: nobody answers it."""
    items = [*items_from(turn.input_items), *items_from(turn.output)]
    return [item for item in items if not (isinstance(item, CallItem) and item.status != "completed")]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
