"""Everything that the rim asks of providers, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import aiohttp

from swarmd.config.settings import Settings
from swarmd.domain.generation import GenerationFailed, GenerationRequest
from swarmd.domain.providers import (
    KeySource,
    Provider,
    ProviderChange,
    ProviderHealth,
    ProviderModel,
    ProviderModelStatus,
    ProviderView,
    Service,
    Subscription,
    Wire,
)
from swarmd.domain.refusals import Invalid, NotFound, ProviderFailed, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.logs import Redactor
from swarmd.kit.service import Ready as ServiceReady
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.providers import subscription
from swarmd.providers.claude_program import ClaudeProgram, ClaudeReply
from swarmd.providers.conversation import Conversation, open_conversation
from swarmd.providers.counting import ANSWERED, CANCELLED, Counted, Counts, outcome_of
from swarmd.providers.environment import keys_of
from swarmd.providers.line import WHOLE_LIMIT, Line, ProviderTrouble, pieces, whole
from swarmd.providers.lists import ModelLists
from swarmd.providers.naming import Meant, is_model_id, meant
from swarmd.providers.probes import Probes
from swarmd.providers.roster import Ready, Roster
from swarmd.providers.sealing import Seal
from swarmd.store.database import Database


class PassedOn:
    """A provider's answer to a request that was passed on as it was: a good status, and a body that may still come."""

    def __init__(self, provider: Ready, response: aiohttp.ClientResponse) -> None:
        self._provider, self._response = provider, response
        self.status = response.status
        self.media = response.headers.get("content-type", "application/json")
        self.outcome = CANCELLED
        """As `counting.OUTCOMES`; another one once its body has ended."""

    @property
    def is_stream(self) -> bool:
        return self._response.content_type == "text/event-stream"

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Raises GenerationFailed when the provider fails before the end."""
        try:
            async with aclosing(pieces(self._provider, self._response)) as body:
                async for piece in body:
                    yield piece
            self.outcome = ANSWERED
        except ProviderTrouble as trouble:
            self.outcome = outcome_of(trouble.refusal)
            raise GenerationFailed(trouble.refusal) from trouble

    async def whole(self) -> bytes | ProviderFailed:
        try:
            body = await whole(self._provider, self._response, limit=WHOLE_LIMIT)
            self.outcome = ANSWERED
            return body
        except ProviderTrouble as trouble:
            self.outcome = outcome_of(trouble.refusal)
            return trouble.refusal


class Providers:
    """Service: what it began behind ends with it."""

    name = "providers"

    def __init__(
        self,
        *,
        db: Database,
        sealing_key: bytes,
        environ: Mapping[str, str],
        variables: Mapping[str, str],
        folder: Path,
        settings: Callable[[], Settings],
        disk: Disk,
        bus: EventBus,
        world: World,
        user_agent: str,
        redactor: Redactor | None,
    ) -> None:
        """`variables`: those of `.env`; the environment's own win. `folder`: for the claude program to run in."""
        self._settings, self._environ, self._disk, self._world = settings, environ, disk, world
        self._supervisor = Supervisor("providers", world=world)
        self.counts = Counts()
        spawn = self._supervisor.spawn
        self._roster = Roster(
            db=db, seal=Seal(sealing_key, entropy=world.entropy), surroundings=keys_of({**variables, **environ}),
            settings=settings, bus=bus, redactor=redactor,
        )  # fmt: skip
        self._line = Line(private=lambda: settings().providers.private_addresses, user_agent=user_agent)
        self._lists = ModelLists(roster=self._roster, line=self._line, spawn=spawn, clock=world.clock)
        self._probes = Probes(roster=self._roster, line=self._line, lists=self._lists, clock=world.clock)
        self._program = ClaudeProgram(
            settings=settings, environ=environ, folder=folder, disk=disk, spawn=spawn, clock=world.clock
        )

    async def load(self) -> None:
        await self._roster.load()

    async def run(self, ready: ServiceReady) -> None:
        async with self._supervisor:
            ready()
            self._lists.warm()
            try:
                await asyncio.Event().wait()
            finally:
                await self._line.close()

    # -- who there is

    def views(self) -> tuple[ProviderView, ...]:
        return self._roster.views()

    def ready(self) -> tuple[Provider, ...]:
        """Those that can be asked."""
        return tuple(one.provider for one in self._roster.ready())

    @property
    def key_source(self) -> KeySource:
        return self._roster.key_source

    @property
    def subscription_chosen(self) -> bool:
        return self._roster.subscription_chosen

    async def change(self, change: ProviderChange) -> Refusal | None:
        refusal = await self._roster.change(change)
        if refusal is None:
            names = (*(name for name, _ in change.keys), *(one.name for one in change.custom), *change.removed)
            for name in names:
                self._lists.forget(name)
            self._lists.warm()
        return refusal

    async def models(self) -> tuple[ProviderModel, ...]:
        return await self._lists.all()

    async def health(self) -> tuple[ProviderHealth, ...]:
        return await self._probes.health()

    async def model_status(self, names: Sequence[str]) -> tuple[ProviderModelStatus, ...] | Refusal:
        """In the order of the names; Anthropic's are left out."""
        for number, name in enumerate(names):
            if not is_model_id(name):
                what = f"{name[:80]!r} is no id of a model: letters, digits and . _ : / @ + - are, at most 256 of them"
                return Invalid(what=what, param=f"models[{number}]")
        found = await asyncio.gather(*(self._probes.model(name, self._meant(name, plain=True)) for name in names))
        return tuple(one for one in found if one is not None)

    async def subscription(self) -> Subscription:
        return await subscription.look(self._program, environ=self._environ, disk=self._disk)

    # -- answering

    def find(self, name: str) -> tuple[Provider, str] | None:
        """Who answers to a name that the swarm does not know, and what that one calls the model."""
        found = self._meant(name, plain=self._settings().providers.route_by_name)
        return None if found is None else (found.provider.provider, found.model)

    def serves(self, provider: Provider, service: Service) -> bool:
        """Whether a request may be passed on as it is."""
        ready = self._roster.get(provider.name)
        if ready is None or service not in ready.known.services:
            return False
        return not (ready.known.wire is Wire.ANTHROPIC and self._roster.subscription_active)

    async def open(self, provider: str, request: GenerationRequest) -> Counted | Refusal:
        """The inner request over the provider's own wire; `request.model` is its name for the model."""
        reply = await self._open(provider, request)
        if isinstance(reply, Refusal):
            self.counts.refused(provider, reply)
            return reply
        return Counted(reply, provider, self.counts)

    async def _open(self, provider: str, request: GenerationRequest) -> Conversation | ClaudeReply | Refusal:
        ready = self._roster.get(provider)
        if ready is None:
            return _unknown(provider)
        if ready.known.wire is Wire.ANTHROPIC and self._roster.subscription_active:
            return await self._program.open(request)
        return await open_conversation(self._line, ready, request, clock=self._world.clock)

    def passed_on(
        self, provider: str, service: Service, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[PassedOn | Refusal]:
        """A client's own body, but for the name of the model. Leaving the block closes the connection."""
        return self._passed_on(provider, service, body, headers)

    @asynccontextmanager
    async def _passed_on(
        self, provider: str, service: Service, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[PassedOn | Refusal]:
        ready = self._roster.get(provider)
        if ready is None:
            yield _unknown(provider)
            return
        asking = self._line.asked(ready, service.value, body, headers=headers)
        try:
            response = await asking.__aenter__()
        except ProviderTrouble as trouble:
            self.counts.refused(provider, trouble.refusal)
            yield trouble.refusal
            return
        answer = PassedOn(ready, response)
        try:
            yield answer
        finally:
            self.counts.add(provider, answer.outcome)
            await asking.__aexit__(None, None, None)

    def _meant(self, name: str, *, plain: bool) -> Meant | None:
        return meant(name, self._roster.ready(), self._lists.ids, plain=plain)


def _unknown(provider: str) -> NotFound:
    return NotFound(what=f"there is no provider {provider[:64]!r} that can be asked: `swarmd providers` lists them")
