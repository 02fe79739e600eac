"""The table of routes as an OpenAPI 3.1 document, and that document as a page. Pure.

The page is plain HTML without scripts: it works where the internet does not.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec

from swarmd.api.guard import Guard
from swarmd.api.replies import ErrorReply
from swarmd.api.route import Route

PHRASES: Final = {529: "Overloaded"}  # of the Anthropic contract, no IANA list has it
REFERENCE: Final = "#/components/schemas/{name}"

GUARDS: Final[Mapping[Guard, str]] = {
    Guard.OPEN: "Open to everybody.",
    Guard.READ: "Free on the node's own machine if `api.trust_loopback`; the key from elsewhere unless `api.open_reads`.",
    Guard.LOCAL_READ: "Free on the node's own machine if `api.trust_loopback`; the key from elsewhere.",
    Guard.SOCKET: "As the reads; a one-time ticket does as well.",
    Guard.WRITE: "Needs the key.",
    Guard.LOCAL_WRITE: "Needs the key, and works on the node's own machine only.",
    Guard.PAGE: "For the dashboard's own page on the node's own machine.",
}
KEYLESS: Final = (Guard.OPEN, Guard.PAGE)
FREE_LOCALLY: Final = (Guard.READ, Guard.LOCAL_READ, Guard.SOCKET)

JSON: Final = "application/json"
SSE: Final = "text/event-stream"
BODILESS: Final = (101, 204, 304)


def document(rows: Sequence[Route], *, version: str) -> dict[str, Any]:
    """Every row, nothing else. Statuses are all that a row may answer with, those of its guard and of its body included."""
    shown = _Shapes(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.plain_path, {})[row.method.lower()] = _operation(row, shown)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "swarmd",
            "version": version,
            "description": "Errors outside streams have one shape unless an operation says another: ErrorReply. "
            "Guards are in `x-guard` of each operation. Bodies are JSON, at most 32 MiB.",
        },
        "paths": paths,
        "components": {
            "schemas": shown.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


class _Shapes:
    """JSON Schemas of all types of a table, with one set of components."""

    def __init__(self, rows: Sequence[Route]) -> None:
        types: list[Any] = [ErrorReply]
        for row in rows:
            wanted = [row.request, row.reply, row.streams, row.errors.shapes, *row.bodies.values(), *row.parameters.values()]
            types += [one for some in wanted for one in several(some)]
            types += [query.type for query in row.queries]
        schemas, self.components = msgspec.json.schema_components(types, ref_template=REFERENCE)
        self._found = dict(zip(map(repr, types), schemas, strict=True))  # not every type has a hash: a Meta may hold a dict

    def of(self, wanted: Any) -> dict[str, Any]:
        found = [self._found[repr(one)] for one in several(wanted)]
        return found[0] if len(found) == 1 else {"anyOf": found}


def several(wanted: Any) -> tuple[Any, ...]:
    """A row's type, or its tuple of types, as a tuple."""
    if wanted is None:
        return ()
    return cast("tuple[Any, ...]", wanted) if isinstance(wanted, tuple) else (wanted,)


def _operation(row: Route, shown: _Shapes) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": shown.of(wanted)}
        for name, wanted in row.parameters.items()
    ]
    for query in row.queries:
        described = {"description": query.doc} if query.doc else {}
        schema = shown.of(query.type)
        parameters.append({"name": query.name, "in": "query", "required": query.required, "schema": schema, **described})
    security: list[dict[str, list[str]]] = [] if row.guard in KEYLESS else [{"bearer": []}, {"apiKey": []}]
    if row.guard in FREE_LOCALLY:
        security.append({})  # OpenAPI's way to say: or nothing at all
    operation: dict[str, Any] = {
        "summary": row.doc,
        "operationId": operation_id(row),
        "tags": [row.owner],
        "x-guard": row.guard.value,
        "description": GUARDS[row.guard],
        "parameters": parameters,
        "security": security,
        "responses": _responses(row, shown),
    }
    if row.request is not None:
        schema = row.request_schema or shown.of(row.request)
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return operation


def _responses(row: Route, shown: _Shapes) -> dict[str, Any]:
    responses = {str(status): _response(row, status, shown) for status in row.statuses}
    if row.elsewhere is not None:
        content = {JSON: {"schema": shown.of(row.errors.shapes)}}
        responses["default"] = {"description": "What a provider refused with, its own status kept", "content": content}
    return responses


def _response(row: Route, status: int, shown: _Shapes) -> dict[str, Any]:
    response: dict[str, Any] = {"description": PHRASES.get(status) or HTTPStatus(status).phrase}
    if status >= 400:
        response["content"] = {JSON: {"schema": shown.of(row.bodies.get(status, row.errors.shapes))}}
    elif status not in BODILESS:
        content: dict[str, Any] = {}
        if row.reply is not None:
            content[row.media] = {"schema": shown.of(row.reply)}
        elif row.media.startswith("text/"):
            content[row.media] = {"schema": {"type": "string"}}
        elif row.media != JSON:
            content[row.media] = {}
        if row.streams is not None:
            # OpenAPI 3.1 has no word for the events of a stream: each `data:` is JSON of this shape.
            content[SSE] = {"schema": {"type": "string"}, "x-events": shown.of(row.streams)}
        if content:
            response["content"] = content
    return response


def operation_id(row: Route) -> str:
    """`get_api_admin_models_model_status`: unique, because method and path are."""
    return re.sub(r"\W+", "_", f"{row.method.lower()}{row.plain_path}").strip("_") or row.method.lower()


STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: 1rem 0 }
h2 { font: 600 1rem/1.4 ui-monospace, monospace; margin: 0; overflow-wrap: anywhere }
p { margin: .3rem 0 }
pre { overflow-x: auto; font-size: .8rem; padding: .7rem; background: color-mix(in srgb, currentColor 7%, transparent) }
small { opacity: .75 }
"""
STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
"""For the Content-Security-Policy of this one page, which carries its style inside."""


DOCS_POLICY: Final = (
    f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(described: Mapping[str, Any]) -> str:
    """The document for people, one section per operation, schemas at the end."""
    sections = [
        _section(method, path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [
        f'<section id="{html.escape(name)}"><h2>{html.escape(name)}</h2><pre>{_pretty(schema)}</pre></section>'
        for name, schema in sorted(described["components"]["schemas"].items())
    ]
    title = html.escape(f"{described['info']['title']} {described['info']['version']}: HTTP API")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{title}</h1><p>The same for programs: <a href="/api/openapi.json">/api/openapi.json</a>. '
        f"The key goes into <code>Authorization: Bearer KEY</code> or <code>x-api-key: KEY</code>.</p>"
        f"{''.join(sections)}<h1>Shapes</h1>{''.join(schemas)}</body></html>"
    )


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(operation['summary'])}</p>"]
    parts.append(f"<p><small>{html.escape(operation['description'])}</small></p>")
    if body := operation.get("requestBody"):
        parts.append(f"<p>Body: {_link(body['content']['application/json']['schema'])}</p>")
    statuses = ", ".join(f"{status} {html.escape(one['description'])}" for status, one in operation["responses"].items())
    content = operation["responses"].get("200", {}).get("content", {})
    reply = f"{_link(content['application/json']['schema'])}; " if "application/json" in content else ""
    parts.append(f"<p>Reply: {reply}<small>{statuses}</small></p>")
    return f"<section>{''.join(parts)}</section>"


def _link(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if schema.get("type") == "array" and "$ref" in schema.get("items", {}):
        return f"list of {_link(schema['items'])}"
    if "anyOf" in schema:
        return " or ".join(_link(one) for one in schema["anyOf"])
    return f"<code>{html.escape(str(schema.get('type', 'JSON')))}</code>"


def _pretty(schema: Any) -> str:
    return html.escape(msgspec.json.format(msgspec.json.encode(schema), indent=2).decode())
