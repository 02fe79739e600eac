"""What MCP clients may call: a chat, the same question to several models, which models there are, how the node is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from swarmd.api.answers import Answers
from swarmd.api.bounds import STOP_LENGTH, STOPS_LIMIT, clamped, size_of, too_long
from swarmd.api.inner_requests import CHAT_MAX_TOKENS, CHAT_TEMPERATURE
from swarmd.api.mcp_protocol import BUG, CALLERS_FAULT, CANNOT_NOW, Fault, fault_of
from swarmd.api.mcp_shapes import CallTool, TextContent, ToolCard, ToolCards, ToolResult
from swarmd.api.numbers import converted
from swarmd.api.openai import SEED_BYTES
from swarmd.api.openai_prints import Gathered
from swarmd.api.openai_shapes import ModelCard, ModelName, Seed, Share, Temperature
from swarmd.api.status import Status
from swarmd.api.targets import Target, Targets
from swarmd.domain.generation import ChatMessage, GenerationFailed, GenerationRequest, Sampling
from swarmd.domain.ids import RequestId, short
from swarmd.domain.refusals import Refusal
from swarmd.kit.world import Entropy

CALL_S: Final = 120.0  # contract: swarmllm.md 3.5
ITEM_S: Final = 115.0  # of each model of a comparison, so that what is done by then is told within CALL_S
COMPARED: Final = 10  # contract: swarmllm.md 3.5
AT_ONCE: Final = 3
"""Models of one comparison that run at a time: each may have to be loaded, and others want a place, too."""

Tell = Callable[[int, int, str], Awaitable[None]]
"""How far it is: done, of how many, in words. Cheap when nobody asked for it."""

Prompt = Annotated[str, Meta(min_length=1, description="What to ask.")]
System = Annotated[str, Meta(description="How the model should behave.")]
MaxTokens = Annotated[int, Meta(ge=1, description="Longest reply, in tokens.")]
Heat = Annotated[Temperature, Meta(description="0 is the likeliest reply, 2 the wildest.")]
Stops = Annotated[list[Annotated[str, Meta(min_length=1, max_length=STOP_LENGTH)]], Meta(max_length=STOPS_LIMIT)]

logger = logging.getLogger(__name__)


class Turn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: str


class Wishes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both tools that ask a model take."""

    prompt: Prompt
    system: System | None = None
    max_tokens: MaxTokens | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    seed: Annotated[Seed, Meta(description="The same seed gives the same reply.")] | None = None
    stop: Annotated[Stops, Meta(description="Texts that end the reply.")] | None = None


class ChatArguments(Wishes, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[ModelName, Meta(description="A name of the tool `models`, or auto.")] = "auto"
    history: Annotated[list[Turn], Meta(max_length=1000, description="What was said before the prompt.")] | None = None


class CompareArguments(Wishes, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: Annotated[list[ModelName], Meta(min_length=1, max_length=COMPARED, description="Names of the tool `models`.")]


class NoArguments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ChatOutcome(Struct, frozen=True, kw_only=True):
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    tokens_per_second: float
    nodes: list[str]
    """That answered, in the order of the layers; none where a provider did."""
    provider: str | None
    """Who answered in place of the swarm."""


class ItemFault(Struct, frozen=True, kw_only=True):
    code: int
    message: str


class Compared(Struct, frozen=True, kw_only=True):
    model: str
    status: Literal["ok", "failed", "timeout"]
    reply: ChatOutcome | None = None
    error: ItemFault | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    results: list[Compared]
    """One for each model, in the order in which they were named."""


class ModelsOutcome(Struct, frozen=True, kw_only=True):
    models: list[ModelCard]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who calls."""

    request: RequestId
    client: str
    tell: Tell


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tool:
    title: str
    description: str
    takes: type[Struct]
    gives: type[Struct]
    run: Callable[[Any, Asked], Awaitable[ToolResult | Fault]]


class McpTools:
    def __init__(
        self,
        *,
        targets: Targets,
        answers: Answers,
        cards: Callable[[], Awaitable[list[ModelCard]]],
        status: Callable[[], Awaitable[Status]],
        entropy: Entropy,
    ) -> None:
        self._targets, self._answers, self._cards, self._status = targets, answers, cards, status
        self._entropy = entropy
        self._tools: dict[str, _Tool] = {
            "chat": _Tool(
                title="Ask a model", takes=ChatArguments, gives=ChatOutcome, run=self._chat,
                description="Asks a model that runs on this swarm of machines, and returns its reply.",
            ),
            "models": _Tool(
                title="List models", takes=NoArguments, gives=ModelsOutcome, run=self._models,
                description="Models that can answer now, how much each reads at once, and who can serve it.",
            ),
            "compare": _Tool(
                title="Ask several models", takes=CompareArguments, gives=Comparison, run=self._compare,
                description=f"Asks up to {COMPARED} models the same. One that fails says so and the others answer.",
            ),
            "node_info": _Tool(
                title="Show the node", takes=NoArguments, gives=Status, run=self._info,
                description="How this node is: version, peers, what it serves, what runs and what waits.",
            ),
        }  # fmt: skip
        self.cards = ToolCards(
            tools=[
                ToolCard(
                    name=name, title=tool.title, description=tool.description, input_schema=schema_of(tool.takes),
                    output_schema=schema_of(tool.gives),
                )
                for name, tool in self._tools.items()
            ]
        )  # fmt: skip

    async def call(self, wanted: CallTool, asked: Asked) -> ToolResult | Fault:
        """Within CALL_S. A bug is raised."""
        tool = self._tools.get(wanted.name)
        if tool is None:
            return Fault(code=CALLERS_FAULT, message=f"there is no tool {wanted.name[:80]!r}: {', '.join(self._tools)}")
        try:
            arguments = converted(wanted.arguments or {}, tool.takes)
        except msgspec.ValidationError as error:
            return Fault(code=CALLERS_FAULT, message=f"the arguments of {wanted.name} do not fit: {error}")
        try:
            async with asyncio.timeout(CALL_S):
                return await tool.run(arguments, asked)
        except TimeoutError:
            return Fault(code=CANNOT_NOW, message=f"it took longer than {CALL_S:.0f} s and was ended: ask for less")

    async def _chat(self, arguments: ChatArguments, asked: Asked) -> ToolResult | Fault:
        found = await self._reply(arguments.model, arguments, asked, asked.tell, arguments.history or ())
        if isinstance(found, Fault):
            return found
        return ToolResult(content=[TextContent(text=found.text)], structured_content=found)

    async def _compare(self, arguments: CompareArguments, asked: Asked) -> ToolResult | Fault:
        if len(set(arguments.models)) < len(arguments.models):
            return Fault(code=CALLERS_FAULT, message="models names one twice: name each once")
        deadline = asyncio.get_running_loop().time() + ITEM_S
        results: list[Compared | None] = [None] * len(arguments.models)
        waiting = iter(enumerate(arguments.models))

        async def silent(_done: int, _total: int, _words: str) -> None:
            pass

        async def take_turns() -> None:
            for place, model in waiting:
                own = Asked(request=RequestId(f"{asked.request}-{place}"), client=asked.client, tell=silent)
                results[place] = await self._compared(model, arguments, own, deadline)
                done = sum(one is not None for one in results)
                await asked.tell(done, len(results), f"{done} of {len(results)} models have answered")

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(results))):
                group.create_task(take_turns())
        outcome = Comparison(results=[one for one in results if one is not None])
        return _structured(outcome)

    async def _compared(self, model: str, wishes: Wishes, asked: Asked, deadline: float) -> Compared:
        try:
            async with asyncio.timeout_at(deadline):
                found = await self._reply(model, wishes, asked, asked.tell)
        except TimeoutError:
            message = f"it was not done within the {ITEM_S:.0f} s that the whole call has"
            return Compared(model=model, status="timeout", error=ItemFault(code=CANNOT_NOW, message=message))
        except Exception:
            logger.exception("%s failed in a comparison (%s)", model[:256], asked.request)
            message = f"the node made a mistake; its log says more under {asked.request}"
            return Compared(model=model, status="failed", error=ItemFault(code=BUG, message=message))
        if isinstance(found, Fault):
            return Compared(model=model, status="failed", error=ItemFault(code=found.code, message=found.message))
        return Compared(model=model, status="ok", reply=found)

    async def _models(self, _arguments: NoArguments, _asked: Asked) -> ToolResult | Fault:
        return _structured(ModelsOutcome(models=await self._cards()))

    async def _info(self, _arguments: NoArguments, _asked: Asked) -> ToolResult | Fault:
        return _structured(await self._status())

    async def _reply(
        self, model: str, wishes: Wishes, asked: Asked, tell: Tell, history: tuple[Turn, ...] | list[Turn] = ()
    ) -> ChatOutcome | Fault:
        target = self._targets.find(model)
        if isinstance(target, Refusal):
            return fault_of(target)
        request = self._request(wishes, target, asked, history)
        if isinstance(request, Fault):
            return request
        async with self._answers.opened(target, request) as several:
            if isinstance(several, Refusal):
                return fault_of(several)
            reply = Gathered()
            await tell(0, request.max_tokens, "the prompt is being read")
            try:
                async for _, chunk in several:
                    reply.add(chunk)
                    done = chunk.sequence + 1
                    await tell(done, max(request.max_tokens, done), f"{done} pieces of the reply")
            except GenerationFailed as failed:
                return fault_of(failed.refusal)
            nodes = [short(stage.node) for stage in several.plan.stages]
        assert reply.usage is not None and reply.finish is not None, "a generation ends with its finish and usage"
        return ChatOutcome(
            model=target.name,
            text="".join(reply.text),
            finish_reason=reply.finish.value,
            prompt_tokens=reply.usage.prompt_tokens,
            completion_tokens=reply.usage.completion_tokens,
            tokens_per_second=round(reply.usage.tokens_per_second, 2),
            nodes=nodes,
            provider=None if target.provider is None else target.provider.name,
        )

    def _request(
        self, wishes: Wishes, target: Target, asked: Asked, history: tuple[Turn, ...] | list[Turn]
    ) -> GenerationRequest | Fault:
        messages = [ChatMessage(role="system", content=wishes.system)] if wishes.system else []
        messages += [ChatMessage(role=turn.role, content=turn.content) for turn in history]
        messages.append(ChatMessage(role="user", content=wishes.prompt))
        if (refusal := too_long(size_of(messages), "prompt")) is not None:
            return fault_of(refusal)
        fresh = int.from_bytes(self._entropy.token(SEED_BYTES), "little")
        return GenerationRequest(
            request=asked.request,
            model=target.model,
            client=asked.client,
            messages=tuple(messages),
            max_tokens=clamped(wishes.max_tokens, CHAT_MAX_TOKENS),
            stop=tuple(wishes.stop or ()),
            sampling=Sampling(
                temperature=CHAT_TEMPERATURE if wishes.temperature is None else wishes.temperature,
                top_p=1.0 if wishes.top_p is None else wishes.top_p,
                seed=fresh if wishes.seed is None else wishes.seed,
            ),
        )


def _structured(outcome: Struct) -> ToolResult:
    """As text as well, for clients that read nothing else."""
    text = msgspec.json.encode(outcome).decode()
    return ToolResult(content=[TextContent(text=text)], structured_content=outcome)


def schema_of(shape: type[Struct]) -> dict[str, Any]:
    """JSON schema with the object itself at its root, as the protocol wants it."""
    _, found = msgspec.json.schema_components((shape,), ref_template="#/$defs/{name}")
    root = dict(found.pop(shape.__name__))
    if found:
        root["$defs"] = found
    return root
