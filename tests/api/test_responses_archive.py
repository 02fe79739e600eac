"""What is kept of responses: in real sqlite, and after the node has ended under one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.api.replies import NoPrevious
from swarmd.api.responses_archive import CHAIN_LIMIT, KEPT_S, ResponseArchive, body_of, items_text, stored_response
from swarmd.api.responses_requests import Reference
from swarmd.api.responses_shapes import CallItem, InputText, MessageItem, OutputText
from swarmd.domain.refusals import Invalid
from swarmd.domain.responses import ResponseStatus, ResponseSummary, StoredResponse
from swarmd.kit.world import SeededClock
from swarmd.store.database import Database

CLOCK = SeededClock()


def id_of(number: int) -> str:
    return f"resp_{number:032x}"


def stored(
    number: int, *, status: ResponseStatus = ResponseStatus.COMPLETED, previous: int | None = None, text: str = "answer"
) -> StoredResponse:
    hex = id_of(number)[5:]
    now = CLOCK.now()
    summary = ResponseSummary(
        id=id_of(number), created_at=now, expires_at=now + KEPT_S, model="m", status=status, background=False,
        previous=None if previous is None else id_of(previous), input_tokens=None, output_tokens=None, input_preview="",
        output_preview="",
    )  # fmt: skip
    asked = MessageItem(id=f"msg_{hex}_i0", status="completed", role="user", content=[InputText(text=f"question {number}")])
    said = MessageItem(id=f"msg_{hex}_o0", status="completed", role="assistant", content=[OutputText(text=text)])
    cut = CallItem(id=f"fc_{hex}_o1", status="incomplete", call_id="c", name="add", arguments="{")
    body = {"id": id_of(number), "status": status.value, "error": None, "output": "is kept apart"}
    return stored_response(summary, body=body, output=[said, cut], input_items=items_text([asked]))


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[ResponseArchive]:
    async with await Database.open(tmp_path / "node.db") as db:
        yield ResponseArchive(db=db, clock=CLOCK, count_limit=600, bytes_limit=10_000_000)


async def test_what_was_under_way_when_the_node_ended_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    async with await Database.open(path) as db:
        before = ResponseArchive(db=db, clock=CLOCK)
        await before.add(stored(1, status=ResponseStatus.QUEUED))
        await before.add(stored(2, status=ResponseStatus.IN_PROGRESS))
        await before.add(stored(3))
    async with await Database.open(path) as db:
        after = ResponseArchive(db=db, clock=CLOCK)
        assert await after.recover() == 2 and await after.recover() == 0
        for number in (1, 2):
            found = await after.get(id_of(number))
            assert found is not None and found.summary.status is ResponseStatus.FAILED
            body = body_of(found)
            assert body["status"] == "failed" and body["error"]["code"] == "node_stopped"
            assert "ask again" in body["error"]["message"] and len(body["output"]) == 2
        kept = await after.get(id_of(3))
        assert kept is not None and kept.summary.status is ResponseStatus.COMPLETED


async def test_thirty_days(archive: ResponseArchive) -> None:
    await archive.add(stored(1))
    CLOCK.shift(KEPT_S - 1)
    try:
        assert await archive.sweep() == 0 and await archive.get(id_of(1)) is not None
        CLOCK.shift(2)
        assert await archive.get(id_of(1)) is None  # before the sweep, too
        assert await archive.sweep() == 1
    finally:
        CLOCK.shift(-KEPT_S - 1)


async def test_the_oldest_give_way(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "node.db") as db:
        archive = ResponseArchive(db=db, clock=CLOCK, count_limit=3, bytes_limit=100_000)
        for number in range(5):
            await archive.add(stored(number))
        assert [one.id for one in (await archive.summaries(statuses=(), limit=9))[0]] == [id_of(4), id_of(3), id_of(2)]
        await archive.update(stored(4, text="x" * 99_000))
        assert (await archive.summaries(statuses=(), limit=9))[1] == 1
        assert not await archive.update(stored(0))


async def test_a_conversation(archive: ResponseArchive) -> None:
    for number in range(3):
        await archive.add(stored(number, previous=number - 1 if number else None, text=f"answer {number}"))
    items = await archive.conversation(id_of(2))
    assert isinstance(items, list)
    assert [item.content[0].text for item in items if isinstance(item, MessageItem)] == [  # type: ignore[union-attr]
        "question 0", "answer 0", "question 1", "answer 1", "question 2", "answer 2",
    ]  # fmt: skip
    assert not any(isinstance(item, CallItem) for item in items)  # a call that broke off was never made
    await archive.delete(id_of(0))
    gone = await archive.conversation(id_of(2))
    assert isinstance(gone, NoPrevious) and id_of(0) in gone.sentence and id_of(2) in gone.sentence
    assert isinstance(await archive.conversation("resp_nobody"), NoPrevious)


async def test_a_conversation_has_an_end(archive: ResponseArchive) -> None:
    for number in range(CHAIN_LIMIT + 1):
        await archive.add(stored(number, previous=number - 1 if number else None))
    assert isinstance(await archive.conversation(id_of(CHAIN_LIMIT - 1)), list)
    long = await archive.conversation(id_of(CHAIN_LIMIT))
    assert isinstance(long, Invalid) and long.param == "previous_response_id"


async def test_one_that_continues_itself_ends(archive: ResponseArchive) -> None:
    """Nobody can make one, but a file can be edited."""
    await archive.add(stored(1, previous=1))
    assert isinstance(await archive.conversation(id_of(1)), Invalid)


async def test_references(archive: ResponseArchive) -> None:
    await archive.add(stored(1))
    hex = id_of(1)[5:]
    found = await archive.resolved([Reference(id=f"msg_{hex}_o0"), Reference(id=f"msg_{hex}_i0")])
    assert isinstance(found, list) and [item.id for item in found] == [f"msg_{hex}_o0", f"msg_{hex}_i0"]
    for id in (f"msg_{hex}_o5", f"msg_{id_of(2)[5:]}_o0", "rs_1"):
        refusal = await archive.resolved([found[0], Reference(id=id)])
        assert isinstance(refusal, Invalid) and refusal.param == "input[1]"


def test_a_body_has_its_output_at_its_end() -> None:
    assert body_of(replace(stored(1), output="[]"))["output"] == []
