"""What several dialects share on the way to the one inner request; the rest is tested with each dialect."""

from __future__ import annotations

import pytest

from swarmd.api.bounds import PROMPT_LIMIT_BYTES
from swarmd.api.inner_requests import first_given, no_choice, schema_of, tool_use, tools_of
from swarmd.api.openai_shapes import FunctionIn
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolUse

ADD = FunctionIn(name="add")


def test_places_are_named_as_the_dialect_names_them() -> None:
    for path in (".name", ".function.name"):
        refusal = tools_of([("function", ADD), ("function", ADD)], name_path=path)
        assert isinstance(refusal, Invalid) and refusal.param == f"tools[1]{path}"
    refusal = schema_of("json_schema", None, field="text.format", place="a schema")
    assert refusal == Invalid(what="text.format of type json_schema needs a schema", param="text.format")


def test_tools_are_bounded_and_of_type_function() -> None:
    assert tools_of([("function", ADD)], name_path="") == (Tool(name="add"),)
    refusal = tools_of([("web_search", None)], name_path="")
    assert isinstance(refusal, Invalid) and "'web_search'" in refusal.what and refusal.param == "tools[0]"
    long = FunctionIn(name="long", description="x" * PROMPT_LIMIT_BYTES)
    refusal = tools_of([("function", long)], name_path="")
    assert isinstance(refusal, Invalid) and refusal.param == "tools"


@pytest.mark.parametrize(("choice", "use"), [(None, ToolUse.AUTO), ("auto", ToolUse.AUTO), ("none", ToolUse.NONE),
                                             ("required", ToolUse.REQUIRED)])  # fmt: skip
def test_the_use_of_tools(choice: str | None, use: ToolUse) -> None:
    assert tool_use(choice, (Tool(name="add"),)) == (use, None)


def test_no_such_use() -> None:
    tools = (Tool(name="add"),)
    assert tool_use(None, tools, named="add") == (ToolUse.REQUIRED, "add")
    assert isinstance(tool_use(None, tools, named="sub"), Invalid)
    assert isinstance(tool_use("required", ()), Invalid)
    assert tool_use("maybe", tools) == no_choice("maybe")


def test_the_first_field_that_asks_for_something_is_refused() -> None:
    assert first_given([("a", False, ""), ("b", True, "because"), ("c", True, "")]) == Invalid(
        what="b cannot be honoured, because: leave it out", param="b"
    )
    assert first_given([("a", False, "")]) is None
