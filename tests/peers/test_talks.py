"""What is said on a link besides work: told again after a failure, with respect for older programs, and a goodbye with a
reason."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.domain.events import IdentityCloned
from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.identity import revocations
from swarmd.identity.keys import NetworkKey
from swarmd.kit.bus import EventBus
from swarmd.peers.neighbours import Neighbours
from swarmd.peers.talks import TELL_AGAIN_S, TELLS, Talks
from swarmd.transport.rpc import Dispatcher, LinkLost, ResetCode, StreamReset
from swarmd.wire.gossip import Compare, Versions
from swarmd.wire.messages import Heard, Introduction, Refused, Revocations, Twin
from tests.fakes.linked import joined, open_swarm

OWN, PEER, OTHER = NodeId("01" * 32), NodeId("02" * 32), NodeId("03" * 32)
RECORD = revocations.revoke(NetworkKey(bytes(range(32))), PEER, now=1000.0)


@dataclass
class FakeLink:
    """Answers as told, and then hangs up."""

    answers: list[Exception | Heard | Refused]
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
        if isinstance(answer, Refused):
            return answer
        return SimpleNamespace(message=answer)

    def open(self, message: object, *, last: bool) -> None:
        self.opened.append(message)
        if self.answers and isinstance(self.answers[0], Exception):
            raise self.answers[0]

    def close(self, reason: str) -> None:
        self.closed_with = reason


async def silent(node, ask):
    """A gossip that has nothing to say on a link that breaks."""
    raise LinkLost("over")


def talks(world, *, revoked=(), converse=silent, introduces=True):
    async def hear(*_):
        return False

    endpoint = Endpoint("10.0.0.3", 1)
    book = SimpleNamespace(proven_endpoints=lambda node: (endpoint,))
    neighbours = Neighbours(
        own=OWN,
        book=book,
        clock=world.clock,
        hear=hear,
        direct=lambda node: True,
        wake=lambda node: None,
        revoked=lambda: revoked,
    )
    if introduces:
        neighbours._news[OTHER] = asyncio.Event()
    gossip = SimpleNamespace(converse=converse)
    listed = SimpleNamespace(record=lambda node: next((one for one in revoked if one.node == node), None))
    return Talks(
        own=OWN,
        lines=SimpleNamespace(),
        neighbours=neighbours,
        gossip=gossip,
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
    assert [type(one) for one in link.told] == [Introduction] * 3
    assert looptime == 2 * TELL_AGAIN_S


@pytest.mark.looptime
async def test_gossip_goes_on_after_what_the_link_survives_and_hears_refusals_as_none(world, looptime):
    answers = []

    async def converse(node, ask):
        assert node == PEER
        answers.append(await ask(Compare(marks=bytes(8)), Versions))

    async def three_times(node, ask):
        await converse(node, ask)
        await converse(node, ask)
        await converse(node, ask)

    given = Versions(differing=b"", pairs=b"")
    link = FakeLink([Refused(kind="Busy", sentence="not now"), TimeoutError(), given, StreamReset(ResetCode.FAILED, "x")])
    talk = asyncio.ensure_future(talks(world, converse=three_times, introduces=False).talk(link))
    await asyncio.sleep(TELL_AGAIN_S * 3)
    talk.cancel()
    await asyncio.gather(talk, return_exceptions=True)
    assert answers == [None, given]
    assert len(link.told) == 5, "the fifth found the link gone"


async def test_a_program_that_knows_no_revocations_hears_the_rest(world):
    link = FakeLink([StreamReset(ResetCode.UNKNOWN_MESSAGE, "nobody handles code 13 here"), LinkLost("over")])
    await talks(world, revoked=(RECORD,)).talk(link)
    assert [type(one) for one in link.told] == [Revocations, Introduction]


async def test_who_is_out_is_told_so_with_the_record_and_cut_even_when_it_does_not_listen(world):
    link, deaf = FakeLink([]), FakeLink([LinkLost("over")])
    told = talks(world, revoked=(RECORD,))
    told.say_goodbye(link, RECORD)
    told.say_goodbye(deaf, RECORD)
    assert link.opened == [Revocations(records=(revocations.encode(RECORD),))]
    assert link.closed_with == deaf.closed_with == "the membership was revoked"


async def test_a_hint_at_a_copy_of_this_node_is_passed_on_with_its_teller_and_once_an_hour_for_each(world):
    told, ended = talks(world), []
    with told._bus.spy() as spy:
        for teller in (PEER, OTHER, PEER, OTHER):
            stream = SimpleNamespace(peer=SimpleNamespace(node=teller), end=lambda teller=teller: ended.append(teller))
            told._told_twin(Twin(), memoryview(b""), stream)
        assert spy.of(IdentityCloned) == [IdentityCloned(node=OWN, at=None, told_by=teller) for teller in (PEER, OTHER)]
    assert ended == [PEER, OTHER, PEER, OTHER], "nobody's stream stays open"

@pytest.mark.looptime
async def test_who_tells_of_revocations_without_waiting_piles_up_no_tasks(tmp_path: Path) -> None:
    """Seen: a thousand of them, while the first waited for the disk."""
    async with open_swarm(tmp_path) as swarm:
        a, b = await swarm.start(1), await swarm.start(2)
        await joined(b, a)
        async with asyncio.timeout(60):
            while a.links.link(b.id) is None or b.links.link(a.id) is None:
                await asyncio.sleep(0.05)
        network_key, link = a.member.membership._network_key, a.links.link(b.id)
        assert network_key is not None and link is not None
        record = revocations.revoke(network_key, OTHER, now=a.member.world.clock.now())
        told = Revocations(records=(revocations.encode(record),))
        async with b.member.membership.revocations._turn:  # its disk is slow
            for _ in range(100):
                for stream in [link.open(told, last=True) for _ in range(10)]:
                    stream.reset()
                await asyncio.sleep(0.01)
            hearing = [task for task in asyncio.all_tasks() if task.get_name().startswith("revocations from")]
            assert 0 < len(hearing) <= TELLS
            with pytest.raises(StreamReset):
                await link.call(told, Heard, timeout_s=10.0)
        await asyncio.sleep(1.0)
        assert [one.node for one in b.member.membership.revocations.records()] == [OTHER]
        assert (await link.call(told, Heard, timeout_s=10.0)).message == Heard()
