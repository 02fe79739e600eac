"""What peers write does not reach a terminal as they wrote it."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import Forbidden
from swarmd.transport.foreign_text import MAX_CHARACTERS, cleaned, cleaned_message
from swarmd.transport.rpc import LinkLost, StreamReset
from swarmd.wire.generation import StageBroken
from swarmd.wire.messages import Refused
from tests.transport.nodes import Echo, Echoed, nodes

NASTY = "\x1b[2J\nINFO all is well\u202e\x00"


def test_one_line_that_no_terminal_obeys() -> None:
    assert cleaned("as it was: über, 漢字") == "as it was: über, 漢字"
    assert cleaned(NASTY) == "?[2J?INFO all is well??"
    assert cleaned("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert cleaned("x" * 100_000) == "x" * (MAX_CHARACTERS - 1) + "…"


def test_messages_with_sentences_are_cleaned() -> None:
    assert cleaned_message(Refused(kind="Busy\n", sentence=NASTY)) == Refused(kind="Busy?", sentence=cleaned(NASTY))
    assert cleaned_message(StageBroken(reason=NASTY)) == StageBroken(reason=cleaned(NASTY))


@pytest.mark.parametrize("length", [1, 400])
async def test_a_peer_cannot_write_into_our_log_with_a_refusal_a_reset_or_a_goodbye(length: int) -> None:
    nasty = NASTY * length

    async def refuse(request: Echo, payload: memoryview, peer: PeerIdentity) -> object:
        return Forbidden(what=nasty)

    async with nodes("ab") as (a, b):
        b.dispatcher.answer(Echo, refuse)
        link = await a.link_to(b)
        refused = await link.call(Echo(text=""), Echoed, timeout_s=5)
        assert isinstance(refused, Refused)
        reset = StreamReset(4, nasty)
        stream = link.open(Echo(text=""))
        await asyncio.wait_for(b.arrived.wait(), 5)
        b.links[0].close(nasty)
        reason = await asyncio.wait_for(link.wait_closed(), 5)
        with pytest.raises(LinkLost) as lost:
            while await stream.receive() is not None:
                pass
        for text in (refused.sentence, reset.text, str(reset), reason, link.closed or "", str(lost.value)):
            assert text.isprintable() and 0 < len(text) <= MAX_CHARACTERS + len("bad message: "), text
