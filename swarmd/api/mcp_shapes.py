"""Messages of the Model Context Protocol, as far as this node speaks it. Names on the wire are in camel case."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

CallId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=256)]
"""Of a request, chosen by the client."""


class Incoming(Struct, frozen=True, kw_only=True):
    """Of whatever kind; `mcp_protocol` tells which."""

    jsonrpc: str
    id: CallId | UnsetType | None = UNSET
    method: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET
    result: Any = UNSET
    error: Any = UNSET


class RpcFault(Struct, frozen=True, kw_only=True):
    code: int
    message: str
    data: Any = UNSET


class RpcError(Struct, frozen=True, kw_only=True):
    jsonrpc: str = "2.0"
    id: CallId | None
    error: RpcFault


class RpcResult(Struct, frozen=True, kw_only=True):
    jsonrpc: str = "2.0"
    id: CallId
    result: Any


class RpcNotification(Struct, frozen=True, kw_only=True):
    jsonrpc: str = "2.0"
    method: str
    params: Any


class Progress(Struct, frozen=True, kw_only=True, rename="camel"):
    progress_token: CallId
    progress: int
    total: int
    message: str


class Initialize(Struct, frozen=True, kw_only=True, rename="camel"):
    protocol_version: Annotated[str, Meta(max_length=64)]


class Implementation(Struct, frozen=True, kw_only=True):
    name: str
    title: str
    version: str


class Nothing(Struct, frozen=True, kw_only=True):
    pass


class Capabilities(Struct, frozen=True, kw_only=True):
    tools: Nothing = field(default_factory=Nothing)
    resources: Nothing = field(default_factory=Nothing)


class Initialized(Struct, frozen=True, kw_only=True, rename="camel"):
    protocol_version: str
    capabilities: Capabilities
    server_info: Implementation
    instructions: str


class Hints(Struct, frozen=True, kw_only=True, rename="camel"):
    read_only_hint: bool = True
    open_world_hint: bool = False


class ToolCard(Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    annotations: Hints = field(default_factory=Hints)


class ToolCards(Struct, frozen=True, kw_only=True):
    tools: list[ToolCard]


class CallMeta(Struct, frozen=True, kw_only=True, rename="camel"):
    progress_token: CallId | None = None


class CallTool(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(max_length=256)]
    arguments: dict[str, Any] | None = None
    meta: CallMeta | None = field(default=None, name="_meta")


class TextContent(Struct, frozen=True, kw_only=True, tag="text"):
    text: str


class ToolResult(Struct, frozen=True, kw_only=True, rename="camel"):
    content: list[TextContent]
    structured_content: Any
    is_error: bool = False


class ResourceCard(Struct, frozen=True, kw_only=True, rename="camel"):
    uri: str
    name: str
    title: str
    description: str
    mime_type: str


class ResourceCards(Struct, frozen=True, kw_only=True):
    resources: list[ResourceCard]


class ResourceTemplates(Struct, frozen=True, kw_only=True, rename="camel"):
    resource_templates: list[Any] = field(default_factory=list[Any])


class ReadResource(Struct, frozen=True, kw_only=True):
    uri: Annotated[str, Meta(max_length=1024)]


class ResourceText(Struct, frozen=True, kw_only=True, rename="camel"):
    uri: str
    mime_type: str
    text: str


class ResourceContents(Struct, frozen=True, kw_only=True):
    contents: list[ResourceText]


class Cancelled(Struct, frozen=True, kw_only=True, rename="camel"):
    request_id: CallId
