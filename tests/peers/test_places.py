"""What is known of a connection, as it is shown and as it is told on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.identity import certificates
from swarmd.identity.certificates import Role
from swarmd.identity.keys import NetworkKey
from swarmd.kit.flow import Backoff
from swarmd.kit.world import World
from swarmd.peers import hello as hellos
from swarmd.peers.hello import Hello
from swarmd.peers.places import RTT_WEIGHT, Leg, Place, as_ms, certificate_of, line_of, stated
from swarmd.peers.slots import Slot

OWN, PEER, RELAY = (NodeId(digit * 64) for digit in "0ab")
LISTENS = (Endpoint("0.0.0.0", 8810), Endpoint("198.51.7.7", 9000), Endpoint("127.0.0.1", 8810))


def connection(**rest: Any) -> Any:
    peer = PeerIdentity(node=PEER, purpose=Purpose.CONTROL, software="t/1", endpoints=LISTENS)
    known = {
        "peer": peer, "via": None, "remote": Endpoint("10.0.0.7", 40000), "dialled": True, "rtt_s": None, "min_rtt_s": None,
        "rtt_samples": 0, "bytes_in": 3, "bytes_out": 4, "queued_bytes": 5,
    }  # fmt: skip
    return SimpleNamespace(**{**known, **rest})


def leg_of(made: Any) -> Leg:
    link: Any = SimpleNamespace(connection=made, streams=2)
    return Leg(link=link, boot=b"b" * 8, up_at=0.0)


def place_of(world: World) -> Place:
    return Place(
        node=PEER, purpose=Purpose.CONTROL, slot=Slot(own=OWN, peer=PEER),
        backoff=Backoff(1.0, 2.0, 4.0, entropy=world.entropy),
    )  # fmt: skip


def test_round_trips_are_smoothed_and_each_counts_once() -> None:
    made = connection()
    leg = leg_of(made)
    assert leg.sample() is None
    made.rtt_s, made.min_rtt_s, made.rtt_samples = 0.010, 0.010, 1
    assert leg.sample() == (10.0, 10.0)
    assert leg.sample() is None, "no new one"
    made.rtt_s, made.rtt_samples = 0.050, 2
    smoothed, least = leg.sample() or (0.0, 0.0)
    assert smoothed == pytest.approx(10.0 + RTT_WEIGHT * 40.0) and least == 10.0


def test_a_line_shows_where_a_direct_peer_is_and_who_relays_another(world: World) -> None:
    direct = line_of(place_of(world), leg_of(connection(rtt_s=0.002, min_rtt_s=0.001)), up_s=7.0)
    assert (direct.remote, direct.via, direct.rtt_ms, direct.min_rtt_ms) == (Endpoint("10.0.0.7", 40000), None, 2.0, 1.0)
    assert (direct.bytes_in, direct.bytes_out, direct.queued_bytes, direct.streams, direct.up_s) == (3, 4, 5, 2, 7.0)
    relayed = line_of(place_of(world), leg_of(connection(via=RELAY)), up_s=7.0)
    assert (relayed.remote, relayed.via, relayed.rtt_ms) == (None, RELAY, None)


def test_what_a_peer_states_is_read_where_we_see_it_and_a_relay_shows_nothing() -> None:
    assert stated(connection()) == (Endpoint("10.0.0.7", 8810), Endpoint("198.51.7.7", 9000))
    assert stated(connection(via=RELAY)) == (Endpoint("198.51.7.7", 9000),)


def test_the_certificate_is_the_one_that_was_shown() -> None:
    key = NetworkKey(bytes(range(32)))
    certificate = certificates.issue(key, node=PEER, role=Role.MEMBER, now=1000.0)
    said = Hello(
        node=bytes.fromhex(PEER), static_signature=bytes(64), purpose=Purpose.CONTROL, software="t/1", boot=bytes(8),
        certificate=certificates.encode(certificate),
    )  # fmt: skip
    assert certificate_of(connection(peer_hello=hellos.encode(said))) == certificate
    bare = Hello(node=said.node, static_signature=bytes(64), purpose=Purpose.CONTROL, software="t/1", boot=bytes(8))
    assert certificate_of(connection(peer_hello=hellos.encode(bare))) is None


def test_seconds_are_shown_in_milliseconds() -> None:
    assert (as_ms(0.0125), as_ms(None)) == (12.5, None)
