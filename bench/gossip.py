"""What gossip costs and how fast it is, with many nodes: `python -m bench gossip`, in virtual time and one process.

    python -m bench.gossip [--nodes 1000] [--links 8] [--minutes 1] [--seed 1]       nine minutes; 100 nodes: five seconds
    python -m bench.gossip --nodes 150 --links 149      every node linked to every other

Real: `peers.gossip.Gossip` and its table in every node, records that are really signed, certificates, messages that are
really encoded and decoded, and the pauses of `inference.herald`. Bytes are those messages with the headers, lengths and tags
of the frames of a link; TCP and IP come on top (some 5 %), as do the pings of every link, which are no gossip.

Not real: the links (a message arrives after the latency of its link, drawn from 5 to 100 ms each way; one push in a hundred
finds the link broken, and the talk goes on 5 s later); handshakes, sessions, sqlite, introductions. All nodes run in this
process and on its clock. A signature is checked once for all nodes instead of once by each: that takes away processor time
and nothing else, and `--check` measures it apart.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import selectors
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import Endpoint, Holding, ModelDemand
from swarmd.identity import certificates
from swarmd.inference.herald import DRIFT_S, HEARTBEAT_S, JITTER
from swarmd.kit.world import DEFAULT_START, World, seeded_world
from swarmd.peers import facts
from swarmd.peers.fact_table import FactTable
from swarmd.wire.gossip import Given, Want, pack_nodes
from tests.fakes.gossips import NETWORK, Station, Wire, certificate_of, key_of, open_wire, summary_of

LATENCY_S = (0.005, 0.1)  # one way: the next room to another continent
LOSS = 0.01
BUSY = 0.3  # of the nodes have something that drifts to tell every DRIFT_S: a machine that somebody works at
WATCHED = 20  # changes whose way is followed, one begun every WATCH_S
WATCH_S = 0.5
RESTARTED = 0.1
APART_S = 60.0


class VirtualTime(selectors.SelectSelector):
    """A selector that waits for nothing: the loop's clock jumps instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self.now += max(0.0, timeout)
        return []


class Silent:
    """In place of the bus."""

    def publish(self, fact: object) -> None:
        pass


def remembering(function: Callable[..., Any], key: Callable[..., object]) -> Callable[..., Any]:
    """All nodes of the process share the answers."""
    answers: dict[object, Any] = {}

    def ask(*arguments: Any, **named: Any) -> Any:
        what = key(*arguments)
        if what not in answers:
            if len(answers) > 100_000:
                answers.clear()
            answers[what] = function(*arguments, **named)
        return answers[what]

    return ask


@dataclass(kw_only=True)
class Swarm:
    wire: Wire
    world: World
    chance: random.Random
    stations: list[Station] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    heralds: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    said: dict[int, int] = field(default_factory=dict)
    """Records announced, by node."""

    def add(self, count: int) -> None:
        for number in range(count):
            self.stations.append(self.wire.add(number + 1, bus=Silent()))

    def join(self, links: int) -> None:
        """A ring, so that it is one swarm, and further links at random up to `links` for each node on average."""
        count = len(self.stations)
        edges = {(at, (at + 1) % count) for at in range(count)} if count > 2 else {(0, 1)}
        every = [(one, other) for one in range(count) for other in range(one)] if links * 2 >= count else []
        if links >= count - 1:
            edges = set(every)
        while len(edges) * 2 < links * count:
            one, other = self.chance.randrange(count), self.chance.randrange(count)
            if one != other and (one, other) not in edges and (other, one) not in edges:
                edges.add((one, other))
        self.edges = sorted(edges)
        for edge in self.edges:
            self.link(edge)

    def link(self, edge: tuple[int, int]) -> None:
        self.wire.link(self.stations[edge[0]], self.stations[edge[1]])

    def unlink(self, edge: tuple[int, int]) -> None:
        self.wire.unlink(self.stations[edge[0]], self.stations[edge[1]])

    def say(self, at: int) -> int:
        """Node `at` says what a usual node says: two models, one of them loaded, and what it was asked for. Returns the
        version."""
        station = self.stations[at]
        models = [ModelId(f"some-model-{(at + n) % 40:02}-instruct-q4-k-m") for n in range(2)]
        held = tuple(range(at % 5, at % 5 + 12))
        version = int(self.world.clock.now() * 1000)
        station.gossip.announce(
            summary_of(
                station.id, version=version, software="swarmd/0.1.0", started_at=DEFAULT_START, region="DE",
                ram_free_bytes=self.chance.randrange(2**34), endpoints=(Endpoint("0.0.0.0", 8810),),
                demand=tuple(ModelDemand(model=model, requests=self.chance.randrange(1, 99)) for model in models),
                holdings=tuple(
                    Holding(model=model, layout="0123456789abcdef" * 2, shards=held, layer_ms=1.234, loaded=loaded)
                    for model, loaded in zip(models, (held, ()), strict=True)
                ),
            )
        )  # fmt: skip
        self.said[at] = self.said.get(at, 0) + 1
        return version_of(station, station)

    def start_heralds(self, *, busy: float) -> None:
        """A `busy` share of the nodes has numbers that drift, the others give signs of life."""
        for task in self.heralds.values():
            task.cancel()
        for at in range(len(self.stations)):
            self.heralds[at] = asyncio.get_running_loop().create_task(self._herald(at, drifts=self.chance.random() < busy))

    async def _herald(self, at: int, *, drifts: bool) -> None:
        pause_s = DRIFT_S if drifts else HEARTBEAT_S
        await asyncio.sleep(self.chance.uniform(0, pause_s))
        while True:
            self.say(at)
            await asyncio.sleep(pause_s * self.chance.uniform(1 - JITTER, 1 + JITTER))

    def take_counts(self) -> tuple[list[int], dict[str, int], int]:
        """Bytes sent by each node since the last call, bytes by message, and records announced."""
        sent, by_type, said = [one.sent for one in self.stations], dict(self.wire.by_type), sum(self.said.values())
        for one in self.stations:
            one.sent = 0
        self.wire.by_type.clear()
        self.said.clear()
        return sent, by_type, said

    def record_bytes(self) -> int:
        """Of one record, as it travels."""
        given = self.stations[0].gossip.given(self.stations[1].id, Want(nodes=pack_nodes([self.stations[0].id])))
        assert isinstance(given, Given)
        return len(given.told[0].record)

    def versions(self) -> dict[int, int]:
        return {at: version_of(station, station) for at, station in enumerate(self.stations)}

    async def until_known(self, versions: dict[int, int], *, by: Iterable[int] | None = None, limit_s: float) -> float:
        """Virtual seconds until everybody (or `by`) knows these or newer versions."""
        began = asyncio.get_running_loop().time()
        nodes = [(self.stations[at].id, version) for at, version in versions.items()]
        waiting = list(range(len(self.stations)) if by is None else by)

        def knows_all(at: int) -> bool:
            summary = self.stations[at].gossip.summary
            return all((known := summary(node)) is not None and known.version >= version for node, version in nodes)

        while waiting:
            while waiting and knows_all(waiting[-1]):
                waiting.pop()
            if waiting:
                await asyncio.sleep(0.1)
            if asyncio.get_running_loop().time() - began > limit_s:
                raise TimeoutError(f"{len(waiting)} nodes do not know everything after {limit_s:g} s")
        return asyncio.get_running_loop().time() - began


def version_of(known_by: Station, node: Station) -> int:
    """-1: it does not know it."""
    summary = known_by.gossip.summary(node.id)
    return -1 if summary is None else summary.version


def report(label: str, counts: tuple[list[int], dict[str, int], int], *, minutes: float, record_bytes: int) -> None:
    sent, by_type, said = counts
    each = sorted(size / minutes / 1000 for size in sent)
    total = sum(by_type.values())
    copies = (by_type.get("Facts", 0) + by_type.get("Given", 0)) / record_bytes / max(1, said) / len(sent)
    high = each[int(len(each) * 0.99)]
    print(f"  {label}, {said / minutes:.0f} records of {record_bytes} bytes a minute in all")
    print(f"    sent by each node, kB a minute: mean {statistics.mean(each):.1f}, 99 % {high:.1f}, most {each[-1]:.1f}")
    shares = sorted(by_type.items(), key=lambda one: -one[1])
    print("    of it", ", ".join(f"{name} {size / total:.0%}" for name, size in shares))
    print(f"    bytes of {copies:.2f} records for each record and node")


async def watch(swarm: Swarm) -> list[float]:
    """Follows WATCHED changes: seconds from each to each node, sorted."""
    loop, times = asyncio.get_running_loop(), []

    async def follow(at: int) -> None:
        version, began = swarm.say(at), loop.time()
        origin = swarm.stations[at]
        waiting = [one for one in swarm.stations if one is not origin]
        while waiting:
            await asyncio.sleep(0.02)
            behind = []
            for one in waiting:
                if version_of(one, origin) >= version:
                    times.append(loop.time() - began)
                else:
                    behind.append(one)
            waiting = behind

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for at in swarm.chance.sample(range(len(swarm.stations)), WATCHED):
            group.create_task(follow(at))
            await asyncio.sleep(WATCH_S)
    return sorted(times)


async def measure(nodes: int, links: int, minutes: float, seed: int) -> None:
    world, chance = seeded_world(seed), random.Random(seed)
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(
            open_wire(world, seed=seed, loss=LOSS, latency_s=lambda chance: chance.uniform(*LATENCY_S))
        )
        swarm = Swarm(wire=wire, world=world, chance=chance)
        swarm.add(nodes)
        began = time.perf_counter()

        def step(text: str) -> None:
            print(f"[{time.perf_counter() - began:5.0f} s] {text}", flush=True)

        for at in range(nodes):
            swarm.say(at)
        swarm.join(links)
        step(f"{nodes} nodes, {2 * len(swarm.edges) / nodes:.1f} links each")
        took = await swarm.until_known(swarm.versions(), limit_s=600)
        sent, _, _ = swarm.take_counts()
        mean = statistics.mean(sent) / 1e6
        step(f"all start at once: everybody knows everybody after {took:.1f} s, {mean:.2f} MB sent by each")

        for label, busy in (("at rest (signs of life)", 0.0), (f"steady ({BUSY:.0%} of the nodes drift)", BUSY)):
            swarm.start_heralds(busy=busy)
            await asyncio.sleep(5)
            swarm.take_counts()
            await asyncio.sleep(60 * minutes)
            step(f"{minutes:g} minutes")
            report(label, swarm.take_counts(), minutes=minutes, record_bytes=swarm.record_bytes())

        swarm.start_heralds(busy=0.0)
        times = await watch(swarm)
        points = {share: times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99, 0.999)}
        step(
            "one change reaches a node after: "
            + ", ".join(f"{share:.1%} {seconds:.2f} s" for share, seconds in points.items())
            + f", the last {times[-1]:.1f} s"
        )

        half = nodes // 2
        between = [edge for edge in swarm.edges if (edge[0] < half) != (edge[1] < half)]
        for edge in between:
            swarm.unlink(edge)
        await asyncio.sleep(APART_S)
        versions = swarm.versions()
        swarm.take_counts()
        for edge in between:
            swarm.link(edge)
        took = await swarm.until_known(versions, limit_s=600)
        sent, _, _ = swarm.take_counts()
        step(f"two halves apart for {APART_S:.0f} s agree {took:.1f} s after {len(between)} links are back, "
             f"{statistics.mean(sent) / 1e6:.2f} MB sent each")  # fmt: skip

        chosen = set(chance.sample(range(nodes), int(nodes * RESTARTED)))
        cut = [edge for edge in swarm.edges if chosen.intersection(edge)]
        for edge in cut:
            swarm.unlink(edge)
        await asyncio.sleep(3)  # as long as a process takes to be back
        for at in chosen:
            swarm.heralds[at].cancel()
            swarm.stations[at] = wire.add(at + 1, bus=Silent())
            swarm.say(at)
        versions = swarm.versions()
        for edge in cut:
            swarm.link(edge)
        took = await swarm.until_known({at: versions[at] for at in chosen}, limit_s=600)
        first = took
        took += await swarm.until_known(versions, by=chosen, limit_s=600)
        step(f"{len(chosen)} nodes restart: everybody knows of it after {first:.1f} s, they everybody after {took:.1f} s")
        for task in swarm.heralds.values():
            task.cancel()


async def check(count: int) -> None:
    """What reading a record costs one node."""
    network = NETWORK.network
    table = FactTable(
        own=key_of(count + 1).node, network=lambda: network, revoked=lambda _: False, bare=lambda _: False,
        linked=lambda _: False, clock=seeded_world(1).clock,
    )  # fmt: skip

    def records(version: int) -> list[bytes]:
        keys = [key_of(number) for number in range(1, count + 1)]
        shown = [certificates.encode(certificate_of(key)) for key in keys]
        said = [summary_of(key.node, version=version) for key in keys]
        return [
            facts.make(key, one, network=network, certificate=certificate, boot=bytes(8))
            for key, one, certificate in zip(keys, said, shown, strict=True)
        ]

    first, newer = records(1), records(2)
    for label, data in (("of a node not known", first), ("heard before", first), ("newer, the certificate the same", newer)):
        began = time.perf_counter()
        for one in data:
            table.hear(one, age_s=0)
        print(f"a record {label}: {(time.perf_counter() - began) / count * 1e6:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--links", type=int, default=8, help="of each node, on average")
    parser.add_argument("--minutes", type=float, default=1.0, help="virtual, for each of the two rates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="measure what reading a record costs, and nothing else")
    options = parser.parse_args()
    if options.check:
        asyncio.run(check(1000))
        return
    for module, name in ((facts, "decode"), (certificates, "decode")):
        setattr(module, name, remembering(getattr(module, name), lambda data: data))
    for name in ("is_signed", "read_summary"):
        setattr(facts, name, remembering(getattr(facts, name), lambda record: record.data))
    certificates.verify = remembering(certificates.verify, lambda certificate: certificate)
    gc.set_threshold(100_000, 50, 1000)  # a million entries, and hardly a cycle among them
    selector = VirtualTime()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    loop.run_until_complete(measure(options.nodes, options.links, options.minutes, options.seed))
    loop.close()


if __name__ == "__main__":
    main()
