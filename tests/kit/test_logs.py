"""Two formats, one redaction."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from swarmd.kit.logs import Redactor, Seldom, set_level, setup
from swarmd.kit.world import SeededClock

logger = logging.getLogger("swarmd.peers.links")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    names = ("", "swarmd", "plugins")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("join swarm://AbC-12_x now", "join swarm://[hidden] now"),
        ("join 7-crossover-clockwork@attic", "join 7-[hidden]@attic"),
        ("model tiny-7-instruct-chat, 7-instruct-chat-q8", "model tiny-7-instruct-chat, 7-instruct-chat-q8"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [hidden]"),
        ("key hf_ABCDEFGHIJ and sk-proj-0123456789", "key hf_[hidden] and sk-[hidden]"),
        ("POST /x?token=abcdef&a=1", "POST /x?token=[hidden]&a=1"),
        ('{"api_key": "0123456789"}', '{"api_key": "[hidden]"}'),
        ("12 tokens per second, token: 5", "12 tokens per second, token: 5"),
        ("ask-me and task_token", "ask-me and task_token"),
    ],
)
def test_known_forms_of_secrets_are_struck_out(text: str, clean: str) -> None:
    assert Redactor().clean(text) == clean


def test_told_secrets_are_struck_out() -> None:
    redactor = Redactor()
    redactor.hide("f00dface")
    assert redactor.clean("it is f00dface, f00dface") == "it is [hidden], [hidden]"
    with pytest.raises(ValueError, match="fewer than 8"):
        redactor.hide("abc")


def test_pretty_lines() -> None:
    stream = io.StringIO()
    setup("info", stream=stream).hide("very-secret")
    logger.info("peer %s is up, very-secret", "ab12")
    logger.debug("not shown")
    try:
        raise OSError("with very-secret inside")
    except OSError:
        logger.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first[2] == ":" and first.endswith(" info    peers.links: peer ab12 is up, [hidden]")
    assert rest[0].endswith(" error   peers.links: failed")
    assert rest[-1] == "OSError: with [hidden] inside"


def test_json_lines() -> None:
    stream = io.StringIO()
    setup("debug", format="json", stream=stream)
    logger.debug("a %s", "b")
    try:
        raise OSError("gone")
    except OSError:
        logger.warning("failed", exc_info=True)
    one, two = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (one["level"], one["logger"], one["message"]) == ("debug", "swarmd.peers.links", "a b")
    assert one["time"].endswith("+00:00")
    assert two["traceback"].endswith("OSError: gone")


def test_libraries_are_quiet_unless_we_debug() -> None:
    stream = io.StringIO()
    setup("info", stream=stream)
    logging.getLogger("some.library").info("chatter")
    assert stream.getvalue() == ""
    set_level("debug")
    logging.getLogger("some.library").info("chatter")
    assert "chatter" in stream.getvalue()


def test_unknown_level_or_format_is_refused() -> None:
    with pytest.raises(ValueError, match="level is one of"):
        setup("loud")
    with pytest.raises(ValueError, match="format one of"):
        setup("info", format="xml")


@pytest.mark.looptime
async def test_the_same_text_is_due_once_an_hour() -> None:
    seldom = Seldom(clock=SeededClock())
    assert seldom.due("out") and not seldom.due("out") and seldom.due("away")
    await asyncio.sleep(Seldom.EVERY_S)
    assert seldom.due("out") and not seldom.due("out")
    for number in range(Seldom.REMEMBERED):
        assert seldom.due(str(number))
    assert seldom.due("out"), "forgotten, the memory is bounded"
    assert len(seldom._said) == Seldom.REMEMBERED
