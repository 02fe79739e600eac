"""What is said on control links besides work: who we are, whom else we know, who was put out. Used by `links`, which knows
the connections; what to say and what to make of it is the business of `gossip`, `neighbours` and `revocation_list`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from swarmd.domain.events import IdentityCloned, PeerCloned
from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import PeerIdentity, Purpose
from swarmd.domain.refusals import Forbidden, Refusal
from swarmd.identity import revocations
from swarmd.identity.revocations import Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.logs import Seldom
from swarmd.kit.world import World
from swarmd.peers.gossip import Gossip
from swarmd.peers.neighbours import Neighbours
from swarmd.peers.revocation_list import RevocationList
from swarmd.transport.rpc import Dispatcher, Link, LinkLost, ResetCode, Spawn, Stream, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.gossip import Compare, Facts, Given, Versions, Want
from swarmd.wire.messages import Heard, Introduction, Refused, Revocations, Twin

TELL_TIMEOUT_S: Final = 10.0  # longer than a silent link lives (`wire.session.DEAD_AFTER_S`)
TELLS: Final = 4  # of one peer that are being heard at a time: it tells one after the other, and once more as it hangs up
TELL_AGAIN_S: Final = 5.0  # after a failure that the link survived; news of an overloaded peer can wait

_UNLINKED: Final = Forbidden(what="there is no control link between us any more")

R = TypeVar("R")

logger = logging.getLogger(__name__)


class Lines(Protocol):
    """What talks need of `peers.links.Links`."""

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None: ...
    def enforce(self, *nodes: NodeId) -> Awaitable[None]: ...


class Talks:
    """One per node. Registers its messages with `dispatcher`."""

    def __init__(
        self,
        *,
        own: NodeId,
        lines: Lines,
        neighbours: Neighbours,
        gossip: Gossip,
        revoked: RevocationList,
        dispatcher: Dispatcher,
        spawn: Spawn,
        world: World,
        bus: EventBus,
    ) -> None:
        self._own = own
        self._lines = lines
        self._neighbours = neighbours
        self._gossip = gossip
        self._revoked = revoked
        self._spawn = spawn
        self._bus = bus
        self._hearing: Counter[NodeId] = Counter()
        """Of each peer: its records wait for the disk, also when it has given the stream up."""
        self._seldom = Seldom(clock=world.clock)
        dispatcher.answer(Facts, self._heard_facts)
        dispatcher.answer(Compare, self._compared)
        dispatcher.answer(Want, self._given)
        dispatcher.answer(Introduction, self._heard_introduction)
        dispatcher.accept(Revocations, self._told_revocations)
        dispatcher.accept(Twin, self._told_twin)

    async def talk(self, link: Link) -> None:
        """Tells the peer what is new for it, until the link is gone."""

        async def ask(message: object, reply: type[R]) -> R | None:
            answer = await link.call(message, reply, timeout_s=TELL_TIMEOUT_S)
            if isinstance(answer, Refused):
                logger.debug("node %s does not take part in gossip now: %s", short(link.node), answer.sentence)
                return None
            return answer.message

        # Apart: whoever is overloaded with the one hears the other.
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tell(link), name=f"news for {short(link.node)}")
            gossip = self._again(link, lambda: self._gossip.converse(link.node, ask))
            both.create_task(gossip, name=f"gossip with {short(link.node)}")

    async def _tell(self, link: Link) -> None:
        async def send(message: Introduction | Revocations) -> None:
            try:
                reply = await link.call(message, Heard, timeout_s=TELL_TIMEOUT_S)
            except StreamReset as error:
                if isinstance(message, Revocations) and error.code in (ResetCode.UNKNOWN_MESSAGE, ResetCode.BAD_MESSAGE):
                    return  # an older program, perhaps one that knows no inviters' records; it should hear the rest
                raise
            if isinstance(reply, Refused):
                logger.warning("node %s does not want to hear it: %s", short(link.node), reply.sentence)

        host = link.connection.remote.host
        await self._again(link, lambda: self._neighbours.converse(link.node, observed_host=host, send=send))

    async def _again(self, link: Link, converse: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await converse()
            except LinkLost:
                return
            except (StreamReset, TooManyStreams, TimeoutError) as error:
                logger.debug("%s did not hear us, once more: %s", short(link.node), error)
                await asyncio.sleep(TELL_AGAIN_S)

    def say_goodbye(self, link: Link, record: Revocation) -> None:
        """Tell a node that it is out, so that its user learns why, and hang up."""
        try:
            link.open(Revocations(records=(revocations.encode(record),)), last=True)
        except (LinkLost, TooManyStreams) as error:
            logger.debug("node %s was not told that it is out: %s", short(link.node), error)
        link.close("the membership was revoked")

    def say_twin(self, first: Link, second: Link) -> None:
        """Two machines are the same node: tell both, and hang up on the one that came later."""
        node = first.node
        for link in (first, second):
            try:
                link.open(Twin(), last=True)
            except (LinkLost, TooManyStreams) as error:
                logger.debug("node %s was not told of its twin: %s", short(node), error)
        second.close("another machine with this identity is linked")
        if self._seldom.due(f"twins {node}"):
            logger.warning(
                "two machines say that they are node %s, at %s and at %s: the second is kept out while the first is there",
                short(node), first.connection.remote, second.connection.remote,
            )  # fmt: skip
            self._bus.publish(PeerCloned(node=node))

    def _told_twin(self, message: Twin, payload: memoryview, stream: Stream) -> None:
        stream.end()
        if self._seldom.due(f"our twin {stream.peer.node}"):  # another teller may be the one that does not lie
            logger.warning(
                "node %s has met another machine that says it is this node, %s: if its data folder is a copy of this one's, "
                "stop swarmd on one of the two, start it there with an empty data folder, and join with a new invite code",
                short(stream.peer.node), short(self._own),
            )  # fmt: skip
            self._bus.publish(IdentityCloned(node=self._own, at=None, told_by=stream.peer.node))

    async def _heard_facts(self, message: Facts, payload: memoryview, peer: PeerIdentity) -> Heard:
        if self._lines.link(peer.node) is not None:
            await self._gossip.heard(peer.node, message.told, message.hints)
        return Heard()

    async def _compared(self, message: Compare, payload: memoryview, peer: PeerIdentity) -> Versions | Refusal:
        return self._gossip.compared(peer.node, message) if self._lines.link(peer.node) is not None else _UNLINKED

    async def _given(self, message: Want, payload: memoryview, peer: PeerIdentity) -> Given | Refusal:
        return self._gossip.given(peer.node, message) if self._lines.link(peer.node) is not None else _UNLINKED

    async def _heard_introduction(self, message: Introduction, payload: memoryview, peer: PeerIdentity) -> Heard:
        if (link := self._lines.link(peer.node)) is not None:
            observed_host = link.connection.remote.host
            await self._neighbours.heard_introduction(peer.node, message, observed_host=observed_host)
        return Heard()

    def _told_revocations(self, message: Revocations, payload: memoryview, stream: Stream) -> None:
        node = stream.peer.node
        if self._hearing[node] >= TELLS:
            stream.reset(ResetCode.FAILED, f"{TELLS} of your lists of revocations are still being written")
            return
        self._hearing[node] += 1
        # By a task that no link owns: whoever tells us that we are out hangs up in the same breath.
        task = self._spawn(self._heard_revocations(message, stream), name=f"revocations from {short(node)}")
        task.add_done_callback(lambda _: self._heard_from(node))

    def _heard_from(self, node: NodeId) -> None:
        self._hearing[node] -= 1
        if not self._hearing[node]:
            del self._hearing[node]

    async def _heard_revocations(self, message: Revocations, stream: Stream) -> None:
        news = await self._revoked.hear(message.records, teller=stream.peer.node)
        if news:
            await self._lines.enforce(*(one.node for one in news if one.node != self._own))
        try:
            await stream.send(Heard(), last=True)
        except (LinkLost, StreamReset) as error:
            logger.debug("node %s does not wait for our answer: %s", short(stream.peer.node), error)
