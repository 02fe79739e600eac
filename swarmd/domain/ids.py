"""Identifiers, their written forms, and the rules that make a text one of them.

Text that comes from outside becomes one of these types only through a `parse_*` function, so a value of the type needs
no second check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

NodeId = NewType("NodeId", str)
"""64 lower-case hex digits: a node's Ed25519 public key."""

NetworkId = NewType("NetworkId", str)
"""64 lower-case hex digits: the Ed25519 public key of the network, made by its founder."""

ModelId = NewType("ModelId", str)
"""Slug of a GGUF file name; see `model_slug`."""

SessionId = NewType("SessionId", str)
"""32 lower-case hex digits, random: one generation's caches on every stage."""

RequestId = NewType("RequestId", str)
"""Name of one API request in logs, error replies and the `x-request-id` header."""

SHORT_NODE_DIGITS = 16  # the admin API shows the first 8 bytes of a key everywhere except `stats.node_id`
MODEL_ID_MAX = 256  # contract: swarmllm.md 2.0 "Model id"

_KEY = re.compile(r"[0-9a-f]{64}")
_SESSION = re.compile(r"[0-9a-f]{32}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9.\-]*")


@dataclass(frozen=True, slots=True, order=True)
class ShardRef:
    """One shard of one model: zero-based index, in layer order."""

    model: ModelId
    index: int

    @property
    def number(self) -> int:
        """What people read: they count from 1. Contract: swarmllm.md 2.0, "Shard index"."""
        return self.index + 1


def parse_node_id(text: str) -> NodeId:
    """Raises ValueError unless `text` is 64 lower-case hex digits."""
    if not _KEY.fullmatch(text):
        raise ValueError(f"a node id is 64 lower-case hex digits, not {text[:80]!r}")
    return NodeId(text)


def parse_network_id(text: str) -> NetworkId:
    """Raises ValueError unless `text` is 64 lower-case hex digits."""
    if not _KEY.fullmatch(text):
        raise ValueError(f"a network id is 64 lower-case hex digits, not {text[:80]!r}")
    return NetworkId(text)


def parse_session_id(text: str) -> SessionId:
    """Raises ValueError unless `text` is 32 lower-case hex digits."""
    if not _SESSION.fullmatch(text):
        raise ValueError(f"a session id is 32 lower-case hex digits, not {text[:80]!r}")
    return SessionId(text)


def parse_model_id(text: str) -> ModelId:
    """Raises ValueError unless `text` is a slug that is safe as one folder name."""
    if len(text) > MODEL_ID_MAX or not _MODEL.fullmatch(text) or ".." in text:
        raise ValueError(f"a model id is lower-case letters, digits, '-' and '.', at most {MODEL_ID_MAX}: not {text[:80]!r}")
    return ModelId(text)


def model_slug(file_name: str) -> ModelId:
    """The model id of a GGUF file: extension dropped, lower case, anything else than letters, digits, '-', '.' as one '-'.

    Contract: swarmllm.md 2.0 "Model id". Raises ValueError where nothing usable is left.
    """
    name = file_name.rsplit("/", 1)[-1]
    if name.lower().endswith(".gguf"):
        name = name[:-5]
    slug = re.sub(r"-+", "-", re.sub(r"[^a-z0-9.\-]", "-", name.lower()))
    slug = re.sub(r"\.{2,}", ".", slug).strip("-.")
    return parse_model_id(slug)


def short(node: NodeId) -> str:
    """The 16 hex digits by which people and the admin API name a node."""
    return node[:SHORT_NODE_DIGITS]
