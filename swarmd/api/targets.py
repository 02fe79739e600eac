"""Which model a client means by the name it gave: the same rules for every dialect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarmd.api import views
from swarmd.api.ports import Adapters, Models, ProviderRoads
from swarmd.api.replies import UnknownAdapter, UnknownModel
from swarmd.config.settings import Settings
from swarmd.domain.adapters import Adapter
from swarmd.domain.ids import ModelId, model_slug
from swarmd.domain.providers import Provider
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.shards import ModelView


@dataclass(frozen=True, slots=True)
class Target:
    """A model, and the adapter that is applied to it, if any; or a model of a provider."""

    model: ModelId
    """With a provider, what that one calls it: no slug then, and nothing that the swarm knows."""
    adapter: Adapter | None = None
    provider: Provider | None = None
    """Who answers in place of the swarm."""

    @property
    def name(self) -> str:
        """Under which it can be asked for."""
        if self.provider is not None:
            return f"{self.provider.name}:{self.model}"
        return self.model if self.adapter is None else f"{self.model}:{self.adapter.id}"


class Targets:
    def __init__(
        self,
        *,
        models: Models,
        adapters: Adapters | None,
        settings: Callable[[], Settings],
        providers: ProviderRoads | None = None,
    ) -> None:
        self._models, self._adapters, self._settings, self._providers = models, adapters, settings, providers

    def find(self, name: str, adapter: str | None = None) -> Target | Refusal:
        """Of "model:adapter", or with the adapter's id in a field of its own. What the swarm does not know may be a
        provider's: `provider:model`, or a name that only one has."""
        target = self._of_the_swarm(name, adapter)
        if not isinstance(target, UnknownModel) or self._providers is None or name == "auto":
            return target
        found = self._providers.find(name)
        if found is None:
            return target
        provider, model = found
        if adapter:
            what = f"LoRA adapters are applied to models of the swarm, and {name[:80]!r} is one of provider {provider.name}"
            return Invalid(what=what, param="lora_adapter")
        return Target(ModelId(model), provider=provider)

    def _of_the_swarm(self, name: str, adapter: str | None) -> Target | Refusal:
        base, colon, behind = name.rpartition(":")
        if not colon or isinstance(model := self.named(base), Refusal):
            base, behind, model = name, "", self.named(name)
            if isinstance(model, Refusal):
                return model
        if adapter and behind and adapter != behind:
            what = f"model names the adapter {behind[:80]!r} and lora_adapter {adapter[:80]!r}: name one of them"
            return Invalid(what=what, param="lora_adapter")
        id = adapter or behind
        if not id:
            return Target(model)
        found = self._adapters.get(id) if self._adapters is not None else None
        if found is None:
            what = f"no LoRA adapter {id[:80]!r} is registered on this node: GET /api/admin/adapters lists those that are"
            return UnknownAdapter(what=what)
        if found.base_model != model:
            return Invalid(
                what=f"adapter {id} is of model {found.base_model}, not of {model}",
                param="lora_adapter" if adapter else "model",
            )
        return Target(model, found)

    def all(self) -> list[Target]:
        """What can answer now, each model with its adapters behind it."""
        adapters = self._adapters.all() if self._adapters is not None else ()
        targets: list[Target] = []
        for view in self._runnable():
            targets.append(Target(view.model))
            targets += [Target(view.model, adapter) for adapter in adapters if adapter.base_model == view.model]
        return targets

    def named(self, name: str) -> ModelId | Refusal:
        """`auto`, a model id, or the name of the GGUF file it was made from. Never a model with a similar name."""
        if name == "auto":
            return self._automatic()
        try:
            model = model_slug(name)
        except ValueError:
            return unknown(name)
        return model if self._models.view(model) is not None else unknown(name)

    def _automatic(self) -> ModelId | Refusal:
        """The configured default; else what runs with the least ado: loaded, then held whole, then over the swarm."""
        default = self._settings().inference.default_model
        if default:
            return self.named(default)
        runnable = self._runnable()
        if not runnable:
            return UnknownModel(what="no model can answer now: add one, or connect nodes that hold the missing shards")
        loaded = [view for view in runnable if any(shard.loaded for shard in view.shards)]
        whole = [view for view in runnable if views.where_from(view) == "local"]
        return (loaded or whole or runnable)[0].model

    def _runnable(self) -> list[ModelView]:
        found = [self._models.view(model) for model in self._models.models()]
        return [view for view in found if view is not None and view.covered and view.architecture_supported]


def unknown(name: str) -> UnknownModel:
    return UnknownModel(what=f"this node knows no model {name[:256]!r}: GET /v1/models lists those it can answer with")
