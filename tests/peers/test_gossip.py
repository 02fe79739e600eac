"""Who tells what to whom: real Gossips on a light wire, and whole nodes in memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from swarmd.domain.events import IdentityCloned, SummaryForgotten, SummaryReceived, SummaryRejected
from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Forbidden
from swarmd.identity import certificates
from swarmd.kit.world import World, seeded_world
from swarmd.peers import facts
from swarmd.peers.fact_table import FORGET_S, MAX_NODES, PRESENT_S, TOLD_S
from swarmd.peers.gossip import (
    BATCH_TO_S,
    COMPARE_S,
    COMPARES_BURST,
    FANOUT,
    HINT_TO_S,
    HINTED,
    JUMPS_BURST,
    LISTEN_BURST,
    SLICE,
)
from swarmd.transport.rpc import LinkLost
from swarmd.wire.gossip import (
    MAX_TOLD,
    Compare,
    Facts,
    Given,
    Pair,
    Versions,
    Want,
    pack_nodes,
    pack_pairs,
    unpack_nodes,
)
from swarmd.wire.messages import encode
from tests.fakes.gossips import NETWORK, Station, Wire, certificate_of, cost, key_of, open_wire, summary_of, told
from tests.fakes.linked import Node, Swarm, joined, open_node, open_swarm

pytestmark = pytest.mark.looptime

HOP_S = BATCH_TO_S + 0.02  # a batch and the latency of the wire


@pytest.fixture
async def wire(world: World) -> AsyncIterator[Wire]:
    async with open_wire(world) as wire:
        yield wire


def announce(station: Station, **said: Any) -> int:
    """Returns the version."""
    version = int(station.gossip._world.clock.now() * 1000)
    station.gossip.announce(summary_of(station.id, version=version, **said))
    return station.gossip._version


def knows(station: Station, other: Station, version: int) -> bool:
    summary = station.gossip.summary(other.id)
    return summary is not None and summary.version == version


async def until(condition: Any, *, within_s: float) -> float:
    """How long it took, virtual."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)
    return clock() - began


def record_of(number: int, *, version: int, boot: bytes = b"boot0000", rival: bytes = facts.NO_RIVAL, **said: Any) -> bytes:
    key = key_of(number)
    shown = certificates.encode(certificate_of(key))
    summary = summary_of(key.node, version=version, **said)
    return facts.make(key, summary, network=NETWORK.network, certificate=shown, boot=boot, rival=rival)


def line(wire: Wire, count: int) -> list[Station]:
    stations = [wire.add(number) for number in range(1, count + 1)]
    for one, other in pairwise(stations):
        wire.link(one, other)
    return stations


# ---- spreading


async def test_the_ends_of_a_line_hear_of_each_other(wire: Wire) -> None:
    first, *_, last = stations = line(wire, 6)
    for station in stations:
        announce(station)
    await until(lambda: all(len(one.gossip.known()) == 5 for one in stations), within_s=6 * HOP_S)
    with first.bus.spy() as spy:
        version = announce(last, region="DE")
        await until(lambda: knows(first, last, version), within_s=5 * HOP_S)
    assert [fact.summary.region for fact in spy.of(SummaryReceived)] == ["DE"]
    assert last.id not in wire.linked(first) and first.gossip.is_present(last.id)


async def test_what_is_ours_goes_to_all_neighbours_without_waiting(wire: Wire) -> None:
    hub, *others = (wire.add(number) for number in range(1, 30))
    for one in others:
        wire.link(hub, one)
    await asyncio.sleep(1)
    version = announce(hub)
    await until(lambda: all(knows(one, hub, version) for one in others), within_s=0.03)


async def test_what_others_said_goes_to_a_few_and_waits_for_company(wire: Wire) -> None:
    hub, *others = (wire.add(number) for number in range(1, 30))
    for one in others:
        wire.link(hub, one)
    await asyncio.sleep(COMPARE_S / 2)
    teller, *rest = others
    version = announce(teller)
    await asyncio.sleep(0.05)
    assert knows(hub, teller, version) and not any(knows(one, teller, version) for one in rest)
    await asyncio.sleep(BATCH_TO_S)
    assert sum(knows(one, teller, version) for one in rest) == FANOUT
    await until(lambda: all(knows(one, teller, version) for one in rest), within_s=COMPARE_S * 3)
    assert wire.by_type["Given"] > 0, "found by comparing"


async def test_those_passed_by_are_told_that_there_is_something(wire: Wire) -> None:
    hub, teller, *rest = (wire.add(number) for number in range(1, 2 + FANOUT + HINTED + 1))
    for one in (teller, *rest):
        wire.link(hub, one)
    await asyncio.sleep(5)
    version = announce(teller)
    await asyncio.sleep(0.1 + BATCH_TO_S)
    assert sum(knows(one, teller, version) for one in rest) == FANOUT
    await asyncio.sleep(HINT_TO_S)
    assert all(knows(one, teller, version) for one in rest), "long before anything is compared"


async def test_only_one_neighbour_is_asked_for_what_several_hint_at(wire: Wire) -> None:
    one, *tellers = (wire.add(number) for number in range(1, 5))
    asked: list[NodeId] = []

    def ask_of(teller: NodeId):
        async def ask(message: object, reply: type) -> Any:
            if isinstance(message, Want):
                asked.append(teller)
                await asyncio.sleep(0.1)
                return Given(answered=1, told=told(record))
            return None

        return ask

    record = record_of(9, version=int(wire.world.clock.now() * 1000))
    talks = [asyncio.ensure_future(one.gossip.converse(teller.id, ask_of(teller.id))) for teller in tellers]
    await asyncio.sleep(5)
    hints = pack_pairs([Pair(key_of(9).node, int.from_bytes(record[33:41]))])
    for teller in tellers:
        await one.gossip.heard(teller.id, (), hints)
    await asyncio.sleep(1)
    assert asked == [tellers[0].id] and one.gossip.known() == (key_of(9).node,)
    for teller in tellers:
        await one.gossip.heard(teller.id, (), hints)
    await asyncio.sleep(1)
    assert len(asked) == 1, "known by now"
    assert one.gossip._wanted == {}
    for talk in talks:
        talk.cancel()
    await asyncio.gather(*talks, return_exceptions=True)


async def test_hints_that_lead_nowhere_are_forgotten_and_bounded(wire: Wire) -> None:
    one, teller = wire.add(1), wire.add(2)
    wanted = 0

    async def ask(message: object, reply: type) -> Any:
        nonlocal wanted
        if isinstance(message, Want):
            wanted += 1
            return Given(answered=len(message.nodes) // 32, told=())
        return None

    talk = asyncio.ensure_future(one.gossip.converse(teller.id, ask))
    await asyncio.sleep(1)
    await one.gossip.heard(teller.id, (), b"not whole pairs")
    for number in range(100):
        invented = [Pair(NodeId(f"{number * 1000 + at:064x}"), 1) for at in range(250)]
        await one.gossip.heard(teller.id, (), pack_pairs(invented))
        assert len(one.gossip._wanted) <= MAX_NODES
    await asyncio.sleep(5)
    assert one.gossip._wanted == {} and one.gossip.known() == ()
    assert 0 < wanted <= LISTEN_BURST / MAX_TOLD + 2
    talk.cancel()
    await asyncio.gather(talk, return_exceptions=True)


async def test_after_a_failure_the_two_compare_at_once(wire: Wire) -> None:
    """The one with the greater id, who waits for the other to begin on a new link."""
    one, two = sorted((wire.add(1), wire.add(2)), key=lambda station: station.id)
    asked: list[type] = []

    async def broken(message: object, reply: type) -> Any:
        raise LinkLost("broken")

    async def ask(message: object, reply: type) -> Any:
        asked.append(type(message))

    announce(two)
    with pytest.raises(LinkLost):
        await two.gossip.converse(one.id, broken)
    talk = asyncio.ensure_future(two.gossip.converse(one.id, ask))
    await asyncio.sleep(1)
    assert asked == [Facts, Compare]
    talk.cancel()
    await asyncio.gather(talk, return_exceptions=True)


async def test_nobody_is_told_what_it_told_us(wire: Wire) -> None:
    one, other = line(wire, 2)
    announce(one)
    announce(other)
    await asyncio.sleep(COMPARE_S * 3)
    before = wire.by_type["Facts"]
    version = announce(one)
    await asyncio.sleep(5)
    assert knows(other, one, version)
    size = wire.by_type["Facts"] - before
    assert size < 700, "one record, one way"


async def test_pushes_that_are_lost_are_found_by_comparing(world: World) -> None:
    async with open_wire(world, loss=0.7) as wire:
        stations = line(wire, 4)
        for station in stations:
            announce(station)
        await until(lambda: all(len(one.gossip.known()) == 3 for one in stations), within_s=COMPARE_S * 4)


async def test_a_slow_reader_gets_the_newest_state_and_not_every_state(world: World) -> None:
    async with open_wire(world, latency_s=lambda _: 5.0) as wire:
        one, other = line(wire, 2)
        with other.bus.spy() as spy:
            for minute in range(20):
                version = announce(one, region=f"{minute}")
                await asyncio.sleep(1)
            await until(lambda: knows(other, one, version), within_s=30)
        assert len(spy.of(SummaryReceived)) <= 4


async def test_at_rest_almost_nothing_is_said(wire: Wire) -> None:
    stations = line(wire, 10)
    for station in stations:
        announce(station)
    await asyncio.sleep(60)
    sent = sum(station.sent for station in stations)
    await asyncio.sleep(600)
    per_minute = (sum(station.sent for station in stations) - sent) / 10 / len(stations)
    assert per_minute < 1000, "marks alone: a few hundred bytes twice a minute"


async def test_two_halves_that_were_apart_agree_soon_after(wire: Wire) -> None:
    stations = [wire.add(number) for number in range(1, 31)]
    chance = random.Random(5)
    halves = stations[:15], stations[15:]
    for half in halves:
        for one, other in pairwise([*half, half[0]]):
            wire.link(one, other)
    bridges = [(chance.choice(halves[0]), chance.choice(halves[1])) for _ in range(3)]
    for bridge in bridges:
        wire.link(*bridge)
    for station in stations:
        announce(station)
    await until(lambda: all(len(one.gossip.known()) == 29 for one in stations), within_s=60)
    for bridge in bridges:
        wire.unlink(*bridge)
    versions = {station.id: announce(station, region="X") for station in stations}
    await asyncio.sleep(20)

    def agreed(one: Station, others: Iterable[Station]) -> bool:
        return all(knows(one, other, versions[other.id]) for other in others if other is not one)

    assert all(agreed(one, half) for half in halves for one in half)
    assert not any(agreed(one, halves[0]) for one in halves[1])
    wire.link(*bridges[0])
    took = await until(lambda: all(agreed(one, stations) for one in stations), within_s=30)
    assert took < 15 * HOP_S, f"{took:.1f} s"


async def test_who_goes_is_forgotten_by_all_in_time(wire: Wire) -> None:
    first, _, _, last = stations = line(wire, 4)
    for station in stations:
        announce(station)
    await asyncio.sleep(5)
    with first.bus.spy() as at_first:
        wire.unlink(stations[2], last)
        assert not stations[2].gossip.is_present(last.id), "whoever was linked to it knows at once"
        assert first.gossip.is_present(last.id)
        for elapsed in range(0, int(FORGET_S) + 120, 30):
            await asyncio.sleep(30)
            if elapsed == PRESENT_S:
                assert not first.gossip.is_present(last.id) and first.gossip.summary(last.id) is not None
                assert first.gossip.heard_at(last.id) == pytest.approx(first.gossip._world.clock.now() - elapsed - 35, abs=1)
            for station in stations[:3]:
                announce(station)  # they live
    assert at_first.of(SummaryForgotten) == [SummaryForgotten(node=last.id)]
    assert all(station.gossip.summary(last.id) is None for station in stations[:3])
    late = wire.add(9)
    wire.link(late, first)
    await asyncio.sleep(5)
    assert set(late.gossip.known()) == {station.id for station in stations[:3]}


async def test_a_restarted_node_is_known_anew_though_its_clock_was_set_back(wire: Wire, world: World) -> None:
    one, two, three = line(wire, 3)
    for station in (one, two, three):
        announce(station)
    await asyncio.sleep(5)
    wire.unlink(one, two)
    again = wire.add(1)
    again.gossip.announce(summary_of(again.id, version=1000, region="new"))
    wire.link(again, two)
    await until(lambda: three.gossip.summary(again.id).region == "new", within_s=5)
    assert again.gossip._clone_known is False, "our last run is no clone"


async def test_a_clock_that_was_days_ahead_and_is_set_right_silences_nobody(wire: Wire, world: World) -> None:
    one, two = line(wire, 2)
    days = 3 * 24 * 3600 * 1000
    now_ms = int(world.clock.now() * 1000)
    one.gossip.announce(summary_of(one.id, version=now_ms + days))
    await asyncio.sleep(1)
    assert two.gossip.summary(one.id) is None
    announce(one)
    await asyncio.sleep(1)
    assert two.gossip.summary(one.id) is not None


async def test_a_node_without_links_forgets_too(wire: Wire) -> None:
    one, two = line(wire, 2)
    announce(two)
    await asyncio.sleep(1)
    wire.unlink(one, two)
    await asyncio.sleep(FORGET_S)
    announce(one)
    assert one.gossip.known() == ()


async def test_a_network_that_comes_later_is_told_then(world: World) -> None:
    async with open_wire(world) as wire:
        one, two = wire.add(1), wire.add(2)
        network = one.gossip._network
        one.gossip._network = lambda: None
        announce(one)
        assert one.gossip._version == 0
        one.gossip._network = network
        wire.link(one, two)
        await until(lambda: two.gossip.summary(one.id) is not None, within_s=1)


# ---- lies, floods and clones


async def test_a_liar_is_not_listened_to_any_more(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    one, liar = wire.add(1), wire.add(2)
    now_ms = int(wire.world.clock.now() * 1000)
    good, other = record_of(3, version=now_ms), record_of(4, version=now_ms)
    with caplog.at_level(logging.WARNING), one.bus.spy() as spy:
        await one.gossip.heard(liar.id, told(good, other[:-1] + bytes([other[-1] ^ 1]), other))
        await one.gossip.heard(liar.id, told(other))
    assert set(one.gossip.known()) == {key_of(3).node}
    assert [fact.node for fact in spy.of(SummaryRejected)] == [liar.id]
    assert "not listened to any more" in caplog.text
    await one.gossip.heard(key_of(5).node, told(other))
    assert key_of(4).node in one.gossip.known()


async def test_a_node_that_says_what_cannot_be_is_blamed_and_not_who_tells_of_it(wire: Wire) -> None:
    one = wire.add(1)
    bad = record_of(3, version=int(wire.world.clock.now() * 1000), region="\n")
    with one.bus.spy() as spy:
        await one.gossip.heard(key_of(2).node, told(bad, bad))
    assert [fact.node for fact in spy.of(SummaryRejected)] == [key_of(3).node]
    assert one.gossip.known() == ()


async def test_a_flood_is_read_to_a_limit_and_in_slices(wire: Wire) -> None:
    one = wire.add(1)
    now_ms = int(wire.world.clock.now() * 1000)
    record = record_of(3, version=now_ms)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.ensure_future(others())
    await one.gossip.heard(key_of(2).node, told(*[record] * MAX_TOLD))
    assert turns >= MAX_TOLD // SLICE - 1
    task.cancel()
    for _ in range(int(LISTEN_BURST) // MAX_TOLD):
        await one.gossip.heard(key_of(2).node, told(*[record] * MAX_TOLD))
    late = record_of(4, version=now_ms)
    await one.gossip.heard(key_of(2).node, told(late))
    assert key_of(4).node not in one.gossip.known()
    await one.gossip.heard(key_of(5).node, told(late))
    assert key_of(4).node in one.gossip.known(), "others are heard"


async def test_a_hostile_member_makes_nobody_forward_without_end(wire: Wire) -> None:
    stations = line(wire, 3)
    await asyncio.sleep(1)
    hostile, now_ms, before = key_of(9).node, int(wire.world.clock.now() * 1000), wire.by_type.get("Facts", 0)
    for version in range(300):
        await stations[0].gossip.heard(hostile, told(record_of(9, version=now_ms + version, region=f"{version}")))
        await asyncio.sleep(0.1)
    sent = wire.by_type["Facts"] - before
    assert sent < 2 * 700 * 30, "30 s at one in 5 s and a burst of 10, over two links"


async def test_too_many_comparisons_and_wishes_are_refused(wire: Wire) -> None:
    one = wire.add(1)
    asker = key_of(2).node
    answers = [one.gossip.compared(asker, Compare(marks=bytes(8))) for _ in range(COMPARES_BURST + 2)]
    assert [type(answer) for answer in answers] == [Versions] * COMPARES_BURST + [Busy] * 2
    wish = Want(nodes=pack_nodes([key_of(7).node] * MAX_TOLD))
    given = [one.gossip.given(asker, wish) for _ in range(int(LISTEN_BURST) // MAX_TOLD + 2)]
    assert given[0] == Given(answered=MAX_TOLD, told=()) and isinstance(given[-1], Busy)


async def test_what_is_not_whole_is_refused(wire: Wire) -> None:
    one = wire.add(1)
    assert isinstance(one.gossip.compared(key_of(2).node, Compare(marks=bytes(24))), Forbidden)
    assert isinstance(one.gossip.given(key_of(2).node, Want(nodes=b"x")), Forbidden)


async def test_answers_that_make_no_sense_end_the_comparison(wire: Wire) -> None:
    """Whoever answers so is asked again with the next turn, and not in a loop."""
    one, peer = wire.add(1), key_of(2).node
    pair = record_of(3, version=1)[1:41]
    answers: dict[type, object] = {}
    asked: list[object] = []

    async def ask(message: object, reply: type) -> Any:
        asked.append(message)
        if len(asked) > 20:
            raise LinkLost("enough")
        return None if isinstance(message, Facts) else answers[type(message)]

    for answers in (  # noqa: B007  ask reads it
        {Compare: None},
        {Compare: Versions(differing=b"\x00\xff", pairs=b"x")},
        {Compare: Versions(differing=b"\x00\xff", pairs=pair), Want: None},
        {Compare: Versions(differing=b"\x00\xff", pairs=pair), Want: Given(answered=0, told=())},
        {Compare: Versions(differing=b"\x00\xff", pairs=pair), Want: Given(answered=60, told=())},
    ):
        asked.clear()
        talk = asyncio.ensure_future(one.gossip.converse(peer, ask))
        await asyncio.sleep(COMPARE_S * 1.5 + 1)
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        assert 1 <= len(asked) <= 8, asked


async def test_two_nodes_with_one_key_both_report_it_and_fight_slowly(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    one, *_, last = stations = line(wire, 5)
    for station in stations[1:]:
        announce(station)
    announce(one)
    await asyncio.sleep(30)
    copy = wire.add(1)
    announce(copy, region="X")
    with one.bus.spy() as at_one, copy.bus.spy() as at_copy, caplog.at_level(logging.WARNING):
        wire.link(copy, last)
        await asyncio.sleep(600)
        proof = IdentityCloned(node=one.id, at=None)
        assert at_one.of(IdentityCloned) == at_copy.of(IdentityCloned) == [proof], "once on each side"
    assert "start it there with an empty data folder" in caplog.text
    versions = max(one.gossip._version, copy.gossip._version) - int(wire.world.clock.now() * 1000 - 600_000)
    assert versions < 2 * (JUMPS_BURST + 600 / 30) + 5, "each jumps twice a minute"


async def test_a_machine_that_was_copied_with_its_memory_is_found_too(wire: Wire) -> None:
    one, two = line(wire, 2)
    announce(one)
    copied = record_of(1, version=one.gossip._version + 5, boot=one.gossip._boot)
    with one.bus.spy() as spy:
        await one.gossip.heard(two.id, told(copied))
        assert spy.of(IdentityCloned) == [IdentityCloned(node=one.id, at=None)]
    assert one.gossip._version == int.from_bytes(copied[33:41]) + 1


# ---- whole nodes


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


async def chained(swarm: Swarm, count: int) -> list[Node]:
    """Each is linked to the ones beside it alone: nothing passes between the others."""
    nodes = [await swarm.start(seed) for seed in range(1, count + 1)]
    for node in nodes:
        node.relaying.append(0.0)
    for node in nodes[1:]:
        await joined(node, nodes[0])
    await until(lambda: all(len(node.links.connected()) == count - 1 for node in nodes), within_s=60)
    for here in range(1, count + 1):
        for there in range(here + 2, count + 1):
            swarm.hub.cut(swarm.host(here), swarm.host(there))
            swarm.hub.partition(swarm.host(here), swarm.host(there))
    await until(
        lambda: all(node.links.link(nodes[at + 1].id) is not None for at, node in enumerate(nodes[:-1])), within_s=60
    )
    await until(lambda: all(len(node.links.connected()) <= 2 for node in nodes), within_s=60)
    return nodes


def say(node: Node, region: str) -> None:
    version = int(node.member.world.clock.now() * 1000)
    node.links.announce(summary_of(node.id, version=version, region=region))


def region_at(node: Node, other: Node) -> str | None:
    summary = node.links.summary(other.id)
    return None if summary is None else summary.region


async def test_whole_nodes_in_a_line_know_each_other_without_a_link(swarm: Swarm) -> None:
    first, second, _, last = nodes = await chained(swarm, 4)
    for node in nodes:
        say(node, "A")
    pairs = [(one, other) for one in nodes for other in nodes if one is not other]
    await until(lambda: all(region_at(one, other) == "A" for one, other in pairs), within_s=10)
    view = first.links.view(last.id)
    assert view is not None and (view.connected, view.present) == (False, True)
    assert last.id not in first.links.connected(), "no work goes there"
    assert last.id in {view.record.node for view in first.links.views()}
    say(last, "B")
    took = await until(lambda: region_at(first, last) == "B", within_s=10)
    assert took < 3 * HOP_S + 0.1
    swarm.hub.partition(swarm.host(2), swarm.host(3))
    await until(lambda: len(second.links.connected()) == 1, within_s=30)
    say(last, "C")
    say(first, "C")
    await asyncio.sleep(60)
    assert region_at(first, last) == "B" and region_at(last, first) == "A"
    swarm.hub.heal(swarm.host(2), swarm.host(3))
    await until(lambda: region_at(first, last) == region_at(last, first) == "C", within_s=30)


async def test_a_copied_data_folder_is_reported_on_both_sides_over_links(swarm: Swarm) -> None:
    nodes = [await swarm.start(seed) for seed in (1, 2, 3)]
    for node in nodes[1:]:
        await joined(node, nodes[0])
    for node in nodes:
        say(node, "A")
    await asyncio.sleep(30)
    original = nodes[2]
    copy = open_node(
        3, world=seeded_world(99), folder=swarm.folder, network=swarm.hub.network("10.0.0.99"),
        listen=Endpoint("0.0.0.0", 8810), database=swarm.databases[3],
    )  # fmt: skip
    async with copy as double:
        with original.member.bus.spy() as at_original, double.member.bus.spy() as at_double:
            say(double, "B")
            await at_original.wait_for(IdentityCloned, timeout_s=120)
            await at_double.wait_for(IdentityCloned, timeout_s=120)
            await asyncio.sleep(60)
            for reports in (at_original.of(IdentityCloned), at_double.of(IdentityCloned)):
                assert {(one.node, one.at) for one in reports} == {(original.id, None)}
                assert len(reports) == len({one.told_by for one in reports}), "once by each, with a proof or without"


async def test_a_node_put_out_is_forgotten_everywhere_at_once(swarm: Swarm) -> None:
    first, second, last = nodes = await chained(swarm, 3)
    for node in nodes:
        say(node, "A")
    await until(lambda: region_at(first, last) == region_at(last, first) == "A", within_s=10)
    record = await first.member.membership.revoke(last.id)
    assert not isinstance(record, Forbidden)
    await first.links.enforce(last.id)
    assert first.links.summary(last.id) is None
    await until(lambda: second.links.summary(last.id) is None, within_s=5)


async def test_the_light_wire_counts_what_a_real_link_sends(swarm: Swarm) -> None:
    first, second = await chained(swarm, 2)
    link = first.links.link(second.id)
    assert link is not None
    say(second, "Z")
    await asyncio.sleep(2)
    connection, wish = link.connection, Want(nodes=pack_nodes([second.id]))
    before = connection.bytes_out, connection.bytes_in
    reply = await link.call(wish, Given, timeout_s=5)
    sent, got = connection.bytes_out - before[0], connection.bytes_in - before[1]
    assert (sent, got) == (cost(encode(wish)[1]), cost(encode(reply.message)[1]))


async def test_what_is_asked_for_is_given_over_a_real_link(swarm: Swarm) -> None:
    first, second = await chained(swarm, 2)
    link = first.links.link(second.id)
    assert link is not None
    say(second, "Z")
    reply = await link.call(Want(nodes=pack_nodes([second.id, NodeId("ab" * 32)])), Given, timeout_s=5)
    assert isinstance(reply.message, Given)
    assert reply.message.answered == 2 and len(reply.message.told) == 1
    assert unpack_nodes(reply.message.told[0].record[1:33]) == (second.id,)
    assert TOLD_S > reply.message.told[0].age_s >= 0
