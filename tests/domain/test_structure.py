"""Tools and grammars as values."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from swarmd.domain.structure import CallForm, CallPiece, Grammar, Tool


def test_a_tool_takes_any_object_unless_it_says_more() -> None:
    assert json.loads(Tool(name="now").parameters) == {"type": "object"}


def test_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Grammar(schema="{}").schema = None  # type: ignore[misc]


def test_a_piece_that_goes_on_names_nobody() -> None:
    piece = CallPiece(index=1, arguments="}")
    assert piece.id is None and piece.name is None


def test_forms_travel_by_their_names() -> None:
    assert {form.value for form in CallForm} == {"hermes", "llama", "mistral", "mistral_args"}
