"""One row of the table of routes, and what makes a table of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from msgspec import Meta

from swarmd.api.calls import Elsewhere, Handler
from swarmd.api.guard import Guard
from swarmd.api.replies import OUR_ENVELOPE, Envelope
from swarmd.domain.ids import MODEL_ID_MAX

OWNER = "swarmd"
OPEN, READ, LOCAL_READ = Guard.OPEN, Guard.READ, Guard.LOCAL_READ
WRITE, LOCAL_WRITE = Guard.WRITE, Guard.LOCAL_WRITE

INDEX_MAX: Final = 0xFFFF_FFFE  # contract: swarmllm.md 2.0; 0xFFFFFFFF stands for the vision encoder elsewhere

ModelIdText = Annotated[
    str,  # as `parse_model_id` has it: dots never side by side
    Meta(min_length=1, max_length=MODEL_ID_MAX, pattern=r"^[a-z0-9][a-z0-9\-]*(\.[a-z0-9\-]+)*\.?$"),
]
ShardIndexText = Annotated[int, Meta(ge=0, le=INDEX_MAX)]
NodeIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
SomeId = Annotated[str, Meta(min_length=1)]

EVERYWHERE: Final[Mapping[str, Any]] = {"model": ModelIdText, "index": ShardIndexText}
"""Path parameters that mean the same on every path; `server` checks them before the handler."""

DOOR_STATUSES: Final[Mapping[Guard, tuple[int, ...]]] = {
    Guard.OPEN: (429,),
    Guard.READ: (401, 403, 429),
    Guard.LOCAL_READ: (401, 403, 429),
    Guard.SOCKET: (401, 403, 429),
    Guard.WRITE: (401, 403, 429),
    Guard.LOCAL_WRITE: (401, 403, 429),
    Guard.PAGE: (403, 429),
}
"""What a guard answers by itself: no key, a foreign page or a strange Host, too many requests."""
BODY_STATUSES: Final = (400, 413, 415)
"""A body that does not fit, is too large, or is no JSON by its own account."""


class RouteClash(Exception):
    """Two rows answer the same requests; the sentence names both owners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query parameter, for the reference. The handler reads it, and refuses what does not fit by name."""

    name: str
    type: Any = str
    """With its limits: `Annotated[int, Meta(ge=1, le=500)]`."""
    required: bool = False
    doc: str = ""


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
    reads_body: bool = False
    """The handler reads and decodes the body itself; `request` describes it."""
    request_schema: Mapping[str, Any] | None = None
    """JSON Schema of the body where the type does not say it all; None: that of the type."""
    reply: Any = None
    """Type of the JSON body of a successful reply, or a tuple of types where it may be one of several; None: not JSON."""
    streams: Any = None
    """Type of the events' data, or a tuple of types, where a successful reply may also come as server-sent events."""
    bodies: Mapping[int, Any] = field(default_factory=dict[int, Any])
    """Types of bodies with a status from 400 on that are no errors."""
    media: str = "application/json"
    status: tuple[int, ...] = (200,)
    """Statuses that say something about this row: those of the guard and of unreadable bodies go without saying."""
    query: tuple[str | Query, ...] = ()
    """A bare name is a text."""
    path_types: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Types of path parameters other than `{model}` and `{index}`; not given: a text."""
    hang_up_cancels: bool = False
    """A client that goes away cancels the handler. Else a handler that changes something runs to its end unheard."""
    elsewhere: Elsewhere | None = None
    """Asked before the body is decoded: a provider's requests are passed on as they came."""
    owner: str = OWNER
    errors: Envelope = OUR_ENVELOPE
    """What a refusal looks like; also on paths below this one that no row has."""

    @property
    def plain_path(self) -> str:
        """Without regular expressions, as OpenAPI writes it."""
        return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", self.path)

    @property
    def parameters(self) -> dict[str, Any]:
        """Types of the path parameters by name, in their order."""
        names: list[str] = re.findall(r"\{(\w+)\}", self.plain_path)
        return {name: EVERYWHERE.get(name) or self.path_types.get(name, SomeId) for name in names}

    @property
    def queries(self) -> tuple[Query, ...]:
        return tuple(Query(name=one) if isinstance(one, str) else one for one in self.query)

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status that this row may answer with, in order."""
        found = {*self.status, *DOOR_STATUSES[self.guard]}
        if self.request is not None:
            found |= set(BODY_STATUSES)
        parameters = self.parameters
        if parameters:
            found.add(404)  # a value with a slash in it is another path
        if EVERYWHERE.keys() & parameters:
            found.add(400)
        return tuple(sorted(found))


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
