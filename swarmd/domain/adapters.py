"""LoRA adapters as people name them, and as the swarm does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import ModelId

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""An id stands behind a colon in a model's name and in a path of the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRef:
    """What a stage must know of an adapter: content, not names."""

    digest: bytes
    """32 bytes, of its index (`models.lora`)."""
    size_bytes: int
    """Of all its parts: what it takes at most in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One that is registered on this node."""

    id: str
    name: str
    base_model: ModelId
    rank: int
    alpha: float
    path: str
    """Of the safetensors file it was made from, resolved."""
    ref: AdapterRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdapter:
    """What somebody wants to register. None: to be found out, or made up."""

    id: str | None
    name: str
    base_model: str
    rank: int | None
    alpha: float | None
    path: str


def is_adapter_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
