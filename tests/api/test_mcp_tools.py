"""The tools' own descriptions; what calls of them do is in test_mcp."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest

from swarmd.api.mcp_tools import (
    ChatArguments,
    ChatOutcome,
    CompareArguments,
    Comparison,
    ModelsOutcome,
    NoArguments,
    schema_of,
)
from swarmd.api.status import Status


@pytest.mark.parametrize(
    "shape", [ChatArguments, CompareArguments, NoArguments, ChatOutcome, Comparison, ModelsOutcome, Status]
)
def test_schemas_stand_alone(shape: type[msgspec.Struct]) -> None:
    found = schema_of(shape)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["type"] == "object"
    defined = {f"#/$defs/{name}" for name in found.get("$defs", {})}
    text = msgspec.json.encode(found).decode()
    assert text.count('"$ref"') == sum(text.count(f'"$ref":"{place}"') for place in defined)


def test_they_say_what_the_reader_enforces() -> None:
    validator = jsonschema.Draft202012Validator(schema_of(CompareArguments))
    for arguments, fine in (
        ({"prompt": "x", "models": ["a"]}, True),
        ({"prompt": "x", "models": []}, False),
        ({"prompt": "x", "models": ["a"] * 11}, False),
        ({"prompt": "x", "models": ["a"], "colour": 1}, False),
        ({"models": ["a"]}, False),
    ):
        assert validator.is_valid(arguments) == fine
        if fine:
            msgspec.convert(arguments, CompareArguments)
            continue
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(arguments, CompareArguments)
