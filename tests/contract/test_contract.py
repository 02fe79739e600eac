"""The contract against the rim: the table of routes, guards in every auth state, shapes of replies, refusals."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from swarmd.api.route import Route
from tests.contract.row import ENVELOPE, Access, Arrange, Refused, Row, nothing
from tests.contract.shape import faults
from tests.contract.table import NOT_YET, OURS, SEED, THERE, WRITES_WITHOUT_KEY, anonymous
from tests.fakes.rim import LAN_CLIENT, Rim, keyed, running

LIMIT_BYTES = 100_000
"""Of a body, in these tests: the real limit is the same code with another number (tests/api/test_server.py)."""

rows = pytest.mark.parametrize("row", THERE, ids=lambda row: row.place)
BODIES = [row for row in THERE if row.body is not None]


@asynccontextmanager
async def rim_for(folder: Path, *arranged: Arrange) -> AsyncIterator[Rim]:
    rim = Rim(folder)
    rim.server._body_limit_bytes = LIMIT_BYTES
    async with running(rim):
        for arrange in arranged:
            done = arrange(rim)
            if inspect.isawaitable(done):
                await done
        yield rim


async def ask(
    rim: Rim, method: str, path: str, *, key: bool = True, data: bytes | None = None, **headers: str
) -> tuple[int, str, Any]:
    """Status, media type, and the body as JSON where it is."""
    sent = (keyed() if key else {}) | {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        sent.setdefault("content-type", "application/json")
    url = yarl.URL(rim.url + path, encoded=True)
    async with aiohttp.ClientSession() as client, client.request(method, url, data=data, headers=sent) as reply:
        text = await reply.read()
        return reply.status, reply.content_type, json.loads(text) if reply.content_type == "application/json" else None


def encoded(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def route_of(rim: Rim, row: Row) -> Route:
    return next(one for one in rim.rows if anonymous(f"{one.method} {one.plain_path}") == anonymous(row.place))


# -- the tables


async def test_the_routes_are_the_contract_and_nothing_else(tmp_path: Path) -> None:
    there = {anonymous(f"{row.method} {row.plain_path}") for row in Rim(tmp_path).rows}
    listed = {anonymous(row.place) for row in SEED + OURS}
    assert there - listed == set(), "routes without a row in tests/contract"
    assert listed - there == {anonymous(place) for place in NOT_YET}, "rows without a route"


async def test_what_is_not_there_yet_is_of_the_seed_and_really_not_there(tmp_path: Path) -> None:
    there = {anonymous(f"{row.method} {row.plain_path}") for row in Rim(tmp_path).rows}
    assert not {place for place in NOT_YET if anonymous(place) in there}, "these exist: take them off NOT_YET"
    assert {row.place for row in SEED} >= NOT_YET


def test_no_place_has_two_rows() -> None:
    places = [anonymous(row.place) for row in SEED + OURS]
    assert len(places) == len(set(places))


def test_every_write_needs_the_key() -> None:
    without = {row.place for row in SEED + OURS if row.method != "GET" and row.access not in (Access.KEY, Access.LOCAL_KEY)}
    assert without == set(WRITES_WITHOUT_KEY)


# -- who gets an answer


@rows
async def test_guard(row: Row, tmp_path: Path) -> None:
    """Loopback and elsewhere, without the key and with it; then with the reads opened, and with loopback not trusted."""
    async with rim_for(tmp_path, row.arrange) as rim:
        found: list[bool] = []
        for address in (None, LAN_CLIENT):
            rim.address = address
            for key in (False, True):
                status, _, body = await ask(rim, row.method, row.url, key=key, data=encoded(row.body))
                found.append(status not in (401, 403))
                if not found[-1]:
                    assert faults(row.envelope, body) == []
                    forbidden = row.access is Access.PAGE or (row.access is Access.LOCAL_KEY and address is not None)
                    assert status == (403 if forbidden else 401)
        assert tuple(found) == row.access.answers

        rim.set("api.open_reads", "everywhere")
        status, _, _ = await ask(rim, row.method, row.url, key=False, data=encoded(row.body))
        assert (status not in (401, 403)) == (row.access in (Access.OPEN, Access.READ))

        rim.set("api.open_reads", "loopback")
        rim.set("api.trust_loopback", False)
        rim.address = None
        status, _, _ = await ask(rim, row.method, row.url, key=False, data=encoded(row.body))
        assert (status not in (401, 403)) == (row.access is Access.OPEN)


# -- what is answered


@rows
async def test_reply(row: Row, tmp_path: Path) -> None:
    variants = [("as it is", nothing, None), *row.more]
    for number, (when, arrange, path) in enumerate(variants):
        if row.access is Access.PAGE:
            continue  # tests/api/test_pages.py
        folder = tmp_path / str(number)
        folder.mkdir()
        async with rim_for(folder, row.arrange, arrange) as rim:
            status, media, body = await ask(rim, row.method, path or row.url, data=encoded(row.body))
            assert status == row.status, (when, body)
            if row.reply is not None:
                assert (media, faults(row.reply, body)) == ("application/json", []), when
            elif status < 400:
                assert media == row.media, when


# -- what is refused


def refusal_faults(answer: tuple[int, str, Any], refused: Refused, row: Row) -> list[str]:
    status, media, body = answer
    if status != refused.status or media != "application/json":
        return [f"{refused.when}: {status} {media} {str(body)[:200]}, not {refused.status}"]
    found = [f"{refused.when}: {fault}" for fault in faults(row.envelope, body)]
    if row.envelope != ENVELOPE:
        return found
    if not found and refused.param is not None and body["error"]["param"] != refused.param:
        found.append(f"{refused.when}: names {body['error']['param']}, not {refused.param}")
    if not found and refused.code is not None and body["error"]["code"] != refused.code:
        found.append(f"{refused.when}: code {body['error']['code']}, not {refused.code}")
    return found


@pytest.mark.parametrize("row", [row for row in THERE if row.refused], ids=lambda row: row.place)
async def test_refusals(row: Row, tmp_path: Path) -> None:
    found: list[str] = []
    for number, refused in enumerate(row.refused):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with rim_for(folder, row.arrange, refused.arrange) as rim:
            body = row.body if refused.body is None else refused.body
            answer = await ask(rim, row.method, refused.path or row.url, data=encoded(body))
            found += refusal_faults(answer, refused, row)
            assert refused.status in route_of(rim, row).statuses, f"{refused.when}: the route does not list {refused.status}"
    assert found == []


BAD_IDS = ["UPPER", "..%2f..%2fetc", "a" * 257, "a..b", "-a", "%20", "a%00", "%D9%A1", "a%7Bb%7D", "a%2Fb", "%ED%A0%80"]
BAD_INDICES = ["-1", "4294967295", "99999999999999999999", "1.5", "x", "%D9%A1", "+1", "1e3"]


@pytest.mark.parametrize("row", [row for row in THERE if row.takes_model], ids=lambda row: row.place)
async def test_bad_ids_and_indices(row: Row, tmp_path: Path) -> None:
    wrong = [Refused(status=400, when=f"id {id}", param="model", path=row.at(model=id)) for id in BAD_IDS]
    if "{index}" in row.path:
        wrong += [Refused(status=400, when=f"index {one}", param="index", path=row.at(index=one)) for one in BAD_INDICES]
    found: list[str] = []
    async with rim_for(tmp_path, row.arrange) as rim:
        for refused in wrong:
            found += refusal_faults(await ask(rim, row.method, str(refused.path), data=encoded(row.body)), refused, row)
    assert found == []


@pytest.mark.parametrize("row", BODIES, ids=lambda row: row.place)
async def test_bad_bodies(row: Row, tmp_path: Path) -> None:
    bodies = {
        "nothing": b"", "half an object": b"{", "no UTF-8": b'{"a": "\xff"}', "nested deeply": b"[" * 20_000,
        "a list": b"[]", "a text": b'"text"', "null": b"null", "two values": b"{} {}", "no number": b'{"a": NaN}',
    }  # fmt: skip
    found: list[str] = []
    page = {}
    async with rim_for(tmp_path, row.arrange) as rim:
        if row.access is Access.PAGE:
            page = {"origin": rim.url}
        for when, data in bodies.items():
            refused = Refused(status=400, when=when, code="invalid_value")
            found += refusal_faults(await ask(rim, row.method, row.url, data=data, **page), refused, row)
        good = encoded(row.body) or b""
        for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            found += refusal_faults(
                await ask(rim, row.method, row.url, data=good, content_type=media, **page),
                Refused(status=415, when=media, code="no_json"), row,
            )
        found += refusal_faults(
            await ask(rim, row.method, row.url, data=b" " * LIMIT_BYTES + good, **page),
            Refused(status=413, when="too large", code="body_too_large"), row,
        )
    assert found == []
