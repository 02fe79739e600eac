"""From a body of `POST /v1/responses` to items, and from a conversation of items to the one inner request. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec

from swarmd.api.bounds import clamped, size_of, too_long
from swarmd.api.inner_requests import (
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    first_given,
    no_choice,
    sampling,
    schema_of,
    stop_texts,
    tool_use,
    tools_of,
    unsupported,
)
from swarmd.api.openai_shapes import FunctionIn
from swarmd.api.responses_shapes import (
    CallItem,
    CallOutputItem,
    InputFile,
    InputText,
    Item,
    ItemIn,
    MessageItem,
    OutputRefusal,
    OutputText,
    Part,
    PartIn,
    ResponseOut,
    ResponsesRequest,
    ResponseToolChoiceIn,
)
from swarmd.domain.generation import ChatMessage, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.refusals import Invalid, PromptTooLong
from swarmd.domain.structure import Tool, ToolCall, ToolUse

FILE_LIMIT_BYTES: Final = 20 * 1024 * 1024  # contract: swarmllm.md 3.3
METADATA_LIMIT_BYTES: Final = 64 * 1024  # contract: swarmllm.md 3.3
EXTRAS_LIMIT: Final = 32  # contract: swarmllm.md 3.3, as the next
EXTRA_LIMIT_BYTES: Final = 4096
CALL_ID_LENGTH: Final = 256  # as in chat
REPLY_SHARE: Final = 0.125  # of the context that is left for the reply where a conversation is shortened
CALL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # the OpenAI contract's own rule

ID: Final = re.compile(r"resp_[0-9a-f]{32}")  # contract: swarmllm.md 3.3
ITEM_ID: Final = re.compile(r"(?:msg|fc|fco)_([0-9a-f]{32})_[io][0-9]{1,4}")
ROLES: Final = ("user", "assistant", "system", "developer")
LOGPROBS: Final = "message.output_text.logprobs"

INCLUDABLE: Final = frozenset({
    LOGPROBS,
    # What these add to is never part of a reply here, so leaving them out is what was asked for.
    "code_interpreter_call.outputs", "computer_call_output.output.image_url", "file_search_call.results",
    "message.input_image.image_url", "reasoning.encrypted_content", "web_search_call.action.sources",
    "web_search_call.results",
})  # fmt: skip

CHAT_ONLY: Final[Mapping[str, str]] = {
    "messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens",
    "functions": "tools", "function_call": "tool_choice", "logprobs": f"include: [{LOGPROBS!r}]",
    "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
}  # fmt: skip
"""Fields of chat that would change the reply, and what they are called here."""
ELSEWHERE: Final = frozenset({"audio", "modalities", "prediction", "web_search_options", "best_of", "suffix", "echo"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An item that is stored here already."""

    id: str

    @property
    def response(self) -> str | None:
        """Id of the response that it belongs to, as its own id tells."""
        found = ITEM_ID.fullmatch(self.id)
        return f"resp_{found[1]}" if found is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has been accepted, as far as it does not depend on what is stored."""

    body: ResponsesRequest
    items: tuple[Item | Reference, ...]
    """The request's own."""
    tools: tuple[Tool, ...]
    """That may be called."""
    use: ToolUse
    named: str | None
    """The one tool that must be called."""
    schema: str | None
    extras: Mapping[str, Any]
    """Fields that no contract names, as they are."""

    @property
    def top_logprobs(self) -> int | None:
        """None: none are wanted."""
        wanted = LOGPROBS in (self.body.include or ()) or bool(self.body.top_logprobs)
        return (self.body.top_logprobs or 0) if wanted else None


def item_id(kind: str, response: str, side: str, number: int) -> str:
    """`kind`: msg, fc or fco; `side`: i of the input, o of the output. It tells the response (`Reference.response`)."""
    return f"{kind}_{response.removeprefix('resp_')}_{side}{number}"


def asked_of(body: ResponsesRequest, extras: Mapping[str, msgspec.Raw], *, response: str) -> Asked | Invalid:
    """`extras`: fields of the body beside those of ResponsesRequest; `response`: the id it will have."""
    refusal = _unsupported(body) or unsupported(body, schema_field="text.format") or _bad_extras(extras)
    if refusal is not None:
        return refusal
    items = _items(body.input, response)
    if isinstance(items, Invalid):
        return items
    if not items and body.previous_response_id is None:
        return Invalid(what="input is missing: give a text, or a list of items", param="input")
    tools = _tools(body)
    if isinstance(tools, Invalid):
        return tools
    use = _tool_use(body.tool_choice, tools)
    if isinstance(use, Invalid):
        return use
    form = body.text.format if body.text is not None else None
    schema = None if form is None else schema_of(form.type, form.schema, field="text.format", place="a schema")
    if isinstance(schema, Invalid):
        return schema
    kept: dict[str, Any] = {}
    for name, value in extras.items():
        try:
            kept[name] = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            what = f"{name[:80]} is nested too deeply, or has a number that is too large, and no contract names it"
            return Invalid(what=what, param=name[:80])
    return Asked(body=body, items=items, tools=use[2], use=use[0], named=use[1], schema=schema, extras=kept)


def inner_request(
    asked: Asked, items: Sequence[Item], *, request: RequestId, model: ModelId, client: str, fresh_seed: int
) -> GenerationRequest | Invalid:
    """`items`: the whole conversation, references replaced; `fresh_seed`: used when the client gives none."""
    body = asked.body
    messages = _messages(items)
    if isinstance(messages, Invalid):
        return messages
    if body.instructions:
        messages.insert(0, ChatMessage(role="system", content=body.instructions))
    if (refusal := too_long(size_of(messages), "input")) is not None:
        return refusal
    return GenerationRequest(
        request=request,
        model=model,
        client=client,
        messages=tuple(messages),
        tools=asked.tools,
        tool_use=asked.use,
        tool_named=asked.named,
        several_calls=body.parallel_tool_calls is not False,
        schema=asked.schema,
        max_tokens=clamped(body.max_output_tokens, CHAT_MAX_TOKENS),
        stop=stop_texts(body),
        sampling=sampling(body, temperature=CHAT_TEMPERATURE, fresh_seed=fresh_seed, top_logprobs=asked.top_logprobs),
    )


def shortened(request: GenerationRequest, refusal: PromptTooLong) -> GenerationRequest | None:
    """Without as many of the oldest turns as it takes to fit, by its bytes; system messages stay. None: it is one turn."""
    begins = [at for at, message in enumerate(request.messages) if message.role == "user"][1:]
    room = refusal.context_tokens * (1 - REPLY_SHARE) / max(1, refusal.prompt_tokens)
    wanted_bytes = size_of(request.messages) * min(1.0, room)
    for begin in begins:
        kept = tuple(one for at, one in enumerate(request.messages) if at >= begin or one.role == "system")
        if size_of(kept) <= wanted_bytes or begin == begins[-1]:
            return replace(request, messages=kept)
    return None


# -- fields


def _unsupported(body: ResponsesRequest) -> Invalid | None:
    if body.max_tokens is not None:
        return Invalid(what="max_tokens is called max_output_tokens here", param="max_tokens")
    if body.background and body.store is False:
        what = "background needs store: what is made in the background is fetched from there"
        return Invalid(what=what, param="background")
    if body.metadata is not None and len(msgspec.json.encode(body.metadata)) > METADATA_LIMIT_BYTES:
        return Invalid(what=f"metadata has more than {METADATA_LIMIT_BYTES} bytes", param="metadata")
    for name in body.include or ():
        if name not in INCLUDABLE:
            return Invalid(what=f"include names {name[:80]!r}, which no reply has here", param="include")
    if body.truncation not in (None, "auto", "disabled"):
        return Invalid(what=f"truncation is auto or disabled, not {body.truncation[:40]!r}", param="truncation")
    text, reasoning = body.text, body.reasoning
    return first_given((
        ("n", body.n not in (None, 1), "a response is one reply"),
        ("conversation", body.conversation is not None, "conversations are continued by previous_response_id"),
        ("prompt", body.prompt is not None, "this node keeps no prompts"),
        ("context_management", bool(body.context_management), "a conversation is shortened by truncation: auto only"),
        ("moderation", body.moderation is not None, "nothing is moderated here"),
        ("background_options", bool(body.background_options), "what is in the background begins as soon as it can"),
        ("access_programs", body.access_programs is not None, "there are none here"),
        ("image", body.image is not None, "this node takes text only"),
        ("prompt_cache_options", body.prompt_cache_options is not None, "what a prompt left is kept as long as it fits"),
        ("text.verbosity", text is not None and text.verbosity not in (None, "medium"),
         "say in the prompt how long the reply should be"),
        ("service_tier", body.service_tier not in (None, "auto", "default"), "there is one tier here"),
        ("reasoning", reasoning is not None and reasoning != type(reasoning)(),
         "how long a model thinks is up to the model here"),
    ))  # fmt: skip


def _bad_extras(extras: Mapping[str, msgspec.Raw]) -> Invalid | None:
    if len(extras) > EXTRAS_LIMIT:
        return Invalid(what=f"the body has {len(extras)} fields that no contract names, at most {EXTRAS_LIMIT} are taken")
    for name, value in extras.items():
        shown = name[:80]
        if (here := CHAT_ONLY.get(name)) is not None:
            return Invalid(what=f"{shown} is a field of chat: here it is {here}", param=shown)
        if name in ELSEWHERE:
            return Invalid(what=f"{shown} cannot be honoured: leave it out", param=shown)
        if name in ResponseOut.__struct_fields__:
            return Invalid(what=f"{shown} is a field of replies: leave it out", param=shown)
        if len(name.encode()) + len(bytes(value)) > EXTRA_LIMIT_BYTES:
            return Invalid(what=f"{shown} has more than {EXTRA_LIMIT_BYTES} bytes, and no contract names it", param=shown)
    return None


def _tools(body: ResponsesRequest) -> tuple[Tool, ...] | Invalid:
    functions: list[tuple[str, FunctionIn | None]] = []
    for number, one in enumerate(body.tools or ()):
        if one.type == "function" and one.name is None:
            return Invalid(what="a function has a name", param=f"tools[{number}].name")
        functions.append((one.type, None if one.name is None else FunctionIn(
            name=one.name, description=one.description, parameters=one.parameters, strict=one.strict
        )))  # fmt: skip
    return tools_of(functions, name_path=".name")


def _tool_use(
    choice: str | ResponseToolChoiceIn | None, tools: tuple[Tool, ...]
) -> tuple[ToolUse, str | None, tuple[Tool, ...]] | Invalid:
    """And the one tool that must be called, and those that may be."""
    if isinstance(choice, ResponseToolChoiceIn):
        if choice.type == "allowed_tools":
            allowed = {one.name for one in choice.tools or () if one.type == "function"}
            strangers = [one for one in choice.tools or () if all(tool.name != one.name for tool in tools)]
            if strangers or not allowed:
                shown = (strangers[0].name or strangers[0].type)[:64] if strangers else "nothing"
                return Invalid(what=f"tool_choice allows {shown!r}, which is none of the tools", param="tool_choice")
            tools = tuple(tool for tool in tools if tool.name in allowed)
            use = tool_use(choice.mode, tools) if choice.mode in ("auto", "required") else no_choice(choice.mode or "")
        elif choice.type == "function" and choice.name is not None:
            use = tool_use(None, tools, named=choice.name)
        else:
            use = no_choice(choice.type)
    else:
        use = tool_use(choice, tools)
    return use if isinstance(use, Invalid) else (*use, tools)


# -- items


def _items(given: str | list[ItemIn] | None, response: str) -> tuple[Item | Reference, ...] | Invalid:
    if isinstance(given, str):
        given = [ItemIn(role="user", content=given)]
    items: list[Item | Reference] = []
    for number, one in enumerate(given or ()):
        item = _item(one, f"input[{number}]", response, number)
        if isinstance(item, Invalid):
            return item
        items.append(item)
    return tuple(items)


def _item(given: ItemIn, where: str, response: str, number: int) -> Item | Reference | Invalid:
    kind = given.type
    if kind is None:
        kind = "item_reference" if given.role is None and isinstance(given.id, str) else "message"
    match kind:
        case "message":
            return _message(given, where, item_id("msg", response, "i", number))
        case "function_call":
            call_id, arguments = _call_id(given, where), given.arguments
            if isinstance(call_id, Invalid):
                return call_id
            if not isinstance(given.name, str) or CALL_NAME.fullmatch(given.name) is None:
                return Invalid(what="a function_call has the name of a function", param=f"{where}.name")
            if not isinstance(arguments, str):
                return Invalid(what="the arguments of a function_call are JSON text", param=f"{where}.arguments")
            return CallItem(
                id=item_id("fc", response, "i", number), status="completed", call_id=call_id, name=given.name,
                arguments=arguments,
            )  # fmt: skip
        case "function_call_output":
            call_id = _call_id(given, where)
            if isinstance(call_id, Invalid):
                return call_id
            output = given.output if isinstance(given.output, str) else _parts(given.output, f"{where}.output", "user")
            if isinstance(output, Invalid):
                return output
            read = output if isinstance(output, str) else [one for one in output if isinstance(one, InputText | InputFile)]
            return CallOutputItem(
                id=item_id("fco", response, "i", number), status="completed", call_id=call_id, output=read
            )
        case "item_reference" if isinstance(given.id, str) and len(given.id) <= CALL_ID_LENGTH:
            return Reference(id=given.id)
        case _:
            what = (
                f"an item of type {kind[:40]!r} cannot be read: this node takes message, function_call, "
                "function_call_output and item_reference"
            )
            return Invalid(what=what, param=where)


def _call_id(given: ItemIn, where: str) -> str | Invalid:
    if isinstance(given.call_id, str) and 0 < len(given.call_id) <= CALL_ID_LENGTH:
        return given.call_id
    return Invalid(what=f"a {given.type} has a call_id of at most {CALL_ID_LENGTH} characters", param=f"{where}.call_id")


def _message(given: ItemIn, where: str, id: str) -> MessageItem | Invalid:
    role = given.role
    if role not in ROLES:
        what = f"the role of a message is one of {', '.join(ROLES)}, not {str(role)[:40]!r}"
        return Invalid(what=what, param=f"{where}.role")
    if isinstance(given.content, str):
        text = OutputText(text=given.content) if role == "assistant" else InputText(text=given.content)
        return MessageItem(id=id, status="completed", role=role, content=[text])
    parts = _parts(given.content, f"{where}.content", role)
    return parts if isinstance(parts, Invalid) else MessageItem(id=id, status="completed", role=role, content=parts)


def _parts(given: Any, where: str, role: str) -> list[Part] | Invalid:
    read = _converted(given, list[PartIn], where)
    if isinstance(read, Invalid):
        return read
    parts: list[Part] = []
    for number, one in enumerate(read):
        part = _part(one, f"{where}[{number}]", role)
        if isinstance(part, Invalid):
            return part
        parts.append(part)
    return parts


def _part(one: PartIn, where: str, role: str) -> Part | Invalid:
    match one.type:
        case "input_text" | "output_text" | "text" if one.text is not None:
            return OutputText(text=one.text) if role == "assistant" else InputText(text=one.text)
        case "refusal" if role == "assistant" and one.refusal is not None:
            return OutputRefusal(refusal=one.refusal)
        case "input_file" if one.file_data is not None and role != "assistant":
            file = InputFile(file_data=one.file_data, filename=one.filename)
            text = _file_text(file)
            return Invalid(what=text.what, param=where) if isinstance(text, Invalid) else file
        case "input_file":
            return Invalid(what="a file is read from file_data only: this node keeps and fetches no files", param=where)
        case _:
            what = f"a content part of type {one.type[:40]!r} cannot be read: this node takes text and files of text"
            return Invalid(what=what, param=where)


def _file_text(file: InputFile) -> str | Invalid:
    """Base64, with or without `data:...;base64,` in front of it."""
    head, comma, tail = file.file_data.partition(",")
    if comma and not (head.startswith("data:") and head.endswith(";base64")):
        return Invalid(what="file_data is base64, or a data URI of base64")
    text = tail if comma else head
    if len(text) > FILE_LIMIT_BYTES * 4 // 3 + 4:
        return Invalid(what=f"the file has more than {FILE_LIMIT_BYTES} bytes")
    try:
        found = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return Invalid(what="the file is not base64 of UTF-8 text, and this node reads nothing else")
    if "\0" in found:
        return Invalid(what="the file is not text, and this node reads nothing else")
    return found


def _converted(given: Any, wanted: type[T], where: str) -> T | Invalid:
    try:
        return msgspec.convert(given, wanted)
    except msgspec.ValidationError as error:
        return Invalid(what=f"{where} does not fit: {error}", param=where)


# -- from items to messages


def _messages(items: Sequence[Item]) -> list[ChatMessage] | Invalid:
    """Calls belong to the assistant's message before them, as the model wrote them."""
    messages: list[ChatMessage] = []
    names: dict[str, str] = {}
    for item in items:
        match item:
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append(ChatMessage(role=role, content="\n".join(map(_text, item.content))))
            case CallItem():
                names[item.call_id] = item.name
                call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments or "{}")
                last = messages[-1] if messages else None
                if last is not None and last.role == "assistant":
                    messages[-1] = replace(last, calls=(*last.calls, call))
                else:
                    messages.append(ChatMessage(role="assistant", content="", calls=(call,)))
            case CallOutputItem():
                if item.call_id not in names:
                    what = f"a function_call_output answers {item.call_id[:64]!r}, which no function_call before it has"
                    return Invalid(what=what, param="input")
                text = item.output if isinstance(item.output, str) else "\n".join(map(_text, item.output))
                messages.append(ChatMessage(role="tool", content=text, call_id=item.call_id, name=names[item.call_id]))
    if not messages:
        return Invalid(what="there is nothing to reply to: give input", param="input")
    return messages


def _text(part: Part) -> str:
    match part:
        case InputFile():
            text = _file_text(part)
            assert isinstance(text, str), "files were read when they were taken"
            return f"{part.filename}:\n{text}" if part.filename else text
        case OutputRefusal():
            return part.refusal
        case _:
            return part.text
