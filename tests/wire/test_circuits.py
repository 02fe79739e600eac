"""Codes are for ever."""

from __future__ import annotations

from swarmd.domain.ids import NodeId
from swarmd.wire.circuits import CircuitBytes, CircuitOpen, IncomingCircuit, OpenCircuit
from swarmd.wire.messages import decode, encode


def test_every_message_comes_back_under_its_code() -> None:
    for code, message in (
        (140, OpenCircuit(node=NodeId("ab" * 32))),
        (141, IncomingCircuit(node=NodeId("ab" * 32))),
        (141, IncomingCircuit(node=None)),
        (142, CircuitOpen()),
        (143, CircuitBytes()),
    ):
        assert encode(message)[0] == code
        assert decode(*encode(message)) == message
