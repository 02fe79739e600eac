"""Chat templates of models: Jinja2 in its sandbox, over messages we made ourselves.

A template comes out of a GGUF, so it is a stranger's program. The sandbox keeps it from Python, and from operators that make
something huge at one blow. Time and memory in all are bounded by where it runs: in the worker process, which limits its
memory meanwhile and is killed when it hangs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Sized
from datetime import datetime

import jinja2
import jinja2.runtime
import jinja2.sandbox

from swarmd.inference.worker_frames import TEMPLATE_LIMIT, Said

RENDERED_LIMIT = 8 * 1024 * 1024  # characters: the API takes 4 MB of prompt, templates add a little around each message
NUMBER_BITS = 4096  # templates count messages; beyond some 14,000 bits Python itself refuses to print a number
_WIDE = re.compile(r"%[-+ #0]*(\*|\d{5,}|\d*\.(\*|\d{5,}))")  # a `%` format that asks for 10,000 places, or lets a value ask


class TemplateFailure(Exception):
    """The template is broken, or refuses these messages; the text says which, in the template's own words."""


def render(
    template: str, messages: Sequence[Said], tools: Sequence[tuple[str, str, str]] = (), *, bos: str, eos: str, now: datetime
) -> str:
    """The prompt text for messages, up to where the assistant begins. Raises TemplateFailure.

    `tools`: name, description and parameters, a JSON schema as JSON text.

    Most templates want the arguments of a call as an object, some as the text it was: what fails with one gets the other.
    """
    try:
        return _render(template, messages, tools, as_text=False, bos=bos, eos=eos, now=now)
    except TemplateFailure:
        if not any(message.calls for message in messages):
            raise
        try:
            return _render(template, messages, tools, as_text=True, bos=bos, eos=eos, now=now)
        except TemplateFailure:
            pass  # the first complaint is the one to tell
        raise


def _render(
    template: str, messages: Sequence[Said], tools: Sequence[tuple[str, str, str]], *, as_text: bool, bos: str, eos: str,
    now: datetime,
) -> str:  # fmt: skip
    if len(template) > TEMPLATE_LIMIT:
        raise TemplateFailure(f"the template has {len(template)} characters, above {TEMPLATE_LIMIT}")
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What the writers of chat templates rely on beyond Jinja2 itself.
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise  # pyright: ignore[reportArgumentType]
    environment.globals["strftime_now"] = now.strftime  # pyright: ignore[reportArgumentType]
    try:
        stream = environment.from_string(template).generate(
            messages=[_message(one, as_text) for one in messages],
            add_generation_prompt=True, bos_token=bos, eos_token=eos, tools=[_tool(*one) for one in tools] or None,
        )  # fmt: skip
        parts: list[str] = []
        size = 0
        for part in stream:
            size += len(part)
            if size > RENDERED_LIMIT:
                raise TemplateFailure(f"the prompt grew above {RENDERED_LIMIT} characters")
            parts.append(part)
        text = "".join(parts)
        text.encode()  # lone surrogates end here, not in the tokenizer
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailure(f"line {error.lineno}: {error.message}") from error
    except jinja2.TemplateError as error:
        raise TemplateFailure(str(error) or type(error).__name__) from error
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        # What Python expressions inside a template can raise; a programming error of the template, not of ours.
        raise TemplateFailure(f"{type(error).__name__}: {error}") from error
    return text


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Looks at the operands of what can make something huge; jinja2 does not compute these while it compiles, either."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: object, right: object) -> object:
        if _grows_beyond(operator, left, right):
            raise TemplateFailure(f"its operator {operator} makes something too large")
        return super().call_binop(context, operator, left, right)


def _grows_beyond(operator: str, left: object, right: object) -> bool:
    match operator, left, right:
        case "**", int(), int():
            return left.bit_length() * max(right, 0) > NUMBER_BITS
        case "*", int(), int():
            return left.bit_length() + right.bit_length() > NUMBER_BITS
        case ("*", int() as times, Sized() as repeated) | ("*", Sized() as repeated, int() as times):
            return len(repeated) * times > RENDERED_LIMIT
        case "+", Sized(), Sized():
            return len(left) + len(right) > RENDERED_LIMIT
        case "%", str(), _:
            return _WIDE.search(left) is not None
        case _:
            return False


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _message(said: Said, as_text: bool) -> dict[str, object]:
    """Keys that a message has not are left out: templates ask whether they are there."""
    message: dict[str, object] = {"role": said.role, "content": said.content}
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call,
                "type": "function",
                "function": {"name": name, "arguments": arguments if as_text else _arguments(arguments)},
            }
            for call, name, arguments in said.calls
        ]
    if said.call_id is not None:
        message["tool_call_id"] = said.call_id
    if said.name is not None:
        message["name"] = said.name
    return message


def _arguments(text: str) -> object:
    """An object; the text itself where it is none, as a model may have written it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tool(name: str, description: str, parameters: str) -> dict[str, object]:
    shape = {"name": name, "description": description, "parameters": json.loads(parameters)}
    return {"type": "function", "function": shape}
