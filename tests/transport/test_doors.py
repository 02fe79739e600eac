"""Doors: who gets in, who gets silence, and how much a stranger may take. Real sockets where no time must pass."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, Purpose
from swarmd.domain.refusals import Forbidden, NoAnswer, OtherNode, Refusal, UsedUp
from swarmd.kit.service import Supervisor
from swarmd.kit.world import real_world, seeded_world
from swarmd.transport.connection import Connection
from swarmd.transport.doors import HANDSHAKE_TIMEOUT_S, DoorLimits, Doors, Elsewhere, Exchange, ShortTry
from swarmd.transport.loopback import LoopbackHub
from swarmd.wire.noise import public_key
from tests.fakes.authority import FakeAuthority
from tests.fakes.pipe import pipe
from tests.transport.nodes import Node, nodes, until

TAG, PSK = b"t" * 16, b"p" * 32


async def test_both_ends_know_each_other() -> None:
    async with nodes("ab") as (a, b):
        link = await a.link_to(b, Purpose.BULK)
        await until(lambda: bool(b.links))
        (there,) = b.links
        assert (link.node, there.node) == (b.authority.node, a.authority.node)
        assert link.connection.purpose is there.connection.purpose is Purpose.BULK
        assert link.connection.dialled and not there.connection.dialled
        assert link.connection.remote == b.endpoint
        assert there.connection.remote.host == "127.0.0.1"
        assert link.connection.handshake_hash == there.connection.handshake_hash
        assert link.connection.peer_hello == b.authority.hello(purpose=Purpose.BULK, invited=False)
        await until(lambda: link.connection.rtt_s is not None)


async def test_reaching_a_node_proves_its_key_and_opens_nothing() -> None:
    async with nodes("ab") as (a, b):
        key = public_key(b.authority.static_private())
        assert await a.doors.reaches(b.endpoint, key)
        assert not await a.doors.reaches(b.endpoint, bytes(32)), "somebody else lives there"
        assert not await a.doors.reaches(Endpoint("127.0.0.1", 1), key), "nobody lives there"
        assert b.links == []


async def test_somebody_else_answers() -> None:
    async with nodes("ab") as (a, b):
        result = await a.doors.dial(b.endpoint, expect=NodeId("c" * 64), purpose=Purpose.CONTROL)
        assert isinstance(result, OtherNode)
        assert "in place of cccc" in result.sentence
        await until(lambda: bool(b.links) and b.links[0].closed is not None)


async def test_a_stranger_gets_silence() -> None:
    async with nodes("ab") as (a, b):
        b.authority.banned.add(a.authority.node)
        result = await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL)
        assert isinstance(result, NoAnswer)
        assert not b.links
        assert b.doors.turned_away == 1
        b.authority.banned.clear()
        a.authority.banned.add(b.authority.node)
        assert isinstance(await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL), Forbidden)


async def test_an_invite_admits_once() -> None:
    async with nodes("ab") as (a, b):
        b.authority.invites[TAG] = PSK
        for psk, expected in ((bytes(32), NoAnswer), (PSK, Connection), (PSK, NoAnswer)):
            result = await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL, invite=(TAG, psk))
            assert isinstance(result, expected)
            if isinstance(result, Connection):
                assert result.peer_hello.endswith(b"|1")
                a.adopt(result)


async def test_a_rejection_may_be_told() -> None:
    async with nodes("ab") as (a, b):
        b.authority.invites[TAG] = PSK
        b.authority.thinking_s = 0.05
        results = await asyncio.gather(
            *[a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL, invite=(TAG, PSK)) for _ in range(2)]
        )
        assert sorted(type(result).__name__ for result in results) == ["Connection", UsedUp.__name__]
        for result in results:
            if isinstance(result, Connection):
                a.adopt(result)


async def test_nobody_listens() -> None:
    async with nodes("ab") as (a, b):
        endpoint = b.endpoint
        await b.supervisor.stop()
        result = await a.doors.dial(endpoint, expect=None, purpose=Purpose.CONTROL)
        assert isinstance(result, NoAnswer)
        assert str(endpoint) in result.sentence
        result = await a.doors.dial(Endpoint("no-such-host.invalid", 1), expect=None, purpose=Purpose.CONTROL)
        assert isinstance(result, NoAnswer)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        bytes(100),
        b"\x01\x00" + bytes(16) + b"\xff\xff" + random.Random(7).randbytes(1000),
        b"\x01\x01" + random.Random(7).randbytes(66),
        random.Random(7).randbytes(100_000),
    ],
)
async def test_garbage_gets_silence_and_a_closed_socket(garbage: bytes) -> None:
    async with nodes("b") as (b,):
        reader, writer = await asyncio.open_connection(b.endpoint.host, b.endpoint.port)
        writer.write(garbage)
        async with asyncio.timeout(2):
            # Garbage that was never read makes the kernel reset the connection; nothing was sent either.
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        await until(lambda: b.doors.turned_away == 1)
        assert not b.links


async def test_message_2_is_all_that_an_unproven_caller_ever_gets() -> None:
    async with nodes("b") as (b,):
        reader, writer = await asyncio.open_connection(b.endpoint.host, b.endpoint.port)
        writer.write(b"\x01\x00" + bytes(16) + b"\x00\x20" + random.Random(7).randbytes(32))
        assert len(await reader.readexactly(98)) == 98
        writer.write(b"\x00\x50" + random.Random(7).randbytes(80))
        assert await reader.read() == b""
        writer.close()


async def test_one_address_may_not_take_all_places() -> None:
    async with nodes("ab", limits=DoorLimits(waiting_per_address=3)) as (a, b):
        idle = [await asyncio.open_connection(b.endpoint.host, b.endpoint.port) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert isinstance(await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL), NoAnswer)
        assert b.doors.turned_away == 1
        idle[0][1].close()
        await until(lambda: b.doors.turned_away == 2)
        await a.link_to(b)
        for _, writer in idle:
            writer.close()


async def test_one_address_may_not_knock_too_often() -> None:
    async with nodes("ab", limits=DoorLimits(rate_per_address=0.001, burst_per_address=2)) as (a, b):
        for _ in range(2):
            await a.link_to(b)
        assert isinstance(await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL), NoAnswer)


async def test_all_places_together_are_limited() -> None:
    async with nodes("b", limits=DoorLimits(waiting_total=2)) as (b,):
        idle = [await asyncio.open_connection(b.endpoint.host, b.endpoint.port) for _ in range(4)]
        await until(lambda: b.doors.turned_away == 2)
        for _, writer in idle:
            writer.close()


class Mute(asyncio.Protocol):
    """Says nothing."""

    def __init__(self) -> None:
        self.lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.mark.looptime
async def test_eight_silent_addresses_do_not_keep_a_member_out() -> None:
    hub = LoopbackHub(latency_s=0.02)
    async with nodes("ab", hub=hub) as (a, b):
        silent = [Mute() for _ in range(64)]
        for n, one in enumerate(silent):
            await hub.network("cdefghij"[n % 8]).connect(lambda one=one: one, b.endpoint)  # type: ignore[misc]
        assert not any(one.lost for one in silent)
        await a.link_to(b)
        await asyncio.sleep(0.1)
        assert [one.lost for one in silent] == [True] + [False] * 63


@pytest.mark.looptime
async def test_the_address_with_most_places_gives_one_up() -> None:
    hub = LoopbackHub()
    async with nodes("ab", hub=hub, limits=DoorLimits(waiting_total=3)) as (a, b):
        alone, first, second = Mute(), Mute(), Mute()
        await hub.network("c").connect(lambda: alone, b.endpoint)
        await hub.network("d").connect(lambda: first, b.endpoint)
        await hub.network("d").connect(lambda: second, b.endpoint)
        await a.link_to(b)
        await asyncio.sleep(0.1)
        assert (alone.lost, first.lost, second.lost) == (False, True, False)


@pytest.mark.looptime
async def test_a_handshake_that_is_cancelled_before_its_first_step_leaves_no_socket_and_no_place() -> None:
    hub = LoopbackHub()
    async with nodes("b", hub=hub) as (b,):
        spawn = b.doors._spawn

        def cancelled(coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
            task = spawn(coro, name=name)
            task.cancel()
            return task

        b.doors._spawn = cancelled
        caller = Mute()
        await hub.network("c").connect(lambda: caller, b.endpoint)
        await asyncio.sleep(0.01)
        assert caller.lost
        assert not b.doors._waiting
        assert b.doors.turned_away == 1


@pytest.mark.parametrize("turns", range(6))
async def test_closing_the_port_in_the_middle_of_an_accept_breaks_nothing(turns: int) -> None:
    """With uvloop and with asyncio, whose server asserts; each turn of the loop is another moment of the accept."""
    for factory in (uvloop.new_event_loop, asyncio.new_event_loop):
        await asyncio.to_thread(_close_in_the_middle, factory, turns)


def _close_in_the_middle(factory: Callable[[], asyncio.AbstractEventLoop], turns: int) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # else asyncio swallows the assertion
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with Supervisor("test", world=real_world()) as supervisor:
            doors = Doors(
                listen=Endpoint("127.0.0.1", 0), authority=FakeAuthority("b"), on_connection=lambda one: one.close(),
                spawn=supervisor.spawn, world=real_world(),
            )  # fmt: skip
            await supervisor.start(doors)
            assert doors.endpoint is not None
            callers = [socket.create_connection((doors.endpoint.host, doors.endpoint.port)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await supervisor.stop()
            for caller in callers:
                caller.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(caller.recv, 1) == b""  # closed, not left open
                caller.close()
        gc.collect()
        assert not complaints

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scene())


@pytest.mark.looptime
async def test_who_says_nothing_is_dropped_after_five_seconds() -> None:
    hub = LoopbackHub()
    async with nodes("b", hub=hub) as (b,):
        lost: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        class Mute(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(asyncio.get_running_loop().time())

        begin = asyncio.get_running_loop().time()
        await hub.network("x").connect(Mute, b.endpoint)
        assert await lost - begin == pytest.approx(HANDSHAKE_TIMEOUT_S)
        assert b.doors.turned_away == 1


@pytest.mark.looptime
async def test_who_answers_nothing_is_given_up_after_five_seconds() -> None:
    hub = LoopbackHub()
    async with nodes("a", hub=hub) as (a,):
        hub.listen(Endpoint("mute", 1), asyncio.Protocol)
        begin = asyncio.get_running_loop().time()
        result = await a.doors.dial(Endpoint("mute", 1), expect=None, purpose=Purpose.CONTROL)
        assert isinstance(result, NoAnswer)
        assert "within 5 s" in result.sentence
        assert asyncio.get_running_loop().time() - begin == pytest.approx(HANDSHAKE_TIMEOUT_S)


@pytest.mark.looptime
async def test_a_slow_judgement_is_no_reason_to_wait_longer() -> None:
    hub = LoopbackHub()
    async with nodes("ab", hub=hub) as (a, b):
        b.authority.thinking_s = 30
        result = await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL)
        assert isinstance(result, NoAnswer)
        await asyncio.sleep(0.1)
        assert b.doors.turned_away == 1


@pytest.mark.looptime
async def test_a_partition_is_no_answer() -> None:
    hub = LoopbackHub(latency_s=0.05)
    async with nodes("ab", hub=hub) as (a, b):
        hub.partition("a", "b")
        assert isinstance(await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL), NoAnswer)
        hub.heal("a", "b")
        begin = asyncio.get_running_loop().time()
        await a.link_to(b)
        # connect, message 1 and 2, message 3 and reply: three round trips
        assert asyncio.get_running_loop().time() - begin == pytest.approx(0.3)


async def test_dial_only_nodes_need_no_port() -> None:
    world = seeded_world(3)
    async with nodes("b") as (b,), Supervisor("client", world=world) as supervisor:
        doors = Doors(
            listen=None,
            authority=FakeAuthority("a"),
            on_connection=lambda connection: connection.close(),
            spawn=supervisor.spawn,
            world=world,
        )
        await supervisor.start(doors)
        assert doors.endpoint is None
        connection = await doors.dial(b.endpoint, expect=b.authority.node, purpose=Purpose.CONTROL)
        assert isinstance(connection, Connection)
        connection.close()
        await supervisor.stop()


# ---- short codes

ELEMENT = b"B" + b"b" * 32


def attempt(psk: bytes | None, element: bytes = b"A" + b"a" * 32) -> ShortTry:
    async def finish(_answer: bytes) -> bytes | None:
        return psk

    return ShortTry(nameplate=7, element=element, finish=finish)


async def tried(a: Node, b: Node, psk: bytes | None, nameplate: int = 7) -> Connection | Refusal:
    short = replace(attempt(psk), nameplate=nameplate)
    return await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL, short=short)


@pytest.mark.looptime
async def test_a_short_code_admits_as_its_invite_does() -> None:
    async with nodes("ab", hub=LoopbackHub()) as (a, b):
        b.authority.invites[TAG] = b"nobody knows this one"
        b.authority.short = Exchange(element=ELEMENT, psk=PSK, tag=TAG)
        result = await tried(a, b, PSK)
        assert isinstance(result, Connection)
        assert result.peer_hello.endswith(b"|1")
        assert b.authority.guesses == [True]
        assert b.authority.invites == {}
        a.adopt(result)
        again = await tried(a, b, PSK)  # the invite is used, and somebody who knows the words is told so
        assert isinstance(again, UsedUp)


@pytest.mark.looptime
async def test_a_wrong_guess_is_reported_and_answered_with_silence() -> None:
    async with nodes("ab", hub=LoopbackHub()) as (a, b):
        b.authority.short = Exchange(element=ELEMENT, psk=PSK, tag=TAG)
        assert isinstance(await tried(a, b, bytes(32)), NoAnswer)
        await asyncio.sleep(1)
        assert b.authority.guesses == [False]
        assert not b.links and b.doors.turned_away == 1


@pytest.mark.looptime
async def test_an_exchange_is_over_however_it_ends() -> None:
    hub = LoopbackHub()
    async with nodes("ab", hub=hub) as (a, b):
        b.authority.short = Exchange(element=ELEMENT, psk=PSK, tag=TAG)
        assert isinstance(await tried(a, b, None), NoAnswer)  # the guest sees an element that is none
        await asyncio.sleep(1)
        assert b.authority.guesses == [None]

        async def dawdle(_answer: bytes) -> bytes | None:
            await asyncio.sleep(2 * HANDSHAKE_TIMEOUT_S)
            return PSK

        slow = replace(attempt(PSK), finish=dawdle)
        result = await a.doors.dial(b.endpoint, expect=None, purpose=Purpose.CONTROL, short=slow)
        assert isinstance(result, NoAnswer)
        await asyncio.sleep(1)
        assert b.authority.guesses == [None, None]
        b.authority.thinking_s = 2 * HANDSHAKE_TIMEOUT_S  # the guess was read before the time was over
        assert isinstance(await tried(a, b, PSK), NoAnswer)
        await asyncio.sleep(1)
        assert b.authority.guesses == [None, None, True]


@pytest.mark.looptime
async def test_no_short_code_and_one_elsewhere_without_a_way_are_silence() -> None:
    async with nodes("ab", hub=LoopbackHub()) as (a, b):
        for answer in (None, Elsewhere(node=a.authority.node)):
            b.authority.short = answer
            assert isinstance(await tried(a, b, PSK), NoAnswer)
        assert isinstance(await tried(a, b, PSK, nameplate=8), NoAnswer)
        assert b.authority.guesses == []


@pytest.mark.looptime
async def test_who_means_another_node_is_forwarded_with_every_byte_it_sent() -> None:
    hub = LoopbackHub()
    async with nodes("abc", hub=hub) as (a, b, c):
        c.authority.short = Exchange(element=ELEMENT, psk=PSK, tag=TAG)
        c.authority.invites[TAG] = b"nobody knows this one"
        b.authority.short = Elsewhere(node=c.authority.node)
        b.doors._forward = pipe(hub.network("b"), c.endpoint)
        result = await tried(a, b, PSK)
        assert isinstance(result, Connection)
        assert result.node == c.authority.node, "the handshake is with the node behind, and the one between reads nothing"
        assert (b.authority.guesses, c.authority.guesses) == ([], [True])
        result.close("done")
        await asyncio.sleep(1)
