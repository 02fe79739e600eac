"""Many real `Gossip`s on a light wire, for virtual time: no Noise, no sessions, no sqlite.

Real: the records with their signatures and certificates, the tables, every decision of `peers.gossip`, and the messages,
which are encoded and decoded as on a link. Not real: the link. A message arrives after the latency, or the link breaks under
it. Its bytes are counted as they would be on a TCP connection: the encoded message, and for each frame its header, length
and tag.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import NodeSummary
from swarmd.domain.refusals import Refusal
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate, Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.kit.bus import EventBus
from swarmd.kit.world import World
from swarmd.peers.gossip import Gossip
from swarmd.peers.talks import TELL_AGAIN_S
from swarmd.transport.rpc import LinkLost
from swarmd.wire.frames import HEAD, HEADER, MAX_FRAME_PAYLOAD, RECORD_PREFIX_BYTES
from swarmd.wire.gossip import Compare, Facts, Given, Told, Want
from swarmd.wire.messages import Heard, Refused, decode, encode
from swarmd.wire.noise import TAG_BYTES

FRAME_BYTES = RECORD_PREFIX_BYTES + TAG_BYTES + HEADER.size
NETWORK = NetworkKey(bytes([250]) * 32)
ISSUED_AT = 1_699_000_000.0  # before `kit.world.DEFAULT_START`


def cost(meta: bytes) -> int:
    """Bytes on the TCP connection of one message."""
    size = HEAD.size + len(meta)
    return size + FRAME_BYTES * (1 + (size - 1) // MAX_FRAME_PAYLOAD)


def key_of(number: int) -> NodeKey:
    return NodeKey(number.to_bytes(32))


def certificate_of(key: NodeKey, *, life_s: float = 1e8, now: float = ISSUED_AT) -> Certificate:
    return certificates.issue(NETWORK, node=key.node, role=Role.MEMBER, now=now, life_s=life_s)


def summary_of(node: NodeId, *, version: int = 0, **rest: Any) -> NodeSummary:
    told = {"software": "swarmd/test", "started_at": 1.0, "ram_free_bytes": 1, "ram_total_bytes": 2**40} | rest
    return NodeSummary(node=node, version=version, **told)


@dataclass(slots=True, kw_only=True, eq=False)
class Station:
    """One node."""

    key: NodeKey
    gossip: Gossip
    bus: Any
    sent: int = 0
    """Bytes, since the last look."""
    messages: int = 0

    @property
    def id(self) -> NodeId:
        return self.key.node


@dataclass(slots=True, kw_only=True, eq=False)
class Wire:
    """Everybody, and the links between them."""

    world: World
    chance: random.Random
    latency_s: Callable[[random.Random], float] = lambda chance: 0.01
    loss: float = 0.0
    """How likely a push finds the link broken."""
    stations: dict[NodeId, Station] = field(default_factory=dict)
    by_type: dict[str, int] = field(default_factory=dict)
    """Bytes by class of message."""
    revoked: set[NodeId] = field(default_factory=set)
    _links: dict[tuple[NodeId, NodeId], asyncio.Task[None]] = field(default_factory=dict)

    def add(self, number: int, *, bus: Any = None, certificate: Certificate | None = None) -> Station:
        """A node whose key is `number`; the same number again is another run of it, or a copy."""
        key, bus = key_of(number), EventBus() if bus is None else bus
        shown = certificate or certificate_of(key)
        gossip = Gossip(
            key=key, network=lambda: NETWORK.network, certificate=lambda: shown,
            revoked=lambda link: link.node in self.revoked, bare=lambda _: False, world=self.world, bus=bus,
        )  # fmt: skip
        station = self.stations[key.node] = Station(key=key, gossip=gossip, bus=bus)
        return station

    def link(self, one: Station, other: Station) -> None:
        latency_s = self.latency_s(self.chance)
        for here, there in ((one, other), (other, one)):
            talk = self._talk(here, there, latency_s)
            self._links[here.id, there.id] = asyncio.get_running_loop().create_task(talk)

    def unlink(self, one: Station, other: Station) -> None:
        for here, there in ((one, other), (other, one)):
            self._links.pop((here.id, there.id)).cancel()
            here.gossip.gone(there.id)

    def linked(self, one: Station) -> list[Station]:
        return [self.stations[there] for here, there in self._links if here == one.id]

    async def close(self) -> None:
        for task in self._links.values():
            task.cancel()
        await asyncio.gather(*self._links.values(), return_exceptions=True)

    async def _talk(self, here: Station, there: Station, latency_s: float) -> None:
        async def ask(message: object, reply: type) -> Any:
            answer = await self.carry(here, there, message, latency_s)
            assert answer is None or isinstance(answer, reply)
            return answer

        while True:
            try:
                await here.gossip.converse(there.id, ask)
            except LinkLost:
                await asyncio.sleep(TELL_AGAIN_S)

    async def carry(self, here: Station, there: Station, message: object, latency_s: float) -> object:
        """There and back; None where it was refused."""
        arrived = self._sent(here, message)
        await asyncio.sleep(latency_s)
        if self.loss and isinstance(message, Facts) and self.chance.random() < self.loss:
            raise LinkLost("lost")
        match arrived:
            case Facts():
                await there.gossip.heard(here.id, arrived.told, arrived.hints)
                answer: object = Heard()
            case Compare():
                answer = there.gossip.compared(here.id, arrived)
            case Want():
                answer = there.gossip.given(here.id, arrived)
            case _:
                raise AssertionError(arrived)
        if isinstance(answer, Refusal):
            answer = Refused(kind=type(answer).__name__, sentence=answer.sentence)
        back = self._sent(there, answer)
        await asyncio.sleep(latency_s)
        return None if isinstance(back, Refused) else back

    def _sent(self, sender: Station, message: object) -> object:
        code, meta = encode(message)
        size = cost(meta)
        sender.sent += size
        sender.messages += 1
        name = type(message).__name__
        self.by_type[name] = self.by_type.get(name, 0) + size
        return decode(code, meta)


@asynccontextmanager
async def open_wire(world: World, *, seed: int = 1, **rest: Any) -> AsyncIterator[Wire]:
    wire = Wire(world=world, chance=random.Random(seed), **rest)
    try:
        yield wire
    finally:
        await wire.close()


def told(*records: bytes, age_s: int = 0) -> tuple[Told, ...]:
    return tuple(Told(age_s=age_s, record=record) for record in records)


__all__ = ["NETWORK", "Given", "Station", "Wire", "certificate_of", "key_of", "open_wire", "summary_of", "told"]
