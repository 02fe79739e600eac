"""What the rim asks of providers."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.generation import ChatMessage, GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.providers import CustomProvider, ProviderChange, Service
from swarmd.domain.refusals import NotFound, ProviderFailed, Refusal
from tests.fakes.provider import FakeProvider, Office

REQUEST = GenerationRequest(
    request=RequestId("r"), model=ModelId("m"), messages=(ChatMessage(role="user", content="hi"),), max_tokens=9
)


async def test_who_can_be_found(fake: FakeProvider, office: Office) -> None:
    assert office.desk.find("gpt-4o") is None
    office.point(fake, "openai")
    await office.give_key("openai")
    found = office.desk.find("openai:x")
    assert found is not None and (found[0].name, found[1]) == ("openai", "x")
    assert office.desk.find("gpt-4o") is not None
    office.set("providers.route_by_name", False)
    assert office.desk.find("gpt-4o") is None and office.desk.find("openai:gpt-4o") is not None


async def test_lists_are_asked_for_by_themselves_so_that_names_in_them_are_known(fake: FakeProvider, office: Office) -> None:
    assert await office.desk.change(ProviderChange(custom=(CustomProvider(name="mine", base_url=fake.base_url),))) is None
    async with asyncio.timeout(5):
        while office.desk.find("org/large") is None:
            await asyncio.sleep(0.005)
    assert office.desk.find("org/absent") is None


async def test_what_each_has(fake: FakeProvider, office: Office) -> None:
    await office.give_key("openai", "groq", "mistral", "anthropic")
    has = {
        view.provider.name: {service for service in Service if office.desk.serves(view.provider, service)}
        for view in office.desk.views()
    }
    assert has["openai"] == {Service.CHAT, Service.COMPLETIONS, Service.EMBEDDINGS}
    assert has["groq"] == {Service.CHAT}
    assert has["mistral"] == {Service.CHAT, Service.EMBEDDINGS}
    assert has["anthropic"] == {Service.MESSAGES, Service.COUNT_TOKENS}
    assert has["deepseek"] == set()


async def test_a_body_is_passed_on(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    body = b'{"model": "m", "strange": [1]}'
    async with office.desk.passed_on("openai", Service.CHAT, body, {"x-more": "1"}) as answer:
        assert not isinstance(answer, Refusal) and not answer.is_stream and answer.status == 200
        whole = await answer.whole()
        assert isinstance(whole, bytes) and b'"system_fingerprint": "fp"' in whole
    assert fake.bodies == [body]


async def test_a_stream_is_passed_on_and_its_cut_told(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    async with office.desk.passed_on("openai", Service.CHAT, b'{"model": "cut", "stream": true}', {}) as answer:
        assert not isinstance(answer, Refusal) and answer.is_stream
        with pytest.raises(GenerationFailed):
            async for _ in answer.pieces():
                pass


async def test_refusals_come_as_values(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    async with office.desk.passed_on("openai", Service.CHAT, b'{"model": "denied"}', {}) as answer:
        assert isinstance(answer, ProviderFailed) and answer.status == 401
    async with office.desk.passed_on("nobody", Service.CHAT, b"{}", {}) as answer:
        assert isinstance(answer, NotFound)
    assert isinstance(await office.desk.open("nobody", REQUEST), NotFound)


async def test_what_the_block_raises_is_not_taken_for_the_provider_s(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    with pytest.raises(ConnectionResetError):
        async with office.desk.passed_on("openai", Service.CHAT, b'{"model": "m"}', {}):
            raise ConnectionResetError("our own client")


async def test_the_inner_road(fake: FakeProvider, office: Office) -> None:
    office.point(fake, "openai")
    await office.give_key("openai")
    opened = await office.desk.open("openai", REQUEST)
    assert not isinstance(opened, Refusal)
    async with opened:
        assert "".join([chunk.text async for chunk in opened]) == "Hello"
