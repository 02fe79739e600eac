"""The cards of `/v1/models`: what a model is, how much it reads, and who can serve it. Of two dialects. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta, UnsetType

from swarmd.api import views
from swarmd.api.bounds import MAX_TOKENS_LIMIT
from swarmd.api.messages_shapes import ModelInfo, ModelPage
from swarmd.api.openai_shapes import CardNode, CardSwarm, ModelCard
from swarmd.api.route import Query
from swarmd.domain.ids import short
from swarmd.domain.models import Manifest
from swarmd.domain.refusals import Invalid
from swarmd.domain.shards import ModelView

NODES_SHOWN: Final = 16  # a card is for choosing a model; GET /api/admin/models has all of them
PAGE: Final = 20  # the Anthropic contract's own default, and its limit
PAGE_LIMIT: Final = 1000
MODEL_PAGES: Final = (
    Query(name="limit", type=Annotated[int, Meta(ge=1, le=PAGE_LIMIT)], doc="Of a page, for who sends anthropic-version."),
    Query(name="after_id", doc="The page behind this model."),
    Query(name="before_id", doc="The page in front of this model."),
)
LAST_SECOND: Final = 253_402_300_799  # of the year 9999; what publishers write into a manifest is theirs


def card_of(name: str, view: ModelView, manifest: Manifest, *, context_tokens: int) -> ModelCard:
    """`name`: under which it is asked for. `context_tokens`: that this node gives to a conversation at most."""
    context = min(manifest.context_length, context_tokens)
    return ModelCard(
        id=name,
        object="model",
        created=manifest.created_at,
        owned_by=views.where_from(view),
        max_model_len=context,
        context_length=context,
        swarm=_served(view),
    )


def _served(view: ModelView) -> CardSwarm:
    held = Counter(node for shard in view.shards for node in shard.holders)
    most = sorted(held, key=lambda node: (-held[node], node))
    return CardSwarm(
        source=views.where_from(view),
        shards=len(view.shards),
        copies=min((len(shard.holders) for shard in view.shards), default=0),
        holders=len(held),
        whole=sum(count == len(view.shards) for count in held.values()),
        loaded=any(shard.loaded for shard in view.shards),
        nodes=[CardNode(node=short(node), shards=held[node]) for node in most[:NODES_SHOWN]],
    )


def info(card: ModelCard) -> ModelInfo:
    """The same as the Anthropic contract has it."""
    context = None if isinstance(card.context_length, UnsetType) else card.context_length
    return ModelInfo(
        id=card.id,
        display_name=card.id,
        created_at=datetime.fromtimestamp(min(max(card.created, 0), LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lifecycle="active",
        max_input_tokens=context,
        max_tokens=None if context is None else min(context, MAX_TOKENS_LIMIT),
        swarm=card.swarm,
    )


def page_of(models: Sequence[ModelInfo], query: Mapping[str, str]) -> ModelPage | Invalid:
    """`query`: `limit`, and `after_id` or `before_id`."""
    text = query.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= PAGE_LIMIT):
        return Invalid(what=f"limit is a whole number from 1 to {PAGE_LIMIT}, not {text[:40]!r}", param="limit")
    limit = int(text)
    places = {model.id: at for at, model in enumerate(models)}
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in places:
            return Invalid(what=f"{name} names {query[name][:256]!r}, which is no model of the list", param=name)
    if "before_id" in query:
        end = places[query["before_id"]]
        begin = max(0, end - limit)
        more = begin > 0
    else:
        begin = places[query["after_id"]] + 1 if "after_id" in query else 0
        end = min(begin + limit, len(models))
        more = end < len(models)
    found = list(models[begin:end])
    return ModelPage(
        data=found, has_more=more, first_id=found[0].id if found else None, last_id=found[-1].id if found else None
    )
