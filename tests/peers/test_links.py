"""Links in virtual time: they come up, find each other, break and come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmd.discovery.join import Joined
from swarmd.domain.events import IdentityCloned, PeerCloned, PeerConnected, PeerDisconnected, SummaryReceived
from swarmd.domain.ids import NodeId
from swarmd.domain.membership import NewInvite
from swarmd.domain.peers import Endpoint, NodeSummary, Purpose
from swarmd.domain.refusals import NoAnswer, OtherNode, Refusal
from swarmd.identity.certificates import LIFE_S
from swarmd.identity.revocations import Revocation
from swarmd.kit.world import SeededClock, seeded_world
from swarmd.peers import book as book_module
from swarmd.peers.book import MAX_FAILURES
from swarmd.peers.links import DIALS, HEARSAY_DIALS, JOINER_STAYS_S
from swarmd.store.peers import Source
from swarmd.transport.connection import Connection
from swarmd.wire.messages import CODES, Revocations
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


async def until(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)


def both_up(one: Node, other: Node) -> bool:
    return all(
        here.links.link(there.id, purpose) is not None for here, there in ((one, other), (other, one)) for purpose in Purpose
    )


def sockets(node: Node) -> int:
    return len(node.links._open)


async def apart(one: Node, other: Node) -> None:
    await until(lambda: not one.links.connected() and not other.links.connected())


async def apart_from_all(one: Node) -> None:
    await until(lambda: not one.links.connected())


async def together(*nodes: Node, within_s: float = 60.0) -> None:
    """Each pair with both connections."""
    pairs = [(one, other) for one in nodes for other in nodes if one is not other]
    await until(lambda: all(both_up(one, other) for one, other in pairs), within_s=within_s)


async def pair(swarm: Swarm) -> tuple[Node, Node]:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await together(a, b)
    return a, b


async def test_both_connections_come_up_and_stay_one_each(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    await asyncio.sleep(30)
    assert both_up(a, b)
    assert sockets(a) == sockets(b) == 2
    assert a.links.connected() == (b.id,)
    assert a.links.link(NodeId("00" * 32)) is None
    view = a.links.view(b.id)
    assert view is not None
    assert view.connected
    assert view.min_rtt_ms == pytest.approx(20, abs=2)
    assert view.rtt_ms == pytest.approx(20, abs=5)
    assert view.rtt_samples >= 4
    assert a.gauges.get("peers.connected") == 1
    assert a.gauges.get(f"peers.{b.id}.rtt_ms") == pytest.approx(20, abs=5)
    assert [one.record.node for one in a.links.views()] == [b.id]


async def test_every_line_is_shown_with_its_path_its_bytes_and_its_age(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await together(a, b)
    await asyncio.sleep(10.0)
    control, bulk = a.links.lines()
    assert (control.node, control.purpose, bulk.purpose) == (b.id, Purpose.CONTROL, Purpose.BULK)
    for line in (control, bulk):
        assert line.via is None and line.remote is not None and line.remote.host == swarm.host(2)
        assert 9.0 < line.up_s < 30.0
        assert line.rtt_ms == pytest.approx(20, abs=2) and line.min_rtt_ms == pytest.approx(20, abs=2)
        assert line.bytes_in > 0 and line.bytes_out > 0 and line.queued_bytes == 0 and line.streams == 0
    mirrored = {line.purpose: line for line in b.links.lines()}
    assert mirrored[Purpose.CONTROL].dialled is not control.dialled
    assert mirrored[Purpose.BULK].bytes_out == bulk.bytes_in


async def test_the_bytes_over_links_never_become_fewer_when_guests_leave_and_links_are_replaced(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    last = dict.fromkeys(Purpose, (0, 0))

    async def watch() -> None:
        while True:
            now = {purpose: a.links.traffic().get(purpose, (0, 0)) for purpose in Purpose}
            for purpose, (received, sent) in last.items():
                assert now[purpose][0] >= received and now[purpose][1] >= sent, (purpose, now, last)
            last.update(now)
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await joined(b, a)  # which b does as a guest, over a link of its own
        await together(a, b)
        await asyncio.sleep(JOINER_STAYS_S + 1)
        link = a.links.link(b.id)
        assert link is not None
        link.close("cut")
        await asyncio.sleep(0.01)
        await together(a, b)
        watching.cancel()
    assert last[Purpose.CONTROL] > (0, 0)


async def test_links_on_an_address_that_is_gone_are_replaced_at_once_and_others_stay(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await pair(swarm)
    control = a.links.link(b.id)
    monkeypatch.setattr(Connection, "local_host", "10.0.0.1")
    a.links.look_around(frozenset({"10.0.0.1", "127.0.0.1"}))
    await asyncio.sleep(1)
    assert a.links.link(b.id) is control
    a.links.look_around(frozenset({"10.0.0.9"}))
    assert a.links.link(b.id) is None
    await together(a, b, within_s=2)


async def test_whoever_waits_for_its_next_dial_is_dialled_at_once_after_a_sleep(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    swarm.hub.partition(swarm.host(1), swarm.host(2))
    await apart(a, b)
    await asyncio.sleep(3700)  # long enough for the longest pauses: nobody counts as here lately after an hour
    swarm.hub.heal(swarm.host(1), swarm.host(2))
    a.links.look_around(frozenset())
    await together(a, b, within_s=1)


async def test_after_a_partition_everybody_is_back_within_ten_seconds(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    swarm.hub.partition(swarm.host(1), swarm.host(2))
    await apart(a, b)
    await asyncio.sleep(600)
    swarm.hub.heal(swarm.host(1), swarm.host(2))
    await together(a, b, within_s=10)


async def test_members_of_the_same_inviter_find_each_other(swarm: Swarm) -> None:
    a, b, c = [await swarm.start(seed) for seed in (1, 2, 3)]
    await joined(b, a)
    await joined(c, a)
    await together(a, b, c)
    assert b.member.book.endpoints(c.id) == (Endpoint("10.0.0.3", 8810),)
    await asyncio.sleep(20)
    assert [sockets(node) for node in (a, b, c)] == [4, 4, 4]


async def test_a_node_that_only_dials_is_a_full_member(swarm: Swarm) -> None:
    a = await swarm.start(1)
    b = await swarm.start(2, listening=False)
    c = await swarm.start(3)
    await joined(b, a)
    await joined(c, a)
    await together(a, b)
    await together(b, c)  # introduced to C, it dials
    assert a.member.book.endpoints(b.id) == ()
    await asyncio.sleep(60)
    assert both_up(b, c)


async def test_simultaneous_dials_end_in_one_connection_per_purpose(swarm: Swarm) -> None:
    for latency_s in (0.0, 0.001, 0.05, 0.3):
        a, b = await pair(swarm)
        swarm.hub.change(swarm.host(1), swarm.host(2), latency_s=latency_s)
        for round_ in range(4):
            swarm.hub.cut(swarm.host(1), swarm.host(2))
            await apart(a, b)
            with a.member.bus.spy() as at_a, b.member.bus.spy() as at_b:
                for one, other in ((a, b), (b, a)) if round_ % 2 else ((b, a), (a, b)):
                    one.links.wake(other.id)
                await together(a, b)
                await asyncio.sleep(10)
                assert both_up(a, b)
                assert sockets(a) == sockets(b) == 2, (latency_s, round_)
                # Resolving the double connection was not seen by anybody as a peer that left.
                for spy in (at_a, at_b):
                    assert len(spy.of(PeerConnected)) == 1
                    assert spy.of(PeerDisconnected) == []
            for purpose in Purpose:
                here, there = a.links.link(b.id, purpose), b.links.link(a.id, purpose)
                assert here is not None and there is not None
                assert here.connection.handshake_hash == there.connection.handshake_hash
        await swarm.stop(2)
        await swarm.stop(1)
        swarm.databases.clear()


async def test_a_cut_link_comes_back(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    await asyncio.sleep(70)
    with a.member.bus.spy() as spy:
        swarm.hub.cut(swarm.host(1), swarm.host(2))
        gone = await spy.wait_for(PeerDisconnected)
        assert gone.node == b.id
        began = asyncio.get_running_loop().time()
        await spy.wait_for(PeerConnected)
        await together(a, b)
        assert asyncio.get_running_loop().time() - began < 3
    assert a.gauges.get("peers.connected") == 1


async def test_a_silent_peer_is_noticed_and_found_again_after_the_partition(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    swarm.hub.partition(swarm.host(1), swarm.host(2))
    await apart(a, b)
    assert a.gauges.get(f"peers.{b.id}.rtt_ms") is None
    view = a.links.view(b.id)
    assert view is not None
    assert not view.connected
    assert view.record.last_seen is not None
    await asyncio.sleep(600)
    swarm.hub.heal(swarm.host(1), swarm.host(2))
    await together(a, b, within_s=45)
    await asyncio.sleep(20)
    assert sockets(a) == sockets(b) == 2


async def test_a_new_offer_ends_the_pause_at_once(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    await swarm.stop(2)
    await until(lambda: not a.links.connected())
    await asyncio.sleep(600)  # A's pauses are 30 s long by now
    b = await swarm.start(2)
    a.links._place(b.id, Purpose.CONTROL)
    await b.member.book.remove(a.id)  # B does not dial
    await a.links.offer(b.id, (Endpoint("10.0.0.2", 8811),), source=Source.MANUAL)
    assert await a.links.wait_for(b.id, timeout_s=1)


async def test_a_restarted_node_comes_back_by_itself(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    c = await swarm.start(3)
    await joined(c, a)
    await together(b, c)
    for seed in (2, 1):
        await swarm.stop(seed)
        await asyncio.sleep(5)
        node = await swarm.start(seed, world=seeded_world(100 + seed))
        a, b = (node, b) if seed == 1 else (a, node)
        await together(a, b, c, within_s=40)
    await asyncio.sleep(30)
    assert [sockets(node) for node in (a, b, c)] == [4, 4, 4]


async def test_a_peer_that_lost_power_is_replaced_when_it_is_back(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    swarm.hub.partition(swarm.host(1), swarm.host(2))
    await swarm.stop(2)  # A hears nothing of it
    b = await swarm.start(2, world=seeded_world(200))
    swarm.hub.heal(swarm.host(1), swarm.host(2))
    await together(a, b, within_s=5)
    await asyncio.sleep(15)
    assert both_up(a, b)
    assert sockets(a) == sockets(b) == 2


def summary_of(node: Node, version: int, *, free: int = 1) -> NodeSummary:
    return NodeSummary(
        node=node.id, version=version, software="swarmd/test", started_at=1.0, ram_free_bytes=free, ram_total_bytes=99
    )


async def test_neighbours_know_the_newest_summary_of_each_other(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    a.links.announce(summary_of(a, 1))
    with b.member.bus.spy() as at_b:
        await joined(b, a)
        await at_b.wait_for(SummaryReceived, lambda fact: fact.summary == summary_of(a, 1))
        for version in range(2, 50):
            a.links.announce(summary_of(a, version, free=version))
        await at_b.wait_for(SummaryReceived, lambda fact: fact.summary.version == 49)
        assert len(at_b.of(SummaryReceived)) <= 4  # the newest state, not every state
        view = b.links.view(a.id)
        assert view is not None
        assert view.summary == b.links.summary(a.id) == summary_of(a, 49, free=49)
        swarm.hub.cut(swarm.host(1), swarm.host(2))
        await at_b.wait_for(PeerDisconnected)
        view = b.links.view(a.id)
        assert view is not None
        assert (view.connected, view.present) == (False, False), "for work and for counting it is gone at once"
        assert view.summary is not None and view.heard_at is not None, "for display it is not"
        at_b.clear()
        await until(lambda: both_up(a, b), within_s=20)
        assert (view := b.links.view(a.id)) is not None and view.present


async def test_a_forgotten_peer_is_dialled_no_more(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    await b.links.forget(a.id)
    await a.links.forget(b.id)
    await apart(a, b)
    await asyncio.sleep(120)
    assert not a.links.connected()
    assert b.links.views() == ()


async def test_waiting_for_somebody_who_does_not_come_ends(swarm: Swarm) -> None:
    a = await swarm.start(1)
    began = asyncio.get_running_loop().time()
    assert not await a.links.wait_for(NodeId("ab" * 32), timeout_s=7)
    assert asyncio.get_running_loop().time() - began == pytest.approx(7)


async def test_an_offer_of_ourselves_is_no_news(swarm: Swarm) -> None:
    a = await swarm.start(1)
    assert not await a.links.offer(a.id, (Endpoint("10.0.0.1", 1),), source=Source.MANUAL)
    a.links.wake(NodeId("ab" * 32))
    assert a.links.views() == ()


async def test_the_number_of_linked_peers_is_bounded(swarm: Swarm) -> None:
    a = await swarm.start(1, max_peers=2)
    others = [await swarm.start(seed) for seed in (2, 3, 4)]
    for node in others[:2]:
        await joined(node, a)
    late = await others[2].joiner.join(await a.code())
    assert isinstance(late, Joined)  # a member it is, and the others are there for it
    await asyncio.sleep(60)
    assert len(a.links.connected()) == 2
    await swarm.stop(2)
    await until(lambda: both_up(a, others[2]), within_s=90)


class Ears:
    """A dialler that reaches nobody, and counts."""

    def __init__(self, *, answers_after_s: float) -> None:
        self.answers_after_s = answers_after_s
        self.dialled: list[Endpoint] = []
        self.now = 0
        self.most = 0

    async def dial(
        self, endpoint: Endpoint, *, expect: NodeId | None, purpose: Purpose, invite: tuple[bytes, bytes] | None = None
    ) -> Connection | Refusal:
        self.dialled.append(endpoint)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.answers_after_s)
        finally:
            self.now -= 1
        return NoAnswer(tried=(str(endpoint),), reason="nobody")


async def test_invented_nodes_are_dialled_a_few_at_a_time_and_not_for_ever(swarm: Swarm) -> None:
    a = await swarm.start(1)
    ears = a.links._dialler = Ears(answers_after_s=5.0)
    liar = NodeId("aa" * 32)
    for n in range(1, 41):
        await a.links.offer(NodeId(f"{n:064x}"), (Endpoint("10.9.9.9", n),), source=Source.INTRODUCED, teller=liar)
    await asyncio.sleep(3600)
    assert ears.most == HEARSAY_DIALS
    assert len(ears.dialled) == 40 * MAX_FAILURES
    assert a.links.views() == ()
    assert not a.links._places  # nobody keeps dialling, nothing is kept


async def test_members_do_not_wait_behind_invented_nodes(swarm: Swarm) -> None:
    a, b = await pair(swarm)
    await swarm.stop(2)
    await apart_from_all(a)
    for n in range(1, 100):
        lie = (Endpoint("10.9.9.9", n), Endpoint("10.9.9.8", n))
        await a.links.offer(NodeId(f"{n:064x}"), lie, source=Source.INTRODUCED, teller=b.id)
        swarm.hub.partition(swarm.host(1), "10.9.9.9")
        swarm.hub.partition(swarm.host(1), "10.9.9.8")
    await asyncio.sleep(60)
    b = await swarm.start(2, world=seeded_world(300))
    await together(a, b, within_s=35)


async def test_the_number_of_dials_is_bounded(swarm: Swarm) -> None:
    a = await swarm.start(1)
    ears = a.links._dialler = Ears(answers_after_s=5.0)
    for n in range(1, 2 * DIALS):
        await a.links.offer(NodeId(f"{n:064x}"), (Endpoint("10.9.9.9", n),), source=Source.MANUAL)
    await asyncio.sleep(60)
    assert ears.most == DIALS


async def test_a_connected_peer_is_shown_although_the_book_has_no_place_for_it(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await swarm.start(1)
    b, c = await swarm.start(2), await swarm.start(3)
    await joined(b, a)
    await together(a, b)
    monkeypatch.setattr(book_module, "MAX_PEERS", 1)
    await c.joiner.join(await a.code())
    await until(lambda: c.id in a.links.connected())
    await asyncio.sleep(5)
    assert c.id not in a.member.book
    views = {view.record.node: view for view in a.links.views()}
    assert views.keys() == {b.id, c.id}
    assert views[c.id].connected
    assert views[c.id].record.endpoints == (c.at,)
    await swarm.stop(3)
    await until(lambda: c.id not in a.links.connected())
    assert [view.record.node for view in a.links.views()] == [b.id]
    await asyncio.sleep(5)
    assert {node for node, _ in a.links._places} == {b.id}


async def put_out(founder: Node, node: Node) -> None:
    record = await founder.member.membership.revoke(node.id)
    assert isinstance(record, Revocation), record
    await founder.links.enforce(node.id)


async def trio(swarm: Swarm) -> tuple[Node, Node, Node]:
    a, b, c = [await swarm.start(seed) for seed in (1, 2, 3)]
    await joined(b, a)
    await joined(c, a)
    await together(a, b, c)
    await asyncio.sleep(2)  # what they say of each other has been said
    return a, b, c


async def test_who_is_put_out_is_cut_off_by_everybody_at_once_and_for_good(
    swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = await trio(swarm)
    assert not await c.member.membership.revocations.hear([], teller=a.id)
    with caplog.at_level(logging.INFO, logger="swarmd.transport.doors"):
        await put_out(a, c)
        assert a.links.link(c.id) is a.links.link(c.id, Purpose.BULK) is None
        await asyncio.sleep(0.5)
        assert a.links.connected() == (b.id,) and b.links.connected() == (a.id,)
        assert not c.member.membership.is_valid, "it was told why"
        await asyncio.sleep(300)
    assert c.links.connected() == ()
    assert both_up(a, b)
    for node in (a, b):
        assert c.id not in node.member.book
        assert [view.record.node for view in node.links.views()] == [b.id if node is a else a.id]
    assert caplog.text.count("was revoked") <= 6, "of dozens of dials one line an hour for each place they come from"


async def test_who_was_away_hears_of_it_with_its_next_link(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await swarm.stop(2)
    await put_out(a, c)
    await asyncio.sleep(60)
    b = await swarm.start(2)
    await together(a, b)
    await asyncio.sleep(1)
    assert c.id not in b.member.book and b.links.link(c.id) is None
    await swarm.stop(1)
    d = await swarm.start(2 + 2)
    assert d.links.connected() == ()
    await swarm.stop(2)
    b = await swarm.start(2)
    await asyncio.sleep(60)
    assert b.links.link(c.id) is None, "it is on B's disk; the founder is not needed for it"


async def test_who_was_put_out_comes_back_with_a_new_code_everywhere(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await put_out(a, c)
    await asyncio.sleep(5)
    await joined(c, a)
    await together(a, b, c)
    assert c.member.membership.is_valid
    await swarm.stop(2)
    b = await swarm.start(2)
    await together(a, b, c)
    await asyncio.sleep(5)
    assert c.id in b.member.book


async def test_who_never_heard_that_it_is_out_comes_back_as_well(swarm: Swarm) -> None:
    a, _, c = await trio(swarm)
    await swarm.stop(3)
    await put_out(a, c)
    await asyncio.sleep(5)
    c = await swarm.start(3)
    await asyncio.sleep(60)
    assert c.links.connected() == () and c.member.membership.is_valid
    outcome = await joined(c, a)
    assert outcome.linked


async def test_a_node_killed_between_the_record_and_the_book_drops_it_at_its_start(swarm: Swarm) -> None:
    a, _, c = await trio(swarm)
    await swarm.stop(3)
    await asyncio.sleep(5)
    assert isinstance(await a.member.membership.revoke(c.id), Revocation)
    await swarm.stop(1)
    a = await swarm.start(1)
    assert c.id not in a.member.book


async def test_who_is_out_is_forgotten_again_after_one_dial_when_somebody_mentions_it(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await put_out(a, c)
    await asyncio.sleep(5)
    for source in (Source.INTRODUCED, Source.OBSERVED):
        assert await b.links.offer(c.id, (Endpoint(swarm.host(3), 8810),), source=source, teller=a.id)
        await asyncio.sleep(5)
        assert c.id not in b.member.book
    assert both_up(a, b)


async def test_a_neighbour_with_an_older_program_still_hears_the_rest(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    del b.links._dispatcher._accepts[CODES[Revocations]]
    with b.member.bus.spy() as spy:
        await put_out(a, c)
        a.links.announce(summary_of(a, 7))
        await spy.wait_for(SummaryReceived, lambda fact: fact.summary.version == 7)
    assert b.links.link(c.id) is not None, "it does not know better"


async def test_a_call_for_another_node_at_our_address_costs_no_link(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await together(a, b)
    before = {line.purpose: line for line in b.links.lines()}
    for caller, host in ((b, a), (a, b)):  # one of the two dialled what stands
        for purpose in Purpose:
            result = await caller.doors.dial(host.at, expect=NodeId("ee" * 32), purpose=purpose)
            assert isinstance(result, OtherNode) and "in place of" in result.sentence
    await asyncio.sleep(15.0)
    after = {line.purpose: line for line in b.links.lines()}
    assert all(after[purpose].up_s == pytest.approx(before[purpose].up_s + 15.0, abs=1.0) for purpose in Purpose)


async def test_a_copy_of_a_node_is_not_let_in_while_the_node_is_there_and_both_are_told(
    swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await together(a, b)
    before = {line.purpose: line for line in a.links.lines()}
    swarm.databases[3] = swarm.databases[2]  # certificate, book and all
    with caplog.at_level(logging.WARNING), a.member.bus.spy() as at_a, b.member.bus.spy() as at_b:
        copy = await swarm.start(3, identity=2, world=seeded_world(99))
        assert copy.id == b.id
        with copy.member.bus.spy() as at_copy:
            await asyncio.sleep(60.0)
            told = IdentityCloned(node=b.id, at=None, told_by=a.id)
            assert at_copy.of(IdentityCloned) == [told]
        assert at_b.of(IdentityCloned) == [told]
        assert at_a.of(PeerCloned) == [PeerCloned(node=b.id)]
        assert at_a.of(PeerDisconnected) == at_b.of(PeerDisconnected) == []
    after = {line.purpose: line for line in a.links.lines()}
    assert all(after[purpose].up_s == pytest.approx(before[purpose].up_s + 60.0, abs=3.0) for purpose in Purpose)
    assert [record.message.split(":")[0] for record in caplog.records if "machine" in record.message] != []
    assert sum("machine" in record.message for record in caplog.records) == 3, "each says it once"
    await swarm.stop(2)
    await until(lambda: both_up(a, copy))


async def test_a_link_ends_with_the_certificate_that_was_shown_on_it(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b, c = [await swarm.start(seed, world=world) for seed in (1, 2, 3)]
    assert isinstance(world.clock, SeededClock)
    for guest in (b, c):
        await joined(guest, a)
    await together(a, b, c)
    await asyncio.sleep(30)
    links = [a.links.link(one.id, purpose) for one in (b, c) for purpose in Purpose]
    world.clock.shift(LIFE_S - 300)
    assert await b.renewal.look(), "B has a new one now; C has not asked"
    await asyncio.sleep(60)
    assert all(link is not None and link.closed is None for link in links), "some minutes are left"
    world.clock.shift(300)
    with a.member.bus.spy() as spy:
        await asyncio.sleep(60)
        reasons = {fact.node: fact.reason for fact in spy.of(PeerDisconnected)}
    assert "has ended" in reasons[b.id] and "has ended" in reasons[c.id]
    assert all(link is not None and link.closed is not None for link in links)
    assert both_up(a, b), "it came back with the new one"
    assert a.links.link(c.id) is None and b.links.link(c.id) is None


async def test_links_of_an_inviters_members_end_with_the_inviters_certificate(swarm: Swarm) -> None:
    world = seeded_world(7)
    a, b, c = [await swarm.start(seed, world=world) for seed in (1, 2, 3)]
    assert isinstance(world.clock, SeededClock)
    for guest, host, role in ((b, a, "inviter"), (c, b, "member")):
        made = await host.codes.new_code(role=role)
        assert isinstance(made, NewInvite)
        assert isinstance(await guest.joiner.join(made.code), Joined)
    await together(a, b, c)
    await swarm.stop(2)
    shown = c.member.membership.certificate
    assert shown is not None and shown.parent is not None
    world.clock.shift(shown.parent.expires_at - world.clock.now() + 1)
    await asyncio.sleep(60)
    assert a.links.link(c.id) is None


async def test_a_link_that_slipped_in_while_it_was_revoked_is_closed_at_the_next_look(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    assert isinstance(await a.member.membership.revoke(c.id), Revocation)  # and nobody calls `enforce`
    await until(lambda: a.links.link(c.id) is None)
    assert both_up(a, b)


async def test_bulk_links_alone_are_no_way_around_the_limit_of_peers(swarm: Swarm) -> None:
    a = await swarm.start(1, is_open=True, max_peers=3)
    await a.code()
    network = a.member.membership.network
    assert network is not None
    made = []
    for seed in range(10, 22):
        guest = await swarm.start(seed, is_open=True)
        await guest.member.membership.adopt_open(network, inviter=a.id, endpoints=())
        made.append(await guest.doors.dial(Endpoint(swarm.host(1), 8810), expect=a.id, purpose=Purpose.BULK))
        await asyncio.sleep(0.3)
    await asyncio.sleep(20.0)
    assert any(isinstance(one, Connection) for one in made)
    assert [line.purpose for line in a.links.lines() if line.purpose is Purpose.BULK] == []
    assert not any(link.connection.purpose is Purpose.BULK for link in a.links._open)
    await asyncio.sleep(60.0)
    assert len(a.links._places) <= 2 * len(a.member.book.nodes())


async def test_a_member_that_answers_in_anothers_place_is_known_to_live_there(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await b.links.forget(c.id)
    moved = Endpoint("10.0.5.5", 8810)  # where c is now, as b does not know
    swarm.hub.listen(moved, c.doors._knock)
    await b.member.book.offer(a.id, (moved,), source=Source.INVITE)
    for link in list(b.links._open):
        link.close("cut")
    swarm.hub.partition(swarm.host(1), swarm.host(2))
    swarm.hub.partition(swarm.host(3), swarm.host(2))
    await until(lambda: b.links.link(c.id) is not None)
    assert moved in b.member.book.proven_endpoints(c.id) or moved in b.member.book.unproven_endpoints(c.id)
