"""Which model a name means; what clients see of it is in test_openai and test_adapters."""

from __future__ import annotations

from swarmd.api.replies import UnknownAdapter, UnknownModel
from swarmd.api.targets import Target, Targets
from swarmd.domain.refusals import Invalid
from tests.fakes.rim import SPREAD, TINY, Rim, adapter


def targets(rim: Rim) -> Targets:
    return Targets(models=rim.models, adapters=rim.adapters, settings=rim.settings.current)


def test_names(rim: Rim) -> None:
    found = targets(rim)
    assert found.find(TINY) == Target(TINY)
    assert found.find("auto") == Target(TINY)  # in memory
    assert isinstance(found.find("tin"), UnknownModel)
    assert isinstance(found.find(f"{TINY}:nothing"), UnknownAdapter)


def test_an_adapter_is_named_behind_its_model_or_apart(rim: Rim) -> None:
    rim.adapters.rows["poet"] = poet = adapter("poet", TINY)
    found = targets(rim)
    assert found.find(f"{TINY}:poet") == found.find(TINY, "poet") == Target(TINY, poet)
    assert Target(TINY, poet).name == f"{TINY}:poet"
    for name, id in ((SPREAD, "poet"), (f"{TINY}:poet", "other")):
        refusal = found.find(name, id)
        assert isinstance(refusal, Invalid) and refusal.param == "lora_adapter"
    assert found.all() == [Target(TINY), Target(TINY, poet), Target(SPREAD)]
