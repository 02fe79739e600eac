"""`swarmd bench`: what it says is what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarmd.api.openai_shapes import PromptDetails, Swarm, SwarmStage, UsageOut
from swarmd.cli.bench import decode_speed, lines_of, measured
from swarmd.cli.conversation import Reply
from swarmd.cli.failure import Failure
from tests.cli.conftest import Cli

A, B = "a" * 16, "b" * 16


def reply(
    *, tokens: int = 11, cached: int = 0, seconds: float = 2.0, link_ms: float = 6.0, nodes: tuple[str, ...] = (A, B)
) -> Reply:
    stages = [
        SwarmStage(node=node, layers=(at, at + 1), compute_ms=1.0 + at, node_ms=2.0 + at) for at, node in enumerate(nodes)
    ]
    swarm = Swarm(
        stages=stages, link_ms=link_ms, tokens_per_second=1.0, prefill_ms=100.0, proposed_tokens=4, accepted_tokens=3
    )
    usage = UsageOut(
        prompt_tokens=50, completion_tokens=tokens, total_tokens=50 + tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=cached),
    )  # fmt: skip
    return Reply(text="x", swarm=swarm, usage=usage, finish_reason="stop", model="tiny", first_s=1.0, seconds=seconds)


def test_figures_are_medians_of_what_the_client_saw() -> None:
    found = measured(A, 2, reply(), [reply(), reply(seconds=3.0), reply(seconds=6.0)], api_ms=0.5, seconds=11.0)
    assert found.tokens_per_second == 5.0, "10 tokens after the first, in 1, 2 and 5 s"
    assert found.tokens_per_second_all == 3.0, "33 tokens in 11 s"
    assert (found.first_token_ms, found.prompt_tokens_per_second) == (1000.0, 500.0)
    assert (found.hops, found.hop_ms) == (2, 3.0)
    assert [(one.node, one.compute_ms) for one in found.stages] == [(A, 1.0), (B, 2.0)]
    assert (found.guessed_tokens, found.guesses_right) == (12, 9)
    text = "\n".join(lines_of(found))
    assert "5.0 tokens/s, 3.0 of 2 users together" in text and "2 for a token, 3.00 ms each" in text


def test_prompts_from_the_caches_are_no_speed() -> None:
    found = measured(A, 1, reply(), [reply(cached=50), reply(cached=50)], api_ms=0.5, seconds=4.0)
    assert found.prompt_tokens_per_second is None
    assert "in the caches" in "\n".join(lines_of(found))
    half = measured(A, 1, reply(), [reply(cached=25)], api_ms=0.5, seconds=4.0)
    assert half.prompt_tokens_per_second == 250.0, "what was computed, by the time it took"


def test_replies_that_took_another_way_do_not_mix_into_the_last_ones() -> None:
    found = measured(A, 1, reply(), [reply(nodes=(A,), link_ms=0.0), reply()], api_ms=0.5, seconds=4.0)
    assert (found.hops, found.hop_ms) == (2, 3.0)
    alone = measured(A, 1, reply(), [reply(nodes=(A,), link_ms=0.0)], api_ms=0.5, seconds=4.0)
    assert (alone.hops, alone.hop_ms) == (0, None) and "one node answers alone" in "\n".join(lines_of(alone))


def test_a_reply_of_one_token_measures_nothing() -> None:
    assert decode_speed(reply(tokens=1)) is None
    assert decode_speed(replace(reply(), first_s=None)) is None
    with pytest.raises(Failure, match="said too little"):
        measured(A, 1, reply(), [reply(tokens=1)], api_ms=0.5, seconds=4.0)


def test_it_measures_through_the_api_with_prompts_that_no_cache_knows(cli: Cli) -> None:
    result = cli("bench", "--rounds", "2", "--users", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["replies"], found["users"], found["hops"]) == (4, 2, 2)
    prompts = [request.messages[0].content for request in cli.rim.pipeline.requests]
    assert len({text[:12] for text in prompts}) == 5, "the first reply is not counted"
    assert {request.sampling.temperature for request in cli.rim.pipeline.requests} == {0.0}
    assert "tokens/s" in cli("bench", "--rounds", "1").stdout
