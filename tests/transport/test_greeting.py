"""A handshake whose socket goes away at the worst moments."""

from __future__ import annotations

import asyncio

import pytest

from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.kit.world import seeded_world
from swarmd.transport.greeting import Greeting
from swarmd.transport.loopback import LoopbackHub
from swarmd.wire.handshake import Handshake, HandshakeFailed, PeerProven
from tests.fakes.authority import FakeAuthority

pytestmark = pytest.mark.looptime


async def greetings(hub: LoopbackHub) -> tuple[Greeting, Greeting]:
    world = seeded_world(5)
    here = Greeting(
        Handshake.dial(
            static_private=FakeAuthority("a").static_private(),
            ephemeral_private=world.entropy.token(32),
            hello=FakeAuthority("a").hello(purpose=Purpose.CONTROL, invited=False),
        )
    )
    there = Greeting(
        Handshake.answer(static_private=FakeAuthority("b").static_private(), ephemeral_private=world.entropy.token(32))
    )
    hub.listen(Endpoint("b", 1), lambda: there)
    await hub.network("a").connect(lambda: here, Endpoint("b", 1))
    return here, there


async def test_reading_stops_while_a_question_is_open() -> None:
    here, there = await greetings(LoopbackHub())
    asked = await there.question()
    assert isinstance(asked, PeerProven)
    here.transport.write(b"more")
    await asyncio.sleep(1)
    assert there.transport.reading_paused  # type: ignore[attr-defined]
    here.abort()
    there.abort()


async def test_a_lost_socket_is_a_failed_handshake() -> None:
    hub = LoopbackHub(latency_s=1)
    here, there = await greetings(hub)
    hub.cut("a", "b")
    for side in (here, there):
        event = await side.question()
        assert isinstance(event, HandshakeFailed)
        assert "hung up" in event.reason


async def test_a_socket_lost_while_judging_gives_no_connection() -> None:
    hub = LoopbackHub()
    _, there = await greetings(hub)
    assert isinstance(await there.question(), PeerProven)
    hub.cut("a", "b")
    await asyncio.sleep(1)
    there.handshake.accept(b"welcome")
    peer = PeerIdentity(node=FakeAuthority("a").node, purpose=Purpose.CONTROL, software="")
    assert there.opened(peer=peer, peer_hello=b"", world=seeded_world(5)) is None
    there.close()
    there.abort()


async def test_aborting_what_never_connected_is_fine() -> None:
    greeting = Greeting(Handshake.answer(static_private=bytes(range(32)), ephemeral_private=bytes(range(32))))
    greeting.abort()
    greeting.close()
