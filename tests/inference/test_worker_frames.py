"""Frames between node and worker: they survive the trip, and sizes are checked before anything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.inference import worker_frames as frames


@pytest.mark.parametrize(
    "command",
    [
        frames.Load(3, "/a/b", True, frames.EmbeddingsAt(10, 8, 100, 64, 68, 2.5), 512, 4, 128, 2),
        frames.Unload(1),
        frames.RenderChat("t", [frames.Said("user", "hi")]),
        frames.StartSequence(2, frames.SamplingAs(0.5, 1.0, 0, 0.0, 0.0, 0.0, 1.0, -5, 3)),
        frames.StartSequence(2, None),
        frames.Step(0, 2, [frames.Run(0, 5, 1)], [(0, 0, 5)]),
    ],
)
def test_commands_survive(command):
    data = frames.encode(command, 77)
    message, payload = frames.sizes(data)
    assert payload == 77
    assert frames.decode_command(data[8 : 8 + message]) == command


@pytest.mark.parametrize("answer", [frames.Stepped(5, [(3, [(3, -0.5)])]), frames.Failed("memory", "no"), frames.Done()])
def test_answers_survive(answer):
    data = frames.encode(answer, 0)
    assert frames.decode_answer(data[8:]) == answer


def test_a_frame_above_its_limit_is_refused_by_its_header_alone():
    with pytest.raises(frames.BadFrame, match="above"):
        frames.sizes(frames.HEADER.pack(frames.MESSAGE_LIMIT + 1, 0))
    with pytest.raises(frames.BadFrame, match="above"):
        frames.sizes(frames.HEADER.pack(0, frames.PAYLOAD_LIMIT + 1))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_bad_frame(data):
    for decode in (frames.decode_command, frames.decode_answer):
        with contextlib.suppress(frames.BadFrame):
            decode(data)


@pytest.mark.parametrize("data", [b"\x91\xa4\x00\x00\x00\x80", b"\x92\xa5Hello" + b"\x91" * 5000], ids=["no UTF-8", "deep"])
def test_what_msgspec_does_not_call_a_decode_error_is_a_bad_frame_too(data):
    for decode in (frames.decode_command, frames.decode_answer):
        with pytest.raises(frames.BadFrame):
            decode(data)
