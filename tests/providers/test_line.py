"""The one door to providers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from swarmd.domain.refusals import ProviderFailed
from swarmd.providers.line import ProviderTrouble, broken, pieces, refusal_of, scrubbed, whole
from tests.fakes.provider import KEY, FakeProvider, line, ready, until

BODY = b'{"model": "%s", "messages": []}'


async def trouble(fake: FakeProvider, model: str, *, private: bool = True, within_s: float | None = 5.0) -> ProviderFailed:
    async with line(private=private) as door:
        with pytest.raises(ProviderTrouble) as raised:
            async with door.asked(
                ready(fake), "chat/completions", BODY.replace(b"%s", model.encode()), within_s=within_s
            ) as response:
                await whole(ready(fake), response, limit=100_000)
        return raised.value.refusal


async def test_the_key_goes_in_a_header_and_nothing_of_ours_beside_it(fake: FakeProvider) -> None:
    async with line() as door:
        for name in ("openai", "anthropic"):
            provider = ready(fake, name)
            path = "v1/messages" if name == "anthropic" else "chat/completions"
            async with door.asked(provider, path, BODY.replace(b"%s", b"m"), headers={"x-more": "1"}) as response:
                assert await whole(provider, response)
        async with door.asked(ready(fake, key=""), "models") as response:
            assert b"small" in b"".join([piece async for piece in pieces(ready(fake), response)])
    (_, first, _), (_, second, _), (_, third, _) = fake.requests
    assert first["authorization"] == f"Bearer {KEY}" and "x-api-key" not in first
    assert second["x-api-key"] == KEY and "authorization" not in second and second["x-more"] == "1"
    assert "Authorization" not in third and "Cookie" not in third


@pytest.mark.parametrize(
    ("model", "status", "code", "said"),
    [
        ("denied", 401, "provider_key_refused", "refuses the key that this node has for it (401)"),
        ("absent", 404, "model_not_found", "answered 404: The model does not exist"),
        ("limited", 429, "rate_limit_error", "answered 429: slow down"),
        ("overloaded", 529, "overloaded_error", "answered 529: Overloaded"),
        ("down", 503, "provider_503", "answered 503: no capacity"),
        ("moved", 502, "provider_failed", "redirects are not followed"),
    ],
)
async def test_what_a_provider_says_no_with_is_kept(
    fake: FakeProvider, model: str, status: int, code: str, said: str
) -> None:
    failure = await trouble(fake, model)
    assert (failure.status, failure.code) == (status, code)
    assert said in failure.sentence and failure.sentence.startswith("provider openai ")
    assert KEY not in failure.sentence
    assert failure.retry_after == ("17" if model == "limited" else None)
    assert len(fake.requests) == 1


async def test_more_than_was_bargained_for(fake: FakeProvider) -> None:
    assert "more than 100000 bytes" in (await trouble(fake, "huge")).what


async def test_one_that_says_nothing(fake: FakeProvider) -> None:
    failure = await trouble(fake, "silent", within_s=0.05)
    assert (failure.status, failure.code) == (504, "provider_timeout")
    await until(fake.left.is_set)


async def test_one_that_is_not_there(fake: FakeProvider) -> None:
    gone = FakeProvider()
    gone.port = 1
    failure = await trouble(gone, "m")
    assert failure.unreachable and failure.status == 502 and "cannot be reached" in failure.what


async def test_private_addresses_need_the_owner_s_word_at_the_socket(fake: FakeProvider) -> None:
    failure = await trouble(fake, "m", private=False)
    assert failure.unreachable and "private_addresses" in failure.what
    assert fake.requests == []


async def test_a_name_that_leads_inside_is_not_asked_either(fake: FakeProvider) -> None:
    """`localhost` is a name: only its address tells."""
    provider = replace(ready(fake), base_url=f"http://localhost:{fake.port}/v1")
    async with line(private=False) as door:
        with pytest.raises(ProviderTrouble) as raised:
            async with door.asked(provider, "models"):
                pass
    assert "private_addresses" in raised.value.refusal.what and fake.requests == []


async def test_connections_of_the_old_rule_serve_nobody_under_the_new_one(fake: FakeProvider) -> None:
    allowed = [True]
    async with line() as door:
        door._private = lambda: allowed[0]
        async with door.asked(ready(fake), "models") as response:
            await whole(ready(fake), response)
        allowed[0] = False
        with pytest.raises(ProviderTrouble):
            async with door.asked(ready(fake), "models"):
                pass


async def test_leaving_in_the_middle_hangs_up(fake: FakeProvider) -> None:
    async with line() as door:
        async with door.asked(
            ready(fake), "chat/completions", b'{"model": "slow", "stream": true}'
        ) as response:
            assert await anext(pieces(ready(fake), response))
        fake.go_on.set()
        await asyncio.sleep(0)
        assert not [connection for session in door._sessions.values() for connection in session.connector._conns]


def test_bodies_of_errors_in_all_shapes() -> None:
    provider = ready(FakeProvider())
    for body, said in (
        (b'{"error": "plain"}', "plain"), (b'{"message": "flat"}', "flat"), (b'{"detail": [{"loc": 1}]}', '[{"loc": 1}]'),
        (b'[{"error": {"message": "in a list"}}]', "in a list"), (b"text", "text"), (b"<html>", "without a reason"),
        (b"", "without a reason"), (b"[" * 9999, "[[["), (b'{"error": {"message": "a\\nb"}}', "a b"),
        (b'"words"', "words"), (b"{}", "without a reason"),
    ):  # fmt: skip
        assert said in refusal_of(provider, 400, body).what
    assert len(refusal_of(provider, 400, b"x" * 100_000).what) < 2100


def test_no_key_is_in_a_sentence() -> None:
    provider = ready(FakeProvider(), key="plain-key-123")
    said = scrubbed("wrong plain-key-123 and Bearer abc and sk-12345678", provider)
    assert said == "wrong [hidden] and Bearer [hidden] and sk-[hidden]"
    assert "plain-key" not in repr(provider)


def test_an_exception_nobody_knows() -> None:
    assert broken(ready(FakeProvider()), ConnectionResetError()).what == "broke the connection off"
