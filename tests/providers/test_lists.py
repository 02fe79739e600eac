"""Lists of models: a minute fresh, then stale and asked for behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.domain.providers import CustomProvider, ProviderChange, ProviderModel
from swarmd.domain.refusals import ProviderFailed
from swarmd.kit.world import SeededEntropy, World
from swarmd.providers.known import ANTHROPIC_MODELS
from swarmd.providers.lists import FRESH_S
from tests.fakes.provider import FakeProvider, Office, opened, until


class Later:
    """Real time, and what a test adds."""

    def __init__(self) -> None:
        self.added = 0.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.added

    def monotonic(self) -> float:
        return 1000.0 + self.added

    def ticks(self) -> float:
        return self.monotonic()


async def ids(office: Office) -> list[str]:
    return [model.id for model in await office.desk.models()]


async def test_stale_while_it_is_asked_for_again(fake: FakeProvider, tmp_path: Path) -> None:
    clock = Later()
    async with opened(Office(tmp_path, world=World(clock=clock, entropy=SeededEntropy(1)))) as office:
        office.point(fake, "openai")
        await office.give_key("openai")
        assert await ids(office) == ["small", "org/large"]
        assert await ids(office) == ["small", "org/large"]
        assert fake.asked("/v1/models") == 1
        fake.models = {"data": [{"id": "new"}]}
        clock.added = FRESH_S + 1
        assert await ids(office) == ["small", "org/large"], "nobody waits for a list that is there"
        await until(lambda: fake.asked("/v1/models") == 2)
        await until(lambda: office.desk._lists.ids(office.desk._roster.ready()[0]) == {"new"})
        assert fake.asked("/v1/models") == 2
        fake.models_status = 500
        clock.added += FRESH_S + 1
        assert await ids(office) == ["new"]
        await until(lambda: fake.asked("/v1/models") == 3)
        assert await ids(office) == ["new"], "a failed try keeps the old list"


async def test_anthropic_s_is_a_static_one_and_nobody_is_asked(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "anthropic")
    await office.give_key("anthropic")
    assert await office.desk.models() == ANTHROPIC_MODELS
    assert fake.requests == []


async def test_shapes_of_lists(fake: FakeProvider, office: Office) -> None:
    fake.models = [
        {"id": "bare", "display_name": "Bare", "max_model_len": 100}, {"id": "bare"}, {"id": ""}, {"id": 5}, "x",
        {"id": "has blank"}, {"id": "x" * 300}, {"name": "no id"},
    ]  # fmt: skip
    office.point(fake, "together")
    await office.give_key("together")
    (model,) = await office.desk.models()
    assert model == ProviderModel(id="bare", name="Bare", provider="together", context_length=100, created=0)


@pytest.mark.parametrize("said", [{"models": []}, 5, "x"])
async def test_what_is_no_list(fake: FakeProvider, office: Office, said: object) -> None:
    fake.models = said
    change = ProviderChange(custom=(CustomProvider(name="mine", base_url=fake.base_url),))
    assert await office.desk.change(change) is None
    assert await office.desk.models() == ()
    failure = await office.desk._lists.fetched(office.desk._roster.ready()[0])
    assert isinstance(failure, ProviderFailed) and "nobody knows" in failure.what


async def test_one_that_is_down_takes_nothing_from_the_others(fake: FakeProvider, office: Office) -> None:
    gone = FakeProvider()
    gone.port = 1
    office.point(fake, "openai")
    office.point(gone, "groq")
    await office.give_key("openai", "groq")
    assert [model.provider for model in await office.desk.models()] == ["openai", "openai"]


async def test_a_key_of_the_environment_is_no_reason_to_go_there_unasked(fake: FakeProvider, tmp_path: Path) -> None:
    office = Office(tmp_path, environ={"OPENAI_API_KEY": "sk-0123456789"})
    office.point(fake, "openai", "groq")
    async with opened(office):
        await office.give_key("groq")
        await until(lambda: fake.asked("/v1/models") == 1)
        assert fake.requests[0][1]["Authorization"] == "Bearer sk-provider-0123456789"
        assert office.desk.find("org/large") is not None  # groq lists it; openai is asked now, behind
        await until(lambda: fake.asked("/v1/models") == 2)
