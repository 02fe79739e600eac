"""What is said on a link besides work: told again after a failure, with respect for older programs, and a goodbye with a
reason."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, NodeSummary
from swarmd.identity import revocations
from swarmd.identity.keys import NetworkKey
from swarmd.kit.bus import EventBus
from swarmd.peers.neighbours import Neighbours
from swarmd.peers.talks import TELL_AGAIN_S, Talks
from swarmd.transport.rpc import Dispatcher, LinkLost, ResetCode, StreamReset
from swarmd.wire.messages import Heard, Revocations, Summary

OWN, PEER = NodeId("01" * 32), NodeId("02" * 32)
RECORD = revocations.revoke(NetworkKey(bytes(range(32))), PEER, now=1000.0)


@dataclass
class FakeLink:
    """Answers as told, and then hangs up."""

    answers: list[Exception | Heard]
    node: NodeId = PEER
    connection: Any = field(default_factory=lambda: SimpleNamespace(remote=Endpoint("10.0.0.2", 1)))
    told: list[object] = field(default_factory=list)
    opened: list[object] = field(default_factory=list)
    closed_with: str | None = None

    async def call(self, message: object, reply: type[object], *, timeout_s: float) -> object:
        self.told.append(message)
        answer = self.answers.pop(0) if self.answers else LinkLost("over")
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(message=answer)

    def open(self, message: object, *, last: bool) -> None:
        self.opened.append(message)
        if self.answers and isinstance(self.answers[0], Exception):
            raise self.answers[0]

    def close(self, reason: str) -> None:
        self.closed_with = reason


def talks(world, *, revoked=()):
    async def hear(*_):
        return False

    neighbours = Neighbours(
        own=OWN,
        book=SimpleNamespace(proven_endpoints=lambda node: ()),
        bus=EventBus(),
        clock=world.clock,
        hear=hear,
        direct=lambda node: True,
        wake=lambda node: None,
        revoked=lambda: revoked,
    )
    neighbours.announce(
        NodeSummary(node=OWN, version=1, software="s/1", started_at=0.0, ram_free_bytes=1, ram_total_bytes=2)
    )
    listed = SimpleNamespace(record=lambda node: next((one for one in revoked if one.node == node), None))
    return Talks(
        own=OWN,
        lines=SimpleNamespace(),
        neighbours=neighbours,
        revoked=listed,
        dispatcher=Dispatcher(),
        spawn=lambda *_: None,
        world=world,
        bus=EventBus(),
    )


@pytest.mark.looptime
async def test_news_that_did_not_arrive_are_told_again(world, looptime):
    link = FakeLink([TimeoutError(), StreamReset(ResetCode.FAILED, "the handler failed"), LinkLost("over")])
    await talks(world).talk(link)
    assert [type(one) for one in link.told] == [Summary] * 3
    assert looptime == 2 * TELL_AGAIN_S


async def test_a_program_that_knows_no_revocations_hears_the_rest(world):
    link = FakeLink([StreamReset(ResetCode.UNKNOWN_MESSAGE, "nobody handles code 13 here"), LinkLost("over")])
    await talks(world, revoked=(RECORD,)).talk(link)
    assert [type(one) for one in link.told] == [Revocations, Summary]


async def test_who_is_out_is_told_so_with_the_record_and_cut_even_when_it_does_not_listen(world):
    link, deaf = FakeLink([]), FakeLink([LinkLost("over")])
    told = talks(world, revoked=(RECORD,))
    told.say_goodbye(link, RECORD)
    told.say_goodbye(deaf, RECORD)
    assert link.opened == [Revocations(records=(revocations.encode(RECORD),))]
    assert link.closed_with == deaf.closed_with == "the membership was revoked"
