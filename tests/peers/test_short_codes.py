"""The live short code: one at a time, one exchange at a time, one guess."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from swarmd.domain.events import ShortCodeEnded, ShortCodeMade
from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord, InviteState
from swarmd.domain.peers import MAX_NAMEPLATE, Endpoint, NodeSummary
from swarmd.domain.refusals import Busy
from swarmd.identity.pake import Half, Side
from swarmd.kit.world import SeededClock, World
from swarmd.peers.invitations import MAX_LIVE_INVITES, Redeemed
from swarmd.peers.short_codes import ANSWER_S, LIFE_S, MAX_ABANDONED, unhurried
from swarmd.transport.doors import Elsewhere, Exchange
from tests.fakes.inline_sqlite import inline_database
from tests.fakes.members import Member, inline, open_member

pytestmark = pytest.mark.looptime

WORDS = "7-crossover-clockwork"
CALLER, OTHER = Endpoint("10.0.0.9", 5), Endpoint("10.0.0.8", 6)
GUEST = NodeId("cc" * 32)
T = TypeVar("T")


@pytest.fixture
async def a(world: World, tmp_path: Path) -> AsyncIterator[Member]:
    async with inline_database() as db, open_member(1, world=world, folder=tmp_path, database=db) as member:
        yield member


async def begun(a: Member, nameplate: int = 7, words: str = WORDS) -> InviteRecord:
    network = await a.membership.ensure_network()
    assert isinstance(network, str)
    invite = await a.short_codes.begin(nameplate, words, network=NetworkId(network))
    assert isinstance(invite, InviteRecord)
    return invite


def guest(a: Member, words: str = WORDS) -> Half:
    return Half(Side.GUEST, words, entropy=a.world.entropy)


async def exchanged(a: Member, words: str = WORDS) -> tuple[Exchange, bool]:
    """And whether the guest has the same psk."""
    half = guest(a, words)
    answer = await a.short_codes.exchange(7, half.element, caller=CALLER)
    assert isinstance(answer, Exchange), answer
    return answer, half.psk(answer.element) == answer.psk


async def states(a: Member) -> list[InviteState]:
    await asyncio.sleep(0)  # what is written in the background
    return [view.state for view in await a.invitations.views()]


async def test_whoever_knows_the_words_comes_in_through_the_ordinary_invite(a: Member) -> None:
    assert a.short_codes.nameplates() == ()
    invite = await begun(a)
    assert a.short_codes.nameplates() == (7,)
    answer, right = await exchanged(a)
    assert right and answer.tag == invite.tag
    assert isinstance(await a.invitations.redeem(answer.tag, GUEST), Redeemed)
    a.short_codes.exchange_over(answer, guess=True, caller=CALLER)
    (view,) = await a.invitations.views()
    assert (view.state, view.short, view.uses_left) == (InviteState.USED, True, 0)
    assert view.expires_at - view.created_at == LIFE_S
    again, right = await exchanged(a)  # our reply was lost: the same node gets the same certificate
    assert right and isinstance(await a.invitations.redeem(again.tag, GUEST), Redeemed)


async def test_nobody_knows_tag_and_psk_of_the_invite_behind_it(a: Member) -> None:
    first = await begun(a)
    second = await begun(a)
    assert {first.tag, first.psk}.isdisjoint({second.tag, second.psk})
    answer, _ = await exchanged(a)
    assert answer.psk not in (first.psk, second.psk)


async def test_a_wrong_guess_burns_the_code_at_that_moment(a: Member, caplog: pytest.LogCaptureFixture) -> None:
    await begun(a)
    with a.bus.spy() as spy:
        answer, right = await exchanged(a, "7-crossover-tugboat")
        assert not right
        a.short_codes.exchange_over(answer, guess=False, caller=CALLER)
        assert a.short_codes.nameplates() == ()  # without any await between
        assert spy.of(ShortCodeEnded) == [ShortCodeEnded(nameplate=7, burnt=True)]
    assert await a.short_codes.exchange(7, guest(a).element, caller=OTHER) is None
    assert await states(a) == [InviteState.BURNT]
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1 and "10.0.0.9:5" in warnings[0] and "burnt" in warnings[0]
    assert "clockwork" not in caplog.text and "tugboat" not in caplog.text
    assert (await a.invitations.redeem(answer.tag, GUEST)).sentence.startswith("this invite code was withdrawn")


async def test_one_exchange_at_a_time(a: Member) -> None:
    await begun(a)
    first, _ = await exchanged(a)
    assert await a.short_codes.exchange(7, guest(a).element, caller=OTHER) is None
    a.short_codes.exchange_over(first, guess=None, caller=CALLER)
    both = await asyncio.gather(*[a.short_codes.exchange(7, guest(a).element, caller=OTHER) for _ in range(2)])
    assert sorted(type(one).__name__ for one in both) == ["Exchange", "NoneType"]


async def test_a_few_may_be_abandoned_and_then_it_is_burnt(a: Member, caplog: pytest.LogCaptureFixture) -> None:
    await begun(a)
    for _ in range(MAX_ABANDONED - 1):
        answer, _ = await exchanged(a)
        a.short_codes.exchange_over(answer, guess=None, caller=CALLER)
    assert a.short_codes.nameplates() == (7,)
    assert await a.short_codes.exchange(7, b"A" + bytes(32), caller=CALLER) is None  # no element counts as well
    assert a.short_codes.nameplates() == ()
    assert await states(a) == [InviteState.BURNT]
    assert "8 attempts were broken off" in caplog.text


async def test_an_exchange_that_is_cancelled_while_it_computes_lets_the_next_one_in(a: Member) -> None:
    await begun(a)
    running = asyncio.get_running_loop().create_task(a.short_codes.exchange(7, guest(a).element, caller=CALLER))
    await asyncio.sleep(ANSWER_S / 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    _, right = await exchanged(a)
    assert right


async def test_a_new_code_ends_the_old_one_even_in_the_middle_of_an_exchange(a: Member) -> None:
    await begun(a)
    answer, _ = await exchanged(a)
    await begun(a, words="7-crossover-tugboat")
    a.short_codes.exchange_over(answer, guess=False, caller=CALLER)  # of the old one
    assert a.short_codes.nameplates() == (7,)
    assert await states(a) == [InviteState.LIVE, InviteState.CANCELLED]
    _, right = await exchanged(a, "7-crossover-tugboat")
    assert right


async def test_it_ends_with_its_time_with_its_invite_and_with_the_network(a: Member) -> None:
    assert isinstance(a.world.clock, SeededClock)
    await begun(a)
    a.world.clock.shift(LIFE_S)
    assert a.short_codes.nameplates() == ()
    assert await a.short_codes.exchange(7, guest(a).element, caller=CALLER) is None
    with a.bus.spy() as spy:
        invite = await begun(a)
        a.short_codes.cancelled(invite.id)
        assert a.short_codes.nameplates() == ()
        assert spy.of(ShortCodeMade) == [ShortCodeMade(nameplate=7)]
        assert spy.of(ShortCodeEnded) == [ShortCodeEnded(nameplate=7, burnt=False)]
    assert isinstance(await a.short_codes.begin(7, WORDS, network=NetworkId("ab" * 32)), InviteRecord)
    assert a.short_codes.nameplates() == (), "the node is not in that network any more"


async def test_guessing_at_a_used_code_closes_it_and_burns_nothing(a: Member, caplog: pytest.LogCaptureFixture) -> None:
    await begun(a)
    answer, _ = await exchanged(a)
    await a.invitations.redeem(answer.tag, GUEST)
    a.short_codes.exchange_over(answer, guess=True, caller=CALLER)
    answer, _ = await exchanged(a, "7-crossover-tugboat")
    a.short_codes.exchange_over(answer, guess=False, caller=CALLER)
    assert a.short_codes.nameplates() == ()
    assert await states(a) == [InviteState.USED]
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


async def test_the_codes_of_the_last_run_are_over(world: World, tmp_path: Path) -> None:
    async with inline_database() as db:
        async with open_member(1, world=world, folder=tmp_path, database=db) as a:
            await begun(a)
            assert await states(a) == [InviteState.LIVE]
        async with open_member(1, world=world, folder=tmp_path, database=db) as a:
            assert a.short_codes.nameplates() == ()
            assert await states(a) == [InviteState.CANCELLED]


async def test_no_number_is_given_that_somebody_has(a: Member) -> None:
    other = summary(NodeId("dd" * 32), nameplates=(5,))
    a.summaries[other.node] = other
    a.plates.update(set(range(1, MAX_NAMEPLATE + 1)) - {5, 7, 500})
    assert {a.short_codes.free_nameplate() for _ in range(40)} == {7, 500}
    await begun(a)
    assert {a.short_codes.free_nameplate() for _ in range(5)} == {500}
    a.plates.add(500)
    assert isinstance(a.short_codes.free_nameplate(), Busy)


async def test_a_number_of_a_linked_node_is_elsewhere_unless_it_is_ours(a: Member) -> None:
    other = summary(NodeId("dd" * 32), nameplates=(7, 9))
    a.summaries[other.node] = other
    element = guest(a).element
    assert await a.short_codes.exchange(7, element, caller=CALLER) == Elsewhere(node=other.node)
    assert await a.short_codes.exchange(8, element, caller=CALLER) is None
    await begun(a)
    assert isinstance(await a.short_codes.exchange(7, element, caller=CALLER), Exchange)
    assert await a.short_codes.exchange(9, element, caller=CALLER) == Elsewhere(node=other.node)


async def test_no_more_codes_than_others(a: Member) -> None:
    for number in range(MAX_LIVE_INVITES):
        invite = InviteRecord(
            tag=bytes([number]) * 16, psk=bytes(32), created_at=0.0, expires_at=a.world.clock.now() + 60, uses_left=1
        )
        assert await a.invitations.add(invite) is None
    network = await a.membership.ensure_network()
    assert isinstance(network, str)
    assert isinstance(await a.short_codes.begin(7, WORDS, network=NetworkId(network)), Busy)
    assert a.short_codes.nameplates() == ()


async def test_nothing_is_computed_for_strangers_and_every_answer_takes_the_same_time(a: Member) -> None:
    loop = asyncio.get_running_loop()
    await begun(a)
    start = loop.time()
    assert await a.short_codes.exchange(8, guest(a).element, caller=CALLER) is None
    assert loop.time() == start
    for element in (guest(a).element, b"A" + bytes(32)):
        start = loop.time()
        answer = await a.short_codes.exchange(7, element, caller=CALLER)
        assert loop.time() - start == pytest.approx(ANSWER_S)
        if answer is not None:
            assert isinstance(answer, Exchange)
            a.short_codes.exchange_over(answer, guess=None, caller=CALLER)


async def test_unhurried_waits_for_the_rest_only(world: World) -> None:
    async def slow(work: Callable[[], T]) -> T:
        await asyncio.sleep(ANSWER_S * 3)
        return work()

    start = asyncio.get_running_loop().time()
    assert await unhurried(lambda: 5, compute=slow, clock=world.clock) == 5
    assert asyncio.get_running_loop().time() - start == pytest.approx(ANSWER_S * 3)
    assert await unhurried(lambda: 6, compute=inline, clock=world.clock) == 6
    assert asyncio.get_running_loop().time() - start == pytest.approx(ANSWER_S * 4)


def summary(node: NodeId, *, nameplates: tuple[int, ...]) -> NodeSummary:
    return NodeSummary(
        node=node, version=1, software="", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0, nameplates=nameplates
    )
