"""A provider on a real local port that behaves like each wire family, well or badly, by the model it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmd.config.settings import Settings, with_values
from swarmd.domain.providers import ProviderChange
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.logs import Redactor
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, real_world
from swarmd.providers.desk import Providers
from swarmd.providers.known import TWELVE
from swarmd.providers.line import Line
from swarmd.providers.roster import Ready
from swarmd.store.database import Database

KEY = "sk-provider-0123456789"
STATUSES: Mapping[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "denied": (401, {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "invalid_request_error",
                               "param": None, "code": "invalid_api_key"}}, {}),
    "absent": (404, {"error": {"message": "The model does not exist", "code": "model_not_found", "param": "model"}}, {}),
    "limited": (429, {"error": {"message": "slow down", "type": "rate_limit_error"}}, {"retry-after": "17"}),
    "overloaded": (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, {}),
    "down": (503, {"detail": "no capacity"}, {}),
    "moved": (302, {}, {"location": "http://127.0.0.1:1/elsewhere"}),
}  # fmt: skip
"""Models that are refused, with how."""


def openai_events(*texts: str, usage: bool = True) -> list[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    events = [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]}
        for text in texts
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        told = {"prompt_tokens": 9, "completion_tokens": len(texts), "prompt_tokens_details": {"cached_tokens": 4}}
        events.append({**head, "choices": [], "usage": told})
    return events


def call_events() -> list[dict[str, Any]]:
    def delta(**fields: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [fields]}, "finish_reason": None}]}

    return [
        delta(index=1, id="call_a", type="function", function={"name": "weather", "arguments": ""}),
        delta(index=1, function={"arguments": '{"city":'}),
        delta(index=1, function={"arguments": '"Ulm"}'}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ]


def anthropic_events(*texts: str) -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1},
        }},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(texts)},
        },
        {"type": "message_stop"},
    ]


class FakeProvider:
    """`base_url` is what to configure. What it was asked is in `requests`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.bodies: list[bytes] = []
        self.models: Any = {"data": [{"id": "small", "created": 7, "context_length": 4096}, {"id": "org/large"}]}
        self.models_status = 200
        self.events: list[dict[str, Any]] = openai_events("Hel", "lo")
        self.go_on = asyncio.Event()
        """What the model `slow` waits for."""
        self.left = asyncio.Event()
        """A client hung up."""
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> int:
        return sum(one[0] == path for one in self.requests)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers), None))
        return web.json_response(self.models, status=self.models_status)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        body = json.loads(data)
        self.bodies.append(data)
        self.requests.append((request.path, {name.lower(): value for name, value in request.headers.items()}, body))
        model = body["model"]
        if model in STATUSES:
            status, said, headers = STATUSES[model]
            return web.json_response(said, status=status, headers=headers)
        if model == "silent":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        if model == "huge":
            return web.Response(body=b"[" + b" " * 200_000 + b"]", content_type="application/json")
        anthropic = "messages" in request.path
        if not body.get("stream"):
            return web.json_response(self._whole(request.path, model))
        return await self._stream(request, model, anthropic=anthropic)

    def _whole(self, path: str, model: str) -> dict[str, Any]:
        if path.endswith("embeddings"):
            return {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": model, "extra": 1}
        if path.endswith("count_tokens"):
            return {"input_tokens": 12}
        if "messages" in path:
            return {"type": "message", "content": [{"type": "text", "text": "Hello"}], "model": model, "extra": 1}
        return {"id": "x", "model": model, "choices": [{"message": {"content": "Hello"}}], "system_fingerprint": "fp"}

    async def _stream(self, request: web.Request, model: str, *, anthropic: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        events = anthropic_events("Hel", "lo") if anthropic else self.events
        try:
            for number, event in enumerate(events):
                name = f"event: {event['type']}\n" if anthropic else ""
                await response.write(f"{name}data: {json.dumps(event)}\n\n".encode())
                if model == "cut" and number == 2 - (not anthropic):
                    await response.write(b'data: {"choices": [{"del')
                    await asyncio.sleep(0.01)
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if model == "short" and number == 1 + 2 * anthropic:
                    return response
                if model == "failing" and number == 1:
                    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
                    await response.write(f"data: {json.dumps(error)}\n\n".encode())
                    return response
                if model == "slow" and number == 1:
                    await self.go_on.wait()
            if not anthropic:
                await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


@asynccontextmanager
async def serving(fake: FakeProvider) -> AsyncIterator[FakeProvider]:
    application = web.Application()
    application.router.add_get("/v1/models", fake._models)
    for path in ("chat/completions", "completions", "embeddings", "messages", "messages/count_tokens"):
        application.router.add_post(f"/v1/{path}", fake._post)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.go_on.set()
        await runner.cleanup()


def ready(fake: FakeProvider, name: str = "openai", *, key: str = KEY, custom: bool = False) -> Ready:
    """One of the twelve at the fake's address."""
    known = next(known for known in TWELVE if known.name == name)
    url = fake.root_url if name == "anthropic" else fake.base_url
    return Ready(known=replace(known, base_url=url), base_url=url, key=key, custom=custom)


@asynccontextmanager
async def line(*, private: bool = True) -> AsyncIterator[Line]:
    made = Line(private=lambda: private, user_agent="swarmd/test")
    try:
        yield made
    finally:
        await made.close()


class Office:
    """Providers with everything around them real: sqlite in memory, a bus, loopback."""

    def __init__(self, folder: Path, *, world: World | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.folder, self.world = folder, world or real_world()
        self.environ = {"HOME": str(folder), "PATH": str(folder / "bin"), **(environ or {})}
        nowhere = {f"providers.{known.name}_url": "http://127.0.0.1:1" for known in TWELVE}  # no test leaves the machine
        self.settings = with_values(Settings(), {"providers.private_addresses": True, **nowhere})
        self.bus, self.redactor = EventBus(), Redactor()
        self.db: Database
        self.desk: Providers

    def set(self, path: str, value: bool | int | str) -> None:
        self.settings = with_values(self.settings, {path: value})

    def point(self, fake: FakeProvider, *names: str) -> None:
        """These of the twelve are where the fake is."""
        for name in names:
            self.set(f"providers.{name}_url", fake.root_url if name == "anthropic" else fake.base_url)

    def make(self, *, sealing_key: bytes = b"s" * 32) -> Providers:
        return Providers(
            db=self.db, sealing_key=sealing_key, environ=self.environ, variables={}, folder=self.folder / "claude",
            settings=lambda: self.settings, disk=Disk(), bus=self.bus, world=self.world, user_agent="swarmd/test",
            redactor=self.redactor,
        )  # fmt: skip

    async def give_key(self, *names: str, key: str = KEY) -> None:
        assert await self.desk.change(ProviderChange(keys=tuple((name, key) for name in names))) is None


@asynccontextmanager
async def opened(office: Office) -> AsyncIterator[Office]:
    async with await Database.open(None) as office.db, Supervisor("office", world=office.world) as supervisor:
        office.desk = office.make()
        await office.desk.load()
        await supervisor.start(office.desk)
        yield office


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)
