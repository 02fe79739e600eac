from __future__ import annotations

import inspect

import msgspec
import pytest

from swarmd.api import replies
from swarmd.domain import refusals
from swarmd.domain.ids import ModelId, NodeId, RequestId
from swarmd.domain.refusals import Refusal


class Inner(msgspec.Struct):
    role: str


class Body(msgspec.Struct):
    messages: list[Inner]


EXAMPLES: dict[str, object] = {
    "what": "words", "param": None, "model": ModelId("m"), "missing": (1,), "shard_count": 2, "node": NodeId("a" * 64),
    "layers": ((3, 6),),
    "needed_bytes": 1, "free_bytes": 0, "prompt_tokens": 9, "context_tokens": 8, "reason": "because", "expired_at": 0.0,
    "tried": (), "network": "c" * 64, "how": "crashed", "given": True, "retry_after_s": 2.5, "limit_bytes": 1,
    "media": "text/plain", "above": None, "method": "GET", "allowed": ("PUT",), "request": RequestId("r"),
    "repo_id": "owner/name", "has_token": False, "remedy": "do this", "expected": NodeId("b" * 64), "where": "there",
    "provider": "openai", "status": 429, "code": "slow_down", "retry_after": "17", "unreachable": False,
}  # fmt: skip


def classes() -> list[type[Refusal]]:
    found = [
        one
        for module in (refusals, replies)
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Refusal) and one is not Refusal
    ]
    return list(dict.fromkeys(found))


def example(refusal: type[Refusal]) -> Refusal:
    return refusal(**{name: EXAMPLES[name] for name in inspect.signature(refusal).parameters})


def test_every_refusal_has_a_row_and_no_row_is_left_over() -> None:
    assert set(replies.TABLE) == set(classes())


@pytest.mark.parametrize("refusal", classes())
def test_every_refusal_prints_the_one_shape(refusal: type[Refusal]) -> None:
    reply = replies.reply_to(example(refusal))
    body = msgspec.json.decode(msgspec.json.encode(reply.body))
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert 400 <= reply.status <= 507


def test_codes_tell_refusals_apart() -> None:
    codes = [row.code for row in replies.TABLE.values()]
    assert len(set(codes)) == len(codes)


def test_contract_statuses() -> None:
    """Reference 2.0: validation 400, key 401, not found 404, disk full 507, rate limit 429, bug 500, cannot serve 503."""
    expected = {
        refusals.Invalid: 400, replies.NoKey: 401, refusals.NotFound: 404, refusals.NoSpace: 507,
        replies.TooManyRequests: 429, replies.Broken: 500, refusals.NoCoverage: 503, refusals.Busy: 503,
        refusals.Forbidden: 403,
    }  # fmt: skip
    assert {refusal: replies.TABLE[refusal].status for refusal in expected} == expected


def test_who_should_come_back_is_told_when() -> None:
    assert replies.reply_to(refusals.Busy(what="full")).headers["retry-after"] == "1"
    assert replies.reply_to(replies.TooManyRequests(retry_after_s=0.2)).headers["retry-after"] == "1"
    assert replies.reply_to(replies.TooManyRequests(retry_after_s=12.1)).headers["retry-after"] == "13"
    assert "retry-after" not in replies.reply_to(example(refusals.NoCoverage)).headers
    hub = refusals.HubFailed(what="the hub has had enough of this address", retry_after_s=29.2)
    assert (replies.reply_to(hub).headers["retry-after"], hub.sentence[-17:]) == ("30", "try again in 30 s")
    assert "retry-after" not in replies.reply_to(refusals.HubFailed(what="the hub does not answer")).headers


def test_what_the_hub_hides_is_told_with_a_remedy() -> None:
    nobody, stranger = (refusals.HubForbidden(repo_id="a/b", has_token=has) for has in (False, True))
    assert "HF_TOKEN" in nobody.sentence and "HF_TOKEN" not in stranger.sentence
    assert all("accept its terms" in one.sentence and "a/b" in one.sentence for one in (nobody, stranger))
    assert replies.reply_to(nobody).status == 502


def test_unreadable_bodies_name_the_place() -> None:
    def fault(data: bytes) -> refusals.Invalid:
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)) as caught:
            msgspec.json.decode(data, type=Body)
        return replies.unreadable(caught.value)

    wrong = fault(b'{"messages":[{"role":1}]}')
    assert wrong.param == "messages[0].role"
    assert "$.messages[0].role" in wrong.sentence
    assert "valid JSON" in fault(b"{").sentence
    assert "valid JSON" in fault(b'{"messages":[{"role":"\xff"}]}').sentence
