"""From chunks to bodies, without a socket; what clients see of it is in test_openai."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmd.api.openai_prints import ChatPrinter, CompletionPrinter, Gathered, swarm
from swarmd.domain.generation import Finish, Logprob, TokenChunk
from tests.fakes.rim import USAGE, script


def printer() -> ChatPrinter:
    return ChatPrinter(id="i", created=1, model="m")


def test_a_token_without_text_yet_prints_nothing() -> None:
    assert printer().chunks(TokenChunk(sequence=0, text="")) == []


def test_text_in_the_last_chunk_comes_before_the_finish() -> None:
    last = TokenChunk(sequence=0, text="end", finish=Finish.LENGTH, usage=USAGE)
    text, finish = printer().chunks(last)
    assert (text.choices[0].delta.content, text.choices[0].finish_reason) == ("end", None)
    assert finish.choices[0].finish_reason == "length"


def test_a_token_with_logprobs_and_no_text_is_not_lost() -> None:
    half = Logprob(token=1, text="�", logprob=-1.0)
    (chunk,) = printer().chunks(TokenChunk(sequence=0, text="", logprobs=((half, ()),)))
    assert chunk.choices[0].logprobs is not None


def test_gathering() -> None:
    reply = Gathered()
    for chunk in script("a", "b"):
        reply.add(chunk)
    assert printer().whole(reply).choices[0].message.content == "ab"
    assert CompletionPrinter(id="i", created=1, model="m").whole(reply).choices[0].text == "ab"


def test_a_reply_that_never_ended_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        printer().whole(Gathered())


def test_speed_of_a_one_token_reply_is_zero_not_infinite() -> None:
    assert swarm(replace(USAGE, completion_tokens=1, decode_ms=0.0)).tokens_per_second == 0.0
