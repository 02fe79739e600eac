"""Requests to providers are counted once, by how they ended, whichever way they took."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.domain.generation import ChatMessage, GenerationFailed, GenerationRequest
from swarmd.domain.ids import ModelId, RequestId
from swarmd.domain.providers import Service
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.providers.counting import NAMES_LIMIT, OTHER, Counts
from tests.fakes.provider import FakeProvider, Office, opened, serving

ENDS = {
    "x": "answered", "limited": "limited", "overloaded": "limited", "denied": "refused", "down": "failed", "cut": "failed",
}  # fmt: skip


@pytest.mark.parametrize("inner", [False, True])
async def test_each_end_is_counted_once(tmp_path: Path, inner: bool) -> None:
    async with serving(FakeProvider()) as fake, opened(Office(tmp_path)) as office:
        office.point(fake, "openai")
        await office.give_key("openai")

        async def ask(model: str, *, leave: bool = False) -> None:
            messages = (ChatMessage(role="user", content="hi"),)
            request = GenerationRequest(request=RequestId("r"), model=ModelId(model), messages=messages)
            body = b'{"model":"' + model.encode() + b'","stream":true}'
            if inner:
                reply = await office.desk.open("openai", request)
                if not isinstance(reply, Refusal):
                    async with reply:
                        async for _ in reply:
                            if leave:
                                break
                return
            async with office.desk.passed_on("openai", Service.CHAT, body, {}) as answer:
                if not isinstance(answer, Refusal):
                    async for _ in answer.pieces():
                        if leave:
                            break

        expected = dict.fromkeys(office.desk.counts.by_provider.get("openai", {}), 0)
        for model, end in ENDS.items():
            try:
                await ask(model)
            except GenerationFailed:
                assert model == "cut"
            expected[end] = expected.get(end, 0) + 1
        await ask("slow", leave=True)
        expected["cancelled"] = 1
        assert office.desk.counts.by_provider == {"openai": expected}


def test_names_are_few_and_what_was_never_asked_is_no_request() -> None:
    counts = Counts()
    for number in range(NAMES_LIMIT + 3):
        counts.add(f"p{number}", "answered")
    counts.refused("p0", Invalid(what="it has no penalties", param="frequency_penalty"))
    assert len(counts.by_provider) == NAMES_LIMIT + 1 and counts.by_provider[OTHER]["answered"] == 3
    assert sum(counts.by_provider["p0"].values()) == 1
