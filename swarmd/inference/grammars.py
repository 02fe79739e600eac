"""From a grammar of the domain to text for llguidance, the constraint engine inside the wheel. Pure.

Schemas are strangers' programs: size, depth and repetition are bounded here, before native code sees them; what a schema
says and the engine cannot honour, it refuses by the keyword's name. JSON comes out as Python's `json.dumps` prints it, one
blank behind each comma and colon: unbounded blanks would let a model that has lost its way write nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, cast

from swarmd.domain.structure import CallForm, CallRule, Grammar

SCHEMA_BYTES: Final = 64 * 1024  # of all schemas of one request; published tool sets have some 20 KiB
RULES_LIMIT: Final = 128  # tools of one request; the contract's own limit
SCHEMA_DEPTH: Final = 64  # the engine's own reader ends at 127
SCHEMA_NODES: Final = 8192  # objects, lists and values; each costs the engine some microseconds
COUNT_LIMIT: Final = 10_000
"""Of items, characters or properties that a schema may count to: each one is a rule in memory."""
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COUNTS = frozenset(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"))
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def fault(grammar: Grammar) -> str | None:
    """What is wrong with it before it is compiled; None: nothing that can be seen here."""
    if len(grammar.calls) > RULES_LIMIT:
        return f"{len(grammar.calls)} tools, at most {RULES_LIMIT} are taken"
    if len({rule.name for rule in grammar.calls}) < len(grammar.calls):
        return "two tools have one name"
    schemas = [rule.schema for rule in grammar.calls] + ([] if grammar.schema is None else [grammar.schema])
    if not schemas:
        return "it allows nothing"
    size = sum(len(schema.encode(errors="replace")) for schema in schemas)
    if size > SCHEMA_BYTES:
        return f"its schemas have {size} bytes, at most {SCHEMA_BYTES} are taken"
    for rule in grammar.calls:
        if NAME.fullmatch(rule.name) is None:
            return f"{rule.name[:64]!r} is no name of a tool: letters, digits, _ and -, at most 64"
    return next((found for found in map(schema_fault, schemas) if found is not None), None)


def schema_fault(text: str) -> str | None:
    """Whether the text is a JSON schema within our bounds."""
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "a schema is no JSON"
    if not isinstance(schema, dict):
        return "a schema is no object"
    nodes = 0
    level: list[Any] = [schema]
    for _ in range(SCHEMA_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                found = cast("dict[str, Any]", one)
                for key in _COUNTS & found.keys():
                    count = found[key]
                    if isinstance(count, int | float) and count > COUNT_LIMIT:
                        return f"{key} is {_shown(count)}, at most {COUNT_LIMIT} is taken"
                below += found.values()
            elif isinstance(one, list):
                below += cast("list[Any]", one)
        nodes += len(level)
        if nodes > SCHEMA_NODES:
            return f"a schema has more than {SCHEMA_NODES} parts"
        level = below
    return f"a schema is nested more than {SCHEMA_DEPTH} deep" if level else None


def _shown(count: float) -> str:
    # An integer of JSON has up to 4,300 digits, a float below 309: the longer ones cannot be formatted as one.
    return f"{count:.12g}" if count < 1e300 else "1e+300 or more"


def grammar_text(grammar: Grammar, token: Callable[[str], int | None]) -> str:
    """In llguidance's dialect of Lark. `token`: the id of a control token by its text, None where it is plain text."""

    def mark(text: str) -> str:
        number = token(text)
        return json.dumps(text) if number is None else f"<[{number}]>"

    # The grammar says which texts are right; how they are cut into tokens is the model's choice.
    lines = ['%llguidance {"no_forcing": true}']
    wanted: list[str] = []
    if grammar.schema is not None:
        wanted.append("content")
        lines.append(f"content: {_json(grammar.schema)}")
    if grammar.calls:
        wanted.append("calls")
        lines += [f"call_{number}: {_call(rule, grammar.form, mark)}" for number, rule in enumerate(grammar.calls)]
        lines.append("call: " + " | ".join(f"call_{number}" for number in range(len(grammar.calls))))
        lines += _calls(grammar, mark)
    if grammar.free:
        return "\n".join([*lines, *_free(grammar, mark)]) + "\n"
    return "\n".join([*lines, "start: " + " | ".join(wanted)]) + "\n"


def _call(rule: CallRule, form: CallForm, mark: Callable[[str], str]) -> str:
    if form is CallForm.MISTRAL_ARGS:
        return f"{mark('[TOOL_CALLS]')} {json.dumps(rule.name)} {mark('[ARGS]')} {_json(rule.schema)}"
    key = "parameters" if form is CallForm.LLAMA else "arguments"
    opening = f'{{"name": "{rule.name}", "{key}": '
    return f'{json.dumps(opening)} {_json(rule.schema)} "}}"'


def _calls(grammar: Grammar, mark: Callable[[str], str]) -> list[str]:
    more = grammar.many
    match grammar.form:
        case CallForm.HERMES:
            one = r'"<tool_call>\n" call "\n</tool_call>"'
            return [f"wrapped: {one}", r'calls: wrapped ("\n" wrapped)*' if more else "calls: wrapped"]
        case CallForm.LLAMA:
            return ["calls: call"]  # these models were trained to make one at a time
        case CallForm.MISTRAL:
            return [f'calls: {mark("[TOOL_CALLS]")} "[" call ' + ('(", " call)* ' if more else "") + '"]"']
        case CallForm.MISTRAL_ARGS:
            return ["calls: call+" if more else "calls: call"]


def _free(grammar: Grammar, mark: Callable[[str], str]) -> list[str]:
    text = r"TEXT: /(.|\n)*/"
    times = "*" if grammar.many else "?"
    match grammar.form:
        case CallForm.HERMES:
            opened = r'opened[lazy]: TEXT "<tool_call>"'
            return [text, opened, rf'start: (opened "\n" call "\n</tool_call>"){times} rest', "rest: TEXT"]
        case CallForm.LLAMA:
            return [r"TEXT: /([^{\s](.|\n)*)?/", "start: calls | TEXT"]
        case CallForm.MISTRAL | CallForm.MISTRAL_ARGS:
            if mark("[TOOL_CALLS]").startswith("<"):
                return [text, "start: TEXT calls?"]
            return [r"TEXT: /([^\[\s](.|\n)*)?/", "start: calls | TEXT"]


def _json(schema: str) -> str:
    """The schema as a part of a grammar, with our style in place of one that it may ask for."""
    found: dict[str, Any] = json.loads(schema)
    return "%json " + json.dumps(found | {"x-guidance": _STYLE})
