"""Both sides of a double connection keep the same one, in every order of events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from swarmd.domain.ids import NodeId
from swarmd.peers.slots import Closing, Slot

LOW, HIGH = NodeId("11" * 32), NodeId("99" * 32)


@dataclass(frozen=True, slots=True, eq=False)
class Claimed:
    name: str
    dialled: bool
    boot: bytes = b"first"
    relayed: bool = False


def test_the_only_connection_stays_until_it_is_gone() -> None:
    slot: Slot[Claimed] = Slot(own=LOW, peer=HIGH)
    one = Claimed("one", dialled=False)
    verdict = slot.offer(one)
    assert verdict.taken
    assert verdict.loser is None
    assert slot.current is one
    assert not slot.drop(Claimed("other", dialled=False))
    assert slot.drop(one)
    assert not slot.drop(one)
    assert slot.current is None


@pytest.mark.parametrize(("low_first", "high_first"), list(itertools.product((True, False), repeat=2)))
def test_simultaneous_dials_end_in_the_same_connection_on_both_sides(low_first: bool, high_first: bool) -> None:
    low: Slot[Claimed] = Slot(own=LOW, peer=HIGH)
    high: Slot[Claimed] = Slot(own=HIGH, peer=LOW)
    at_low = [Claimed("by low", dialled=True), Claimed("by high", dialled=False)]
    at_high = [Claimed("by low", dialled=False), Claimed("by high", dialled=True)]
    for slot, claims, in_order in ((low, at_low, low_first), (high, at_high, high_first)):
        verdicts = [slot.offer(claim) for claim in (claims if in_order else reversed(claims))]
        assert verdicts[1].loser is not None
        assert verdicts[1].loser.name == "by high"
        assert verdicts[1].closing is (Closing.NOW if slot is low else Closing.LATER)
    assert low.current is at_low[0]
    assert high.current is at_high[0]


@pytest.mark.parametrize(("own", "peer"), [(LOW, HIGH), (HIGH, LOW)])
def test_a_restarted_peer_replaces_what_it_left_behind(own: NodeId, peer: NodeId) -> None:
    for old_dialled, new_dialled in itertools.product((True, False), repeat=2):
        slot: Slot[Claimed] = Slot(own=own, peer=peer)
        old = Claimed("old", dialled=old_dialled)
        new = Claimed("new", dialled=new_dialled, boot=b"second")
        slot.offer(old)
        verdict = slot.offer(new)
        assert slot.current is new
        assert (verdict.loser, verdict.closing, verdict.taken) == (old, Closing.NOW, True)


@pytest.mark.parametrize(("own", "peer"), [(LOW, HIGH), (HIGH, LOW)])
def test_whoever_dials_again_has_lost_the_first_one(own: NodeId, peer: NodeId) -> None:
    for dialled in (True, False):
        slot: Slot[Claimed] = Slot(own=own, peer=peer)
        old, new = Claimed("old", dialled=dialled), Claimed("new", dialled=dialled)
        slot.offer(old)
        assert slot.offer(new).loser is old
        assert slot.current is new


@pytest.mark.parametrize(("own", "peer"), [(LOW, HIGH), (HIGH, LOW)])
def test_a_direct_connection_beats_a_relayed_one_whoever_dialled_them_and_in_every_order(own: NodeId, peer: NodeId) -> None:
    for direct_dialled, relayed_dialled in itertools.product((True, False), repeat=2):
        direct = Claimed("direct", dialled=direct_dialled)
        relayed = Claimed("relayed", dialled=relayed_dialled, relayed=True)
        for first, second in ((direct, relayed), (relayed, direct)):
            slot: Slot[Claimed] = Slot(own=own, peer=peer)
            slot.offer(first)
            verdict = slot.offer(second)
            assert slot.current is direct
            closing = Closing.IDLE if second is direct else Closing.NOW
            assert (verdict.loser, verdict.closing, verdict.taken) == (relayed, closing, second is direct)


def test_after_a_restart_even_a_relayed_connection_replaces_the_old_one() -> None:
    slot: Slot[Claimed] = Slot(own=LOW, peer=HIGH)
    old, new = Claimed("old", dialled=True), Claimed("new", dialled=False, boot=b"second", relayed=True)
    slot.offer(old)
    verdict = slot.offer(new)
    assert slot.current is new
    assert (verdict.loser, verdict.closing) == (old, Closing.NOW)
