"""Joining by a short code, in virtual time: over the local network, at an address, through somebody else, and in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.discovery.join import MAX_CANDIDATES, SEEK_S, Joined
from swarmd.discovery.lan import Notice
from swarmd.discovery.short_words import FIRST, SECOND
from swarmd.domain.events import MemberAdmitted, NetworkJoined, ShortCodeEnded, SummaryReceived
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import InviteState
from swarmd.domain.peers import Endpoint, NodeSummary
from swarmd.domain.refusals import BadCode, Forbidden, Invalid, NoAnswer, UsedUp
from swarmd.kit.world import SeededClock
from swarmd.peers.short_codes import LIFE_S
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


def mistaken(code: str) -> str:
    """The same code with another word."""
    number, first, second = code.split("-")
    return f"{number}-{first}-{SECOND[(SECOND.index(second) + 1) % len(SECOND)]}"


async def states(node: Node) -> list[InviteState]:
    await asyncio.sleep(0.1)
    return [view.state for view in await node.codes.invites()]


async def test_a_short_code_makes_a_member_in_the_local_network(swarm: Swarm) -> None:
    a, b = await swarm.start(1, lan=True), await swarm.start(2, lan=True)
    code = await a.short_code()
    await asyncio.sleep(0.1)
    start = asyncio.get_running_loop().time()
    with a.member.bus.spy() as at_a, b.member.bus.spy() as at_b:
        outcome = await b.joiner.join(f" {code.upper().replace('-', ' ')}\n")
        network = a.member.membership.network
        assert network is not None
        at = Endpoint("10.0.0.1", 8810)
        assert outcome == Joined(network=network, inviter=a.id, endpoint=at, linked=True, already=False)
        assert at_a.of(MemberAdmitted) == [MemberAdmitted(node=b.id)]
        assert at_b.of(NetworkJoined) == [NetworkJoined(network=network, inviter=a.id)]
    assert asyncio.get_running_loop().time() - start < 1, "it does not wait for the end of the search"
    assert b.member.membership.network == network
    assert await states(a) == [InviteState.USED]
    assert Endpoint("10.0.0.1", 8810) in b.member.book.endpoints(a.id)


async def test_a_short_code_makes_a_member_at_an_address(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    outcome = await b.joiner.join(f"{await a.short_code()}@10.0.0.1")
    assert isinstance(outcome, Joined)
    assert (outcome.inviter, outcome.endpoint, outcome.linked) == (a.id, Endpoint("10.0.0.1", 8810), True)
    await swarm.stop(2)
    b = await swarm.start(2)
    assert await b.links.wait_for(a.id, timeout_s=10), "and it comes back"


@pytest.mark.parametrize("where", ["named", "in the room"])
async def test_a_common_member_passes_a_short_code_on_and_is_who_the_new_one_links_to(swarm: Swarm, where: str) -> None:
    hub, around = swarm.hub, where == "in the room"
    c, a, b = await swarm.start(3, lan=around), await swarm.start(1), await swarm.start(2, lan=around)
    await joined(c, a)
    code = await a.short_code()
    c.member.summaries[a.id] = told = summary(a.id, int(code.split("-")[0]))
    c.member.bus.publish(SummaryReceived(summary=told))
    hub.partition(swarm.host(1), swarm.host(2))  # these two never see each other
    await asyncio.sleep(0.1)
    outcome = await b.joiner.join(code if around else f"{code}@10.0.0.3")
    assert isinstance(outcome, Joined), outcome
    assert (outcome.inviter, outcome.endpoint, outcome.linked) == (c.id, Endpoint("10.0.0.3", 8810), True)
    certificate = b.member.membership.certificate
    assert certificate is not None and certificate.network == c.member.membership.network
    assert (await states(a))[0] is InviteState.USED
    assert b.member.book.endpoints(c.id)[0] == Endpoint("10.0.0.3", 8810)
    assert Endpoint("10.0.0.3", 8810) not in b.member.book.endpoints(a.id)
    assert await b.links.wait_for(a.id, timeout_s=10), "through c"
    view = b.links.view(a.id)
    assert view is not None and view.via == c.id
    await swarm.stop(2)
    b = await swarm.start(2)
    assert await b.links.wait_for(c.id, timeout_s=10)


async def test_wrong_words_burn_a_code_behind_a_common_member_as_well(swarm: Swarm) -> None:
    c, a, b = [await swarm.start(seed) for seed in (3, 1, 2)]
    await joined(c, a)
    code = await a.short_code()
    c.member.summaries[a.id] = summary(a.id, int(code.split("-")[0]))
    wrong = await b.joiner.join(f"{mistaken(code)}@10.0.0.3")
    assert isinstance(wrong, BadCode), wrong
    assert isinstance(await b.joiner.join(f"{code}@10.0.0.3"), NoAnswer)
    assert InviteState.BURNT in await states(a)
    assert c.links.relay.circuits == 0


async def test_a_node_that_relays_for_nobody_passes_no_code_on(swarm: Swarm) -> None:
    c, a, b = [await swarm.start(seed) for seed in (3, 1, 2)]
    await joined(c, a)
    c.relaying.append(0.0)
    code = await a.short_code()
    c.member.summaries[a.id] = summary(a.id, int(code.split("-")[0]))
    assert isinstance(await b.joiner.join(f"{code}@10.0.0.3"), NoAnswer)
    assert (await states(a))[0] is InviteState.LIVE


async def test_wrong_words_burn_the_code_and_the_right_ones_come_too_late(swarm: Swarm) -> None:
    a, b, c = [await swarm.start(seed, lan=True) for seed in (1, 2, 3)]
    code = await a.short_code()
    await asyncio.sleep(0.1)
    with a.member.bus.spy() as spy:
        wrong = await b.joiner.join(mistaken(code))
        assert isinstance(wrong, BadCode)
        assert "did not take the words" in wrong.sentence and "ask for a new one" in wrong.sentence
        assert [fact.burnt for fact in spy.of(ShortCodeEnded)] == [True]
    for text in (code, f"{code}@10.0.0.1"):
        late = await c.joiner.join(text)
        assert isinstance(late, NoAnswer), late
    assert await states(a) == [InviteState.BURNT]
    assert b.member.membership.network is None and c.member.membership.network is None
    again = await a.short_code()
    await asyncio.sleep(0.1)
    assert isinstance(await b.joiner.join(again), Joined)


async def test_a_used_code_says_that_it_is_used(swarm: Swarm) -> None:
    a, b, c = [await swarm.start(seed, lan=True) for seed in (1, 2, 3)]
    code = await a.short_code()
    await asyncio.sleep(0.1)
    assert isinstance(await b.joiner.join(code), Joined)
    assert await c.joiner.join(code) == UsedUp()


async def test_a_code_that_ended_or_never_was_is_not_found(swarm: Swarm) -> None:
    a, b = await swarm.start(1, lan=True), await swarm.start(2, lan=True)
    code = await a.short_code()
    (view,) = await a.codes.invites()
    await a.codes.cancel(view.id)
    start = asyncio.get_running_loop().time()
    gone = await b.joiner.join(code)
    assert isinstance(gone, NoAnswer) and f"nobody in the local network has short code {code.split('-')[0]}" in gone.sentence
    assert asyncio.get_running_loop().time() - start == pytest.approx(SEEK_S)
    there = await b.joiner.join(f"{code}@10.0.0.1")
    assert isinstance(there, NoAnswer) and "no live short code" in there.sentence
    code = await a.short_code()
    assert isinstance(a.member.world.clock, SeededClock)
    a.member.world.clock.shift(LIFE_S + 1)
    assert isinstance(await b.joiner.join(f"{code}@10.0.0.1"), NoAnswer)


async def test_without_the_local_network_it_says_what_to_do(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    code = await a.short_code()
    off = await b.joiner.join(code)
    assert isinstance(off, NoAnswer) and "network.enable_mdns is off" in off.sentence and "@HOST" in off.sentence
    c = await swarm.start(3, lan=True)
    swarm.segment.broken = "no multicast here"
    deaf = await c.joiner.join(code)
    assert isinstance(deaf, NoAnswer) and "no multicast here" in deaf.sentence
    nobody = await b.joiner.join(f"{code}@10.0.0.77")
    assert isinstance(nobody, NoAnswer) and "10.0.0.77:8810" in nobody.sentence


async def test_a_wrong_word_is_named_before_anybody_is_dialled(swarm: Swarm) -> None:
    a, b = await swarm.start(1, lan=True), await swarm.start(2, lan=True)
    code = await a.short_code()
    wrong = await b.joiner.join(f"{code}x")
    assert isinstance(wrong, BadCode) and f"did you mean '{code.split('-')[2]}'?" in wrong.sentence
    assert isinstance(await b.joiner.join(f"{code}@0.0.0.0"), Invalid)
    assert await states(a) == [InviteState.LIVE]


async def test_only_a_node_without_company_takes_one(swarm: Swarm) -> None:
    a, b, c = [await swarm.start(seed, lan=True) for seed in (1, 2, 3)]
    await joined(b, a)
    settled = await b.joiner.join(await c.short_code())
    assert isinstance(settled, Forbidden) and "a member of network" in settled.sentence
    assert await states(c) == [InviteState.LIVE]
    alone = c.member.membership.network
    assert isinstance(await c.joiner.join(await a.short_code()), Joined)  # it founded one and nobody came
    assert c.member.membership.network == a.member.membership.network != alone


async def test_a_member_that_was_put_out_comes_back_with_one(swarm: Swarm) -> None:
    a, b = await swarm.start(1, lan=True), await swarm.start(2, lan=True)
    await joined(b, a)
    assert isinstance(a.member.world.clock, SeededClock)
    a.member.world.clock.shift(10)
    record = await a.member.membership.revoke(b.id)
    await b.member.membership.revocations.keep(record)
    await a.links.enforce(b.id)
    assert not b.member.membership.is_valid
    a.member.world.clock.shift(10)
    assert isinstance(b.member.world.clock, SeededClock)
    b.member.world.clock.shift(20)
    outcome = await b.joiner.join(f"{await a.short_code()}@10.0.0.1")
    assert isinstance(outcome, Joined), outcome
    assert b.member.membership.is_valid


@asynccontextmanager
async def liars(swarm: Swarm, code: str, seeds: list[int]) -> AsyncIterator[list[Node]]:
    """Nodes that have a live code of the same number with other words."""
    number = int(code.split("-")[0])
    made: list[Node] = []
    for seed in seeds:
        liar = await swarm.start(seed, lan=True)
        network = await liar.member.membership.ensure_network()
        assert isinstance(network, str)
        await liar.member.short_codes.begin(number, f"{number}-{FIRST[seed]}-{SECOND[seed]}", network=network)  # type: ignore
        made.append(liar)
    await asyncio.sleep(0.1)
    yield made


async def test_others_with_the_same_number_cost_a_try_each_and_so_many_are_tried(swarm: Swarm) -> None:
    a = await swarm.start(1, lan=True)
    b = await swarm.start(2, lan=True)
    code = await a.short_code()
    async with liars(swarm, code, [3, 4]) as others:
        outcome = await b.joiner.join(code)
        assert isinstance(outcome, Joined) and outcome.inviter == a.id
    assert MAX_CANDIDATES == 3
    assert all(not other.links.connected() for other in others)


async def test_too_many_with_the_same_number_are_not_tried(swarm: Swarm) -> None:
    """A segment full of liars: three have a guess at what was typed, the others have none."""
    b = await swarm.start(2, lan=True)
    code = f"7-{FIRST[99]}-{SECOND[99]}"
    async with liars(swarm, code, [3, 4, 5, 6, 7]) as others:
        outcome = await b.joiner.join(code)
        assert isinstance(outcome, BadCode)
        burnt = [(await states(other))[0] for other in others].count(InviteState.BURNT)
        assert burnt == MAX_CANDIDATES
    assert b.member.membership.network is None


async def test_a_record_with_many_addresses_has_one_guess(swarm: Swarm) -> None:
    b = await swarm.start(2, lan=True)
    code = f"7-{FIRST[99]}-{SECOND[99]}"
    async with liars(swarm, code, [3, 4]) as (one, other):
        for name in list(swarm.segment.notices):
            del swarm.segment.notices[name]
        texts = {"v": "1", "node": one.id, "net": "", "np": "5,7"}
        swarm.segment.say(Notice(name="x", hosts=("10.0.0.66", "10.0.0.3", "10.0.0.4"), port=8810, texts=texts))
        assert isinstance(await b.joiner.join(code), BadCode)
        assert await states(one) == [InviteState.BURNT]
        assert await states(other) == [InviteState.LIVE]



def summary(node: NodeId, nameplate: int) -> NodeSummary:
    return NodeSummary(
        node=node, version=1, software="", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0, nameplates=(nameplate,)
    )
