"""Models whose pipelines begin and end on the node that asks: no other node sees a token, only what is between layers.

What that hides and what it does not is said in docs/security.md: hidden states are no cipher. It takes the first and the
last shard on this node and one more way for each token. People switch it on for a model, or for all by a setting; a choice
for a model is kept over restarts and wins.
"""

from __future__ import annotations

from collections.abc import Callable

from swarmd.config.settings import Settings
from swarmd.domain.ids import ModelId
from swarmd.domain.plans import EncryptedPipeline
from swarmd.domain.refusals import Invalid, NotFound, Refusal
from swarmd.models.catalog import Catalog
from swarmd.shards.registry import Registry
from swarmd.store import inference as sql
from swarmd.store.database import Database


class EncryptedPipelines:
    """Owner of the choices."""

    def __init__(
        self, *, catalog: Catalog, registry: Registry, db: Database, settings: Callable[[], Settings]
    ) -> None:
        self._catalog, self._registry, self._db, self._settings = catalog, registry, db, settings
        self._chosen: dict[ModelId, bool] = {}

    async def load(self) -> None:
        """Before the first generation."""
        self._chosen = await sql.read_encrypted_pipelines(self._db)

    def state(self, model: ModelId) -> EncryptedPipeline | NotFound:
        known = self._catalog.get(model)
        if known is None:
            return NotFound(what=f"this node knows no model {model}")
        held, count = self._registry.held(model), len(known.manifest.shards)
        return EncryptedPipeline(
            chosen=self._chosen.get(model),
            by_default=self._settings().inference.encrypted_pipeline,
            has_first=0 in held,
            has_last=count - 1 in held,
            shard_count=count,
        )

    def demanded(self, model: ModelId) -> bool | Invalid:
        """Whether a generation has to begin and end here. Invalid: it has to, and cannot; it must not run otherwise."""
        state = self.state(model)
        if isinstance(state, NotFound):
            return False
        if state.chosen and not state.ready:
            return Invalid(
                what=f"the encrypted pipeline of model {model} is on and this node lacks {state.lacking}: fetch what is "
                "missing, or switch it off",
                param="model",
            )
        return state.enabled

    async def choose(self, model: ModelId, *, enabled: bool) -> EncryptedPipeline | Refusal:
        """Written before it is true. Refused where a shard is missing that has to be here."""
        state = self.state(model)
        if isinstance(state, NotFound):
            return state
        if enabled and not state.ready:
            what = f"the encrypted pipeline of model {model} needs {state.lacking} on this node: fetch what is missing"
            return Invalid(what=what, param="enabled")
        async with self._db.transaction() as tx:
            await sql.write_encrypted_pipeline(tx, model, enabled=enabled)
        self._chosen[model] = enabled
        found = self.state(model)
        assert not isinstance(found, NotFound) or self._catalog.get(model) is None, "known a moment ago"
        return found
