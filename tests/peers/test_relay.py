"""Members that cannot dial each other talk through a common one, which sees sizes only; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.domain.events import CircuitRelayed
from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, NodeSummary, PeerIdentity, Purpose
from swarmd.domain.refusals import NoAnswer, OtherNode
from swarmd.kit.world import seeded_world
from swarmd.peers import relay as relay_module
from swarmd.peers.relay import MAX_PER_NODE
from swarmd.transport.circuit import CircuitTransport
from swarmd.transport.connection import Connection
from swarmd.transport.rpc import Link, Stream, StreamReset, WithPayload
from swarmd.wire.circuits import MAX_CIRCUIT_BYTES, CircuitBytes, CircuitOpen, IncomingCircuit, OpenCircuit
from swarmd.wire.messages import CODES, Introduced, Introduction, Refused
from tests.fakes.linked import Node, Swarm, joined, open_swarm
from tests.transport.nodes import Echo, Echoed

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


async def until(condition: Any, *, within_s: float = 60.0) -> float:
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)
    return asyncio.get_running_loop().time() - begun


def path(one: Node, other: Node, purpose: Purpose = Purpose.CONTROL) -> NodeId | str | None:
    """The node in between, `direct`, or None without a link."""
    link = one.links.link(other.id, purpose)
    return None if link is None else link.connection.via or "direct"


def paths(one: Node, other: Node) -> set[NodeId | str | None]:
    return {path(here, there, purpose) for here, there in ((one, other), (other, one)) for purpose in Purpose}


async def apart(swarm: Swarm, *, relays: int = 1) -> tuple[list[Node], Node, Node]:
    """Relays 1.., and nodes 8 and 9 that are linked to all of them and cannot dial each other."""
    swarm.hub.partition(swarm.host(8), swarm.host(9))
    common = [await swarm.start(seed) for seed in range(1, relays + 1)]
    b, c = await swarm.start(8), await swarm.start(9)
    for node in (*common[1:], b, c):
        await joined(node, common[0])
    return common, b, c


async def echo(message: Echo, payload: memoryview, peer: PeerIdentity) -> WithPayload:
    await asyncio.sleep(message.wait_s)
    return WithPayload(Echoed(text=message.text), bytes(payload))


async def test_two_that_cannot_dial_each_other_are_linked_through_a_common_member(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    took = await until(lambda: paths(b, c) == {a.id})
    assert took < 6.0
    assert path(a, b) == path(a, c) == "direct"
    await asyncio.sleep(10.0)
    view = b.links.view(c.id)
    assert view is not None
    assert view.connected and view.via == a.id
    assert view.min_rtt_ms == pytest.approx(40, abs=4), "two hops of 10 ms, there and back"
    lines = {(line.node, line.purpose): line for line in b.links.lines()}
    assert lines[c.id, Purpose.CONTROL].via == lines[c.id, Purpose.BULK].via == a.id
    assert lines[c.id, Purpose.CONTROL].remote is None
    assert a.links.relay.circuits == 2 and a.links.relay.relayed_bytes > 0


async def test_it_is_told_how_long_a_circuit_stands_while_it_does_and_at_its_end(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    with a.member.bus.spy() as spy:
        await until(lambda: paths(b, c) == {a.id})
        await asyncio.sleep(relay_module.TOLD_S + 10.0)
        parts = spy.of(CircuitRelayed)
        assert len(parts) == 2, "two connections"
        assert {part.opener for part in parts} | {part.node for part in parts} == {b.id, c.id}
        assert all(part.seconds == pytest.approx(relay_module.TOLD_S) and part.size_bytes > 0 for part in parts)
        a.relaying.append(0.0)
        await until(lambda: a.links.relay.circuits == 0)
        assert sum(part.seconds for part in spy.of(CircuitRelayed)) > 2 * (relay_module.TOLD_S + 5.0)


async def test_the_relay_sees_sizes_and_not_a_word(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    send = Stream.send

    async def spied(self: Stream, message: object, payload: Any = b"", *, last: bool = False) -> None:
        if isinstance(message, CircuitBytes):  # the ends send without waiting: only the relay comes by here
            seen.append(bytes(payload))
        await send(self, message, payload, last=last)

    monkeypatch.setattr(Stream, "send", spied)
    _, b, c = await apart(swarm)
    c.dispatcher.answer(Echo, echo, payload_limit=500_000)
    await until(lambda: None not in paths(b, c))
    link = b.links.link(c.id)
    assert link is not None
    secret = b"a word that is for nobody else" * 1000
    reply = await link.call(Echo(text="psst"), Echoed, payload=secret, timeout_s=10.0)
    assert not isinstance(reply, Refused)
    assert bytes(reply.payload) == secret
    assert sum(map(len, seen)) > 2 * len(secret)
    everything = b"".join(seen)
    assert b"a word" not in everything and b"psst" not in everything
    for node in (b, c):
        assert bytes.fromhex(node.id) not in everything, "the handshake hides who they are as well"


async def test_a_direct_link_takes_over_as_soon_as_there_is_one_and_a_call_in_progress_ends_well(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    c.dispatcher.answer(Echo, echo)
    await until(lambda: paths(b, c) == {a.id})
    relayed = b.links.link(c.id)
    assert relayed is not None
    slow = asyncio.ensure_future(relayed.call(Echo(text="slow", wait_s=90.0), Echoed, timeout_s=200.0))
    await asyncio.sleep(0.1)
    swarm.hub.heal(swarm.host(8), swarm.host(9))
    assert await until(lambda: paths(b, c) == {"direct"}) < 36.0, "dialled on, at least every half minute"
    await asyncio.sleep(20.0)
    assert relayed.closed is None and not slow.done()
    reply = await slow
    assert not isinstance(reply, Refused) and reply.message == Echoed(text="slow")
    await until(lambda: relayed.closed is not None and a.links.relay.circuits == 0)


async def test_a_port_that_a_router_forwards_is_heard_of_and_takes_over(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    # A second way to c, as a router's forwarded port is: another address, which reaches the same doors.
    outside = Endpoint("10.0.9.9", 8899)
    swarm.hub.listen(outside, c.doors._knock)
    version = int(c.member.world.clock.now() * 1000)
    c.links.announce(
        NodeSummary(
            node=c.id, version=version, software="t/1", started_at=0.0, ram_free_bytes=1, ram_total_bytes=2,
            endpoints=(Endpoint("0.0.0.0", 8810), outside, Endpoint("127.0.0.1", 8810)),
        )
    )  # fmt: skip
    assert await until(lambda: paths(b, c) == {"direct"}) < 6.0
    assert outside in b.member.book.proven_endpoints(c.id)
    assert Endpoint("127.0.0.1", 8810) not in b.member.book.endpoints(c.id)


async def test_who_states_ever_new_addresses_makes_nobody_dial_them_all(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    version = int(c.member.world.clock.now() * 1000)
    for number in range(12):
        endpoints = tuple(Endpoint(f"10.9.{number}.{at}", 25) for at in range(1, 9))
        c.links.announce(
            NodeSummary(
                node=c.id, version=version + number, software="t/1", started_at=0.0, ram_free_bytes=1, ram_total_bytes=2,
                endpoints=endpoints,
            )
        )  # fmt: skip
        await asyncio.sleep(20.0)
    victims = {one.host.split(".")[2] for one in b.member.book.endpoints(c.id) if one.host.startswith("10.9.")}
    assert len(victims) <= 5


async def test_a_node_that_does_not_listen_is_reached_through_its_neighbour(swarm: Swarm) -> None:
    swarm.hub.partition(swarm.host(8), swarm.host(9))
    a, b, c = await swarm.start(1), await swarm.start(8, listening=False), await swarm.start(9, listening=False)
    for node in (b, c):
        await joined(node, a)
    assert await until(lambda: paths(b, c) == {a.id}) < 2.0, "with no address to dial nothing is waited for"


async def test_when_the_relay_dies_another_takes_its_place(swarm: Swarm) -> None:
    relays, b, c = await apart(swarm, relays=2)
    await until(lambda: None not in paths(b, c) and None not in paths(b, relays[1]) and None not in paths(c, relays[1]))
    first = path(b, c)
    dead = next(number for number, relay in enumerate(relays, 1) if relay.id == first)
    await swarm.stop(dead)
    await until(lambda: path(b, c) != first)
    assert await until(lambda: paths(b, c) == {relays[2 - dead].id}) < 10.0


async def test_a_relay_can_be_switched_off_and_on(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    a.relaying.append(0.0)
    await asyncio.sleep(40.0)
    assert paths(b, c) == {None}
    refused = await b.links.relay.dial(c.id, Purpose.CONTROL, via=a.id)
    assert isinstance(refused, NoAnswer) and "relays for nobody" in refused.sentence
    a.relaying.append(1e6)
    await until(lambda: paths(b, c) == {a.id})
    a.relaying.append(0.0)
    await until(lambda: paths(b, c) == {None})
    assert a.links.relay.circuits == 0


async def test_a_relay_passes_on_no_more_bytes_a_second_than_it_may(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    a.relaying.append(100_000.0)
    c.dispatcher.answer(Echo, echo, payload_limit=500_000)
    await until(lambda: None not in paths(b, c))
    for purpose, least_s in ((Purpose.CONTROL, 8.0), (Purpose.BULK, 16.0)):
        link = b.links.link(c.id, purpose)
        assert link is not None
        begun = asyncio.get_running_loop().time()
        reply = await link.call(Echo(text="much"), Echoed, payload=bytes(500_000), timeout_s=60.0)
        took = asyncio.get_running_loop().time() - begun
        assert not isinstance(reply, Refused) and len(reply.payload) == 500_000
        assert least_s < took < least_s * 2


async def ask(link: Link, node: str) -> object:
    stream = link.open(OpenCircuit(node=NodeId(node)))
    answer = await stream.receive()
    stream.reset()
    assert answer is not None
    return answer.message


async def test_a_relay_refuses_in_words_what_is_no_circuit(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    link = b.links.link(a.id)
    assert link is not None
    for node, reason in (("ff" * 32, "no direct link"), ("nonsense", "64"), (a.id, "third"), (b.id, "third")):
        answer = await ask(link, node)
        assert isinstance(answer, Refused) and reason in answer.sentence, answer
    relayed = b.links.link(c.id)
    assert relayed is not None
    answer = await ask(relayed, a.id)
    assert isinstance(answer, Refused) and "direct link to the relay" in answer.sentence, "two hops and no more"
    monkeypatch.setattr(relay_module, "MAX_CIRCUITS", a.links.relay.circuits)
    answer = await ask(link, c.id)
    assert isinstance(answer, Refused) and "no more" in answer.sentence
    assert isinstance(await b.links.relay.dial(a.id, Purpose.CONTROL, via=c.id), NoAnswer), "a relayed link is no relay"


async def test_one_node_cannot_take_all_circuits(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    link = b.links.link(a.id)
    assert link is not None
    kept = [link.open(OpenCircuit(node=c.id)) for _ in range(MAX_PER_NODE + 5)]
    answers = [await stream.receive() for stream in kept]
    assert 1 <= sum(isinstance(one.message, CircuitOpen) for one in answers if one) <= MAX_PER_NODE
    assert isinstance(answers[-1].message if answers[-1] else None, Refused)
    for stream in kept:
        stream.reset()
    await until(lambda: a.links.relay.circuits <= 2)


async def test_a_relay_that_leads_elsewhere_or_sends_rubbish_gets_nobody_a_link(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    a.relaying.append(0.0)
    await until(lambda: paths(b, c) == {None})

    async def rubbish(message: OpenCircuit, payload: memoryview, stream: Stream) -> None:
        await stream.send(CircuitOpen())
        await stream.receive()
        await stream.send(CircuitBytes(), bytes(range(256)) * 100)
        await stream.receive()

    async def elsewhere(message: OpenCircuit, payload: memoryview, stream: Stream) -> None:
        onward = a.links.link(c.id)
        assert onward is not None
        await a.links.relay._serve(OpenCircuit(node=c.id), payload, stream)

    serves = a.dispatcher._serves
    serves[CODES[OpenCircuit]] = rubbish
    assert isinstance(await b.links.relay.dial(c.id, Purpose.CONTROL, via=a.id), NoAnswer)
    a.relaying.append(1e6)
    serves[CODES[OpenCircuit]] = elsewhere
    other = NodeId("ee" * 32)
    refused = await b.links.relay.dial(other, Purpose.CONTROL, via=a.id)
    assert isinstance(refused, OtherNode) and "in place of" in refused.sentence
    assert b.links.link(other) is None


async def test_who_is_put_out_is_cut_from_its_circuits_too(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    await a.member.membership.revoke(b.id)
    await a.links.enforce(b.id)
    await until(lambda: paths(b, c) == {None}, within_s=5.0)
    await asyncio.sleep(60.0)
    assert paths(b, c) == {None}


async def test_a_circuit_to_a_peer_that_says_nothing_is_given_up(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})

    def silent(message: object, payload: memoryview, stream: Stream) -> None:
        del message, payload, stream

    c.dispatcher._accepts[CODES[IncomingCircuit]] = silent
    begun = asyncio.get_running_loop().time()
    refused = await b.links.relay.dial(c.id, Purpose.CONTROL, via=a.id)
    assert isinstance(refused, NoAnswer) and "no answer within 5 s" in refused.sentence
    assert asyncio.get_running_loop().time() - begun < 6.0


async def test_nobody_piles_up_links_by_relaying_itself(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await until(lambda: paths(a, b) == {"direct"})
    link = a.links.link(b.id)
    assert link is not None
    before = len(b.links._open)
    for claimed in (a.id, None):
        for _ in range(10):
            stream = link.open(IncomingCircuit(node=claimed))
            try:
                answer = await stream.receive()
            except StreamReset:
                assert claimed == a.id
                continue
            assert claimed is None and answer is not None and isinstance(answer.message, CircuitOpen)
            carrier = CircuitTransport(stream, via=b.id)
            inside = await a.doors.dial_through(carrier, via=b.id, expect=b.id, purpose=Purpose.CONTROL)
            if isinstance(inside, Connection):
                kept = Link(inside, dispatcher=a.dispatcher, spawn=lambda work, name: asyncio.ensure_future(work))
                await asyncio.sleep(1.0)
                assert kept.closed is not None
    await asyncio.sleep(20.0)
    assert len(b.links._open) == before and paths(a, b) == {"direct"}


async def test_a_node_that_comes_back_through_a_relay_is_linked_directly_again_when_that_can_be(swarm: Swarm) -> None:
    a, b, c = await swarm.start(1), await swarm.start(8, listening=False), await swarm.start(9)
    for node in (b, c):
        await joined(node, a)
    await until(lambda: paths(b, c) == {"direct"})
    await asyncio.sleep(30.0)
    swarm.hub.partition(swarm.host(8), swarm.host(9))  # b's connection to c is half open, and b does not know yet
    await swarm.stop(9)
    c = await swarm.start(9, world=seeded_world(99))
    await until(lambda: path(b, c) == a.id)
    assert not b.links._is_direct(c.id)
    swarm.hub.heal(swarm.host(8), swarm.host(9))
    await until(lambda: paths(b, c) == {"direct"}, within_s=70.0)


async def test_two_that_flood_a_relay_do_not_cost_others_their_link(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    a.relaying.append(2_000_000.0)
    await until(lambda: paths(b, c) == {a.id})
    swarm.hub.partition(swarm.host(6), swarm.host(7))
    m, n = await swarm.start(6), await swarm.start(7)
    for node in (m, n):
        await joined(node, a)
    await until(lambda: path(m, a) == path(n, a) == "direct")

    def swallow(message: object, payload: memoryview, stream: Stream) -> None:
        stream.send_now(CircuitOpen())
        stream.on_message(lambda *_: None, lambda *_: None)

    n.dispatcher._accepts[CODES[IncomingCircuit]] = swallow
    link, victim = m.links.link(a.id), b.links.link(c.id)
    assert link is not None and victim is not None
    begun = asyncio.get_running_loop().time()

    async def pump() -> None:
        while True:
            stream = link.open(OpenCircuit(node=n.id))
            with contextlib.suppress(StreamReset):
                answer = await stream.receive()
                while answer is not None and isinstance(answer.message, CircuitOpen):
                    await stream.send(CircuitBytes(), bytes(MAX_CIRCUIT_BYTES))
                    await stream.drain()
            stream.reset()
            await asyncio.sleep(0.05)

    pumps = [asyncio.ensure_future(pump()) for _ in range(MAX_PER_NODE)]
    await asyncio.sleep(12.0)
    for task in pumps:
        task.cancel()
    assert a.links.relay.relayed_bytes > 5_000_000, "they did flood it"
    assert victim.closed is None
    rtt_s = victim.connection.rtt_s
    assert rtt_s is not None and rtt_s < 1.5, rtt_s
    assert a.links.relay.relayed_bytes < 2_000_000 * (asyncio.get_running_loop().time() - begun + 1)


async def test_a_message_larger_than_a_relay_holds_ends_the_circuit(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})
    link = b.links.link(a.id)
    assert link is not None
    stream = link.open(OpenCircuit(node=c.id))
    assert await stream.receive() is not None
    await stream.send(CircuitBytes(), bytes(MAX_CIRCUIT_BYTES + 1))
    assert await stream.receive() is None
    await until(lambda: a.links.relay.circuits <= 2)


async def test_a_circuit_on_which_nobody_speaks_is_given_up(swarm: Swarm) -> None:
    (a,), b, c = await apart(swarm)
    await until(lambda: paths(b, c) == {a.id})

    def silent(message: object, payload: memoryview, stream: Stream) -> None:
        stream.send_now(CircuitOpen())

    c.dispatcher._accepts[CODES[IncomingCircuit]] = silent
    link = b.links.link(a.id)
    assert link is not None
    for _ in range(20):
        link.open(OpenCircuit(node=c.id))
    await asyncio.sleep(5.0)
    assert a.links.relay.circuits >= 20
    await asyncio.sleep(60.0)
    assert a.links.relay.circuits <= 2 and paths(b, c) == {a.id}, "the two that are in use live on"


async def test_nodes_that_are_invented_together_with_a_way_to_them_are_forgotten(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    await until(lambda: paths(a, b) == {"direct"})

    async def hang(message: OpenCircuit, payload: memoryview, stream: Stream) -> None:
        await asyncio.sleep(3600)

    a.dispatcher._serves[CODES[OpenCircuit]] = hang
    link = a.links.link(b.id)
    assert link is not None
    ghosts = [NodeId(f"{number:064x}") for number in range(1, 141)]
    for start in range(0, len(ghosts), 60):
        members = tuple(Introduced(node=one, endpoints=()) for one in ghosts[start : start + 60])
        link.open(Introduction(members=members), last=True)
        await asyncio.sleep(1.0)
    assert len(b.member.book.nodes()) > 100
    await asyncio.sleep(1200.0)
    assert b.member.book.nodes() == (a.id,)


async def test_a_way_that_is_none_any_more_is_forgotten_until_it_is_told_again(swarm: Swarm) -> None:
    relays, b, c = await apart(swarm, relays=2)
    await until(lambda: None not in paths(b, c))
    await until(lambda: len(b.links._neighbours.linked_with(c.id)) == 2)
    first = path(b, c)
    number = next(number for number, relay in enumerate(relays, 1) if relay.id == first)
    swarm.hub.partition(swarm.host(number), swarm.host(9))
    swarm.hub.cut(swarm.host(number), swarm.host(9))
    await until(lambda: path(b, c) == relays[2 - number].id, within_s=20.0)
    swarm.hub.heal(swarm.host(number), swarm.host(9))
    await until(lambda: len(b.links._neighbours.linked_with(c.id)) == 2)
