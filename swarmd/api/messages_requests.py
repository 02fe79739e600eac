"""From a body of the Anthropic Messages API to the one inner request. Pure.

What the contract has and this node has not is refused with a reason rather than ignored: a reply that silently is not what
was asked for is worse than none. What changes no reply, such as `cache_control`, is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from swarmd.api.bounds import clamped, size_of, too_long, tools_too_long
from swarmd.api.inner_requests import first_given
from swarmd.api.messages_shapes import BlockIn, Blocks, MessagesRequest, PromptIn, ToolIn, TurnIn
from swarmd.domain.generation import ChatMessage, GenerationRequest, Sampling
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid
from swarmd.domain.structure import Tool, ToolCall, ToolUse

TEMPERATURE: Final = 1.0  # the Anthropic contract's own default
THOUGHTS: Final = ("thinking", "redacted_thinking")
ERROR_MARK: Final = "Error: "
"""In front of the result of a tool that failed: chat templates have no other place for it."""


def messages_request(
    body: MessagesRequest, *, request: RequestId, model: ModelId, fresh_seed: int
) -> GenerationRequest | Invalid:
    """`fresh_seed`: this contract has no seed of a client's."""
    refusal = _unsupported(body)
    if refusal is not None:
        return refusal
    prompt = prompt_request(body, request=request, model=model)
    if isinstance(prompt, Invalid):
        return prompt
    off = Sampling()
    return replace(
        prompt,
        max_tokens=clamped(body.max_tokens, 1),
        stop=tuple(body.stop_sequences or ()),
        sampling=Sampling(
            temperature=TEMPERATURE if body.temperature is None else body.temperature,
            top_p=off.top_p if body.top_p is None else body.top_p,
            top_k=off.top_k if body.top_k is None else body.top_k,
            seed=fresh_seed,
        ),
    )


def prompt_request(body: PromptIn, *, request: RequestId, model: ModelId) -> GenerationRequest | Invalid:
    """What makes the prompt, and nothing of how the reply is sampled."""
    if (refusal := _unsupported_prompt(body)) is not None:
        return refusal
    messages = _messages(body)
    if isinstance(messages, Invalid):
        return messages
    if (refusal := too_long(size_of(messages), "messages")) is not None:
        return refusal
    tools = _tools(body.tools or ())
    if isinstance(tools, Invalid):
        return tools
    if (refusal := tools_too_long(tools, "tools")) is not None:
        return refusal
    use = _tool_use(body, tools)
    if isinstance(use, Invalid):
        return use
    schema = _schema(body)
    if isinstance(schema, Invalid):
        return schema
    return GenerationRequest(
        request=request,
        model=model,
        messages=messages,
        tools=tools,
        tool_use=use[0],
        tool_named=use[1],
        several_calls=body.tool_choice is None or not body.tool_choice.disable_parallel_tool_use,
        schema=schema,
    )


def _unsupported(body: MessagesRequest) -> Invalid | None:
    refused: tuple[tuple[str, bool, str], ...] = (
        ("container", body.container is not None, "this node runs no code of a model's"),
        ("inference_geo", body.inference_geo is not None, "which nodes take part is a matter of the network"),
        ("speed", body.speed not in (None, "standard"), "there is one speed here"),
    )
    return first_given(refused)


def _unsupported_prompt(body: PromptIn) -> Invalid | None:
    thinking = body.thinking is not None and body.thinking.type not in ("disabled", "adaptive")
    effort = None if body.output_config is None else body.output_config.effort
    refused: tuple[tuple[str, bool, str], ...] = (
        ("thinking", thinking, "how long a model thinks is up to the model here (disabled and adaptive are taken)"),
        ("output_config.effort", effort not in (None, "high"), "how long a model thinks is up to the model here"),
        ("mcp_servers", bool(body.mcp_servers), "this node calls no servers"),
        ("context_management", body.context_management is not None, "the whole conversation is read"),
    )
    found = first_given(refused)
    if found is None and body.messages[-1].role == "assistant":
        what = "the last message is the assistant's, and this node cannot continue it: end with one of the user's"
        return Invalid(what=what, param=f"messages[{len(body.messages) - 1}]")
    return found


def _messages(body: PromptIn) -> tuple[ChatMessage, ...] | Invalid:
    found: list[ChatMessage] = []
    if body.system:
        system = body.system if isinstance(body.system, str) else _texts(body.system, "system")
        if isinstance(system, Invalid):
            return system
        found.append(ChatMessage(role="system", content=system))
    called: set[str] = set()
    for number, turn in enumerate(body.messages):
        said = _turn(turn, f"messages[{number}]", called)
        if isinstance(said, Invalid):
            return said
        for one in said:
            _append(found, one)
    return tuple(found)


def _append(found: list[ChatMessage], message: ChatMessage) -> None:
    """Turns of one side in a row are one turn, as the contract has it: templates insist that they alternate."""
    last = found[-1] if found else None
    if last is None or last.role != message.role or message.role not in ("user", "assistant"):
        found.append(message)
        return
    content = "\n".join(text for text in (last.content, message.content) if text)
    found[-1] = replace(last, content=content, calls=last.calls + message.calls)


def _turn(turn: TurnIn, where: str, called: set[str]) -> list[ChatMessage] | Invalid:
    """`called`: ids of the calls so far."""
    if isinstance(turn.content, str):
        return [ChatMessage(role=turn.role, content=turn.content)]
    said: list[ChatMessage] = []
    for number, block in enumerate(turn.content):
        one = _block(block, turn.role, f"{where}.content[{number}]", called)
        if isinstance(one, Invalid):
            return one
        if one is not None:
            _append(said, one)
    return said


def _block(block: BlockIn, role: str, where: str, called: set[str]) -> ChatMessage | Invalid | None:
    match block.type, role:
        case "text", _:
            if block.text is None:
                return Invalid(what="a block of type text has a text", param=where)
            return ChatMessage(role=role, content=block.text)
        case ("thinking" | "redacted_thinking"), "assistant":
            return None  # other models' thoughts, which templates leave out of a history, too
        case "tool_use", "assistant":
            if block.id is None or block.name is None or block.input is None:
                return Invalid(what="a block of type tool_use has an id, a name and an input", param=where)
            called.add(block.id)
            call = ToolCall(id=block.id, name=block.name, arguments=json.dumps(block.input, ensure_ascii=False))
            return ChatMessage(role=role, content="", calls=(call,))
        case "tool_result", "user":
            return _result(block, where, called)
        case ("tool_use" | "tool_result" | "thinking" | "redacted_thinking"), _:
            return Invalid(what=f"a block of type {block.type} cannot be the {role}'s", param=where)
        case _:
            return _unreadable(block, where)


def _result(block: BlockIn, where: str, called: set[str]) -> ChatMessage | Invalid:
    if block.tool_use_id is None or block.tool_use_id not in called:
        shown = (block.tool_use_id or "")[:80]
        what = f"a tool_result answers a tool_use before it by its id, and there is none with id {shown!r}"
        return Invalid(what=what, param=f"{where}.tool_use_id")
    try:
        given: str | list[BlockIn] = [] if block.content is None else msgspec.convert(block.content, str | Blocks)
    except msgspec.ValidationError as error:
        return Invalid(what=f"the content of a tool_result is a text or blocks: {error}", param=f"{where}.content")
    content = given if isinstance(given, str) else _texts(given, f"{where}.content")
    if isinstance(content, Invalid):
        return content
    return ChatMessage(
        role="tool", content=f"{ERROR_MARK}{content}" if block.is_error else content, call_id=block.tool_use_id
    )


def _texts(blocks: Sequence[BlockIn], where: str) -> str | Invalid:
    for number, block in enumerate(blocks):
        if block.type != "text" or block.text is None:
            return _unreadable(block, f"{where}[{number}]")
    return "\n".join(block.text or "" for block in blocks)


def _unreadable(block: BlockIn, where: str) -> Invalid:
    return Invalid(what=f"a block of type {block.type[:40]!r} cannot be read: this node takes text only", param=where)


def _tools(given: Sequence[ToolIn]) -> tuple[Tool, ...] | Invalid:
    tools: dict[str, Tool] = {}
    for number, one in enumerate(given):
        if one.type not in (None, "custom"):
            what = f"a tool of type {one.type[:40]!r} runs at its maker's: tools here are of type custom, run by the client"
            return Invalid(what=what, param=f"tools[{number}].type")
        if one.input_schema is None:
            return Invalid(what=f"tool {one.name} has no input_schema", param=f"tools[{number}].input_schema")
        if one.name in tools:
            return Invalid(what=f"two tools are named {one.name}", param=f"tools[{number}].name")
        tools[one.name] = Tool(
            name=one.name,
            description=one.description or "",
            parameters=json.dumps(one.input_schema),
            strict=bool(one.strict),
        )
    return tuple(tools.values())


def _tool_use(body: PromptIn, tools: Sequence[Tool]) -> tuple[ToolUse, str | None] | Invalid:
    """And the one tool that must be called."""
    choice = body.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return (ToolUse.NONE if choice is not None and choice.type == "none" else ToolUse.AUTO), None
    if choice.type == "any":
        if not tools:
            return Invalid(what="tool_choice is any and there are no tools", param="tool_choice")
        return ToolUse.REQUIRED, None
    if all(tool.name != choice.name for tool in tools):
        what = f"tool_choice names {(choice.name or '')[:128]!r}, which is none of the tools"
        return Invalid(what=what, param="tool_choice.name")
    return ToolUse.REQUIRED, choice.name


def _schema(body: PromptIn) -> str | Invalid | None:
    """JSON schema, as JSON text."""
    inside = None if body.output_config is None else body.output_config.format
    form, where = (inside, "output_config.format") if inside is not None else (body.output_format, "output_format")
    if form is None:
        return None
    if form.type != "json_schema" or form.schema is None:
        what = f"{where} is of type json_schema with a schema, not {form.type[:40]!r} alone"
        return Invalid(what=what, param=where)
    schema: dict[str, Any] = form.schema
    return json.dumps(schema)
