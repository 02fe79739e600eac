"""Who can be asked, and with which key. The one place that knows keys.

What people change is on the disk before it is in force. A key leaves this floor in one way only: in a header of a request to
the provider that it is for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from swarmd.config.settings import Settings
from swarmd.domain.events import ProvidersChanged, SubscriptionSwitched
from swarmd.domain.providers import CustomProvider, KeySource, Provider, ProviderChange, ProviderView, Wire
from swarmd.domain.refusals import Invalid, NotFound, Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.logs import MIN_SECRET, Redactor
from swarmd.providers.addresses import literal_problem, url_problem
from swarmd.providers.environment import KEY_FORM
from swarmd.providers.known import BY_NAME, TWELVE, Known, custom
from swarmd.providers.sealing import Seal
from swarmd.store.database import Database
from swarmd.store.providers import (
    ChoicesRow,
    ProviderRow,
    delete_provider,
    read_choices,
    read_providers,
    write_choices,
    write_provider,
)

CUSTOM_LIMIT: Final = 64  # each is asked for its models every minute while somebody looks
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TAKEN: Final = frozenset({"auto", "swarm", "local", "network", "hybrid"})
_CUSTOM_KEY: Final = re.compile(r"[!-~]{1,512}")
"""Servers of one's own may have keys as short as "EMPTY"."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A provider that can be asked now."""

    known: Known
    base_url: str
    """Without a slash at the end."""
    key: str = dataclasses.field(repr=False)
    """Empty: none."""
    custom: bool = False

    @property
    def name(self) -> str:
        return self.known.name

    @property
    def provider(self) -> Provider:
        return Provider(name=self.name, base_url=self.base_url, wire=self.known.wire, custom=self.custom)

    def key_headers(self) -> dict[str, str]:
        if not self.key:
            return {}
        return {self.known.key_header: self.key if self.known.wire is Wire.ANTHROPIC else f"Bearer {self.key}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Custom:
    base_url: str
    key: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Everything that people chose. Replaced as a whole."""

    keys: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str], repr=False)
    custom: Mapping[str, _Custom] = dataclasses.field(default_factory=dict[str, _Custom], repr=False)
    source: KeySource = KeySource.AUTO
    subscription: bool = False


class Roster:
    """One per node."""

    def __init__(
        self,
        *,
        db: Database,
        seal: Seal,
        surroundings: Mapping[str, str],
        settings: Callable[[], Settings],
        bus: EventBus,
        redactor: Redactor | None,
    ) -> None:
        """`surroundings`: keys of the environment by name of provider."""
        self._db, self._seal, self._settings, self._bus, self._redactor = db, seal, settings, bus, redactor
        self._surroundings = surroundings
        self._state = _State()
        self._turn = asyncio.Lock()
        for key in surroundings.values():
            self._hide(key)

    async def load(self) -> None:
        keys: dict[str, str] = {}
        customs: dict[str, _Custom] = {}
        for row in await read_providers(self._db):
            about = _about(row.name, row.base_url)
            key = "" if row.sealed_key is None else self._seal.opened(row.sealed_key, about=about)
            if key is None:
                logger.warning("what is stored as the key of %s was not sealed by this node: set it again", row.name)
            self._hide(key or "")
            if row.base_url is not None:
                customs[row.name] = _Custom(base_url=row.base_url, key=key or "")
            elif key and row.name in BY_NAME:
                keys[row.name] = key
        choices = await read_choices(self._db)
        self._state = _State(
            keys=keys, custom=customs, source=KeySource.AUTO if choices is None else KeySource(choices.key_source),
            subscription=choices is not None and choices.claude_subscription,
        )  # fmt: skip

    # -- who there is

    @property
    def key_source(self) -> KeySource:
        return self._state.source

    @property
    def subscription_chosen(self) -> bool:
        return self._state.subscription

    @property
    def subscription_active(self) -> bool:
        """`claude-*` goes through the local program."""
        return self._state.subscription and self._settings().providers.claude_subscription

    def views(self) -> tuple[ProviderView, ...]:
        """The twelve in the contract's order, then the custom ones by name."""
        views = [self._view(known) for known in TWELVE]
        for name, one in sorted(self._state.custom.items()):
            provider = Provider(name=name, base_url=one.base_url, wire=Wire.OPENAI, custom=True)
            views.append(
                ProviderView(
                    provider=provider, configured=True, source="config" if one.key else "none",
                    auth_type="bearer" if one.key else "none",
                )
            )  # fmt: skip
        return tuple(views)

    def ready(self) -> tuple[Ready, ...]:
        """Those that can be asked; custom ones first, for what is one's own is nearer."""
        names = (*sorted(self._state.custom), *BY_NAME)
        return tuple(one for name in names if (one := self.get(name)) is not None)

    def get(self, name: str) -> Ready | None:
        """None: there is no such provider, or it has no key."""
        one = self._state.custom.get(name)
        if one is not None:
            return Ready(known=custom(name, one.base_url), base_url=one.base_url, key=one.key, custom=True)
        known = BY_NAME.get(name)
        if known is None:
            return None
        key, _ = self._key(name)
        if not key and not (name == "anthropic" and self.subscription_active):
            return None
        return Ready(known=known, base_url=self._url(known), key=key)

    def _view(self, known: Known) -> ProviderView:
        key, source = self._key(known.name)
        provider = Provider(name=known.name, base_url=self._url(known), wire=known.wire, custom=False)
        auth = "x-api-key" if known.wire is Wire.ANTHROPIC else "bearer"
        return ProviderView(provider=provider, configured=bool(key), source=source, auth_type=auth)

    def _key(self, name: str) -> tuple[str, str]:
        """And where it comes from."""
        stored, around = self._state.keys.get(name, ""), self._surroundings.get(name, "")
        if stored and self._state.source is not KeySource.ENV:
            return stored, "config"
        if around and self._state.source is not KeySource.DASHBOARD:
            return around, "env"
        return "", "none"

    def _url(self, known: Known) -> str:
        return (known.chosen_url(self._settings().providers) or known.base_url).rstrip("/")

    # -- changes

    async def change(self, change: ProviderChange) -> Refusal | None:
        async with self._turn:
            if (refusal := self._problem(change)) is not None:
                return refusal
            before = self._state
            after, rows, gone = self._changed(change)
            async with self._db.transaction() as tx:
                for row in rows:
                    await write_provider(tx, row)
                for name in gone:
                    await delete_provider(tx, name)
                await write_choices(
                    tx, ChoicesRow(key_source=after.source.value, claude_subscription=after.subscription)
                )
            for key in (*after.keys.values(), *(one.key for one in after.custom.values())):
                self._hide(key)
            self._state = after
        names = tuple(row.name for row in rows) + gone
        if names or before.source is not after.source:
            self._bus.publish(ProvidersChanged(providers=names))
        if before.subscription != after.subscription:
            self._bus.publish(SubscriptionSwitched(enabled=after.subscription))
        return None

    def _changed(self, change: ProviderChange) -> tuple[_State, list[ProviderRow], tuple[str, ...]]:
        """The state to be, rows to write, names of rows to delete. The change has been checked."""
        keys, customs = dict(self._state.keys), dict(self._state.custom)
        rows: list[ProviderRow] = []
        gone: list[str] = []
        for name, key in change.keys:
            if key:
                keys[name] = key
                rows.append(ProviderRow(name=name, base_url=None, sealed_key=self._sealed(name, None, key)))
            else:
                keys.pop(name, None)
                gone.append(name)
        for name in change.removed:
            del customs[name]
            gone.append(name)
        for one in change.custom:
            url = one.base_url.rstrip("/")
            # A key is for the address that it was given with: another address gets none that it was not told.
            had = customs.get(one.name)
            kept = had.key if had is not None and had.base_url == url else ""
            key = kept if one.key is None else one.key
            customs[one.name] = _Custom(base_url=url, key=key)
            rows.append(ProviderRow(name=one.name, base_url=url, sealed_key=self._sealed(one.name, url, key)))
        state = _State(
            keys=keys, custom=customs, source=change.key_source or self._state.source,
            subscription=self._state.subscription if change.subscription is None else change.subscription,
        )  # fmt: skip
        return state, rows, tuple(gone)

    def _problem(self, change: ProviderChange) -> Refusal | None:
        for name, key in change.keys:
            assert name in BY_NAME, f"{name} is none of the twelve"
            if key and not KEY_FORM.fullmatch(key):
                what = f"the key of {name} has 8 to 512 printable ASCII characters without blanks"
                return Invalid(what=what, param=f"{name}_key")
        for name in change.removed:
            if name not in self._state.custom:
                return NotFound(what=f"there is no custom provider {name[:64]!r}")
        for number, one in enumerate(change.custom):
            if (problem := self._custom_problem(one)) is not None:
                field, what = problem
                return Invalid(what=f"custom provider {one.name[:64]!r}: {what}", param=f"custom[{number}].{field}")
        names = [one.name for one in change.custom]
        if len(set(names)) < len(names) or set(names) & set(change.removed):
            return Invalid(what="a custom provider is named twice", param="custom")
        if len((set(self._state.custom) | set(names)) - set(change.removed)) > CUSTOM_LIMIT:
            return Invalid(what=f"at most {CUSTOM_LIMIT} custom providers are kept", param="custom")
        return None

    def _custom_problem(self, one: CustomProvider) -> tuple[str, str] | None:
        """The field, and what is wrong with it."""
        if not _NAME.fullmatch(one.name) or one.name in _TAKEN or one.name in BY_NAME:
            return "name", "a name is up to 32 lower-case letters, digits, - and _, and not one that has a meaning already"
        if (problem := url_problem(one.base_url)) is not None:
            return "base_url", problem
        settings = self._settings()
        if (problem := literal_problem(one.base_url, private=settings.providers.private_addresses)) is not None:
            return "base_url", problem
        if one.key and not _CUSTOM_KEY.fullmatch(one.key):
            return "key", "a key has up to 512 printable ASCII characters without blanks"
        return None

    def _sealed(self, name: str, url: str | None, key: str) -> bytes | None:
        return self._seal.closed(key, about=_about(name, url)) if key else None

    def _hide(self, key: str) -> None:
        if self._redactor is not None and len(key) >= MIN_SECRET:
            self._redactor.hide(key)


def _about(name: str, url: str | None) -> str:
    """What a sealed key belongs to. Of a custom one with its address: who edits the database cannot send it elsewhere."""
    return name if url is None else f"{name} {url}"
