"""Is it there: asked for one token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmd.domain.providers import CustomProvider, ProviderChange, ProviderModelStatus
from swarmd.domain.refusals import Invalid
from swarmd.providers import known, probes
from tests.fakes.provider import KEY, FakeProvider, Office


@pytest.fixture
def testing(monkeypatch: pytest.MonkeyPatch):
    """Another test model of one of the twelve."""

    def choose(name: str, model: str) -> None:
        monkeypatch.setattr(known, "BY_NAME", {**known.BY_NAME})
        from swarmd.providers import roster

        changed = {**roster.BY_NAME, name: replace(roster.BY_NAME[name], test_model=model)}
        monkeypatch.setattr(roster, "BY_NAME", changed)

    return choose


async def test_up_and_what_it_costs(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai", "anthropic")
    await office.give_key("openai", "anthropic")
    rows = {row.provider: row for row in await office.desk.health()}
    assert {name: (row.status, row.detail) for name, row in rows.items()} == {"openai": ("up", ""), "anthropic": ("up", "")}
    assert all(row.latency_ms >= 0 for row in rows.values())
    bodies = {path: body for path, _, body in fake.requests if body is not None}
    assert bodies["/v1/chat/completions"]["max_tokens"] == bodies["/v1/messages"]["max_tokens"] == 1
    asked = len(fake.bodies)
    await office.desk.health()
    assert len(fake.bodies) == asked, "a page that is opened twice costs once"


@pytest.mark.parametrize(
    ("model", "status"),
    [("limited", "rate_limited"), ("overloaded", "overloaded"), ("down", "overloaded"), ("denied", "error_401"),
     ("absent", "error_404"), ("moved", "error_502"), ("silent", "timeout")],
)  # fmt: skip
async def test_statuses(
    fake: FakeProvider, office: Office, testing, monkeypatch: pytest.MonkeyPatch, model: str, status: str
) -> None:
    monkeypatch.setattr(probes, "PROBE_S", 0.1)
    testing("openai", model)
    office.point(fake, "openai")
    await office.give_key("openai")
    (row,) = await office.desk.health()
    assert row.status == status
    assert 0 < len(row.detail) <= 100 and KEY not in row.detail


async def test_unreachable(office: Office) -> None:
    gone = FakeProvider()
    gone.port = 1
    office.point(gone, "openai")
    await office.give_key("openai")
    (row,) = await office.desk.health()
    assert row.status == "unreachable"


async def test_a_custom_one_is_asked_for_what_it_lists_first(fake: FakeProvider, office: Office) -> None:
    assert await office.desk.change(ProviderChange(custom=(CustomProvider(name="mine", base_url=fake.base_url),))) is None
    (row,) = await office.desk.health()
    assert (row.provider, row.status) == ("mine", "up")
    assert fake.requests[-1][2]["model"] == "small" and "authorization" not in fake.requests[-1][1]


async def test_a_custom_one_that_lists_nothing(fake: FakeProvider, office: Office) -> None:
    fake.models = {"data": []}
    assert await office.desk.change(ProviderChange(custom=(CustomProvider(name="mine", base_url=fake.base_url),))) is None
    (row,) = await office.desk.health()
    assert (row.status, row.detail) == ("error_404", "lists no model")


async def test_models(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai", "anthropic")
    await office.give_key("openai", "anthropic")
    names = [
        "openai:fine", "openai:limited", "openai:absent", "openai:denied", "openai:down", "openai:overloaded",
        "claude-sonnet-4-6", "deepseek-chat", "nobodys",
    ]  # fmt: skip
    rows = await office.desk.model_status(names)
    assert not isinstance(rows, Invalid)
    assert [(row.model, row.status) for row in rows] == [
        ("openai:fine", "up"), ("openai:limited", "rate_limited"), ("openai:absent", "not_found"),
        ("openai:denied", "error"), ("openai:down", "unavailable"), ("openai:overloaded", "unavailable"),
        ("deepseek-chat", "unavailable"), ("nobodys", "not_found"),
    ]  # fmt: skip
    assert rows[-1] == ProviderModelStatus(model="nobodys", status="not_found", latency_ms=None)
    assert fake.asked("/v1/messages") == 0
    assert all(body["max_tokens"] == 1 for _, _, body in fake.requests if body is not None)


async def test_models_that_think_have_their_own_limit(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    await office.desk.model_status(["o3-mini"])
    assert fake.requests[-1][2]["max_completion_tokens"] == 1


async def test_ids_are_checked(office: Office) -> None:
    refusal = await office.desk.model_status(["fine", "../x"])
    assert isinstance(refusal, Invalid) and refusal.param == "models[1]"
