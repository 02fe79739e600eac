"""Rows, and that no two of them answer the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmd.api.route import RouteClash, complete
from tests.fakes.rim import Rim


def test_two_owners_of_a_path_are_named(rim: Rim) -> None:
    mine = next(row for row in rim.rows if row.path == "/api/admin/models/{model}/status")
    theirs = replace(mine, owner="hfdesk", path="/api/admin/models/{other}/status")
    with pytest.raises(RouteClash, match=r"GET /api/admin/models/\{other\}/status belongs to both swarmd and hfdesk"):
        complete(rim.rows, [theirs])
    assert complete(rim.rows, [replace(theirs, method="PUT")])[-1].owner == "hfdesk"
