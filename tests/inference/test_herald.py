"""What everybody is told, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from swarmd.domain.events import SettingsChanged, ShardDropped, ShardStored, ShortCodeEnded, ShortCodeMade, WorkerReady
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.peers import MAX_NEAR, MAX_RTT_TENTHS, Holding, ModelDemand, NodeSummary, PeerRecord, PeerView, RoundTrip
from swarmd.inference.herald import (
    APART_S,
    AT_ONCE,
    COALESCE_S,
    DRIFT_S,
    HEARTBEAT_S,
    JITTER,
    LOOK_S,
    RAM_STEP,
    TELLS_BURST,
    TELLS_PER_S,
    Herald,
    drifted,
    nearest,
)
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import SeededClock, World
from swarmd.peers.fact_table import PRESENT_S, RECORDS_BURST, RECORDS_PER_S

NODE, MODEL = NodeId("a" * 64), ModelId("tiny")


@dataclass
class Scene:
    world: World
    bus: EventBus = field(default_factory=EventBus)
    told: list[NodeSummary] = field(default_factory=list)
    shards: tuple[int, ...] = ()
    speed: float | None = None
    free: int = 100 * RAM_STEP
    demand: tuple[ModelDemand, ...] = ()
    nameplates: tuple[int, ...] = ()
    peers: tuple[PeerView, ...] = ()
    sessions: int = 0
    nickname: str = ""

    def holdings(self) -> tuple[Holding, ...]:
        return (Holding(model=MODEL, layout="0" * 32, shards=self.shards),) if self.shards else ()

    def herald(self) -> Herald:
        return Herald(
            nameplates=lambda: self.nameplates,
            node=NODE, holdings=self, announce=self.told.append, world=self.world, bus=self.bus, software="swarmd/test",
            region="DE",
            free_ram=lambda: self.free, total_ram_bytes=1000 * RAM_STEP, layer_ms=lambda model: self.speed,
            endpoints=tuple, demand=lambda: self.demand, peers=lambda: self.peers, sessions=lambda: self.sessions,
            nickname=lambda: self.nickname,
        )  # fmt: skip


def peer(digit: str, rtt_ms: float | None, *holdings: Holding, connected: bool = True) -> PeerView:
    node = NodeId(digit * 64)
    summary = NodeSummary(
        node=node, version=1, software="t", started_at=0.0, ram_free_bytes=0, ram_total_bytes=0, holdings=holdings
    )
    record = PeerRecord(node=node, endpoints=(), last_seen=None)
    return PeerView(record=record, connected=connected, rtt_ms=rtt_ms, summary=summary)


def test_round_trips_are_told_to_those_who_hold_the_same_model() -> None:
    ours = Holding(model=MODEL, layout="0" * 32, shards=(0,))
    other = replace(ours, layout="1" * 32)
    around = [peer("a", 3.14, ours), peer("b", 1.0, other), peer("c", None, ours), peer("d", 9e9, ours)]
    around += [peer("e", 1.0, replace(ours, shards=())), peer("f", 1.0, ours, connected=False)]
    told = nearest([ours], around)
    assert told == (RoundTrip(node="a" * 16, tenths_ms=31), RoundTrip(node="d" * 16, tenths_ms=MAX_RTT_TENTHS))
    many = nearest([ours], [peer(f"{number:x}", number, ours) for number in range(16)])
    assert [one.tenths_ms for one in many] == [10 * number for number in range(MAX_NEAR)]


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        ({"tenths_ms": 100}, {"tenths_ms": 120}, False),
        ({"tenths_ms": 100}, {"tenths_ms": 140}, True),
        ({"tenths_ms": 2}, {"tenths_ms": 20}, False),
    ],
)
def test_a_round_trip_is_news_when_it_is_quite_another_one(
    before: dict[str, int], after: dict[str, int], news: bool
) -> None:
    told, now = (replace(peer("a", 1.0).summary, near=(RoundTrip(node="b" * 16, **one),)) for one in (before, after))
    assert drifted(now, told) is news
    assert drifted(now, replace(told, near=())) is True


def test_a_few_sessions_more_are_no_news() -> None:
    told = peer("a", 1.0).summary
    assert not drifted(replace(told, sessions=2), told) and drifted(replace(told, sessions=3), told)


@pytest.mark.looptime
async def test_facts_are_told_together_and_drift_once_a_minute(world: World) -> None:
    scene = Scene(world)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(scene.herald())
        assert len(scene.told) == 1 and scene.told[0].holdings == () and scene.told[0].region == "DE"
        scene.shards = (0, 1)
        for index in scene.shards:
            scene.bus.publish(ShardStored(shard=ShardRef(MODEL, index), size_bytes=1, source=None))
        await asyncio.sleep(COALESCE_S / 2)
        assert len(scene.told) == 1
        await asyncio.sleep(COALESCE_S)
        assert len(scene.told) == 2 and scene.told[1].holdings[0].shards == (0, 1)
        scene.bus.publish(WorkerReady(model=MODEL, shards=(0,)))  # changes nothing that is told
        await asyncio.sleep(DRIFT_S + 1)
        assert len(scene.told) == 2
        scene.speed = 1.23456
        await asyncio.sleep(LOOK_S + 1)
        assert len(scene.told) == 3 and scene.told[2].holdings[0].layer_ms == 1.235
        scene.demand = (ModelDemand(model=MODEL, requests=1),)
        await asyncio.sleep(LOOK_S)
        assert len(scene.told) == 3, "within a minute of the last"
        await asyncio.sleep(LOOK_S)
        assert len(scene.told) == 4 and scene.told[3].demand == scene.demand
        scene.shards = ()
        scene.bus.publish(ShardDropped(shard=ShardRef(MODEL, 0)))
        await asyncio.sleep(COALESCE_S * 2)
        assert scene.told[-1].holdings == ()
        for plates, fact in (((7,), ShortCodeMade(nameplate=7)), ((), ShortCodeEnded(nameplate=7, burnt=True))):
            scene.nameplates = plates
            scene.bus.publish(fact)
            await asyncio.sleep(COALESCE_S * 2)
            assert scene.told[-1].nameplates == plates
    versions = [summary.version for summary in scene.told]
    assert versions == sorted(set(versions)) and versions[0] >= 1_700_000_000_000


def test_a_clock_set_back_does_not_silence_the_node(world: World) -> None:
    scene = Scene(world)
    herald = scene.herald()
    herald.tell()
    assert isinstance(world.clock, SeededClock)
    world.clock.shift(-3600)
    scene.shards = (1,)
    herald.tell()
    assert scene.told[1].version == scene.told[0].version + 1
    world.clock.shift(-3 * 24 * 3600)
    scene.shards = (2,)
    herald.tell()
    assert scene.told[2].version < scene.told[0].version, "it was days ahead, and nobody believed it"


def test_flickering_memory_is_no_news(world: World) -> None:
    scene = Scene(world, free=100 * RAM_STEP + 5)
    herald = scene.herald()
    for free in (100 * RAM_STEP + 5, 100 * RAM_STEP, 110 * RAM_STEP):
        scene.free = free
        herald.tell(drift=True)
    assert len(scene.told) == 1 and scene.told[0].ram_free_bytes == 100 * RAM_STEP
    scene.free = 10**15
    assert not herald.tell()
    assert herald.tell(drift=True)
    assert scene.told[1].ram_free_bytes == 1000 * RAM_STEP, "never more than there is"


def test_what_is_worth_telling_everybody(world: World) -> None:
    held = (Holding(model=MODEL, layout="0" * 32, shards=(0,), layer_ms=1.0),)
    base = replace(Scene(world).herald().summary(), holdings=held, demand=(ModelDemand(model=MODEL, requests=40),))

    def with_speed(layer_ms: float | None) -> NodeSummary:
        return replace(base, holdings=(replace(held[0], layer_ms=layer_ms),))

    def asked(requests: int) -> NodeSummary:
        return replace(base, demand=(ModelDemand(model=MODEL, requests=requests),))

    assert not drifted(base, base)
    assert not drifted(with_speed(1.09), base) and drifted(with_speed(1.2), base) and drifted(with_speed(0.8), base)
    assert drifted(with_speed(None), base) and drifted(base, with_speed(None))
    assert not drifted(asked(50), base) and drifted(asked(51), base)
    assert not drifted(asked(3), asked(1)) and drifted(asked(4), asked(1))
    assert drifted(replace(base, demand=()), base)


@pytest.mark.looptime
async def test_another_nickname_is_told_at_once(world: World) -> None:
    scene = Scene(world)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(scene.herald())
        scene.nickname = "anna"
        scene.bus.publish(SettingsChanged(keys=("identity.nickname",)))
        await asyncio.sleep(2)
        assert [one.nickname for one in scene.told] == ["", "anna"]


@pytest.mark.looptime
async def test_a_node_without_news_gives_a_sign_of_life(world: World) -> None:
    scene = Scene(world)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(scene.herald())
        at = [asyncio.get_running_loop().time()]
        while len(at) < 8:
            count = len(scene.told)
            async with asyncio.timeout(PRESENT_S):
                while len(scene.told) == count:
                    await asyncio.sleep(1)
            at.append(asyncio.get_running_loop().time())
    pauses = [later - earlier for earlier, later in pairwise(at)]
    slack = LOOK_S / 2 + 2
    assert all(HEARTBEAT_S * (1 - JITTER) - slack <= pause <= HEARTBEAT_S * (1 + JITTER) + slack for pause in pauses)
    assert len({round(pause) for pause in pauses}) > 1, "jittered"


@pytest.mark.looptime
async def test_a_storm_of_changes_stays_below_what_others_take(world: World) -> None:
    assert TELLS_PER_S < RECORDS_PER_S and TELLS_BURST < RECORDS_BURST
    scene = Scene(world)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(scene.herald())
        for index in range(600):
            scene.shards = (index,)
            scene.bus.publish(ShardStored(shard=ShardRef(MODEL, index), size_bytes=1, source=None))
            await asyncio.sleep(0.5)
        assert TELLS_BURST < len(scene.told) <= TELLS_BURST + 300 * TELLS_PER_S + 2
        await asyncio.sleep(1 / TELLS_PER_S + 1)
        assert scene.told[-1].holdings[0].shards == (599,), "the newest state is told"


@pytest.mark.looptime
async def test_a_download_is_followed_from_second_to_second(world: World) -> None:
    scene = Scene(world)
    async with Supervisor("test", world=world) as supervisor:
        await supervisor.start(scene.herald())
        for index in range(TELLS_BURST - AT_ONCE):
            scene.shards = tuple(range(index + 1))
            scene.bus.publish(ShardStored(shard=ShardRef(MODEL, index), size_bytes=1, source=None))
            await asyncio.sleep(APART_S)
            assert len(scene.told[-1].holdings[0].shards) >= index, "at most one shard late"
        before = len(scene.told)
        for index in range(100):
            scene.shards = tuple(range(index + 1))
            scene.bus.publish(ShardStored(shard=ShardRef(MODEL, index), size_bytes=1, source=None))
            await asyncio.sleep(0.02)
        await asyncio.sleep(APART_S * 2)
        assert scene.told[-1].holdings[0].shards == tuple(range(100))
        assert len(scene.told) - before <= 2 / APART_S + AT_ONCE + 2, "many within seconds are told together"
