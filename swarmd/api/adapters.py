"""LoRA adapters of this node: `/api/admin/adapters`. Shapes: the contract."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from swarmd.api.calls import Call
from swarmd.api.ports import Adapters
from swarmd.domain.adapters import Adapter, NewAdapter
from swarmd.domain.refusals import Refusal


class AdapterRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    base_model: Annotated[str, Meta(min_length=1, max_length=256)]
    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    """Absolute, or from the folder of adapters on; inside it or inside inference.adapter_folder in any case."""
    id: Annotated[str, Meta(max_length=64)] | None = None
    """None: a UUID is made up."""
    rank: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    alpha: float | None = None
    """None: as adapter_config.json beside the file says. Both have to agree with it where they are given."""


class AdapterRow(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    base_model: str
    rank: int
    alpha: float
    path: str


class AdapterList(Struct, frozen=True, kw_only=True):
    adapters: list[AdapterRow]


class AdapterAdded(Struct, frozen=True, kw_only=True):
    status: str
    adapter: AdapterRow


class AdapterGone(Struct, frozen=True, kw_only=True):
    status: str
    message: str


class AdapterHandlers:
    def __init__(self, *, adapters: Adapters) -> None:
        self._adapters = adapters

    async def list(self, _call: Call) -> AdapterList:
        return AdapterList(adapters=[row_of(adapter) for adapter in self._adapters.all()])

    async def add(self, call: Call) -> AdapterAdded | Refusal:
        body: AdapterRequest = call.body
        added = await self._adapters.register(
            NewAdapter(
                id=body.id or None, name=body.name, base_model=body.base_model, rank=body.rank, alpha=body.alpha,
                path=body.path,
            )
        )  # fmt: skip
        return added if isinstance(added, Refusal) else AdapterAdded(status="ok", adapter=row_of(added))

    async def remove(self, call: Call) -> AdapterGone | Refusal:
        removed = await self._adapters.remove(call.path["id"])
        if isinstance(removed, Refusal):
            return removed
        return AdapterGone(status="ok", message=f"Adapter '{removed.id}' removed")


def row_of(adapter: Adapter) -> AdapterRow:
    return AdapterRow(
        id=adapter.id, name=adapter.name, base_model=adapter.base_model, rank=adapter.rank, alpha=adapter.alpha,
        path=adapter.path,
    )  # fmt: skip
