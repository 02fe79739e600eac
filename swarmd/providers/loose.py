"""Values of JSON that may be anything, as what they should be, or as nothing. Pure."""

from __future__ import annotations

import json
from typing import Any, cast


def parsed(data: bytes) -> Any:
    """None: it is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def as_dict(given: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}


def as_list(given: Any) -> list[Any]:
    return cast("list[Any]", given) if isinstance(given, list) else []


def as_text(given: Any) -> str:
    return given if isinstance(given, str) else ""


def as_count(given: Any) -> int | None:
    """Neither the database nor a client's JSON takes more."""
    return given if type(given) is int and 0 <= given <= 2**53 else None
