"""Keeps a control and a bulk connection to every member in the book up, for ever.

Both sides of a pair dial; a double connection is resolved by `slots`. A link that is gone is dialled again with
growing, jittered pauses; a new endpoint ends the pause at once. So after a restart a node finds its way back from the
persisted book and its certificate, and nobody has to tell it.

Where no address of a member answers, a neighbour that has a link to it is asked to relay (`relay`). Such a link is as good
as any other to whoever uses it; the member is dialled on, and a direct connection takes the place of the relayed one.

Nodes known from hearsay alone are dialled through turns of their own: however many somebody invents, a member that was
here before waits for none of them.

Nothing here decides who is a member: the doors let nobody else in. Their `on_connection` is `accepted`. Whoever is put
out while it is linked is cut off by `enforce`, and whose certificate ends by `_judge_again`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from swarmd.domain.events import MemberRevoked, PeerConnected, PeerDisconnected, SummaryReceived
from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Endpoint, LinkView, NodeSummary, PeerRecord, PeerView, Purpose
from swarmd.domain.refusals import NotFound, OtherNode, Refusal, Revoked
from swarmd.identity.certificates import Role
from swarmd.identity.revocations import Revocation
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff, TokenBucket
from swarmd.kit.gauges import Gauges
from swarmd.kit.logs import Seldom
from swarmd.kit.service import Ready
from swarmd.kit.world import World
from swarmd.peers import hello as hellos
from swarmd.peers.addresses import as_seen_from
from swarmd.peers.book import PeerBook
from swarmd.peers.gossip import Gossip
from swarmd.peers.neighbours import Neighbours
from swarmd.peers.places import Leg, Place, as_ms, certificate_of, line_of, stated
from swarmd.peers.proving import Proving
from swarmd.peers.relay import OPEN_TIMEOUT_S, Relay
from swarmd.peers.revocation_list import RevocationList
from swarmd.peers.slots import Closing, Slot
from swarmd.peers.talks import Talks
from swarmd.store.peers import Source
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Carrier, ShortTry
from swarmd.transport.rpc import Dispatcher, Link, Spawn

MAX_PEERS: Final = 150  # the default of `network.max_peers`
RELAY_BYTES_PER_S: Final = 12_500_000.0  # the default of `network.relay_mbps`
FIRST_S: Final = 0.2  # a restarted process listens again within a second
LIMIT_S: Final = 30.0  # a machine that was switched on is found within half a minute, whoever hears of it first
RECENT_LIMIT_S: Final = 8.0  # somebody who was here lately is back within 10 s of the network being back,
RECENT_S: Final = 3600.0  # for an hour: a dial is one packet, and most absences are shorter
STABLE_S: Final = 60.0  # a link that lived this long was a good one: the next pause is short again
CLOSE_LATER_S: Final = 5.0  # the peer closes the loser of a double connection; this is for one that does not
CHALLENGE_S: Final = 2.0  # a round trip over the worst line, twice; so much later is a node back that lost its power
JOINER_STAYS_S: Final = 10.0  # an invited node closes as soon as it has stored its certificate
RELAY_AFTER_S: Final = 1.5  # a direct handshake over a bad mobile line takes a second; a relay costs somebody else
RELAYS_TRIED: Final = 3  # nearest first; who says that it has a link to the other is nearly always right
DRAIN_LIMIT_S: Final = 600.0  # for what still runs over a relayed link that gave way: no reply takes longer
SAID_KEPT: Final = 256  # new facts of nodes within SAMPLE_S; a swarm of 2,000 brings some ten
HEEDED_BURST: Final = 4.0  # addresses of its own that a node may state: two restarts with another port each
HEEDED_PER_S: Final = 1 / 600  # and then no more than one who moves all day
MAX_HEEDED: Final = 1000  # as many as the book has nodes
DIALS: Final = 64  # at once: 150 members with three addresses each, all of them switched off, take 35 s (5 s a dial)
HEARSAY_DIALS: Final = 4  # the 150 members of a full introduction answer within 50 ms each: two seconds
SAMPLE_S: Final = 1.0  # how often round trips are copied into the gauges; the dashboard looks every 2 s
JUDGE_AGAIN_S: Final = 20.0  # certificates live for months; a minute after its end a link is gone, with the goodbye

logger = logging.getLogger(__name__)


class Dialler(Protocol):
    """What links need of `transport.doors.Doors`."""

    async def dial(
        self,
        endpoint: Endpoint,
        *,
        expect: NodeId | None,
        purpose: Purpose,
        invite: tuple[bytes, bytes] | None = None,
        short: ShortTry | None = None,
    ) -> Connection | Refusal: ...

    async def dial_through(
        self, carrier: Carrier, *, via: NodeId, expect: NodeId, purpose: Purpose
    ) -> Connection | Refusal: ...

    def take(self, carrier: Carrier) -> None: ...

    async def reaches(self, endpoint: Endpoint, static_public: bytes) -> bool: ...


class Links:
    """See the module. A service; `accepted`, `offer` and `announce` work before it runs."""

    name = "links"

    def __init__(
        self,
        *,
        own: NodeId,
        book: PeerBook,
        dialler: Dialler,
        dispatcher: Dispatcher,
        spawn: Spawn,
        world: World,
        bus: EventBus,
        gauges: Gauges,
        revocations: RevocationList,
        gossip: Gossip,
        max_peers: int = MAX_PEERS,
        relay_bytes_per_s: Callable[[], float] = lambda: RELAY_BYTES_PER_S,
    ) -> None:
        """`spawn`: of the supervisor that runs this service. Registers its messages with `dispatcher`.

        `relay_bytes_per_s`: what this node relays for others; 0: nothing.
        `max_peers`: links kept at the same time; members beyond are neither dialled nor taken in.
        """
        self._own = own
        self._book = book
        self._dialler = dialler
        self._dispatcher = dispatcher
        self._for_guests = Dispatcher()  # somebody who is only joining may ask for nothing else
        self._spawn = spawn
        self._world = world
        self._bus = bus
        self._gauges = gauges
        self._max_peers = max_peers
        self._places: dict[tuple[NodeId, Purpose], Place] = {}
        self._open: set[Link] = set()
        """Everything that is to be closed at the end: current, retired and guests."""
        self._past_bytes: dict[Purpose, tuple[int, int]] = {}
        """In and out, over links that are gone."""
        self._running = False
        self._judged_at = 0.0
        self._seldom = Seldom(clock=world.clock)
        self._heeded: OrderedDict[NodeId, TokenBucket] = OrderedDict()
        """How often nodes may still state addresses of their own; the one heard longest ago goes first."""
        self._turns = asyncio.Semaphore(DIALS)
        self._hearsay_turns = asyncio.Semaphore(HEARSAY_DIALS)
        self._revocations = revocations
        self._neighbours = Neighbours(
            own=own, book=book, clock=world.clock, hear=self._hear, direct=self._is_direct, wake=self.wake,
            revoked=revocations.records,
        )  # fmt: skip
        self.relay = Relay(
            own=own, lines=self, doors=dialler, dispatcher=dispatcher, world=world, bytes_per_s=relay_bytes_per_s,
            bus=bus,
        )  # fmt: skip
        self._proving = Proving(
            book=book, prober=dialler, spawn=spawn, clock=world.clock, changed=self._neighbours.refresh
        )
        self._gossip = gossip
        self._talks = Talks(
            own=own, lines=self, neighbours=self._neighbours, gossip=gossip, revoked=revocations, dispatcher=dispatcher,
            spawn=spawn, world=world, bus=bus,
        )  # fmt: skip

    async def run(self, ready: Ready) -> None:
        """Dial everybody in the book, now and whenever a link is gone. Leaving says goodbye to everybody."""
        self._running = True
        stack = contextlib.ExitStack()
        try:
            await self._drop_revoked()
            for node in self._book.nodes():
                self._tend(node)
            ready()
            said = stack.enter_context(self._bus.tap(SummaryReceived, size=SAID_KEPT))
            while True:
                await asyncio.sleep(SAMPLE_S)
                for fact in said.drain():
                    await self._heed(fact.summary)
                self._sample()
                self._judge_again()
                for node in self._book.nodes():
                    self._tend(node)  # costs a look-up; a tender that died of a bug is replaced
                self._let_go()
        finally:
            stack.close()
            self._running = False
            for place in self._places.values():
                if place.tender is not None:
                    place.tender.cancel()
            for link in tuple(self._open):
                link.close("the node stops")

    # ---- asked by everybody

    def link(self, node: NodeId, purpose: Purpose = Purpose.CONTROL) -> Link | None:
        """The current link, which may break at any moment; None while there is none."""
        place = self._places.get((node, purpose))
        leg = None if place is None else place.slot.current
        return None if leg is None or leg.link.closed is not None else leg.link

    def connected(self) -> tuple[NodeId, ...]:
        """Everybody with a control link, in the order of their ids."""
        return tuple(sorted(node for node, purpose in self._places if purpose is Purpose.CONTROL and self._is_up(node)))

    def views(self) -> tuple[PeerView, ...]:
        """Everybody in the book, connected, or heard of by gossip, in the order of their ids."""
        nodes = sorted({*self._book.nodes(), *self.connected(), *self._gossip.known()})
        return tuple(view for node in nodes if (view := self.view(node)) is not None)

    def view(self, node: NodeId) -> PeerView | None:
        record = self._book.record(node)
        place = self._places.get((node, Purpose.CONTROL))
        leg = None if place is None else place.slot.current
        summary, heard_at = self._gossip.summary(node), self._gossip.heard_at(node)
        if leg is None:
            if record is None and summary is None:
                return None
            record = record or PeerRecord(node=node, endpoints=(), last_seen=None)
            return PeerView(
                record=record, connected=False, addresses=record.endpoints, summary=summary, heard_at=heard_at,
                heard_lately=self._gossip.is_present(node),
            )  # fmt: skip
        connection = leg.link.connection
        if record is None:  # not in the book yet, or it is full
            record = PeerRecord(node=node, endpoints=stated(connection), last_seen=self._world.clock.now())
        return PeerView(
            record=record,
            connected=True,
            via=connection.via,
            rtt_ms=leg.rtt_ms if leg.rtt_ms is not None else as_ms(connection.rtt_s),
            min_rtt_ms=as_ms(connection.min_rtt_s),
            rtt_samples=connection.rtt_samples,
            summary=summary,
            addresses=self._book.proven_endpoints(node) or record.endpoints,
            heard_at=heard_at,
        )

    def lines(self) -> tuple[LinkView, ...]:
        """Every current connection, in the order of the ids; of a node the control connection first."""
        now = self._world.clock.monotonic()
        return tuple(
            line_of(place, leg, up_s=now - leg.up_at)
            for _, place in sorted(self._places.items(), key=lambda item: (item[0][0], item[0][1] is Purpose.BULK))
            if (leg := place.slot.current) is not None
        )

    def traffic(self) -> dict[Purpose, tuple[int, int]]:
        """Bytes in and out since the start, over links that are up and those that were."""
        found = dict(self._past_bytes)
        for link in self._open:
            purpose = link.connection.purpose
            received, sent = found.get(purpose, (0, 0))
            found[purpose] = (received + link.connection.bytes_in, sent + link.connection.bytes_out)
        return found

    async def wait_for(self, node: NodeId, *, timeout_s: float) -> bool:
        """Whether a control link to `node` is up within that time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._place(node, Purpose.CONTROL).up.wait()
        except TimeoutError:
            return False
        return True

    def issuers(self) -> tuple[NodeId, ...]:
        """Linked nodes that may issue certificates, as the certificate says that each of them showed."""
        found: list[NodeId] = []
        for node in self.connected():
            link = self.link(node)
            shown = None if link is None else certificate_of(link.connection)
            if shown is not None and shown.role is Role.INVITER:
                found.append(node)
        return tuple(found)

    # ---- told by others

    def announce(self, summary: NodeSummary) -> None:
        """What this node says about itself from now on."""
        self._gossip.announce(summary)

    def summary(self, node: NodeId) -> NodeSummary | None:
        """What `node`, linked or not, last said about itself."""
        return self._gossip.summary(node)

    async def offer(
        self, node: NodeId, endpoints: tuple[Endpoint, ...], *, source: Source, teller: NodeId | None = None
    ) -> bool:
        """Somebody says that `node`, a member, is there. Stored, and dialled at once when that is news (True)."""
        if node == self._own:
            return False
        news = await self._book.offer(node, endpoints, source=source, teller=teller)
        if news:
            self.wake(node)
            self._neighbours.refresh()
        return news

    def wake(self, node: NodeId) -> None:
        """Dial `node` now if there is no link, however long the pause still is."""
        if node not in self._book:
            return
        self._tend(node)
        for purpose in Purpose:
            place = self._place(node, purpose)
            if place.lacking.is_set():
                place.backoff.reset()
                place.wake.set()

    def look_around(self, present: frozenset[str]) -> None:
        """This machine slept, or has these addresses now: links on an address that is gone are closed, the others asked for
        a sign of life, and everybody else is dialled at once."""
        for link in tuple(self._open):
            host = link.connection.local_host
            if host is not None and host not in present:
                link.close("this machine's address has changed")
            else:
                link.connection.ping()
        for node in self._book.nodes():
            self.wake(node)

    async def forget(self, node: NodeId) -> None:
        """Close the links to `node`, stop dialling it, and take it out of the book. It may still come by itself."""
        for purpose in Purpose:
            place = self._places.get((node, purpose))
            if place is not None and place.tender is not None:
                place.tender.cancel()
                place.tender = None
            if place is not None and place.slot.current is not None:
                place.slot.current.link.close("forgotten")
        await self._book.remove(node)

    async def enforce(self, *nodes: NodeId) -> None:
        """These were put out of the network: cut them off now with whom they invited, forget them, and tell everybody else.
        Publishes MemberRevoked for those whom an inviter put out, or who went with one.

        A link whose certificate was issued after the revocation stays: the node was admitted again.
        """
        out = {node for node in nodes if self._revocations.of_founder(node) is not None}
        fallen: set[NodeId] = set()
        for link in tuple(self._open):
            if (record := self._against(link)) is not None:
                if record.proof is not None or record.node != link.node:
                    fallen.add(link.node)
                self._talks.say_goodbye(link, record)
                out.add(link.node)
        # Whom an inviter put out and we do not see is left in the book: its certificate decides, when it shows it.
        for node in out:
            if self.link(node) is None:
                await self.forget(node)
        for node in sorted(fallen):
            self._bus.publish(MemberRevoked(node=node))
        self._gossip.forget()
        self._neighbours.refresh()

    def accepted(self, connection: Connection) -> None:
        """From the doors: somebody was let in."""
        hello = hellos.decode(connection.peer_hello)
        assert hello is not None, "the gate has read it"
        if hello.is_guest:
            # It joins: it has just been given its certificate, and comes back with it.
            guest = Link(connection, dispatcher=self._for_guests, spawn=self._spawn)
            self._open.add(guest)
            self._spawn(self._close_in(guest, JOINER_STAYS_S), name=f"admission of {short(connection.node)}")
            return
        if connection.via == connection.node:
            connection.close("nobody relays itself")
            return
        if not self._is_up(connection.node):
            if connection.purpose is not Purpose.CONTROL:  # as we dial them; else it would be a link that nobody counts
                connection.close("the control link comes first")
                return
            if len(self.connected()) >= self._max_peers:
                level = logging.WARNING if self._seldom.due("full") else logging.DEBUG
                logger.log(level, "%d peers are linked, node %s is not taken in", self._max_peers, short(connection.node))
                connection.close("this node has no place for another peer")
                return
        self._adopt(connection, boot=hello.boot, endpoint=None)

    def dialled(self, connection: Connection, endpoint: Endpoint | None) -> None:
        """A member was reached at `endpoint` (None: through a relay): its connection is ours to keep."""
        hello = hellos.decode(connection.peer_hello)
        assert hello is not None, "the gate has read it"
        self._adopt(connection, boot=hello.boot, endpoint=endpoint)

    # ---- keeping links up

    def _place(self, node: NodeId, purpose: Purpose) -> Place:
        place = self._places.get((node, purpose))
        if place is None:
            place = self._places[node, purpose] = Place(
                node=node,
                purpose=purpose,
                slot=Slot(own=self._own, peer=node),
                backoff=Backoff(FIRST_S, 2.0, LIMIT_S, entropy=self._world.entropy),
            )
            place.vacant.set()
            place.lacking.set()
        return place

    def _is_up(self, node: NodeId) -> bool:
        place = self._places.get((node, Purpose.CONTROL))
        return place is not None and place.slot.current is not None

    def _is_direct(self, node: NodeId) -> bool:
        place = self._places.get((node, Purpose.CONTROL))
        return place is not None and not place.lacking.is_set()

    def _tend(self, node: NodeId) -> None:
        """Make sure that somebody dials `node`."""
        if not self._running:
            return
        for purpose in Purpose:
            place = self._place(node, purpose)
            if place.tender is None or place.tender.done():
                place.tender = self._spawn(self._keep_up(place), name=f"{purpose.value} link to {short(node)}")

    def _let_go(self) -> None:
        """Nobody dials on for nodes that the book has dropped."""
        for node in {node for node, _ in self._places if node not in self._book}:
            places = [place for purpose in Purpose if (place := self._places.get((node, purpose))) is not None]
            if all(place.slot.current is None and not place.challenged for place in places):
                for place in places:
                    if place.tender is not None:
                        place.tender.cancel()
                    del self._places[node, place.purpose]

    async def _keep_up(self, place: Place) -> None:
        control = self._place(place.node, Purpose.CONTROL)
        while True:
            await place.lacking.wait()
            if place.lost:
                # Not at once: a peer that takes us and drops us again would be dialled without end.
                place.lost = False
                await self._pause(place)
                continue
            if place.purpose is Purpose.BULK:
                await control.up.wait()  # one dial at a time finds out whether the node is there, and how
            elif place.vacant.is_set() and len(self.connected()) >= self._max_peers:
                await self._pause(place)
                continue
            place.wake.clear()
            if place.purpose is Purpose.BULK and control.lacking.is_set():
                await self._detour(place)
            elif place.vacant.is_set():
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._dial(place))
                    ways.create_task(self._detour(place, after_s=0.0 if place.detoured else RELAY_AFTER_S))
            else:
                await self._dial(place)
            if place.lacking.is_set():
                await self._pause(place)

    async def _pause(self, place: Place) -> None:
        """Until the backoff is over, or somebody has news."""
        lately = place.lost_at is not None and self._world.clock.monotonic() - place.lost_at < RECENT_S
        missed = lately and place.vacant.is_set()  # with a relayed connection there is time
        try:
            async with asyncio.timeout(place.backoff.delay(limit_s=RECENT_LIMIT_S if missed else LIMIT_S)):
                await place.wake.wait()
        except TimeoutError:
            pass

    async def _dial(self, place: Place) -> None:
        """Every endpoint once, best first, until there is a direct connection, from here or from there."""
        for endpoint in self._book.endpoints(place.node):
            async with self._hearsay_turns if self._book.is_hearsay(place.node) else self._turns:
                if not place.lacking.is_set():
                    return  # it came to us while we waited for our turn
                result = await self._dialler.dial(endpoint, expect=place.node, purpose=place.purpose)
                if isinstance(result, Connection):
                    self.dialled(result, endpoint)
                    return
            logger.debug("no %s link to %s: %s", place.purpose.value, short(place.node), result.sentence)
            if isinstance(result, OtherNode):  # a member as well, and it proved that it lives there
                await self.offer(result.node, (endpoint,), source=Source.OBSERVED)
            if isinstance(result, Revoked) and result.node == place.node:
                # It, or somebody above it. Who was admitted again would have shown its newer certificate.
                await self._book.remove(place.node)
                return
            if not place.lacking.is_set():
                return
            if place.purpose is Purpose.CONTROL:  # the other one is dialled only where this one is up
                await self._book.record_failure(place.node, endpoint)

    async def _detour(self, place: Place, *, after_s: float = 0.0) -> None:
        """Through a neighbour, when there is no connection by then."""
        if after_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after_s):
                    await place.up.wait()
        for via in self._relays_to(place.node):
            async with self._hearsay_turns if self._book.is_hearsay(place.node) else self._turns:
                if not place.vacant.is_set():
                    return
                asked_at = self._world.clock.monotonic()
                result = await self.relay.dial(place.node, place.purpose, via=via)
            if isinstance(result, Connection):
                self.dialled(result, None)
                return
            logger.debug("no %s link to %s: %s", place.purpose.value, short(place.node), result.sentence)
            silent = self._world.clock.monotonic() - asked_at >= OPEN_TIMEOUT_S
            if isinstance(result, NotFound) or (silent and self._book.is_hearsay(place.node)):
                self._neighbours.not_linked_with(via, place.node)  # whoever invents nodes keeps us waiting once for each
        if place.vacant.is_set():
            await self._book.record_absence(place.node)

    def _relays_to(self, node: NodeId) -> tuple[NodeId, ...]:
        """Direct neighbours that say they have a direct link to `node`, nearest first."""
        found: list[tuple[float, NodeId]] = []
        for via in self._neighbours.linked_with(node):
            leg = self._place(via, Purpose.CONTROL).slot.current
            if leg is not None and not leg.relayed:
                rtt_s = leg.link.connection.min_rtt_s
                found.append((rtt_s if rtt_s is not None else LIMIT_S, via))
        return tuple(via for _, via in sorted(found)[:RELAYS_TRIED])

    def _adopt(self, connection: Connection, *, boot: bytes, endpoint: Endpoint | None) -> None:
        """One more connection is up."""
        place = self._place(connection.node, connection.purpose)
        current = place.slot.current
        if current is None or current.boot == boot or current.link.closed is not None:
            self._take(place, connection, boot=boot, endpoint=endpoint)
        elif place.challenged:
            connection.close("another connection is being looked at")
        else:
            place.challenged = True
            what = self._challenge(place, current, connection, boot=boot, endpoint=endpoint)
            self._spawn(what, name=f"two runs of {short(place.node)}")

    async def _challenge(
        self, place: Place, current: Leg, connection: Connection, *, boot: bytes, endpoint: Endpoint | None
    ) -> None:
        """Another run of a node that is linked. It was restarted, and the old connection does not know yet that nobody is
        there; or two machines have the same identity, and then the one that answers stays."""
        try:
            while not await current.link.connection.answers(within_s=CHALLENGE_S) or place.slot.current is not current:
                holder = place.slot.current
                if holder is None or holder is current or holder.boot == boot or holder.link.closed is not None:
                    break
                current = holder  # another connection of that run, or of a third one: it is asked as well
            else:
                # It may ask for nothing: a copy of somebody's data folder is not somebody.
                self._talks.say_twin(current.link, Link(connection, dispatcher=self._for_guests, spawn=self._spawn))
                return
        finally:
            place.challenged = False
        if connection.closed is None:
            self._take(place, connection, boot=boot, endpoint=endpoint)

    def _take(self, place: Place, connection: Connection, *, boot: bytes, endpoint: Endpoint | None) -> None:
        """No await in here: between the verdict and what follows nothing can change."""
        link = Link(connection, dispatcher=self._dispatcher, spawn=self._spawn)
        self._open.add(link)
        leg = Leg(link=link, boot=boot, up_at=self._world.clock.monotonic())
        verdict = place.slot.offer(leg)
        if verdict.loser is not None:
            self._retire(verdict.loser, verdict.closing)
        if verdict.taken:
            place.vacant.clear()
            if leg.relayed:
                place.lacking.set()
            else:
                place.lacking.clear()
                place.wake.clear()  # what the news were good for is done
            place.detoured = leg.relayed
            place.up.set()
            if place.purpose is Purpose.CONTROL:
                self._control_up(leg, endpoint=endpoint, first=verdict.loser is None)
        self._spawn(self._watch(place, leg), name=f"watch over {link!r}")

    def _control_up(self, leg: Leg, *, endpoint: Endpoint | None, first: bool) -> None:
        node = leg.link.node
        leg.talk = self._spawn(self._talks.talk(leg.link), name=f"talk with {short(node)}")
        self._spawn(self._remember(leg, endpoint), name=f"remember {short(node)}")
        if not leg.relayed:
            self._place(node, Purpose.BULK).wake.set()  # it may wait with a relayed connection, or for one
        if first:
            logger.info("connected to %s at %s", short(node), leg.link.connection.remote)
            self._gauges.set("peers.connected", len(self.connected()))
            self._bus.publish(PeerConnected(node=node))

    def _retire(self, leg: Leg, closing: Closing) -> None:
        if leg.talk is not None:
            leg.talk.cancel()
        if closing is Closing.NOW:
            leg.link.close("a double connection")
        elif closing is Closing.IDLE:
            place = self._place(leg.link.node, leg.link.connection.purpose)
            if place.draining is not None:  # it would be two that give way within minutes: somebody plays with us
                place.draining.close("a newer relayed connection gave way")
            place.draining = leg.link
            self._spawn(self._close_idle(place, leg.link), name=f"retired {leg.link!r}")
        else:
            self._spawn(self._close_in(leg.link, CLOSE_LATER_S), name=f"retired {leg.link!r}")

    async def _close_in(self, link: Link, seconds: float) -> None:
        """Give the other side that long to close."""
        try:
            async with asyncio.timeout(seconds):
                await link.wait_closed()
        except TimeoutError:
            link.close("it was to be closed long ago")
        self._gone(link)

    async def _close_idle(self, place: Place, link: Link) -> None:
        """There is a direct connection. Generations that began on the relayed one end there; new ones never begin there,
        once the other side has seen the direct one too."""
        await asyncio.sleep(CLOSE_LATER_S)
        for _ in range(round(DRAIN_LIMIT_S / SAMPLE_S)):
            if not link.streams:  # none either once it is closed
                break
            await asyncio.sleep(SAMPLE_S)
        link.close("there is a direct connection")
        if place.draining is link:
            place.draining = None
        self._gone(link)

    def _gone(self, link: Link) -> None:
        """Whoever sees it first: what went over it is counted on, once."""
        if link not in self._open:
            return
        self._open.discard(link)
        connection = link.connection
        received, sent = self._past_bytes.get(connection.purpose, (0, 0))
        self._past_bytes[connection.purpose] = (received + connection.bytes_in, sent + connection.bytes_out)

    async def _watch(self, place: Place, leg: Leg) -> None:
        reason = await leg.link.wait_closed()
        self._gone(leg.link)
        if leg.talk is not None:
            leg.talk.cancel()
        if not place.slot.drop(leg):
            return
        if self._world.clock.monotonic() - leg.up_at >= STABLE_S:
            place.backoff.reset()
        place.lost, place.lost_at = True, self._world.clock.monotonic()
        place.up.clear()
        place.vacant.set()
        place.lacking.set()
        if place.purpose is not Purpose.CONTROL:
            return
        logger.info("link to %s is gone: %s", short(place.node), reason)
        self._neighbours.gone(place.node)
        self._gossip.gone(place.node)
        self._gauges.remove(f"peers.{place.node}")
        self._gauges.set("peers.connected", len(self.connected()))
        self._bus.publish(PeerDisconnected(node=place.node, reason=reason))
        await self._book.record_seen(place.node, endpoint=None)

    async def _remember(self, leg: Leg, endpoint: Endpoint | None) -> None:
        """Where the peer is: what it stated, read in the light of where we see it."""
        connection = leg.link.connection
        if leg.link.closed is not None:
            return  # perhaps it was put out meanwhile, and is not to come back into the book
        relayed = connection.via is not None  # then nothing but its own word says that it listens there
        source, teller = (Source.INTRODUCED, connection.node) if relayed else (Source.OBSERVED, None)
        await self.offer(connection.node, stated(connection), source=source, teller=teller)
        await self._book.record_seen(connection.node, endpoint=endpoint)
        self._tend(connection.node)
        self._neighbours.refresh()
        if endpoint is None and not relayed:
            self._proving.begin(connection)

    # ---- inside

    def _against(self, link: Link) -> Revocation | None:
        """What takes back the membership that was shown on this link."""
        hello = hellos.decode(link.connection.peer_hello)
        assert hello is not None, "the gate has read it"
        if hello.is_guest:
            return None
        shown = certificate_of(link.connection)
        return self._revocations.of_founder(link.node) if shown is None else self._revocations.covering(shown)

    def _judge_again(self) -> None:
        """Now and then: close links on which a certificate was shown that is over now, or one above it. Who was renewed
        meanwhile comes back with the new one. And those that were taken back between the gate's word and `accepted`."""
        monotonic, now = self._world.clock.monotonic(), self._world.clock.now()
        if monotonic - self._judged_at < JUDGE_AGAIN_S:
            return
        self._judged_at = monotonic
        for link in tuple(self._open):
            if (record := self._against(link)) is not None:
                self._talks.say_goodbye(link, record)
                continue
            shown = certificate_of(link.connection)
            if shown is not None and any(now >= one.expires_at for one in shown.chain()):
                logger.info("the certificate that node %s showed has ended", short(link.node))
                link.close("the certificate shown on this link has ended")

    async def _drop_revoked(self) -> None:
        """Out of the book with whoever was put out just before we were killed."""
        for node in self._book.nodes():
            if self._is_out(node):
                await self._book.remove(node)

    def _is_out(self, node: NodeId) -> bool:
        """It was put out and not seen since, as far as the book says."""
        revoked_at, record = self._revocations.revoked_at(node), self._book.record(node)
        seen = None if record is None else record.last_seen
        return revoked_at is not None and (seen is None or seen <= revoked_at)

    async def _heed(self, summary: NodeSummary) -> None:
        """Where a node says that others can dial it: its router forwards a port, or its owner named an address. It may not
        be linked to us, or through a relay. Who says so too often, with ever new addresses, wants us to dial somebody."""
        endpoints = as_seen_from(summary.endpoints, observed_host=None)
        known = self._book.record(summary.node)
        if summary.node == self._own or not endpoints or (known is not None and set(endpoints) <= set(known.endpoints)):
            return
        patience = self._heeded.pop(summary.node, None) or TokenBucket(HEEDED_PER_S, HEEDED_BURST, clock=self._world.clock)
        self._heeded[summary.node] = patience
        if len(self._heeded) > MAX_HEEDED:
            self._heeded.popitem(last=False)
        if patience.try_take():
            await self.offer(summary.node, endpoints, source=Source.INTRODUCED, teller=summary.node)

    async def _hear(self, node: NodeId, endpoints: tuple[Endpoint, ...], teller: NodeId) -> bool:
        return await self.offer(node, endpoints, source=Source.INTRODUCED, teller=teller)

    def _sample(self) -> None:
        """Round trips into the gauges: smoothed and least."""
        for (node, purpose), place in self._places.items():
            leg = place.slot.current
            if leg is None or purpose is not Purpose.CONTROL:
                continue
            if (sampled := leg.sample()) is None:
                continue
            smoothed, least = sampled
            self._gauges.set(f"peers.{node}.rtt_ms", smoothed)
            self._gauges.set(f"peers.{node}.min_rtt_ms", least)
