"""JSON knows numbers, not integers: clients that compute with floats write 2 as 2.0, and mean an integer."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

Wanted = TypeVar("Wanted")


def decoded(data: bytes, wanted: type[Wanted]) -> Wanted:
    """Raises msgspec.MsgspecError, UnicodeDecodeError, RecursionError."""
    try:
        return msgspec.json.decode(data, type=wanted)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
        return msgspec.convert(whole_numbers(msgspec.json.decode(data)), wanted)


def converted(value: Any, wanted: type[Wanted]) -> Wanted:
    """The same for JSON that was decoded already. Raises msgspec.ValidationError, RecursionError."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
        return msgspec.convert(whole_numbers(value), wanted)


def whole_numbers(value: Any) -> Any:
    """The same with 2 for 2.0."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [whole_numbers(one) for one in cast("list[Any]", value)]
        case dict():
            return {key: whole_numbers(one) for key, one in cast("dict[str, Any]", value).items()}
        case _:
            return value
