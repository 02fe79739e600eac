"""Facts are documented, small and told apart by their kind."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Iterator

import pytest

from swarmd.domain import events
from swarmd.domain.events import FACTS, Fact
from tests.meta.sources import ROOT, tree

BYTES = (bytes, bytearray, memoryview)


def types_in(kind: object) -> Iterator[object]:
    """`kind`, its type arguments, and the fields of the dataclasses among them."""
    yield kind
    for argument in typing.get_args(kind):
        yield from types_in(argument)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        for hint in typing.get_type_hints(kind).values():
            yield from types_in(hint)


@pytest.mark.parametrize("fact", FACTS.values(), ids=FACTS.keys())
def test_a_fact_is_frozen_documented_and_holds_no_bytes(fact: type[Fact]) -> None:
    assert fact.__doc__ and not fact.__doc__.startswith(f"{fact.__name__}("), "what happened, in one sentence"
    assert dataclasses.is_dataclass(fact)
    assert fact.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not [kind for kind in types_in(fact) if kind in BYTES], "bytes travel in streams, not in facts"


def test_kinds_do_not_collide() -> None:
    module = tree(ROOT / "swarmd" / "domain" / "events.py")
    classes = [node.name for node in module.body if isinstance(node, ast.ClassDef) and node.name != "Fact"]
    assert len(classes) == len(FACTS)
    assert {FACTS[kind].__name__ for kind in FACTS} == set(classes)
    assert all(getattr(events, name).kind in FACTS for name in classes)
