"""THE contract: every method and path of the seed, its order, and behind them what this node answers beyond it.

Written from the seed and the facts about the original, not from the code: `test_contract.py` compares it with the table of
routes, asks every row in both auth states from both sides, and provokes every refusal.

Adding an endpoint: a `Row` in the file of its subject (`node_rows`, `model_rows`, `hub_rows`, `cloud_rows` for the seed's,
`our_rows` and `responses_rows` for ours). Its reply in the language of `shape.py`, its `access`, a `body` that is
accepted, an `arrange` that makes the fakes of `tests/fakes/rim.py` answer, a `Refused` for each way to get a refusal of its
own. What goes without saying is provoked for every row: no key, bad ids and indices in the path, bodies that are no JSON or
too large. `live=True` asks a real node, too.
"""

from __future__ import annotations

import re

from tests.contract import cloud_rows, dialect_rows, hub_rows, model_rows, node_rows, our_rows, responses_rows
from tests.contract.row import Row

SEED: tuple[Row, ...] = (*node_rows.ROWS, *model_rows.ROWS, *hub_rows.ROWS, *cloud_rows.ROWS)
OURS: tuple[Row, ...] = (*our_rows.ROWS, *responses_rows.ROWS, *dialect_rows.ROWS)

NOT_YET: set[str] = set()
"""Rows of the seed that no route has yet. The list may only shrink: a test fails when one of them is there."""

THERE: tuple[Row, ...] = tuple(row for row in SEED + OURS if row.place not in NOT_YET)

WRITES_WITHOUT_KEY = {
    "POST /api/admin/session": "hands the key to the dashboard's own page, against its nonce",
    "POST /api/admin/provider-model-status": "the seed: Bearer auth not required",
}


def anonymous(place: str) -> str:
    """`GET /a/{id}` and `GET /a/{model}` are one place."""
    return re.sub(r"\{\w+\}", "{}", place)
