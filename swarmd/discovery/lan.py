"""Finding members in the local network by zeroconf (RFC 6762 and 6763), and being found. The only home of `zeroconf`.

A node that belongs to a network announces `_swarmd._tcp.local.` with its peer port and three texts: `v`, the version of
the peer protocol, `node`, its id, and `net`, the tag of its network. Whoever carries our tag is offered to `links`, and
the ordinary handshake decides who is a member. While a node has a live short code there is also `np`, the number of that
code (never its words), so that a machine which belongs to no network finds it: `seek`.

Why a tag and not the network's id: everybody in the same network segment reads the texts, and the id is the key by which
certificates are verified. It is no secret, but it stands in invites, certificates and logs, and the tag lets only those
who have it already recognise the network. The tag proves nothing.

What is heard are claims of strangers, so all of them together count as one neighbour that introduces others: they are
hearsay in the book, so many of them and no more, and only addresses to which this machine has a direct way. A node's
other addresses come with its Hello.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from blake3 import blake3
from zeroconf import Error as ZeroconfError
from zeroconf import ServiceListener, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from swarmd.domain.events import (
    IdentityCloned,
    NetworkFounded,
    NetworkJoined,
    ShortCodeEnded,
    ShortCodeMade,
    SummaryReceived,
)
from swarmd.domain.ids import NetworkId, NodeId, parse_node_id, short
from swarmd.domain.peers import MAX_NAMEPLATE, MAX_NAMEPLATES, Endpoint
from swarmd.kit.bus import EventBus, Tap
from swarmd.kit.flow import Backoff, TokenBucket
from swarmd.kit.service import Ready, Supervisor
from swarmd.kit.world import World
from swarmd.peers.addresses import MAX_ENDPOINTS, IpInterface, announced, ip_of, on_link
from swarmd.peers.book import MAX_HEARSAY
from swarmd.peers.neighbours import NEWS_BURST, NEWS_PER_S
from swarmd.store.peers import Source
from swarmd.wire.handshake import PROTOCOL_VERSION

SERVICE: Final = "_swarmd._tcp.local."
MAX_RECORDS: Final = MAX_HEARSAY  # kept at once; the book takes no more of one teller, and a segment counts as one
POLL_S: Final = 10.0
"""How often this machine's addresses are compared with those we announce: a laptop that moved is found again before
somebody wonders, and reading them takes a tenth of a millisecond."""
AGAIN_S: Final = 600.0
"""A record that still stands is offered anew: after some three minutes of vain dials the book has forgotten the address,
and a firewall that was in the way may be gone."""
FIRST_RETRY_S: Final = 5.0  # a wireless network that comes up after the node takes seconds
LIMIT_RETRY_S: Final = 60.0  # a machine that is plugged in is found within a minute
MAX_QUESTIONS: Final = 16  # at once, to records that came in pieces; ours come whole, in one packet
QUESTION_S: Final = 3.0  # RFC 6762, 5.2: asked after 1 and again after 2 s
MAX_SOUGHT: Final = 8  # nodes with one short code's number that wait to be tried; nobody tries as many
NAME_BYTES: Final = 4  # random, after the node's id: a copy of this node, or its last run, has another name

_TAG_CONTEXT: Final = "swarmd 2026-11 network to tag in the local network v1"
_TAG_BYTES: Final = 8  # no two networks of one house collide by chance, and on purpose nothing is won: handshakes decide

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a record says, ours or somebody's; what others say is unchecked."""

    name: str
    """Of the instance, without SERVICE."""
    hosts: tuple[str, ...]
    """IP addresses."""
    port: int
    texts: Mapping[str, str]


Heard = Callable[[str, Notice | None], None]
"""`heard(name, notice)`: a record came or changed; None: it is gone."""


Update = Callable[[Notice], Awaitable[None]]
"""Says something else of ourselves from now on; only `np` may differ. Raises NoMulticast."""


_Reasons = NetworkFounded | NetworkJoined | ShortCodeMade | ShortCodeEnded | SummaryReceived
"""To look whether we have something else to say."""


class NoMulticast(Exception):
    """This machine has no way to announce anything now; `str()` says why."""


class Responder(Protocol):
    """The layer that speaks multicast DNS."""

    def open(self, notice: Notice, heard: Heard) -> AbstractAsyncContextManager[Update]:
        """Announces `notice` on the interfaces of its hosts and listens there; leaving withdraws it. Our own comes back
        as well.

        Entering raises NoMulticast.
        """
        ...

    def browse(self, hosts: tuple[str, ...], heard: Heard) -> AbstractAsyncContextManager[None]:
        """Listens on the interfaces with these addresses and says nothing of ourselves. Entering raises NoMulticast."""
        ...


class Acquaintances(Protocol):
    """What this module needs of `peers.links.Links`."""

    async def offer(self, node: NodeId, endpoints: tuple[Endpoint, ...], *, source: Source) -> bool: ...


def network_tag(network: NetworkId) -> str:
    """See the module."""
    return blake3(bytes.fromhex(network), derive_key_context=_TAG_CONTEXT).hexdigest(_TAG_BYTES)


@dataclass(slots=True, kw_only=True)
class _Found:
    node: NodeId
    endpoints: tuple[Endpoint, ...]
    offered_at: float | None = None
    """Monotonic."""


class Lan:
    """A service; one per node. Silent as long as the node belongs to no network."""

    name = "lan"

    def __init__(
        self,
        *,
        own: NodeId,
        network: Callable[[], NetworkId | None],
        listening: Callable[[], Endpoint],
        interfaces: Callable[[], tuple[IpInterface, ...]],
        links: Acquaintances,
        nameplates: Callable[[], tuple[int, ...]],
        responder: Responder,
        world: World,
        bus: EventBus,
    ) -> None:
        """`listening`: the bound endpoint of our doors. `interfaces`: the addresses of this machine that others may
        reach, and loopback. `nameplates`: of our live short codes."""
        self._own = own
        self._network = network
        self._listening = listening
        self._interfaces = interfaces
        self._links = links
        self._nameplates = nameplates
        self._responder = responder
        self._world = world
        self._bus = bus
        self._name = f"{short(own)}-{world.entropy.token(NAME_BYTES).hex()}"
        self._machine: tuple[IpInterface, ...] = ()
        """As of the last look."""
        self._found: dict[str, _Found] = {}
        """By name; at most MAX_RECORDS."""
        self._plates: dict[str, frozenset[int]] = {}
        """Short codes of others, of whatever network, by the name of their record; at most MAX_RECORDS."""
        self._patience = TokenBucket(NEWS_PER_S, NEWS_BURST, clock=world.clock)
        self._news = asyncio.Event()
        self._clone_known = False

    async def run(self, ready: Ready) -> None:
        backoff = Backoff(FIRST_RETRY_S, 2.0, LIMIT_RETRY_S, entropy=self._world.entropy)
        warned = False
        kinds = (NetworkFounded, NetworkJoined, ShortCodeMade, ShortCodeEnded, SummaryReceived)  # others' codes are in it
        with self._bus.tap(*kinds, size=1) as facts:  # one is enough: each only makes us look
            async with Supervisor("lan", world=self._world) as tasks:
                tasks.spawn(self._look_after(facts), name="network of the lan record")
                ready()
                while True:
                    if (notice := self._notice()) is None:
                        await self._pause(POLL_S)
                        continue
                    async with AsyncExitStack() as stack:
                        try:
                            update = await stack.enter_async_context(self._responder.open(notice, self._heard))
                        except NoMulticast as error:
                            level = logging.DEBUG if warned else logging.WARNING
                            logger.log(level, "members in the local network are not found, tried again later: %s", error)
                            warned = True
                        else:
                            logger.info("announced in the local network at %s", ", ".join(notice.hosts))
                            backoff.reset()
                            warned = False
                            await self._attend(notice, update)
                            continue
                    await self._pause(backoff.delay())

    def heard_nameplates(self) -> frozenset[int]:
        """Numbers of short codes that others around here have now."""
        return frozenset[int]().union(*self._plates.values())

    @asynccontextmanager
    async def seek(self, nameplate: int) -> AsyncGenerator[asyncio.Queue[tuple[Endpoint, ...]]]:
        """Look for nodes with this short code while the block lasts; each comes once, with the addresses to which there is a
        direct way. Works before the node belongs to a network. Raises NoMulticast."""
        found: asyncio.Queue[tuple[Endpoint, ...]] = asyncio.Queue(MAX_SOUGHT)
        seen: set[str] = set()  # at most MAX_SOUGHT

        def heard(name: str, notice: Notice | None) -> None:
            if notice is None or name in seen or found.full() or len(seen) >= MAX_SOUGHT:
                return
            texts = notice.texts
            ours = texts.get("node") == self._own
            if ours or nameplate not in _plates_in(texts) or texts.get("v") != str(PROTOCOL_VERSION):
                return
            if endpoints := self._believable(notice):
                seen.add(name)
                found.put_nowait(endpoints)

        self._machine = self._interfaces()
        async with self._responder.browse(tuple(str(one.ip) for one in self._machine), heard):
            yield found

    async def _look_after(self, facts: Tap[_Reasons]) -> None:
        async for _ in facts:
            self._news.set()

    async def _pause(self, seconds: float) -> None:
        """Until there is news, at most that long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def _notice(self) -> Notice | None:
        """What we have to announce now; None: nothing."""
        self._machine = self._interfaces()
        network = self._network()
        hosts = tuple(str(one.ip) for one in self._machine)
        endpoints = [one for one in announced((self._listening(),), hosts) if ip_of(one.host) is not None]
        if network is None or not endpoints:
            return None
        texts = {"v": str(PROTOCOL_VERSION), "node": self._own, "net": network_tag(network)}
        if plates := self._nameplates():
            texts["np"] = ",".join(str(plate) for plate in plates)
        hosts = tuple(one.host for one in endpoints)
        return Notice(name=self._name, hosts=hosts, port=endpoints[0].port, texts=texts)

    async def _attend(self, notice: Notice, update: Update) -> None:
        """Offer what is heard, until we have to announce something else than another short code."""
        try:
            while (now := self._notice()) is not None and _lasting(now) == _lasting(notice):
                if now != notice:
                    try:
                        await update(now)
                    except NoMulticast as error:
                        logger.debug("the short code is not announced at once: %s", error)
                        return  # everything anew
                    notice = now
                await self._offer()
                await self._pause(POLL_S)
        finally:
            self._found.clear()  # what stands is heard again
            self._plates.clear()

    async def _offer(self) -> None:
        now = self._world.clock.monotonic()
        for found in tuple(self._found.values()):
            if found.offered_at is not None and now - found.offered_at < AGAIN_S:
                continue
            if self._patience.retry_after_s() > 0:
                logger.debug("too much news in the local network, the rest waits")
                return
            found.offered_at = now
            if await self._links.offer(found.node, found.endpoints, source=Source.LAN):
                logger.debug("node %s is in the local network at %s", short(found.node), found.endpoints[0])
                self._patience.try_take()

    def _heard(self, name: str, notice: Notice | None) -> None:
        network = self._network()
        self._plates.pop(name, None)
        plates = frozenset[int]() if notice is None or name == self._name else _plates_in(notice.texts)
        if plates and len(self._plates) < MAX_RECORDS:
            self._plates[name] = plates
        if notice is None or network is None:
            self._found.pop(name, None)
            return
        texts = notice.texts
        if name == self._name or texts.get("net") != network_tag(network) or texts.get("v") != str(PROTOCOL_VERSION):
            return
        try:
            node = parse_node_id(texts.get("node", ""))
        except ValueError:
            logger.debug("a record in the local network names no proper node id, ignored")
            return
        if node == self._own:
            self._heard_ourselves(notice)
            return
        endpoints = self._believable(notice)
        known = self._found.get(name)
        if not endpoints or (known is None and len(self._found) >= MAX_RECORDS):
            logger.debug("a record of node %s in the local network is of no use here", short(node))
            return  # those that were heard before stay: a liar does not push them out
        if known is None or (known.node, known.endpoints) != (node, endpoints):
            self._found[name] = _Found(node=node, endpoints=endpoints)
            self._news.set()

    def _believable(self, notice: Notice) -> tuple[Endpoint, ...]:
        """Where to look for the node: loopback when it is on this machine, and what our interfaces reach directly.

        Multicast does not tell where a record came from. One that names an address of another machine is from there.
        """
        addresses = [address for host in notice.hosts if (address := ip_of(host)) is not None]
        ours = {one.ip for one in self._machine}
        here = all(one.is_loopback or one in ours for one in addresses)
        near = [one for one in addresses if (here if one.is_loopback else on_link(one, self._machine))]
        return announced(tuple(Endpoint(str(one), notice.port) for one in near), ())  # without those one must refuse

    def _heard_ourselves(self, notice: Notice) -> None:
        """A record of this node that this run did not make: from another machine it is a copy of us, or a lie."""
        ours = {one.ip for one in self._machine}
        addresses = [address for host in notice.hosts if (address := ip_of(host)) is not None]
        elsewhere = [one for one in addresses if not one.is_loopback and one not in ours]
        if not elsewhere or self._clone_known:
            return
        self._clone_known = True
        at = Endpoint(str(elsewhere[0]), notice.port)
        logger.warning(
            "a machine at %s says that it is this node, %s: if its data folder is a copy of this one's, stop swarmd on one "
            "of the two, start it there with an empty data folder, and join with a new invite code",
            at, short(self._own),
        )  # fmt: skip
        self._bus.publish(IdentityCloned(node=self._own, at=at))


class Multicast:
    """The real responder."""

    def __init__(self, *, world: World) -> None:
        self._world = world

    @asynccontextmanager
    async def open(self, notice: Notice, heard: Heard) -> AsyncGenerator[Update]:
        async with self._radio(notice.hosts, heard) as radio:

            async def update(notice: Notice) -> None:
                with _as_no_multicast():
                    await (await radio.async_update_service(_info(notice)))  # pyright: ignore[reportUnknownMemberType]

            with _as_no_multicast():
                # No probing for the name: it is random, and a second node on this machine answers on the same port.
                await (
                    await radio.async_register_service(  # pyright: ignore[reportUnknownMemberType]
                        _info(notice), cooperating_responders=True
                    )
                )
            yield update

    @asynccontextmanager
    async def browse(self, hosts: tuple[str, ...], heard: Heard) -> AsyncGenerator[None]:
        async with self._radio(hosts, heard):
            yield

    @asynccontextmanager
    async def _radio(self, hosts: tuple[str, ...], heard: Heard) -> AsyncGenerator[AsyncZeroconf]:
        logging.getLogger("zeroconf").setLevel(logging.ERROR)  # it warns of every packet that an interface does not take
        async with Supervisor("multicast", world=self._world) as tasks:
            with _as_no_multicast():
                # IPv4 is enough where there is any; the record names the IPv6 addresses all the same.
                radio = AsyncZeroconf(interfaces=[host for host in hosts if ":" not in host] or list(hosts))
            try:
                with _as_no_multicast():
                    await radio.async_add_service_listener(SERVICE, _Ears(heard, tasks=tasks))
                yield radio
            finally:
                await radio.async_close()  # says goodbye


@contextlib.contextmanager
def _as_no_multicast() -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError, ZeroconfError) as error:  # RuntimeError: an IPv6 address that has just gone
        raise NoMulticast(str(error) or type(error).__name__) from error


def _info(notice: Notice) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE, f"{notice.name}.{SERVICE}", port=notice.port, properties=dict(notice.texts),
        parsed_addresses=list(notice.hosts), server=f"{notice.name}.local.",
    )  # fmt: skip


def _lasting(notice: Notice) -> Notice:
    """All that does not come and go with a short code: when it changes, everything is heard anew."""
    return replace(notice, texts={key: text for key, text in notice.texts.items() if key != "np"})


def _plates_in(texts: Mapping[str, str]) -> frozenset[int]:
    """Numbers of short codes; what is none is left out."""
    parts = texts.get("np", "").split(",", MAX_NAMEPLATES)[:MAX_NAMEPLATES]
    numbers = (int(part) for part in parts if part.isascii() and part.isdigit() and len(part) <= 3)
    return frozenset(number for number in numbers if 1 <= number <= MAX_NAMEPLATE)


class _Ears(ServiceListener):
    """Turns names that are heard into notices. `zeroconf` keeps at most 10,000 records."""

    def __init__(self, heard: Heard, *, tasks: Supervisor) -> None:
        self._heard = heard
        self._tasks = tasks

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, name)
        except ZeroconfError:  # out of here it would end the socket
            logger.debug("a record in the local network has an impossible name, ignored")
            return
        if info.load_from_cache(zc):
            self._tell(info)
        elif self._tasks.spawned_count < MAX_QUESTIONS:
            self._tasks.spawn(self._ask(zc, info), name="question about a lan record")
        else:
            logger.debug("too many records in pieces in the local network, one is ignored until it changes")

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self._heard(_instance(name), None)

    async def _ask(self, zc: Zeroconf, info: AsyncServiceInfo) -> None:
        try:
            answered = await info.async_request(zc, QUESTION_S * 1e3)
        except ZeroconfError as error:  # it is being closed
            logger.debug("a record in the local network was not read: %s", error)
            return
        if answered:
            self._tell(info)

    def _tell(self, info: AsyncServiceInfo) -> None:
        name = _instance(info.name)
        texts = {key: value for key, value in info.decoded_properties.items() if value is not None}
        hosts = tuple(info.parsed_addresses()[:MAX_ENDPOINTS])  # an honest one has no more
        self._heard(name, Notice(name=name, hosts=hosts, port=info.port or 0, texts=texts))


def _instance(name: str) -> str:
    return name.lower().removesuffix(f".{SERVICE}")
