"""The choices: kept, refused with what is missing, and never quietly forgotten."""

from __future__ import annotations

import pytest

from swarmd.config.settings import InferenceSettings, Settings
from swarmd.domain.ids import ModelId
from swarmd.domain.plans import EncryptedPipeline
from swarmd.domain.refusals import Invalid, NotFound
from swarmd.inference.encrypted import EncryptedPipelines
from swarmd.models.catalog import KnownModel
from tests.fakes.inline_sqlite import inline_database
from tests.fakes.node_parts import tiny_known

TINY = ModelId("tiny")


class Here:
    """As the catalogue and the registry: one model and what is held of it."""

    def __init__(self, known: KnownModel) -> None:
        self.known, self.shards = known, set[int]()

    def get(self, model: ModelId) -> KnownModel | None:
        return self.known if model == TINY else None

    def held(self, _model: ModelId) -> set[int]:
        return self.shards


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    return Here(tiny_known(tmp_path_factory.mktemp("tiny")))


async def test_a_choice_needs_both_ends_and_is_kept_over_restarts(here: Here) -> None:
    settings = Settings()
    async with inline_database() as db:

        async def opened() -> EncryptedPipelines:
            made = EncryptedPipelines(catalog=here, registry=here, db=db, settings=lambda: settings)
            await made.load()
            return made

        pipelines = await opened()
        for held, words in ((set(), "shards 1 and 4"), ({0, 1}, "shard 4"), ({3}, "shard 1")):
            here.shards = held
            refused = await pipelines.choose(TINY, enabled=True)
            assert isinstance(refused, Invalid) and f"needs {words} on" in refused.sentence and refused.param == "enabled"
        assert pipelines.demanded(TINY) is False
        here.shards = {0, 3}
        chosen = await pipelines.choose(TINY, enabled=True)
        assert isinstance(chosen, EncryptedPipeline) and chosen.enabled
        assert (await opened()).demanded(TINY) is True
        here.shards = {0}
        refused = (await opened()).demanded(TINY)
        assert isinstance(refused, Invalid) and "lacks shard 4" in refused.sentence, "it must not run otherwise"
        off = await pipelines.choose(TINY, enabled=False)
        assert isinstance(off, EncryptedPipeline) and not off.enabled
        assert (await opened()).demanded(TINY) is False
        unknown = ModelId("unknown")
        assert isinstance(await pipelines.choose(unknown, enabled=True), NotFound)
        assert isinstance(pipelines.state(unknown), NotFound) and pipelines.demanded(unknown) is False


async def test_the_setting_is_for_whatever_nobody_chose_and_that_has_its_ends_here(here: Here) -> None:
    settings = Settings(inference=InferenceSettings(encrypted_pipeline=True))
    async with inline_database() as db:
        pipelines = EncryptedPipelines(catalog=here, registry=here, db=db, settings=lambda: settings)
        here.shards = {0, 1}
        assert pipelines.demanded(TINY) is False
        here.shards = {0, 3}
        assert pipelines.demanded(TINY) is True
        await pipelines.choose(TINY, enabled=False)
        assert pipelines.demanded(TINY) is False
