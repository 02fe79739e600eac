"""What a conversation remembers."""

from __future__ import annotations

import pytest

from swarmd.cli.conversation import Conversation, Wishes
from swarmd.cli.failure import Failure
from tests.cli.conftest import Cli
from tests.fakes.rim import no_coverage


def test_a_conversation_remembers_and_forgets(cli: Cli) -> None:
    talk = Conversation(place=cli.place, model="auto", system="S", wishes=Wishes(max_tokens=9))
    talk.ask("one")
    talk.ask("two")
    talk.forget()
    talk.ask("three")
    said = [[turn.content for turn in request.messages] for request in cli.rim.pipeline.requests]
    assert said == [["S", "one"], ["S", "one", "Hello!", "two"], ["S", "three"]]
    assert {request.max_tokens for request in cli.rim.pipeline.requests} == {9}


def test_a_question_that_failed_is_not_remembered(cli: Cli) -> None:
    talk = Conversation(place=cli.place, model="auto")
    cli.rim.pipeline.says = no_coverage()
    with pytest.raises(Failure):
        talk.ask("one")
    cli.rim.pipeline.says = None
    talk.ask("two")
    assert [turn.content for turn in cli.rim.pipeline.requests[-1].messages] == ["two"]


def test_the_last_reply_says_who_and_how_fast(cli: Cli) -> None:
    talk = Conversation(place=cli.place, model="auto")
    talk.ask("one")
    last = talk.last
    assert last is not None and last.swarm is not None and last.usage is not None
    assert (last.text, last.finish_reason) == ("Hello!", "stop")
    assert last.first_s is not None and 0 < last.first_s <= last.seconds
    assert last.model not in ("", "auto"), "who answers, where auto was asked"


def test_wishes_are_checked_and_taken_back(cli: Cli) -> None:
    talk = Conversation(place=cli.place, model="auto")
    talk.set("temperature", "0")
    talk.set("seed", "7")
    talk.set("max_tokens", "3")
    assert talk.wishes == Wishes(max_tokens=3, temperature=0.0, seed=7)
    talk.set("seed", "")
    assert talk.wishes.seed is None
    for name, text in (("max_tokens", "0"), ("max_tokens", "1.5"), ("temperature", "nan"), ("seed", "-1"), ("x", "1")):
        with pytest.raises(Failure):
            talk.set(name, text)


def test_it_can_be_kept_as_markdown(cli: Cli) -> None:
    talk = Conversation(place=cli.place, model="auto", system="S")
    talk.ask("one")
    assert talk.as_markdown() == "## Beforehand\n\nS\n\n## Question\n\none\n\n## Reply\n\nHello!\n"
