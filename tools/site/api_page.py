"""The page of the HTTP API, made of the table of routes when the site is built: it cannot be older than the program."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from swarmd import __version__
from swarmd.api.openapi import document
from swarmd.api.routes import table

PAGE = "api-reference.md"

SUBJECTS = (
    ("/v1", "For clients of models"),
    ("/api/admin/hf", "The hub and downloads"),
    ("/api/admin/downloads", "The hub and downloads"),
    ("/api/admin/models", "Models and shards"),
    ("/api/admin/shard-storage", "Models and shards"),
    ("/api/admin/rescan-shards", "Models and shards"),
    ("/api/admin/prune-history", "Models and shards"),
    ("/api/admin/auto-manage", "Models and shards"),
    ("/api/admin/adapters", "Adapters"),
    ("/api/admin/peers", "The network"),
    ("/api/admin/links", "The network"),
    ("/api/admin/network", "The network"),
    ("/api/admin/invites", "The network"),
    ("/api/admin/join", "The network"),
    ("/api/admin/members", "The network"),
    ("/api/admin/providers", "Providers"),
    ("/api/admin/credits", "Credits"),
    ("/api/admin/responses", "Responses"),
    ("/api/admin/update", "Updates"),
    ("/api/admin", "The node"),
    ("", "Pages, health and figures"),
)
"""By how a path begins, the first that fits; in the order of the page."""

HEAD = """\
# HTTP API

Everything that a node of version {version} answers, made from its table of routes. The node shows the same on its own page
`/api/docs`, and for programs under `/api/openapi.json`. What the OpenAI endpoints honour field by field is in
[OpenAI API](api.md).

The key goes into `Authorization: Bearer KEY` or `x-api-key: KEY`; it is in the file `api_key` of the data folder. Errors
have one shape unless an operation says another: [ErrorReply](#errorreply), with a sentence in `message` and a `code` for
programs.
"""


class _Anything:
    """In place of handlers: the table is only read."""

    def __getattr__(self, name: str) -> Any:
        async def unanswered(_call: Any) -> None:
            raise AssertionError(f"{name} is not meant to be called")

        return unanswered


def described() -> dict[str, Any]:
    """The OpenAPI document of a node that has everything."""
    wanted = {name: _Anything() for name in inspect.signature(table).parameters}
    return document(table(**wanted), version=__version__)  # type: ignore[arg-type]


def api_page() -> str:
    found = described()
    operations: dict[str, list[str]] = {subject: [] for _, subject in SUBJECTS}
    for path, methods in found["paths"].items():
        subject = next(subject for start, subject in SUBJECTS if path.startswith(start))
        operations[subject] += [operation(method, path, told) for method, told in methods.items()]
    parts = [HEAD.format(version=found["info"]["version"])]
    for subject, told in operations.items():
        if told:
            parts += [f"## {subject}\n", *told]
    parts.append("## Shapes\n")
    parts += [shape(name, schema) for name, schema in sorted(found["components"]["schemas"].items())]
    return "\n".join(parts)


def operation(method: str, path: str, told: Mapping[str, Any]) -> str:
    lines = [f"### {method.upper()} {path}", "", text(told["summary"]), "", f"*{text(told['description'])}*", ""]
    for one in told["parameters"]:
        needed = "" if one["required"] else ", optional"
        what = f": {text(one['description'])}" if one.get("description") else ""
        lines.append(f"- `{one['name']}` in the {one['in']}, {kind(one['schema'])}{needed}{what}")
    if body := told.get("requestBody"):
        lines.append(f"- body: {contents(body['content'])}")
    for status, response in told["responses"].items():
        content = contents(response.get("content", {}))
        given = content and status < "4"  # refusals all have one shape; "default" is what a provider refused with
        lines.append(f"- {status} {response['description']}{f': {content}' if given else ''}")
    return "\n".join([*lines, ""])


def contents(content: Mapping[str, Any]) -> str:
    """`ModelRow`, or of several media types each."""
    parts: list[str] = []
    for media, told in content.items():
        schema = told.get("x-events") or told.get("schema") or {}
        what = kind(schema) if schema else "bytes"
        parts.append(what if media == "application/json" else f"{what} as `{media}`")
    return ", or ".join(parts)


def shape(name: str, schema: Mapping[str, Any]) -> str:
    lines = [f"### {name}", ""]
    if schema.get("description"):
        lines += [text(schema["description"]), ""]
    if "properties" not in schema:
        return "\n".join([*lines, kind(schema), ""])
    lines += ["| Field | Type | |", "|---|---|---|"]
    required = schema.get("required", ())
    for field, told in schema["properties"].items():
        lines.append(f"| `{field}` | {cell(kind(told))} | {'' if field in required else 'optional'} |")
    return "\n".join([*lines, ""])


def kind(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in words, with links to shapes."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{anchor(name)})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(kind(one) for one in schema[word]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    told = schema.get("type")
    if isinstance(told, list):
        return " or ".join(told)
    if told == "array":
        if "prefixItems" in schema:
            return f"list of {', '.join(kind(one) for one in schema['prefixItems'])}"
        return f"list of {kind(schema['items'])}" if schema.get("items") else "list"
    if told == "object":
        inner = schema.get("additionalProperties")
        return f"object of {kind(inner)}" if isinstance(inner, dict) and inner else "object"
    limits = "".join(limits_of(schema))
    return f"{told or 'anything'}{limits}"


def limits_of(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": " from {}", "maximum": " to {}", "exclusiveMinimum": " over {}", "exclusiveMaximum": " under {}"}
    for name, words_of in words.items():
        if name in schema:
            yield words_of.format(schema[name])
    if "maxLength" in schema:
        yield f" of at most {schema['maxLength']} characters"


def anchor(heading: str) -> str:
    """As Python-Markdown makes it of a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def text(words: str) -> str:
    """One line; names in angle brackets are no HTML."""
    return " ".join(words.split()).replace("<", "&lt;")


def cell(words: str) -> str:
    return words.replace("|", "\\|")
