"""Models of each provider, as it lists them: kept for a minute, then shown as they were while they are asked for anew.

A provider that cannot be asked keeps its old list. Nobody waits for a list that is there.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from swarmd.domain.providers import ProviderModel, Wire
from swarmd.domain.refusals import ProviderFailed
from swarmd.kit.flow import SingleFlight
from swarmd.kit.logs import Redactor
from swarmd.kit.service import Spawn
from swarmd.kit.world import Clock
from swarmd.providers.known import ANTHROPIC_MODELS
from swarmd.providers.line import PROBE_S, Line, ProviderTrouble, whole
from swarmd.providers.loose import as_count, as_dict, as_list, as_text, parsed
from swarmd.providers.roster import Ready, Roster

FRESH_S: Final = 60.0  # contract: swarmllm.md 2.6
MODELS_LIMIT: Final = 2000  # of one provider; the longest known list has some hundreds
LIST_LIMIT: Final = 8 * 1024 * 1024  # bytes of a list; some describe each model at length
ID_LENGTH: Final = 256
ANTHROPIC_IDS: Final = frozenset(model.id for model in ANTHROPIC_MODELS)

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Kept:
    address: str
    """Whose list it is: a provider that moved is another one."""
    asked_at: float
    """When the last try began, of the loop's clock."""
    models: tuple[ProviderModel, ...] = ()
    ids: frozenset[str] = frozenset()
    failure: ProviderFailed | None = None
    """Of the last try."""


class ModelLists:
    """One per node."""

    def __init__(self, *, roster: Roster, line: Line, spawn: Spawn, clock: Clock) -> None:
        self._roster, self._line, self._spawn, self._clock = roster, line, spawn, clock
        self._kept: dict[str, _Kept] = {}
        self._flights = SingleFlight[str, None]()
        self._behind: set[str] = set()

    async def all(self) -> tuple[ProviderModel, ...]:
        """Of all providers that can be asked. Waits only for those of which no list is there."""
        ready = self._roster.ready()
        first = [one for one in ready if one.name not in self._kept or self._is_other(one)]
        await asyncio.gather(*(self._fetch(one) for one in first))
        return tuple(model for one in ready for model in self.now(one))

    def now(self, provider: Ready) -> tuple[ProviderModel, ...]:
        """What is known, without a wait; what is old is asked for behind."""
        if provider.known.wire is Wire.ANTHROPIC:
            return ANTHROPIC_MODELS
        kept = self._present(provider)
        return () if kept is None else kept.models

    def ids(self, provider: Ready) -> frozenset[str]:
        """Of the same."""
        if provider.known.wire is Wire.ANTHROPIC:
            return ANTHROPIC_IDS
        kept = self._present(provider)
        return frozenset() if kept is None else kept.ids

    def _present(self, provider: Ready) -> _Kept | None:
        kept = None if self._is_other(provider) else self._kept.get(provider.name)
        if kept is None or self._clock.monotonic() - kept.asked_at >= FRESH_S:
            self._refresh(provider)
        return kept

    async def fetched(self, provider: Ready) -> tuple[ProviderModel, ...] | ProviderFailed:
        """The list as it is now, or why there is none."""
        await self._fetch(provider)
        kept = self._kept.get(provider.name)
        return () if kept is None else kept.failure or kept.models

    def warm(self) -> None:
        """Asks behind for the lists of those that this node was told of, so that names in them are known. A key that merely
        lies in the environment is no reason to go there unasked."""
        told = {view.provider.name for view in self._roster.views() if view.configured and view.source != "env"}
        for provider in self._roster.ready():
            if provider.name in told:
                self.now(provider)

    def forget(self, name: str) -> None:
        """Its key or address is another one, or it is gone."""
        self._kept.pop(name, None)

    def _is_other(self, provider: Ready) -> bool:
        kept = self._kept.get(provider.name)
        return kept is not None and kept.address != provider.base_url

    def _refresh(self, provider: Ready) -> None:
        if provider.name not in self._behind:
            self._behind.add(provider.name)
            self._spawn(self._fetch_behind(provider), name=f"models of {provider.name}")

    async def _fetch_behind(self, provider: Ready) -> None:
        try:
            await self._fetch(provider)
        finally:
            self._behind.discard(provider.name)

    async def _fetch(self, provider: Ready) -> None:
        if provider.known.wire is not Wire.ANTHROPIC:
            await self._flights.do(provider.name, lambda: self._ask(provider))

    async def _ask(self, provider: Ready) -> None:
        kept = None if self._is_other(provider) else self._kept.get(provider.name)
        models, failure = () if kept is None else kept.models, None
        began_at = self._clock.monotonic()
        try:
            async with self._line.asked(provider, "models", within_s=PROBE_S) as response:
                models = _models(provider, await whole(provider, response, limit=LIST_LIMIT))
        except ProviderTrouble as trouble:
            failure = trouble.refusal
            logger.info("the list of models is not there: %s", failure.sentence)
        self._kept[provider.name] = _Kept(
            address=provider.base_url, asked_at=began_at, models=models, failure=failure,
            ids=frozenset(model.id for model in models),
        )  # fmt: skip


def _models(provider: Ready, body: bytes) -> tuple[ProviderModel, ...]:
    """Raises ProviderTrouble when it is no list."""
    found = parsed(body)
    rows = as_list(as_dict(found).get("data")) if isinstance(found, dict) else found  # Together answers a bare list
    if not isinstance(rows, list) or (isinstance(found, dict) and "data" not in as_dict(found)):
        raise ProviderTrouble(ProviderFailed(provider=provider.name, what="lists its models in a way that nobody knows"))
    cleaner = Redactor()
    models: dict[str, ProviderModel] = {}
    for row in as_list(rows):
        model = _model(provider, as_dict(row), cleaner)
        if model is not None:
            models.setdefault(model.id, model)
        if len(models) >= MODELS_LIMIT:
            break
    return tuple(models.values())


def _model(provider: Ready, row: dict[str, Any], cleaner: Redactor) -> ProviderModel | None:
    id = as_text(row.get("id"))
    if not id or len(id) > ID_LENGTH or not id.isprintable() or " " in id:
        return None
    name = as_text(row.get("display_name")) or as_text(row.get("name")) or id
    lengths = (row.get(key) for key in ("context_length", "context_window", "max_model_len", "max_context_length"))
    return ProviderModel(
        id=id, name=cleaner.clean(name)[:ID_LENGTH], provider=provider.name,
        context_length=next((length for one in lengths if (length := as_count(one))), None),
        created=as_count(row.get("created")) or 0,
    )  # fmt: skip
