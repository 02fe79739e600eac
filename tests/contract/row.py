"""One row of the contract: what a method and a path of the seed answer, to whom, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.contract.shape import Shape
from tests.fakes.rim import Rim


class Access(Enum):
    """Who gets an answer."""

    OPEN = "everybody"
    READ = "free on loopback, the key from elsewhere; a setting opens it to everybody"  # most reads of the seed
    LOCAL_READ = "free on loopback, the key from elsewhere, whatever is set"
    KEY = "the key"
    LOCAL_KEY = "the key, on loopback"
    PAGE = "the dashboard's own page, with its Origin"  # see tests/api/test_pages.py

    @property
    def answers(self) -> tuple[bool, bool, bool, bool]:
        """On loopback without the key and with it, elsewhere without it and with it."""
        match self:
            case Access.OPEN:
                return (True, True, True, True)
            case Access.READ | Access.LOCAL_READ:
                return (True, True, False, True)
            case Access.KEY:
                return (False, True, False, True)
            case Access.LOCAL_KEY:
                return (False, True, False, False)
            case Access.PAGE:
                return (False, False, False, False)


OPEN, READ, LOCAL_READ, KEY, LOCAL_KEY, PAGE = Access

ENVELOPE: Shape = {"error": {"message": "str", "type": "str", "param": "str|null", "code": "str"}}
"""Of the admin API and the OpenAI dialect."""

Arrange = Callable[[Rim], object]


def nothing(_rim: Rim) -> None:
    """The fakes are right as they are."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that must not work, and how it is said."""

    status: int
    when: str
    """In words; the test's name."""
    param: str | None = None
    """The field that is named."""
    code: str | None = None
    arrange: Arrange = nothing
    """What the fakes below say."""
    path: str | None = None
    """The filled path where the row's own would work; with `?` and what follows."""
    body: Any = None
    """JSON; None: the row's own."""


@dataclass(frozen=True, kw_only=True)
class Row:
    method: str
    path: str
    """Parameters in braces, named as the seed names them."""
    access: Access
    reply: Shape | None
    """Of the JSON body; None: it is not JSON."""
    status: int = 200
    media: str = "application/json"
    body: Any = None
    """JSON that is accepted; None: the row takes no body."""
    filled: str | None = None
    """The path that is asked for, with its query; None: `{id}` is the model tiny-q8, `{index}` 0."""
    arrange: Arrange = nothing
    more: Sequence[tuple[str, Arrange, str | None]] = field(default_factory=tuple)
    """Other replies that have to have the shape: (when, what the fakes say, the filled path or None)."""
    refused: Sequence[Refused] = field(default_factory=tuple)
    envelope: Shape = field(default_factory=lambda: ENVELOPE)
    """Of refusals; a dialect may have its own, in which `param` and `code` are not looked for."""
    live: bool = False
    """Asked of a live node as well, with the built-in model: reads, and writes that may be repeated."""
    live_body: Any = None
    """None: `body`."""
    live_filled: str | None = None

    @property
    def place(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def takes_model(self) -> bool:
        return self.path.startswith(("/api/admin/models/{id}", "/api/admin/hf/source/{id}", "/api/admin/downloads/{id}"))

    def at(self, *, model: str = "tiny-q8", index: str = "0") -> str:
        return self.path.replace("{id}", model).replace("{index}", index)

    @property
    def url(self) -> str:
        return self.filled or self.at()
