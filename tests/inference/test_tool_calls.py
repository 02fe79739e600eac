"""Calls in what a model says: however the text is cut, and whatever is wrong with it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.structure import CallForm, CallPiece
from swarmd.inference.tool_calls import ToolCallParser, form_of

Calls = list[tuple[str, str]]


def parse(form: CallForm, *pieces: str, several: bool = True) -> tuple[str, Calls]:
    """Content, and names with arguments, put together as clients do."""
    parser = ToolCallParser(form=form, names=["get", "now"], make_id=lambda index: f"id{index}", several=several)
    text = ""
    calls: list[list[str]] = []
    found: list[CallPiece] = []
    for piece in pieces:
        content, more = parser.feed(piece)
        text += content
        found += more
    content, more = parser.finish()
    text += content
    for one in [*found, *more]:
        if one.id is not None:
            assert (one.index, one.id) == (len(calls), f"id{len(calls)}") and one.name is not None
            calls.append([one.name, ""])
        assert one.index == len(calls) - 1
        calls[one.index][1] += one.arguments
    return text, [(name, arguments) for name, arguments in calls]


ONE = '{"name": "get", "arguments": {"city": "Pa}r\\"is", "n": [1, {"a": null}]}}'
ARGUMENTS = '{"city": "Pa}r\\"is", "n": [1, {"a": null}]}'
GOOD: list[tuple[CallForm, str, str, Calls]] = [
    (CallForm.HERMES, f"<tool_call>\n{ONE}\n</tool_call>", "", [("get", ARGUMENTS)]),
    (CallForm.HERMES, f"Let me see.\n\n<tool_call>{ONE}</tool_call>", "Let me see.", [("get", ARGUMENTS)]),
    (
        CallForm.HERMES,
        f'<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{{"arguments": {{}}, "name": "now"}}\n</tool_call>\nDone.',
        "\nDone.",
        [("get", ARGUMENTS), ("now", "{}")],
    ),
    (CallForm.HERMES, '<tool_call>{"name": "now"}</tool_call>', "", [("now", "{}")]),
    (CallForm.HERMES, '<tool_call>{"name": "now", "arguments": null, "x": 1e5}</tool_call>', "", [("now", "{}")]),
    (CallForm.HERMES, '<tool_call>{"name": "get", "arguments": "{\\"a\\": 1}"}', "", [("get", '{"a": 1}')]),
    (CallForm.HERMES, 'a < b and <tool> and "x"', 'a < b and <tool> and "x"', []),
    (CallForm.HERMES, "ends with <tool_", "ends with <tool_", []),
    (CallForm.HERMES, '{"name": "get", "arguments": {}}', '{"name": "get", "arguments": {}}', []),
    (CallForm.LLAMA, ONE.replace("arguments", "parameters"), "", [("get", ARGUMENTS)]),
    (CallForm.LLAMA, f"  <|python_tag|>{ONE}", "", [("get", ARGUMENTS)]),
    (CallForm.LLAMA, f"{ONE}; {ONE}", "", [("get", ARGUMENTS), ("get", ARGUMENTS)]),
    (CallForm.LLAMA, '{"type": "function", "name": "now", "parameters": {}}', "", [("now", "{}")]),
    (CallForm.LLAMA, '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
    (CallForm.LLAMA, '{"name": "now"}', '{"name": "now"}', []),
    (CallForm.LLAMA, f"Hi {ONE}", f"Hi {ONE}", []),
    (CallForm.MISTRAL, f"[TOOL_CALLS][{ONE}, {ONE}]", "", [("get", ARGUMENTS), ("get", ARGUMENTS)]),
    (CallForm.MISTRAL, f"[TOOL_CALLS] {ONE}", "", [("get", ARGUMENTS)]),
    (CallForm.MISTRAL_ARGS, f"ok[TOOL_CALLS]get[ARGS]{ARGUMENTS}", "ok", [("get", ARGUMENTS)]),
    (
        CallForm.MISTRAL_ARGS,
        f"[TOOL_CALLS]get[CALL_ID]abc123DEF[ARGS]{ARGUMENTS}[TOOL_CALLS]now{{}}",
        "",
        [("get", ARGUMENTS), ("now", "{}")],
    ),
    (CallForm.MISTRAL_ARGS, f"[TOOL_CALLS][{ONE}]", "", [("get", ARGUMENTS)]),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), GOOD)
def test_what_models_write(form: CallForm, text: str, content: str, calls: Calls) -> None:
    assert parse(form, text) == (content, calls)
    assert parse(form, *text) == (content, calls), "character by character"


BAD = [
    (CallForm.HERMES, "<tool_call>\nnot json\n</tool_call>"),
    (CallForm.HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"name": "get", "arguments": [1]}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"name": "get", "arguments": "no object"}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"name": "get", "name": "now"}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"arguments": {"a": 1}}</tool_call>'),
    (CallForm.HERMES, '<tool_call>{"arguments": {"a": 1'),
    (CallForm.LLAMA, '{"a": 1, "b": [true, false]} and more'),
    (CallForm.LLAMA, "<|python_tag|>print(1)"),
    (CallForm.MISTRAL, "[TOOL_CALLS]"),
    (CallForm.MISTRAL, "[TOOL_CALLS][]"),
    (CallForm.MISTRAL_ARGS, "[TOOL_CALLS]unknown[ARGS]{}"),
    (CallForm.MISTRAL_ARGS, "[TOOL_CALLS]what is this\n{}"),
]


@pytest.mark.parametrize(("form", "text"), BAD)
def test_what_is_no_call_is_content_word_for_word(form: CallForm, text: str) -> None:
    assert parse(form, text) == (text, [])
    assert parse(form, *text) == (text, [])


def test_a_call_that_goes_wrong_ends_where_it_stands_and_nothing_is_lost() -> None:
    content, calls = parse(CallForm.HERMES, '<tool_call>{"name": "get", "arguments": {"a": oops}}</tool_call>')
    assert calls == [("get", '{"a": oops')]
    assert content == "}}</tool_call>"


def test_a_reply_that_is_cut_keeps_what_it_has_of_a_call() -> None:
    assert parse(CallForm.HERMES, '<tool_call>{"name": "get", "arguments": {"a": "lon') == ("", [("get", '{"a": "lon')])


def test_arguments_that_no_reply_can_carry_are_no_call() -> None:
    for half in ("\\\\ud800", "\\ud800"):  # within the text that the arguments are
        text = '<tool_call>{"name": "get", "arguments": "{\\"a\\": \\"' + half + '\\"}"}</tool_call>'
        content, calls = parse(CallForm.HERMES, text)
        (content + "".join(arguments for _, arguments in calls)).encode()
    assert (content, calls) == (text, [])


def test_arguments_are_streamed() -> None:
    parser = ToolCallParser(form=CallForm.HERMES, names=["get"], make_id=str)
    assert parser.feed('<tool_call>{"name": "get", "argu') == ("", ())
    assert parser.feed('ments": {"ci') == ("", (CallPiece(index=0, id="0", name="get", arguments='{"ci'),))
    assert parser.feed('ty": 1') == ("", (CallPiece(index=0, arguments='ty": 1'),))
    assert parser.feed("}}") == ("", (CallPiece(index=0, arguments="}"),))


def test_one_call_is_enough_where_only_one_is_wanted() -> None:
    text = f"<tool_call>{ONE}</tool_call><tool_call>{ONE}</tool_call>"
    assert parse(CallForm.HERMES, text, several=False) == ("", [("get", ARGUMENTS)])


@given(st.sampled_from([(form, text) for form, text, *_ in GOOD] + BAD), st.lists(st.integers(0, 300), max_size=12))
def test_any_cut_of_a_text_gives_the_same(case: tuple[CallForm, str], cuts: list[int]) -> None:
    form, text = case
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(bounds)]
    assert parse(form, *pieces) == parse(form, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), min_size=1, max_size=3)


@given(OBJECTS, st.sampled_from(CallForm), st.booleans())
def test_whatever_the_arguments_they_come_out_as_they_went_in(
    arguments: list[dict[str, Any]], form: CallForm, ascii_only: bool
) -> None:
    texts = [json.dumps(one, ensure_ascii=ascii_only) for one in arguments]
    objects = [f'{{"name": "get", "arguments": {text}}}' for text in texts]
    said = {
        CallForm.HERMES: "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects),
        CallForm.LLAMA: "; ".join(objects),
        CallForm.MISTRAL: f"[TOOL_CALLS][{', '.join(objects)}]",
        CallForm.MISTRAL_ARGS: "".join(f"[TOOL_CALLS]get[ARGS]{text}" for text in texts),
    }[form]
    assert parse(form, said) == ("", [("get", text) for text in texts])


@given(st.sampled_from(CallForm), st.text(alphabet='<>tool_cal/[]{}":,TOL_CS \n\\1ngea;|pyh', max_size=80))
def test_noise_without_a_call_is_content(form: CallForm, text: str) -> None:
    content, calls = parse(form, text)
    assert calls == [] and content == text


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{% if tools %}<tool_call>{% endif %}", CallForm.HERMES),
        ("{{ tools }}<|python_tag|>", CallForm.LLAMA),
        ('{{ tools }}<|start_header_id|> {"name": .., "parameters": ..}', CallForm.LLAMA),
        ("{{ tools }}[TOOL_CALLS]", CallForm.MISTRAL),
        ("{{ tools }}[TOOL_CALLS]x[ARGS]", CallForm.MISTRAL_ARGS),
        ("{{ tools }}<tool_call><function=x>", None),
        ("<tool_call>", None),
        ("{{ tools }}", None),
    ],
)
def test_forms_by_template(template: str, form: CallForm | None) -> None:
    assert form_of(template) is form
