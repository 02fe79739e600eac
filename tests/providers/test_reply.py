"""Chunks have numbers, and the last one what it cost."""

from __future__ import annotations

import pytest

from swarmd.domain.generation import Finish
from swarmd.domain.structure import CallPiece
from swarmd.kit.world import SeededClock
from swarmd.providers.reply import Piece, ReplyInTheMaking


async def test_pieces_become_chunks() -> None:
    reply = ReplyInTheMaking(clock=SeededClock())
    chunks = [reply.add(piece) for piece in (Piece(prompt_tokens=7), Piece(text="a"), Piece(), Piece(text="b"))]
    assert [chunk and (chunk.sequence, chunk.text) for chunk in chunks] == [None, (0, "a"), None, (1, "b")]
    reply.add(Piece(finish=Finish.LENGTH, completion_tokens=2, cached_tokens=3))
    last = reply.last()
    assert (last.sequence, last.text, last.finish) == (2, "", Finish.LENGTH)
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.cached_tokens) == (7, 2, 3)
    assert last.usage.stages == ()


@pytest.mark.parametrize("said", [Finish.STOP, Finish.TOOL_CALLS])
async def test_whether_it_called_is_seen_and_not_said(said: Finish) -> None:
    for pieces, finish in (((CallPiece(index=0, id="c", name="f"),), Finish.TOOL_CALLS), ((), Finish.STOP)):
        reply = ReplyInTheMaking(clock=SeededClock())
        reply.add(Piece(calls=pieces, finish=said))
        assert reply.last().finish is finish


async def test_a_reply_that_was_cut_off_has_no_last_chunk() -> None:
    with pytest.raises(AssertionError):
        ReplyInTheMaking(clock=SeededClock()).last()
