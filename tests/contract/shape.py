"""A small language for the shape of a JSON value, written by hand from the contract, and what a value has wrong.

    "int"  "num"  "str"  "bool"  "null"  "any"   joined by "|" where it may be one of several
    "time"     a text as RFC 3339 has it, in UTC
    "node"     the 16 hex digits by which a node is named; "node64": its whole key
    "=ok"      exactly this text; several are joined as well: "=bronze|=silver"
    [shape]    a list of such values
    {...}      an object: "name" has to be there, "name?" may be, "*" is the shape of every other field
    (a, b)     one of these

A field that is not named is a fault: what we have beyond the contract is named in the rows, so that nothing appears unseen.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

Shape = str | list[Any] | dict[str, Any] | tuple[Any, ...]

HEX = re.compile(r"[0-9a-f]+")


def faults(shape: Shape, value: Any, place: str = "$") -> list[str]:
    """One sentence for each thing that is wrong; none: the value has the shape."""
    match shape:
        case str():
            fits = any(_fits(word, value) for word in shape.split("|"))
            return [] if fits else [f"{place} is {_shown(value)}, not {shape}"]
        case [inner]:
            if not isinstance(value, list):
                return [f"{place} is {_shown(value)}, not a list"]
            return [fault for index, one in enumerate(value) for fault in faults(inner, one, f"{place}[{index}]")]
        case dict():
            return _of_object(shape, value, place)
        case tuple():
            found = [faults(one, value, place) for one in shape]
            return [] if not all(found) else min(found, key=len)
    raise AssertionError(f"no shape: {shape!r}")


def _of_object(shape: dict[str, Any], value: Any, place: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{place} is {_shown(value)}, not an object"]
    found: list[str] = []
    for name, inner in shape.items():
        plain = name.removesuffix("?")
        if name == "*":
            continue
        if plain in value:
            found += faults(inner, value[plain], f"{place}.{plain}")
        elif name == plain:
            found.append(f"{place}.{name} is missing")
    known = {name.removesuffix("?") for name in shape}
    for name, one in value.items():
        if name not in known:
            found += faults(shape["*"], one, f"{place}.{name}") if "*" in shape else [f"{place}.{name} is in no contract"]
    return found


def _fits(word: str, value: Any) -> bool:
    if word.startswith("="):
        return value == word[1:]
    match word:
        case "any":
            return True
        case "null":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "num":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "time":
            return isinstance(value, str) and _is_time(value)
        case "node":
            return isinstance(value, str) and len(value) == 16 and bool(HEX.fullmatch(value))
        case "node64":
            return isinstance(value, str) and len(value) == 64 and bool(HEX.fullmatch(value))
        case _:
            raise AssertionError(f"no type: {word!r}")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
