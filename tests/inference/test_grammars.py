"""Schemas are bounded before native code sees them, and become what llguidance reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarmd.domain.structure import CallForm, CallRule, Grammar
from swarmd.inference.grammars import SCHEMA_BYTES, fault, grammar_text, schema_fault


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"minItems": 10**9}, "minItems is 1000000000, at most 10000"),
        ({"properties": {"a": {"anyOf": [{"maxLength": 20_000}]}}}, "maxLength is 20000"),
        ({"maxProperties": 1e30}, "maxProperties is 1e"),
        (nested(40), "nested more than 64 deep"),
        ({"enum": list(range(9000))}, "more than 8192 parts"),
    ],
)
def test_what_is_too_much_is_named(schema: dict[str, Any], words: str) -> None:
    assert words in str(schema_fault(json.dumps(schema)))


@pytest.mark.parametrize("digits", [300, 301, 308, 309, 310, 400, 4300])
def test_a_count_of_hundreds_of_digits_does_not_end_the_worker(digits: int) -> None:
    assert "maxItems is 1e+300" in str(schema_fault('{"maxItems": ' + "9" * digits + "}"))


def test_a_count_of_more_digits_than_python_reads_is_no_json() -> None:
    assert schema_fault('{"maxItems": ' + "9" * 4301 + "}") == "a schema is no JSON"


@pytest.mark.parametrize("text", ["", "[]", "{", "5", "[" * 100_000])
def test_what_is_no_schema(text: str) -> None:
    assert schema_fault(text) is not None


def test_usual_schemas_are_in_bounds() -> None:
    assert schema_fault(json.dumps(nested(20))) is None
    assert fault(Grammar(schema='{"type": "object"}')) is None


def test_grammars_of_strangers() -> None:
    rule = CallRule(name="f", schema="{}")
    assert fault(Grammar()) == "it allows nothing"
    assert "two tools" in str(fault(Grammar(calls=(rule, rule))))
    assert "no name of a tool" in str(fault(Grammar(calls=(CallRule(name='f"\nstart: "x', schema="{}"),))))
    assert "128" in str(fault(Grammar(calls=tuple(CallRule(name=f"f{at}", schema="{}") for at in range(129)))))
    assert str(SCHEMA_BYTES) in str(fault(Grammar(schema=json.dumps({"title": "x" * SCHEMA_BYTES}))))


def test_a_client_s_own_style_is_overruled() -> None:
    text = grammar_text(Grammar(schema='{"x-guidance": {"lenient": true}, "type": "object"}'), lambda _: None)
    assert "lenient" not in text and '"whitespace_flexible": false' in text


@pytest.mark.parametrize("form", CallForm)
@pytest.mark.parametrize("free", [False, True])
def test_control_tokens_are_named_by_number_where_there_are_such(form: CallForm, free: bool) -> None:
    grammar = Grammar(calls=(CallRule(name="f", schema="{}"),), form=form, free=free)
    numbered = grammar_text(grammar, {"[TOOL_CALLS]": 7, "[ARGS]": 8}.get)
    assert ("<[7]>" in numbered) == (form in (CallForm.MISTRAL, CallForm.MISTRAL_ARGS))
    assert "<[" not in grammar_text(grammar, lambda _: None)
