"""The switch of a model's encrypted pipeline: `/api/admin/models/{model}/encrypted-pipeline`.

Shapes: the contract, and swarmllm.md 2.2.4 where it is silent.
"""

from __future__ import annotations

from msgspec import Struct

from swarmd.api.calls import Call
from swarmd.api.ports import Encrypted
from swarmd.domain.plans import EncryptedPipeline
from swarmd.domain.refusals import Refusal

OVERHEAD = (
    "This node computes the first and the last shard, so other nodes see no tokens, only what is between layers. "
    "It costs about one further way over the network for each token."
)
TWO_SHARDS = "Warning: this model has {count} shard{s}, so all of it runs on this node and no other one helps."


class EncryptedRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool


class EncryptedView(Struct, frozen=True, kw_only=True):
    model_id: str
    encrypted_pipeline: bool
    """In effect: switched on, and both ends are here."""
    per_model_override: bool | None
    global_default: bool
    ready: bool
    """This node holds the first and the last shard."""
    has_first_shard: bool
    has_last_shard: bool
    shard_count: int
    overhead_note: str


class EncryptedSet(Struct, frozen=True, kw_only=True):
    status: str
    model_id: str
    encrypted_pipeline: bool
    note: str


class EncryptedHandlers:
    def __init__(self, *, encrypted: Encrypted) -> None:
        self._encrypted = encrypted

    async def show(self, call: Call) -> EncryptedView | Refusal:
        state = self._encrypted.state(call.model)
        if isinstance(state, Refusal):
            return state
        return EncryptedView(
            model_id=call.model, encrypted_pipeline=state.enabled, per_model_override=state.chosen,
            global_default=state.by_default, ready=state.ready, has_first_shard=state.has_first,
            has_last_shard=state.has_last, shard_count=state.shard_count, overhead_note=OVERHEAD,
        )  # fmt: skip

    async def choose(self, call: Call) -> EncryptedSet | Refusal:
        body: EncryptedRequest = call.body
        state = await self._encrypted.choose(call.model, enabled=body.enabled)
        if isinstance(state, Refusal):
            return state
        return EncryptedSet(status="ok", model_id=call.model, encrypted_pipeline=state.enabled, note=_note(state))


def _note(state: EncryptedPipeline) -> str:
    if not state.enabled:
        return "Every stage runs where it is fastest: the nodes with the first and the last shard see the tokens."
    if state.shard_count <= 2:
        return TWO_SHARDS.format(count=state.shard_count, s="" if state.shard_count == 1 else "s")
    return OVERHEAD
