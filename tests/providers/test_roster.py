"""Keys: sealed, kept, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.config.settings import Settings, with_values
from swarmd.domain.events import ProvidersChanged, SubscriptionSwitched
from swarmd.domain.providers import CustomProvider, KeySource, ProviderChange
from swarmd.domain.refusals import Invalid, NotFound
from swarmd.kit.bus import EventBus
from swarmd.kit.logs import HIDDEN, Redactor
from swarmd.kit.world import seeded_world
from swarmd.providers.roster import CUSTOM_LIMIT, Roster
from swarmd.providers.sealing import Seal
from swarmd.store.database import Database

KEY, OTHER = "sk-0123456789", "sk-9876543210"
MINE = CustomProvider(name="mine", base_url="https://gpu.example/v1/", key="EMPTY")


class Surroundings:
    def __init__(self, db: Database) -> None:
        self.db, self.bus, self.redactor = db, EventBus(), Redactor()
        self.settings = Settings()

    async def roster(self, *, seed: int = 1, **keys: str) -> Roster:
        roster = Roster(
            db=self.db, seal=Seal(bytes([seed]) * 32, entropy=seeded_world(1).entropy), surroundings=keys,
            settings=lambda: self.settings, bus=self.bus, redactor=self.redactor,
        )  # fmt: skip
        await roster.load()
        return roster


@pytest.fixture
async def around():
    async with await Database.open(None) as db:
        yield Surroundings(db)


def keys(**given: str) -> ProviderChange:
    return ProviderChange(keys=tuple(given.items()))


async def test_a_key_is_sealed_kept_and_hidden(around: Surroundings) -> None:
    roster = await around.roster()
    assert roster.get("openai") is None and roster.ready() == ()
    assert await roster.change(keys(openai=KEY)) is None
    rows = await around.db.fetch_all("SELECT * FROM providers")
    assert len(rows) == 1 and KEY.encode() not in bytes(rows[0]["sealed_key"])
    assert around.redactor.clean(f"x {KEY}") != f"x {KEY}"
    again = await around.roster()
    found = again.get("openai")
    assert found is not None and found.key == KEY and found.key_headers() == {"authorization": f"Bearer {KEY}"}
    assert KEY not in repr(found) and KEY not in repr(again._state)
    (view,) = [view for view in again.views() if view.configured]
    assert (view.provider.name, view.source, view.auth_type) == ("openai", "config", "bearer")


async def test_a_key_of_the_environment_is_hidden_too(around: Surroundings) -> None:
    roster = await around.roster(groq="gsk-0123456789")
    assert around.redactor.clean("gsk-0123456789") == HIDDEN
    assert [(view.provider.name, view.source) for view in roster.views() if view.configured] == [("groq", "env")]


async def test_which_keys_count(around: Surroundings) -> None:
    roster = await around.roster(openai=OTHER, groq=OTHER)
    await roster.change(keys(openai=KEY))

    def seen() -> dict[str, str]:
        return {one.name: one.key for one in roster.ready()}

    assert seen() == {"openai": KEY, "groq": OTHER}
    await roster.change(ProviderChange(key_source=KeySource.ENV))
    assert seen() == {"openai": OTHER, "groq": OTHER}
    await roster.change(ProviderChange(key_source=KeySource.DASHBOARD))
    assert seen() == {"openai": KEY}
    assert (await around.roster(openai=OTHER)).key_source is KeySource.DASHBOARD


async def test_an_empty_key_removes(around: Surroundings) -> None:
    roster = await around.roster()
    await roster.change(keys(openai=KEY, groq=KEY))
    await roster.change(keys(openai=""))
    assert [one.name for one in roster.ready()] == ["groq"]
    assert [one.name for one in (await around.roster()).ready()] == ["groq"]


async def test_a_database_of_another_node_gives_no_key(around: Surroundings, caplog: pytest.LogCaptureFixture) -> None:
    await (await around.roster()).change(ProviderChange(keys=(("openai", KEY),), custom=(MINE,)))
    stranger = await around.roster(seed=2)
    assert [one.name for one in stranger.ready()] == ["mine"]
    assert stranger.ready()[0].key == ""
    assert "openai" in caplog.text and "set it again" in caplog.text and KEY not in caplog.text


async def test_what_is_not_on_the_disk_is_not_in_force(around: Surroundings) -> None:
    roster = await around.roster()
    await around.db.close()
    with pytest.raises(Exception):  # noqa: B017 - whatever sqlite says
        await roster.change(keys(openai=KEY))
    assert roster.get("openai") is None


async def test_custom_ones(around: Surroundings) -> None:
    roster = await around.roster()
    assert await roster.change(ProviderChange(custom=(MINE,))) is None
    (one,) = roster.ready()
    assert (one.name, one.base_url, one.key, one.custom) == ("mine", "https://gpu.example/v1", "EMPTY", True)
    same = CustomProvider(name="mine", base_url="https://gpu.example/v1")
    assert await roster.change(ProviderChange(custom=(same,))) is None
    assert roster.ready()[0].key == "EMPTY"
    view = roster.views()[-1]
    assert (view.provider.name, view.source, view.auth_type, view.provider.custom) == ("mine", "config", "bearer", True)
    assert await roster.change(ProviderChange(removed=("mine",))) is None
    assert roster.ready() == () and (await around.roster()).ready() == ()


async def test_a_key_does_not_follow_to_another_address(around: Surroundings) -> None:
    roster = await around.roster()
    await roster.change(ProviderChange(custom=(MINE,)))
    await roster.change(ProviderChange(custom=(CustomProvider(name="mine", base_url="https://other.example"),)))
    assert (roster.ready()[0].base_url, roster.ready()[0].key) == ("https://other.example", "")


@pytest.mark.parametrize(
    ("one", "param"),
    [
        (CustomProvider(name="openai", base_url="https://x.example"), "custom[0].name"),
        (CustomProvider(name="auto", base_url="https://x.example"), "custom[0].name"),
        (CustomProvider(name="Mine", base_url="https://x.example"), "custom[0].name"),
        (CustomProvider(name="a:b", base_url="https://x.example"), "custom[0].name"),
        (CustomProvider(name="mine", base_url="ftp://x.example"), "custom[0].base_url"),
        (CustomProvider(name="mine", base_url="http://127.0.0.1/v1"), "custom[0].base_url"),
        (CustomProvider(name="mine", base_url="https://x.example", key="with blank"), "custom[0].key"),
    ],
)
async def test_bad_custom_ones_are_refused_by_field(around: Surroundings, one: CustomProvider, param: str) -> None:
    roster = await around.roster()
    refusal = await roster.change(ProviderChange(keys=(("groq", KEY),), custom=(one,)))
    assert isinstance(refusal, Invalid) and refusal.param == param
    assert roster.ready() == (), "all of it or nothing"


async def test_private_ones_where_the_owner_allows_them(around: Surroundings) -> None:
    around.settings = with_values(Settings(), {"providers.private_addresses": True})
    roster = await around.roster()
    assert await roster.change(ProviderChange(custom=(CustomProvider(name="m", base_url="http://127.0.0.1:1/v1"),))) is None


async def test_refusals(around: Surroundings) -> None:
    roster = await around.roster()
    for bad in ("short", "with blank 12345", "x" * 600, "schlüssel-12345"):
        refusal = await roster.change(keys(groq=bad))
        assert isinstance(refusal, Invalid) and refusal.param == "groq_key" and bad not in refusal.sentence
    assert isinstance(await roster.change(ProviderChange(removed=("nobody",))), NotFound)
    assert isinstance(await roster.change(ProviderChange(custom=(MINE, MINE))), Invalid)
    many = tuple(CustomProvider(name=f"m{number}", base_url="https://x.example") for number in range(CUSTOM_LIMIT + 1))
    assert isinstance(await roster.change(ProviderChange(custom=many)), Invalid)


async def test_who_hears_of_it(around: Surroundings) -> None:
    roster = await around.roster()
    with around.bus.spy() as spy:
        await roster.change(ProviderChange(keys=(("groq", KEY),), custom=(MINE,)))
        await roster.change(ProviderChange(subscription=True))
        await roster.change(ProviderChange(subscription=True))
    assert spy.facts == [ProvidersChanged(providers=("groq", "mine")), SubscriptionSwitched(enabled=True)]


async def test_the_subscription_needs_both_the_feature_and_the_switch(around: Surroundings) -> None:
    roster = await around.roster()
    await roster.change(ProviderChange(subscription=True))
    assert roster.subscription_chosen and not roster.subscription_active and roster.get("anthropic") is None
    around.settings = with_values(Settings(), {"providers.claude_subscription": True})
    assert roster.subscription_active and roster.get("anthropic") is not None
    assert (await around.roster()).subscription_active


async def test_another_address_by_settings(around: Surroundings, tmp_path: Path) -> None:
    around.settings = with_values(Settings(), {"providers.groq_url": "https://proxy.example/v1/"})
    roster = await around.roster(groq=KEY)
    assert roster.ready()[0].base_url == "https://proxy.example/v1"
