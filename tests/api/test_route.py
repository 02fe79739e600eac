"""Rows, and that no two of them answer the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarmd.api.guard import Guard
from swarmd.api.route import ModelIdText, NodeIdText, Query, Route, RouteClash, ShardIndexText, SomeId, complete
from tests.fakes.rim import Rim


def test_two_owners_of_a_path_are_named(rim: Rim) -> None:
    mine = next(row for row in rim.rows if row.path == "/api/admin/models/{model}/status")
    theirs = replace(mine, owner="hfdesk", path="/api/admin/models/{other}/status")
    with pytest.raises(RouteClash, match=r"GET /api/admin/models/\{other\}/status belongs to both swarmd and hfdesk"):
        complete(rim.rows, [theirs])
    assert complete(rim.rows, [replace(theirs, method="PUT")])[-1].owner == "hfdesk"


def row(path: str = "/x", **more: Any) -> Route:
    async def handler(_call: Any) -> None:
        return None

    return Route(method="PUT", path=path, guard=more.pop("guard", Guard.WRITE), handler=handler, doc="Some.", **more)


def test_a_row_answers_with_the_statuses_of_its_guard_its_body_and_its_path_as_well() -> None:
    assert row().statuses == (200, 401, 403, 429)
    assert row(guard=Guard.OPEN).statuses == (200, 429)
    assert row(request=dict, status=(200, 503)).statuses == (200, 400, 401, 403, 413, 415, 429, 503)
    assert row("/x/{id}").statuses == (200, 401, 403, 404, 429)
    assert row("/x/{model}").statuses == (200, 400, 401, 403, 404, 429)


def test_parameters_have_types() -> None:
    found = row("/x/{model}/{index}/{node}/{rest:.*}", path_types={"node": NodeIdText})
    assert found.parameters == {"model": ModelIdText, "index": ShardIndexText, "node": NodeIdText, "rest": SomeId}
    assert row(query=("limit", Query(name="status", required=True))).queries == (
        Query(name="limit"), Query(name="status", required=True),
    )  # fmt: skip
