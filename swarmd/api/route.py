"""One row of the table of routes, and what makes a table of rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarmd.api.calls import Elsewhere, Handler
from swarmd.api.guard import Guard

OWNER = "swarmd"
OPEN, READ, LOCAL_READ = Guard.OPEN, Guard.READ, Guard.LOCAL_READ
WRITE, LOCAL_WRITE = Guard.WRITE, Guard.LOCAL_WRITE


class RouteClash(Exception):
    """Two rows answer the same requests; the sentence names both owners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row."""

    method: str
    path: str
    """Parameters in braces. `{model}` and `{index}` are checked before the handler; `{rest:.*}` takes slashes as well."""
    guard: Guard
    handler: Handler
    doc: str
    """One sentence for the reference."""
    request: type | None = None
    """What the JSON body is decoded into; None: the body is not read."""
    reply: Any = None
    """Type of the JSON body of a successful reply, or a tuple of types where it may be one of several; None: not JSON."""
    media: str = "application/json"
    status: tuple[int, ...] = (200,)
    """Statuses that say something about this row: those of the guard and of unreadable bodies go without saying."""
    query: tuple[str, ...] = ()
    hang_up_cancels: bool = False
    """A client that goes away cancels the handler. Else a handler that changes something runs to its end unheard."""
    elsewhere: Elsewhere | None = None
    """Asked before the body is decoded: a provider's requests are passed on as they came."""
    owner: str = OWNER

    @property
    def plain_path(self) -> str:
        """Without regular expressions, as OpenAPI writes it."""
        return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", self.path)


def complete(rows: Sequence[Route], extra: Sequence[Route] = ()) -> tuple[Route, ...]:
    """All rows in one table. Raises RouteClash where two rows of `rows` and `extra` answer the same requests."""
    owners: dict[tuple[str, str], str] = {}
    for row in (*rows, *extra):
        # Names of parameters do not tell paths apart.
        place = (row.method, re.sub(r"\{[^}]*\}", "{}", row.plain_path))
        if place in owners:
            raise RouteClash(f"{row.method} {row.path} belongs to both {owners[place]} and {row.owner}")
        owners[place] = row.owner
    return (*rows, *extra)
