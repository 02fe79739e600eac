"""Chat templates: what they may use, and what a broken or hostile one is answered."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from swarmd.inference import chat_template
from swarmd.inference.chat_template import TemplateFailure, render
from swarmd.inference.worker_frames import Said

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def rendered(template: str, *messages: tuple[str, str]) -> str:
    return render(template, [Said(*one) for one in messages or (("user", "hi"),)], bos="<s>", eos="</s>", now=NOW)


def test_a_usual_template():
    template = (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    found = rendered(template, ("system", " be kind "), ("user", "hi"))
    assert found == "<s><|system|>be kind</s><|user|>hi</s><|assistant|>"


def test_what_writers_of_templates_rely_on():
    assert rendered("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}") == ""
    assert rendered("{{ messages | tojson }}") == '[{"role": "user", "content": "hi"}]'
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "04 Mar 2026"


def test_a_template_that_refuses_says_so_in_its_own_words():
    with pytest.raises(TemplateFailure, match="roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a\n{% for %}", "line 2"),
        ("{{ messages[7].content }}", "undefined|no element"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 'a'.encode('zz') }}", "LookupError"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{{ cycler() }}", "RuntimeError"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError|Range too big"),
        ("{{ 'a' * 10000000000 }}", r"operator \* makes something too large"),
        ("{{ 10000000000 * ['a', 'b'] }}", r"operator \* makes something too large"),
        ("{{ 9 ** (9 ** 9) }}", r"operator \*\* makes something too large"),
        ("{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}", r"operator \*"),
        ("{% set ns = namespace(n='ab') %}{% for i in range(99) %}{% set ns.n = ns.n + ns.n %}{% endfor %}", r"operator \+"),
        ("{{ '%999999999d' % 1 }}", "operator % makes something too large"),
        ("{{ '%.*f' % (999999999, 1) }}", "operator % makes something too large"),
        ("{{ 2.0 ** 9999 }}", "OverflowError"),
    ],
)
def test_a_broken_or_hostile_template_is_a_clear_failure(template, words):
    with pytest.raises(TemplateFailure, match=words):
        rendered(template)


def test_usual_arithmetic_is_not_touched():
    assert rendered("{{ '-' * 3 }}{{ 2 * '=' }}{{ 2 ** 10 }}{{ 7 * 6 }}{{ 1.5 * 2 }}{{ 2 ** -1 }}") == "---==1024423.00.5"
    assert rendered("{{ ([1] + [2] * 2) | join }}{{ '**%s** %03d' % ('a', 7) }}") == "122**a** 007"
    assert rendered("{{ 'a' + 'b' }}{{ 7 % 4 }}{{ 'ab' * 0 }}{{ 'ab' * -1 }}") == "ab3"


def test_a_prompt_that_grows_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(chat_template, "RENDERED_LIMIT", 1000)
    with pytest.raises(TemplateFailure, match="above 1000"):
        rendered("{% for i in range(90000) %}xxxxxxxxxx{% endfor %}")


def test_a_template_beyond_its_limit_is_not_even_parsed(monkeypatch):
    monkeypatch.setattr(chat_template, "TEMPLATE_LIMIT", 10)
    with pytest.raises(TemplateFailure, match="above 10"):
        rendered("{{ messages }}")


HERMES = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }};{% endfor %}{% endif %}{% for m in messages %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{% set c = c.function %}<tool_call>"
    '{"name": "{{ c.name }}", "arguments": {{ c.arguments | tojson }}}</tool_call>{% endfor %}'
    "{% elif m.role == 'tool' %}[{{ m.tool_call_id }}={{ m.content }}]{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
LLAMA = (
    "{% for m in messages %}{% if 'tool_calls' in m %}{% if not m.tool_calls | length == 1 %}"
    "{{ raise_exception('one at a time') }}{% endif %}{% set c = m.tool_calls[0].function %}"
    "{% for key, value in c.arguments | items %}{{ key }}={{ value }},{% endfor %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls is not none %}[TOOL_CALLS]"
    "{{ m.tool_calls[0].function | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
JOINED = "{% for m in messages %}{% for c in m.tool_calls %}{{ '<' + c.function.arguments + '>' }}{% endfor %}{% endfor %}"
CALLED = Said("assistant", "", (("c1", "get", '{"city": "Zürich", "n": 2}'),))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (HERMES, '<tool_call>{"name": "get", "arguments": {"city": "Zürich", "n": 2}}</tool_call>'),
        (LLAMA, "city=Zürich,n=2,"),
        (MISTRAL, '[TOOL_CALLS]{"name": "get", "arguments": {"city": "Zürich", "n": 2}}'),
        (JOINED, '<{"city": "Zürich", "n": 2}>'),
    ],
)
def test_calls_in_a_conversation_as_each_family_of_templates_reads_them(template: str, text: str) -> None:
    assert render(template, [CALLED], bos="", eos="", now=NOW) == text


def test_tools_and_answers() -> None:
    messages = [Said("user", "hi"), Said("tool", "42", call_id="c1")]
    tools = [("get", "gets it", '{"type": "object", "properties": {"b": {}, "a": {}}}')]
    assert render(HERMES, messages, tools, bos="", eos="", now=NOW) == (
        '{"type": "function", "function": {"name": "get", "description": "gets it", "parameters": '
        '{"type": "object", "properties": {"b": {}, "a": {}}}}};hi[c1=42]'
    )
    assert rendered("{{ tools is none }}{{ messages[0].tool_calls is defined }}") == "TrueFalse"
    assert rendered("{{ messages[0] | tojson(indent=1, sort_keys=true) }}") == '{\n "content": "hi",\n "role": "user"\n}'


def test_arguments_that_a_model_got_wrong_are_shown_as_they_were() -> None:
    cut = Said("assistant", "", (("c1", "get", '{"city": "Zü'),))
    assert '"arguments": "{\\"city\\": \\"Zü"' in render(HERMES, [cut], bos="", eos="", now=NOW)


def test_the_first_complaint_is_the_one_that_is_told() -> None:
    with pytest.raises(TemplateFailure, match="one at a time"):
        render(LLAMA, [Said("assistant", "", CALLED.calls * 2)], bos="", eos="", now=NOW)
