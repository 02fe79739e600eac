"""Which provider a name means that the swarm has no model for.

`provider:model` first; then the provider that lists the name; then the one whose models begin so. Only providers that can be
asked are looked at, custom ones before the twelve.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.providers.known import TWELVE
from swarmd.providers.roster import Ready

_ID: Final = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]{0,255}")


@dataclass(frozen=True, slots=True)
class Meant:
    provider: Ready
    model: str
    """As the provider calls it."""


def is_model_id(text: str) -> bool:
    """Whether a provider may have a model of that name: it goes into bodies and sentences, never into a path."""
    return bool(_ID.fullmatch(text)) and ".." not in text and "//" not in text


def meant(
    name: str, ready: Sequence[Ready], listed: Callable[[Ready], Container[str]], *, plain: bool
) -> Meant | None:
    """`listed`: ids of a provider's models. `plain`: whether a name without a provider in front may mean one."""
    if not is_model_id(name):
        return None
    front, colon, behind = name.partition(":")
    if colon and behind:
        for one in ready:
            if one.name == front:
                return _named(one, behind)
    if not plain:
        return None
    for one in ready:
        if name in listed(one):
            return Meant(one, name)
    for one in ready:
        if any(_begins(name, prefix) for prefix in one.known.prefixes):
            return Meant(one, name)
        for brand in one.known.brands:
            if name.startswith(brand) and len(name) > len(brand):
                return _named(one, name.removeprefix(brand))
    return None


def _named(provider: Ready, model: str) -> Meant | None:
    """A name with a dash in front would be an option to a program that is told it."""
    return None if model.startswith("-") else Meant(provider, model)


def belongs_to(name: str) -> str | None:
    """Whose name it is, whether or not that provider can be asked."""
    front, colon, _ = name.partition(":")
    for known in TWELVE:
        if colon and known.name == front:
            return known.name
        if any(_begins(name, prefix) for prefix in (*known.prefixes, *known.brands)):
            return known.name
    return None


def _begins(name: str, prefix: str) -> bool:
    """`o1` is `o1` and `o1-mini`, and not `o12`."""
    return name.startswith(prefix) if prefix.endswith("-") else name == prefix or name.startswith(f"{prefix}-")
