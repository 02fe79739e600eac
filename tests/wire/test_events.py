"""Events are values: they compare, and nobody changes them."""

from __future__ import annotations

import dataclasses

import pytest

from swarmd.wire.events import Closed, MessageReceived, StreamReset
from swarmd.wire.frames import Message


def test_events_are_frozen_values() -> None:
    message = Message(1, memoryview(b"meta"), memoryview(b""), 16)
    assert MessageReceived(3, message) == MessageReceived(3, message)
    with pytest.raises(AttributeError):
        message.code = 2  # pyright: ignore[reportAttributeAccessIssue]
    assert StreamReset(stream=1, code=2, text="no") != StreamReset(stream=1, code=3, text="no")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Closed(reason="silent").reason = "other"  # pyright: ignore[reportAttributeAccessIssue]
