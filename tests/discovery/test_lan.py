"""Members in the local network: what is announced, what is believed, and what happens when there is no network."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from swarmd.discovery import lan as module
from swarmd.discovery.join import Joined
from swarmd.discovery.lan import (
    AGAIN_S,
    LIMIT_RETRY_S,
    MAX_QUESTIONS,
    POLL_S,
    SERVICE,
    Heard,
    Lan,
    Multicast,
    NoMulticast,
    Notice,
    Update,
    network_tag,
)
from swarmd.domain.events import IdentityCloned, NetworkFounded, NetworkJoined, ShortCodeEnded, ShortCodeMade
from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.membership import NewInvite
from swarmd.domain.peers import Endpoint
from swarmd.kit.bus import EventBus, Spy
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, real_world, seeded_world
from swarmd.peers.addresses import MAX_ENDPOINTS
from swarmd.peers.neighbours import NEWS_BURST
from swarmd.store.peers import Source
from tests.fakes.nodes import join, running

OWN, OTHER = NodeId("0a" * 32), NodeId("0b" * 32)
OURS, THEIRS = NetworkId("aa" * 32), NetworkId("bb" * 32)
LOOPBACK = "127.0.0.1/8"
HOME, CAFE = "192.168.1.5/24", "10.9.8.7/16"


@dataclass
class FakeResponder:
    """A segment that a test speaks into."""

    broken: str = ""
    """Why there is no multicast."""
    announced: list[Notice] = field(default_factory=list)
    heard: Heard | None = None
    tries: int = 0
    withdrawn: int = 0
    deaf: bool = False
    """It cannot announce other texts."""

    @asynccontextmanager
    async def browse(self, hosts: tuple[str, ...], heard: Heard) -> AsyncIterator[None]:
        if self.broken:
            raise NoMulticast(self.broken)
        self.sought, self.heard = hosts, heard
        yield

    @asynccontextmanager
    async def open(self, notice: Notice, heard: Heard) -> AsyncIterator[Update]:
        self.tries += 1
        if self.broken:
            raise NoMulticast(self.broken)
        self.announced.append(notice)
        self.heard = heard
        heard(notice.name, notice)  # a responder hears itself

        async def update(notice: Notice) -> None:
            if self.deaf:
                raise NoMulticast("gone")
            self.announced.append(notice)

        try:
            yield update
        finally:
            self.heard = None
            self.withdrawn += 1

    def say(self, notice: Notice) -> None:
        assert self.heard is not None
        self.heard(notice.name, notice)


@dataclass
class FakeLinks:
    known: dict[NodeId, set[Endpoint]] = field(default_factory=dict)
    offers: list[tuple[NodeId, tuple[Endpoint, ...]]] = field(default_factory=list)

    async def offer(self, node: NodeId, endpoints: tuple[Endpoint, ...], *, source: Source) -> bool:
        assert source is Source.LAN
        self.offers.append((node, endpoints))
        known = self.known.setdefault(node, set())
        news = not known.issuperset(endpoints)
        known.update(endpoints)
        return news


@dataclass
class Machine:
    """One node with its local network."""

    lan: Lan
    responder: FakeResponder
    links: FakeLinks
    spy: Spy
    bus: EventBus
    network: list[NetworkId]
    addresses: list[str]
    plates: list[int]

    def join(self, network: NetworkId) -> None:
        self.network[:] = [network]
        self.bus.publish(NetworkJoined(network=network, inviter=OTHER))


@asynccontextmanager
async def machine(
    *addresses: str, world: World, network: NetworkId | None = OURS, listen: str = "0.0.0.0", broken: str = ""
) -> AsyncIterator[Machine]:
    bus, responder, links = EventBus(), FakeResponder(broken=broken), FakeLinks()
    networks, interfaces, plates = [network] if network else [], [LOOPBACK, *addresses], list[int]()
    lan = Lan(
        own=OWN, network=lambda: networks[0] if networks else None, listening=lambda: Endpoint(listen, 8810),
        interfaces=lambda: tuple(ipaddress.ip_interface(one) for one in interfaces), links=links,
        nameplates=lambda: tuple(plates), responder=responder, world=world, bus=bus,
    )  # fmt: skip
    with bus.spy() as spy:
        async with Supervisor("test", world=world) as supervisor:
            await supervisor.start(lan)
            await asyncio.sleep(0.01)
            yield Machine(
                lan=lan, responder=responder, links=links, spy=spy, bus=bus, network=networks, addresses=interfaces,
                plates=plates,
            )  # fmt: skip


def record(
    *hosts: str, node: str = OTHER, network: NetworkId = OURS, name: str = "other", port: int = 8810, version: str = "1"
) -> Notice:
    return Notice(name=name, hosts=hosts, port=port, texts={"v": version, "node": node, "net": network_tag(network)})


@pytest.mark.looptime
async def test_nothing_is_said_before_the_node_belongs_to_a_network(world: World) -> None:
    async with machine(HOME, world=world, network=None) as one:
        await asyncio.sleep(5 * POLL_S + 1)
        assert one.responder.tries == 0
        one.network.append(OURS)
        one.bus.publish(NetworkFounded(network=OURS))
        await asyncio.sleep(0.01)
        (notice,) = one.responder.announced
        assert notice.hosts == ("192.168.1.5",)
        assert notice.port == 8810
        assert notice.texts == {"v": "1", "node": OWN, "net": network_tag(OURS)}
        one.join(THEIRS)
        await asyncio.sleep(0.01)
        assert one.responder.announced[1].texts["net"] == network_tag(THEIRS)
        assert one.responder.withdrawn == 1
    assert one.responder.withdrawn == 2, "a node that stops says goodbye"


def test_the_tag_tells_networks_apart_and_does_not_tell_the_network() -> None:
    assert len(network_tag(OURS)) == 16
    assert network_tag(OURS) != network_tag(THEIRS)
    assert network_tag(OURS) not in OURS


@pytest.mark.looptime
async def test_two_nodes_and_two_runs_of_one_have_different_names(world: World) -> None:
    names: set[str] = set()
    for other in (world, seeded_world(2)):
        async with machine(HOME, world=other) as one:
            names.add(one.responder.announced[0].name)
    assert len(names) == 2
    assert all(name.startswith(short(OWN)) for name in names)


@pytest.mark.looptime
async def test_a_member_is_offered_and_another_network_is_not(world: World) -> None:
    async with machine(HOME, world=world) as one:
        one.responder.say(record("192.168.1.9"))
        one.responder.say(record("192.168.1.10", network=THEIRS, name="stranger"))
        one.responder.say(record("192.168.1.11", version="2", name="newer"))
        one.responder.say(record("192.168.1.12", node="XYZ", name="rubbish"))
        one.responder.say(Notice(name="empty", hosts=("192.168.1.13",), port=8810, texts={}))
        await asyncio.sleep(0.01)
        assert one.links.offers == [(OTHER, (Endpoint("192.168.1.9", 8810),))]
        one.responder.say(record("192.168.1.9"))  # said again: no news
        one.responder.say(record("192.168.1.14"))  # it has moved
        await asyncio.sleep(0.01)
        assert one.links.offers[1:] == [(OTHER, (Endpoint("192.168.1.14", 8810),))]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("hosts", "port", "believed"),
    [
        (("192.168.1.9", "10.1.1.1", "8.8.8.8"), 8810, ("192.168.1.9",)),  # no interface of ours leads to the others
        (("192.168.1.9", "127.0.0.1"), 8810, ("192.168.1.9",)),
        (("127.0.0.1",), 8810, ("127.0.0.1",)),  # a node that listens on loopback alone is on this machine
        (("192.168.1.5", "127.0.0.1"), 8811, ("192.168.1.5",)),  # a second node on this machine
        (("127.0.0.1", "192.168.7.7"), 8810, ()),  # another machine's loopback
        (("0.0.0.0", "224.0.0.251", "attic", "fe80::1"), 8810, ()),
        (("192.168.1.9",), 0, ()),
        ((), 8810, ()),
    ],
)
async def test_only_addresses_with_a_direct_way_are_believed(
    hosts: tuple[str, ...], port: int, believed: tuple[str, ...], world: World
) -> None:
    async with machine(HOME, world=world) as one:
        one.responder.say(record(*hosts, port=port))
        await asyncio.sleep(0.01)
        expected = [(OTHER, tuple(Endpoint(host, port) for host in believed))] if believed else []
        assert one.links.offers == expected


@pytest.mark.looptime
async def test_a_node_that_listens_on_loopback_announces_loopback(world: World) -> None:
    async with machine(HOME, world=world, listen="127.0.0.1") as one:
        assert one.responder.announced[0].hosts == ("127.0.0.1",)


@pytest.mark.looptime
async def test_a_machine_that_moved_is_announced_anew(world: World) -> None:
    async with machine(HOME, world=world) as one:
        await asyncio.sleep(3 * POLL_S)
        assert len(one.responder.announced) == 1
        one.addresses[1:] = [CAFE]
        await asyncio.sleep(POLL_S + 0.1)
        assert one.responder.announced[1].hosts == ("10.9.8.7",)
        assert one.responder.withdrawn == 1
        one.responder.say(record("10.9.1.1"))
        await asyncio.sleep(0.01)
        assert one.links.offers == [(OTHER, (Endpoint("10.9.1.1", 8810),))]


@pytest.mark.looptime
async def test_without_multicast_it_warns_once_and_tries_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with machine(HOME, world=world, broken="network is unreachable") as one:
        await asyncio.sleep(10 * LIMIT_RETRY_S)
        assert 10 <= one.responder.tries <= 30
        warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
        assert [entry.getMessage() for entry in warnings] == [
            "members in the local network are not found, tried again later: network is unreachable"
        ]
        one.responder.broken = ""
        await asyncio.sleep(LIMIT_RETRY_S)
        assert len(one.responder.announced) == 1


@pytest.mark.looptime
async def test_a_record_that_stands_is_offered_again_and_one_that_is_gone_is_not(world: World) -> None:
    async with machine(HOME, world=world) as one:
        one.responder.say(record("192.168.1.9"))
        await asyncio.sleep(AGAIN_S - POLL_S)
        assert len(one.links.offers) == 1
        await asyncio.sleep(2 * POLL_S + 1)
        assert len(one.links.offers) == 2
        assert one.responder.heard is not None
        one.responder.heard("other", None)
        await asyncio.sleep(2 * AGAIN_S)
        assert len(one.links.offers) == 2


@pytest.mark.looptime
async def test_so_many_records_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 3)
    async with machine(HOME, world=world) as one:
        for number in range(1, 10):
            one.responder.say(record(f"192.168.1.{number + 20}", node=f"{number:064x}", name=f"node {number}"))
        await asyncio.sleep(0.01)
        assert [int(node, 16) for node, _ in one.links.offers] == [1, 2, 3], "who was there first stays"


@pytest.mark.looptime
async def test_a_liar_with_ever_new_addresses_is_heard_at_the_pace_of_one_neighbour(world: World) -> None:
    async with machine("10.0.0.1/8", world=world) as one:
        for number in range(3 * NEWS_BURST):
            one.responder.say(record(f"10.0.{number // 200 + 1}.{number % 200 + 1}"))
            await asyncio.sleep(0.001)
        await asyncio.sleep(POLL_S)
        assert NEWS_BURST <= len(one.links.offers) <= NEWS_BURST + 2


@pytest.mark.looptime
async def test_a_copy_of_this_node_is_reported_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with machine(HOME, world=world) as one:
        one.responder.say(record("192.168.1.5", "127.0.0.1", node=OWN, name="our last run"))
        one.responder.say(record("192.168.1.66", node=OWN, network=THEIRS, name="elsewhere"))
        await asyncio.sleep(0.01)
        assert one.spy.of(IdentityCloned) == []
        for last in (7, 8):
            one.responder.say(record(f"192.168.1.{last}", node=OWN, name="copy"))
        await asyncio.sleep(0.01)
        assert one.spy.of(IdentityCloned) == [IdentityCloned(node=OWN, at=Endpoint("192.168.1.7", 8810))]
        assert one.links.offers == []
        assert sum("with an empty data folder" in entry.getMessage() for entry in caplog.records) == 1


def coded(*hosts: str, np: str, name: str = "other", node: str = OTHER) -> Notice:
    """As `record`, of another network and with a short code."""
    plain = record(*hosts, name=name, node=node, network=THEIRS)
    return replace(plain, texts={**plain.texts, "np": np})


@pytest.mark.looptime
async def test_the_number_of_a_short_code_comes_and_goes_without_a_goodbye(world: World) -> None:
    async with machine(HOME, world=world) as one:
        one.plates.append(7)
        one.bus.publish(ShortCodeMade(nameplate=7))
        await asyncio.sleep(0.01)
        assert one.responder.announced[-1].texts == {"v": "1", "node": OWN, "net": network_tag(OURS), "np": "7"}
        one.plates.clear()
        one.bus.publish(ShortCodeEnded(nameplate=7, burnt=True))
        await asyncio.sleep(0.01)
        assert "np" not in one.responder.announced[-1].texts
        one.plates.append(8)
        await asyncio.sleep(POLL_S + 0.1)  # a code whose time is over says nothing: it is noticed at the next look
        assert one.responder.announced[-1].texts["np"] == "8"
        assert (len(one.responder.announced), one.responder.tries, one.responder.withdrawn) == (4, 1, 0)


@pytest.mark.looptime
async def test_a_record_that_cannot_be_changed_is_made_anew(world: World) -> None:
    async with machine(HOME, world=world) as one:
        one.responder.deaf = True
        one.plates.append(7)
        one.bus.publish(ShortCodeMade(nameplate=7))
        await asyncio.sleep(0.01)
        assert one.responder.announced[-1].texts["np"] == "7"
        assert (one.responder.tries, one.responder.withdrawn) == (2, 1)


@pytest.mark.looptime
async def test_numbers_of_others_are_known_whatever_their_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 4)
    async with machine(HOME, world=world) as one:
        one.responder.say(coded("192.168.1.9", np="7"))
        one.responder.say(coded("192.168.1.10", np="8,9,x,-1,1000,٣", name="two"))
        assert one.lan.heard_nameplates() == {7, 8, 9}
        one.responder.say(coded("192.168.1.9", np="11"))
        one.responder.say(coded("192.168.1.10", np="", name="two"))
        assert one.lan.heard_nameplates() == {11}
        for number in range(20, 40):
            one.responder.say(coded("192.168.1.11", np=str(number), name=f"many {number}"))
        assert one.lan.heard_nameplates() == {11, 20, 21, 22}
        one.responder.heard("other", None)
        assert one.lan.heard_nameplates() == {20, 21, 22}
        assert one.links.offers == []


@pytest.mark.looptime
async def test_a_short_code_is_sought_before_the_node_belongs_anywhere(world: World) -> None:
    async with machine(HOME, world=world, network=None) as one:
        async with one.lan.seek(7) as found:
            assert one.responder.sought == ("127.0.0.1", "192.168.1.5")
            one.responder.say(coded("192.168.1.8", np="70", name="another number"))
            one.responder.say(coded("192.168.1.9", np="7", name="ours", node=OWN))
            one.responder.say(coded("8.8.8.8", np="7", name="far away"))
            one.responder.say(replace(coded("192.168.1.9", np="7"), texts={"v": "2", "np": "7"}))
            one.responder.say(record("192.168.1.9"))
            assert found.empty()
            for _ in range(2):
                one.responder.say(coded("192.168.1.9", "8.8.8.8", np="3,7"))
            assert found.get_nowait() == (Endpoint("192.168.1.9", 8810),)
            assert found.empty(), "each node once"
            for number in range(50):
                one.responder.say(coded("192.168.1.9", np="7", name=f"liar {number}"))
            assert found.qsize() == found.maxsize - 1
        assert one.responder.announced == [], "and nothing is said of it"
        one.responder.broken = "network is unreachable"
        with pytest.raises(NoMulticast, match="unreachable"):
            async with one.lan.seek(7):
                pytest.fail("it is open")


async def test_a_real_responder_hears_a_changed_record_while_it_only_looks() -> None:
    world = real_world()
    network = NetworkId(world.entropy.token(32).hex())
    ours = record("127.0.0.1", network=network, name=world.entropy.token(8).hex(), node=OWN)
    told = replace(ours, texts={**ours.texts, "np": "7"})
    heard: asyncio.Queue[Notice] = asyncio.Queue(100)

    def hear(name: str, notice: Notice | None) -> None:
        if notice is not None and name == ours.name:
            heard.put_nowait(notice)

    async with asyncio.timeout(10), Multicast(world=world).open(ours, lambda _name, _notice: None) as update:
        async with Multicast(world=world).browse(("127.0.0.1",), hear):
            assert await heard.get() == ours
            await update(told)
            while await heard.get() != told:
                pass
        async with Multicast(world=world).browse(("127.0.0.1",), hear):  # somebody who comes later
            while await heard.get() != told:
                pass


async def test_two_real_responders_find_each_other_on_loopback_and_hear_goodbyes() -> None:
    world = real_world()
    network = NetworkId(world.entropy.token(32).hex())  # whatever else runs on this machine is not in it
    heard: dict[str, Notice | None] = {}
    news = asyncio.Event()

    def hear(name: str, notice: Notice | None) -> None:
        heard[name] = notice
        news.set()

    async def until(name: str, expected: Notice | None) -> None:
        async with asyncio.timeout(10):
            while name not in heard or heard[name] != expected:
                news.clear()
                await news.wait()

    ours = record("127.0.0.1", network=network, name=world.entropy.token(8).hex(), node=OWN)
    theirs = replace(ours, name=world.entropy.token(8).hex(), port=8811)
    async with Multicast(world=world).open(ours, hear):
        async with Multicast(world=world).open(theirs, lambda _name, _notice: None):
            await until(theirs.name, theirs)
            await until(ours.name, ours)
        await until(theirs.name, None)


async def test_sockets_that_cannot_be_had_mean_no_multicast(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(99, "cannot assign requested address")

    monkeypatch.setattr(module, "AsyncZeroconf", refuse)
    with pytest.raises(NoMulticast, match="cannot assign"):
        async with Multicast(world=real_world()).open(record("192.168.1.5"), lambda _name, _notice: None):
            pytest.fail("it is open")


async def test_a_record_in_pieces_is_asked_for_and_only_so_many_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = asyncio.Event()

    class InPieces:
        port = 8810
        decoded_properties = {"v": "1", "flag": None}  # noqa: RUF012

        def __init__(self, _service: str, name: str) -> None:
            self.name = name

        def load_from_cache(self, _zc: object) -> bool:
            return False

        async def async_request(self, _zc: object, timeout: float) -> bool:
            assert timeout == 3000
            await answers.wait()
            return not self.name.startswith("silent")

        def parsed_addresses(self) -> list[str]:
            return [f"192.168.1.{number}" for number in range(1, 200)]

    monkeypatch.setattr(module, "AsyncServiceInfo", InPieces)
    heard: list[tuple[str, Notice | None]] = []
    async with Supervisor("test", world=world) as tasks:
        ears = module._Ears(lambda name, notice: heard.append((name, notice)), tasks=tasks)
        for name in ("silent", *(f"Node-{number}" for number in range(MAX_QUESTIONS))):
            ears.add_service(None, SERVICE, f"{name}.{SERVICE}")
        assert tasks.spawned_count == MAX_QUESTIONS
        answers.set()
        while tasks.spawned_count:
            await asyncio.sleep(0)
        ears.remove_service(None, SERVICE, f"NODE-3.{SERVICE}")
    assert [name for name, _ in heard] == [*(f"node-{number}" for number in range(MAX_QUESTIONS - 1)), "node-3"]
    notice = heard[0][1]
    assert notice is not None
    assert (len(notice.hosts), notice.texts) == (MAX_ENDPOINTS, {"v": "1"})
    assert heard[-1][1] is None


@pytest.mark.parametrize(
    "name", ["", "x" * 70 + f".{SERVICE}", f"\0.{SERVICE}", "a._other._tcp.local.", f"a.{SERVICE.upper()}"]
)
async def test_an_impossible_name_does_no_harm(name: str, world: World) -> None:
    async with Supervisor("test", world=world) as tasks:
        ears = module._Ears(lambda _name, _notice: pytest.fail("it was heard"), tasks=tasks)
        ears.add_service(None, "", name)
        ears.update_service(None, "", name)
        assert tasks.spawned_count == 0


async def test_a_short_code_is_found_and_used_on_one_machine(tmp_path: Path) -> None:
    """Whole nodes on loopback: nobody is told any address."""
    async with (
        running(tmp_path / "a", network__enable_mdns=True) as first,
        running(tmp_path / "b", network__enable_mdns=True) as second,
    ):
        made = await first.codes.short_code()
        assert isinstance(made, NewInvite), made
        outcome = await second.joiner.join(made.code)
        assert isinstance(outcome, Joined), outcome
        assert (outcome.inviter, outcome.endpoint, outcome.linked) == (first.node, first.peer_endpoint, True)


async def test_members_that_both_came_up_elsewhere_find_each_other(tmp_path: Path) -> None:
    """Whole nodes on loopback: neither knows where the other one is now."""
    folders = (tmp_path / "a", tmp_path / "b")
    async with running(folders[0]) as first, running(folders[1]) as second:
        await join([first, second])
    async with (
        running(folders[0], network__enable_mdns=True) as first,
        running(folders[1], network__enable_mdns=True) as second,
    ):
        assert await first.links.wait_for(second.node, timeout_s=20)
