"""Chat templates of models: Jinja2 in its sandbox, over messages we made ourselves.

A template comes out of a GGUF, so it is a stranger's program. The sandbox keeps it from Python; its time is bounded by
where it runs: in the worker process, which is killed when it hangs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import jinja2
import jinja2.sandbox

TEMPLATE_LIMIT = 1024 * 1024  # characters; the longest published templates are below 20,000
RENDERED_LIMIT = 8 * 1024 * 1024  # characters: the API takes 4 MB of prompt, templates add a little around each message


class TemplateFailure(Exception):
    """The template is broken, or refuses these messages; the text says which, in the template's own words."""


def render(template: str, messages: Sequence[tuple[str, str]], *, bos: str, eos: str, now: datetime) -> str:
    """The prompt text for (role, content) pairs, up to where the assistant begins. Raises TemplateFailure."""
    if len(template) > TEMPLATE_LIMIT:
        raise TemplateFailure(f"the template has {len(template)} characters, above {TEMPLATE_LIMIT}")
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What the writers of chat templates rely on beyond Jinja2 itself.
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise  # pyright: ignore[reportArgumentType]
    environment.globals["strftime_now"] = now.strftime  # pyright: ignore[reportArgumentType]
    try:
        stream = environment.from_string(template).generate(
            messages=[{"role": role, "content": content} for role, content in messages],
            add_generation_prompt=True, bos_token=bos, eos_token=eos, tools=None,
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


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
