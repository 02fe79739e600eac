"""A swarm that looks after itself, in virtual time; takes some minutes and draws `docs/autopilot.svg`.

    python -m tools.autopilot_simulation [--nodes 50] [--models 20] [--hours 24] [--seed 1] [--svg docs/autopilot.svg]

Real: `economy.steward.Steward` in every node, as a service of its own, with its proposals, notes, pauses and tables, and
the rules of trust. Not real: links (whoever is there can be fetched from, at a pace of its own), files, workers, gossip: a
change of one node is seen by each other one after a delay of its own, 0.2 to 10 s, and a node that leaves is missed after
5 to 15 s. Nobody tells what is on its way to it, which is the harder case.

Nodes leave for good, leave and come back with their shards, and join, until the churn ends; every hour other models are
asked for. The last hours are calm. Checked, each minute, and at the end (the sentences of `Verdict.failures`).
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import random
import selectors
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from swarmd.config.settings import AutoManageSettings, NodeSettings, ResourcesSettings, Settings
from swarmd.domain.events import PeerConnected, PeerDisconnected, ShardDropped, ShardStored, SummaryReceived
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import Holding, ModelDemand, NodeSummary, PeerRecord, PeerView
from swarmd.domain.refusals import NoCoverage, NotFound, Refusal
from swarmd.domain.shards import Acquisition, Transfer, TransferState
from swarmd.economy.shelf import Shelved
from swarmd.economy.steward import MEGABYTE, Steward
from swarmd.economy.trust import TrustRecord, discovered, shown, told
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import seeded_world
from tests.fakes.inline_sqlite import inline_database

HOUR = 3600.0
WITHIN_S = 1800.0
"""A demanded model has two copies of each shard so long after it was first asked for, or after the last node that left."""
CALM_S = HOUR  # the end, in which nothing may move any more
AGAIN_S = HOUR  # within which nobody fetches what it dropped


class VirtualTime(selectors.SelectSelector):
    """A selector that waits for nothing: the loop's clock jumps instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self.now += max(0.0, timeout)
        return []


@dataclass(frozen=True, kw_only=True)
class Terms:
    nodes: int = 50
    models: int = 20
    hours: float = 24.0
    churn_from_h: float = 4.0
    churn_to_h: float = 14.0
    seed: int = 1
    away_for_good: int = 10
    away_for_a_while: int = 15
    joining: int = 10
    shards: tuple[int, int] = (2, 12)
    shard_mb: tuple[int, int] = (200, 600)
    disks_mb: tuple[int, ...] = (12_000, 25_000, 50_000, 100_000, 200_000)


@dataclass(frozen=True)
class SimModel:
    model: ModelId
    layout: str
    sizes: tuple[int, ...]


@dataclass
class Sample:
    at: float
    covered: float
    """Share of the demanded shards with a copy somewhere."""
    safe: float
    """With two."""
    least: int
    median: float
    moves: int
    nodes: int


@dataclass
class Verdict:
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    fetches: int = 0
    drops: int = 0
    most_moves: int = 0
    """Of one node in one hour."""
    again: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """Until a demanded shard had two copies again."""
    calm_moves: int = 0
    last_fetch_h: float = 0.0
    last_drop_h: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)


class SimNode:
    """One machine: a disk, a line and a steward. Its shards stay when it is switched off."""

    def __init__(self, swarm: SimSwarm, number: int, disk_mb: int, contribution: str) -> None:
        self.swarm, self.number = swarm, number
        self.id = NodeId(f"{number + 1:064x}")
        self.world = seeded_world(1000 * swarm.terms.seed + number)
        self.bus = EventBus()
        self.settings = Settings(
            node=NodeSettings(contribution=contribution), resources=ResourcesSettings(max_disk_mb=disk_mb),
            auto_manage=AutoManageSettings(),
        )  # fmt: skip
        self.disk_bytes = disk_mb * MEGABYTE
        self.bytes_per_s = swarm.chance.choice((5, 12, 30)) * 1e6
        self.delay_s = swarm.chance.uniform(0.2, 10.0)
        self.missed_s = swarm.chance.uniform(5.0, 15.0)
        self.held: dict[ModelId, set[int]] = {}
        self.pinned: set[ModelId] = set()
        self.jobs: dict[ModelId, Acquisition] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.asked: dict[ModelId, int] = {}
        self.told: list[tuple[float, NodeSummary]] = []
        self.up = False
        self.gone_at = -HOUR
        self.trusted: dict[ModelId, TrustRecord] = {}
        self.moves: deque[float] = deque(maxlen=10_000)
        self.dropped_at: dict[ShardRef, float] = {}
        self.stack = AsyncExitStack()

    # -- as the node's own parts

    def shelf(self) -> tuple[Shelved, ...]:
        return tuple(
            Shelved(
                model=one.model, name=one.model, layout=one.layout, sizes=one.sizes, pinned=one.model in self.pinned,
                held=frozenset(self.held.get(one.model, ())),
            )
            for one in self.swarm.models
        )  # fmt: skip

    def peers(self) -> tuple[PeerView, ...]:
        now = self.swarm.now
        views: list[PeerView] = []
        for other in self.swarm.nodes:
            if other is self or not (other.up or now - other.gone_at < other.missed_s):
                continue
            summary = other.summary_at(now - self.delay_s)
            if summary is not None:
                views.append(other.view_of(summary))
        return tuple(views)

    def summary_at(self, moment: float) -> NodeSummary | None:
        place = bisect.bisect_right(self.told, moment, key=lambda one: one[0])
        return self.told[place - 1][1] if place else None

    def view_of(self, summary: NodeSummary) -> PeerView:
        record = PeerRecord(node=self.id, endpoints=(), last_seen=None)
        return PeerView(record=record, connected=True, summary=summary)

    def demand(self) -> tuple[ModelDemand, ...]:
        return tuple(ModelDemand(model=model, requests=count) for model, count in sorted(self.asked.items()) if count)

    def trust(self, model: ModelId) -> TrustLevel:
        now = self.swarm.now
        record = told(self.trusted.get(model) or discovered(now), requests=self.swarm.demand.get(model, 0), now=now)
        self.trusted[model] = record
        return shown(record, pinned=model in self.pinned, hosted=bool(self.held.get(model)))

    def used_bytes(self) -> int:
        return sum(self.swarm.sizes[model][index] for model, held in self.held.items() for index in held)

    def room(self) -> int:
        coming = sum(
            self.swarm.sizes[job.model][one.index]
            for job in self.jobs.values()
            for one in job.transfers
            if one.state is TransferState.PENDING
        )
        return self.disk_bytes - self.used_bytes() - coming

    # -- as its desk

    def acquisitions(self) -> tuple[Acquisition, ...]:
        return tuple(self.jobs.values())

    async def acquire(
        self, model: ModelId, indices: tuple[int, ...] | None, trigger: str = "user"
    ) -> Acquisition | Refusal:
        assert indices
        for index in indices:
            if not self.swarm.sources(model, index, but=self):
                self.swarm.verdict.refused["no source"] += 1
                return NoCoverage(model=model, missing=(index,), shard_count=len(self.swarm.sizes[model]))
        before = self.jobs.get(model)
        kept = [one for one in before.transfers if one.state is TransferState.PENDING] if before else []
        added = [
            Transfer(
                index=index, state=TransferState.PENDING, done_bytes=0, total_bytes=self.swarm.sizes[model][index],
                source=None,
            )
            for index in indices
        ]  # fmt: skip
        self.jobs[model] = job = Acquisition(
            model=model, state="downloading", reason=None, transfers=(*kept, *added), bytes_per_second=0.0,
            started_at=self.swarm.now, log=(), trigger=trigger,
        )  # fmt: skip
        for index in indices:
            self.swarm.fetched(self, ShardRef(model, index))
            task = asyncio.get_running_loop().create_task(self._bring(ShardRef(model, index)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self.used_bytes() + sum(one.total_bytes for one in job.transfers) > self.disk_bytes:
            self.swarm.fail(f"node {self.number} went over its disk")
        return job

    async def _bring(self, ref: ShardRef) -> None:
        await asyncio.sleep(self.swarm.sizes[ref.model][ref.index] / self.bytes_per_s)
        arrived = bool(self.swarm.sources(ref.model, ref.index, but=self))
        self._settle(ref, TransferState.COMPLETE if arrived else TransferState.FAILED)
        if arrived:
            self.held.setdefault(ref.model, set()).add(ref.index)
            self.bus.publish(ShardStored(shard=ref, size_bytes=1, source=None))
            self.tell()

    def _settle(self, ref: ShardRef, state: TransferState) -> None:
        job = self.jobs[ref.model]
        transfers = tuple(
            replace(one, state=state) if one.index == ref.index and one.state is TransferState.PENDING else one
            for one in job.transfers
        )
        over = all(one.state is not TransferState.PENDING for one in transfers)
        self.jobs[ref.model] = replace(job, transfers=transfers, state="complete" if over else "downloading")

    async def delete_shard(self, ref: ShardRef) -> Refusal | None:
        if ref.index not in self.held.get(ref.model, ()):
            return NotFound(what="it is not here")
        self.held[ref.model].discard(ref.index)
        self.swarm.dropped(self, ref)
        self.bus.publish(ShardDropped(shard=ref))
        self.tell()
        return None

    # -- coming and going

    def tell(self) -> None:
        """A new summary, which others see after their delays."""
        now = self.swarm.now
        summary = NodeSummary(
            node=self.id, version=len(self.told) + 1, software="swarmd/simulated", started_at=0.0, ram_free_bytes=8 << 30,
            ram_total_bytes=16 << 30, demand=self.demand(),
            holdings=tuple(
                Holding(model=model, layout=self.swarm.layouts[model], shards=tuple(sorted(held)))
                for model, held in sorted(self.held.items())
                if held
            ),
        )  # fmt: skip
        self.told.append((now, summary))
        self.swarm.spread(self, SummaryReceived(summary=summary))

    async def start(self) -> None:
        self.up = True
        self.jobs.clear()
        self.dropped_at.clear()  # a steward that starts anew has forgotten it
        db = await self.stack.enter_async_context(inline_database())
        supervisor = await self.stack.enter_async_context(Supervisor(f"node {self.number}", world=self.world))
        self.tell()
        self.steward = Steward(
            node=self.id, region="??", shelf=self.shelf, peers=self.peers, trust=self.trust, demand=self.demand, desk=self,
            room=self.room, used_bytes=self.used_bytes, settings=lambda: self.settings, db=db, bus=self.bus,
            world=self.world,
        )  # fmt: skip
        await self.steward.load()
        await supervisor.start(self.steward)
        self.swarm.spread(self, PeerConnected(node=self.id))

    async def stop(self) -> None:
        self.up, self.gone_at = False, self.swarm.now
        for task in list(self.tasks):
            task.cancel()
        self.asked = {}
        self.swarm.spread(self, PeerDisconnected(node=self.id, reason="it left"), late_s=self.missed_s)
        await self.stack.aclose()


class SimSwarm:
    def __init__(self, terms: Terms) -> None:
        self.terms, self.chance, self.verdict = terms, random.Random(terms.seed), Verdict()
        self.models = tuple(self._model(number) for number in range(terms.models))
        self.sizes = {one.model: one.sizes for one in self.models}
        self.layouts = {one.model: one.layout for one in self.models}
        self.demand: dict[ModelId, int] = {}
        self.demanded_since: dict[ModelId, float] = {}
        self.nodes: list[SimNode] = []
        self.last_loss = 0.0
        self.thin_since: dict[ShardRef, float] = {}
        self.moves = 0

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def _model(self, number: int) -> SimModel:
        count = self.chance.randint(*self.terms.shards)
        size = self.chance.randint(*self.terms.shard_mb) * MEGABYTE
        return SimModel(ModelId(f"model-{number:02}"), f"{number:032x}", (size,) * count)

    def fail(self, sentence: str) -> None:
        if len(self.verdict.failures) < 20:
            self.verdict.failures.append(f"{self.now / HOUR:.2f} h: {sentence}")

    def sources(self, model: ModelId, index: int, *, but: SimNode) -> list[SimNode]:
        return [one for one in self.nodes if one.up and one is not but and index in one.held.get(model, ())]

    def spread(self, origin: SimNode, fact: object, *, late_s: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        for one in self.nodes:
            if one.up and one is not origin:
                loop.call_later(late_s + one.delay_s, one.bus.publish, fact)

    def fetched(self, node: SimNode, ref: ShardRef) -> None:
        self.verdict.fetches += 1
        self.verdict.last_fetch_h = self.now / HOUR
        self.moves += 1
        node.moves.append(self.now)
        if self.now - node.dropped_at.get(ref, -AGAIN_S) < AGAIN_S:
            self.verdict.again += 1

    def dropped(self, node: SimNode, ref: ShardRef) -> None:
        self.verdict.drops += 1
        self.verdict.last_drop_h = self.now / HOUR
        self.moves += 1
        node.moves.append(self.now)
        node.dropped_at[ref] = self.now
        if ref.model in self.demand and len(self.sources(ref.model, ref.index, but=node)) < 2:
            self.fail(f"node {node.number} dropped shard {ref.index} of {ref.model} and left fewer than two")

    # -- the story

    async def run(self) -> Verdict:
        terms = self.terms
        for number in range(terms.nodes):
            self._add(number)
        for one in self.models:  # somebody brought each model: half of them stay on that machine whatever happens
            owner = self.chance.choice([node for node in self.nodes if node.room() > sum(one.sizes)])
            owner.held[one.model] = set(range(len(one.sizes)))
            if self.chance.random() < 0.5:
                owner.pinned.add(one.model)
        for node in self.nodes:
            await node.start()
        story = deque(sorted(self._story()))  # at most as many as the terms name
        self._ask()
        minutes = int(terms.hours * 60)
        for minute in range(1, minutes + 1):
            while story and story[0][0] <= minute:
                await self._happen(story.popleft()[1])
            if minute % 60 == 0 and minute < terms.churn_to_h * 60:
                self._ask()
            await asyncio.sleep(60.0)
            self._look(minute)
        self._judge()
        for node in self.nodes:
            if node.up:
                await node.stop()
        return self.verdict

    def _add(self, number: int) -> SimNode:
        disk_mb = self.chance.choice(self.terms.disks_mb)
        node = SimNode(self, number, disk_mb, self.chance.choice(("minimal", "moderate", "maximum")))
        self.nodes.append(node)
        return node

    def _story(self) -> Iterator[tuple[int, str]]:
        terms = self.terms
        kinds = ["leave"] * terms.away_for_good + ["pause"] * terms.away_for_a_while + ["join"] * terms.joining
        self.chance.shuffle(kinds)
        first, last = terms.churn_from_h * 60, terms.churn_to_h * 60
        for place, kind in enumerate(kinds):
            yield int(first + (last - first) * place / len(kinds)), kind

    async def _happen(self, kind: str) -> None:
        self.verdict.events.append((self.now, kind))
        if kind == "join":
            await self._add(len(self.nodes)).start()
            return
        node = self.chance.choice([one for one in self.nodes if one.up])
        self.last_loss = self.now
        await node.stop()
        if kind == "pause":
            loop = asyncio.get_running_loop()
            loop.call_later(self.chance.uniform(300, 3600), lambda: loop.create_task(self._return(node)))

    async def _return(self, node: SimNode) -> None:
        if not node.up:
            await node.start()

    def _ask(self) -> None:
        """Other models are asked for, at a few nodes each; only such as the swarm has."""
        there = [one for one in self.models if all(self._holders(one.model))]
        chosen = self.chance.sample(there, min(len(there), self.terms.models // 2))
        self.demand = {one.model: self.chance.choice((3, 5, 15, 40, 120)) for one in chosen}
        self.demanded_since = {model: self.demanded_since.get(model, self.now) for model in self.demand}
        up = [node for node in self.nodes if node.up]
        for node in self.nodes:
            node.asked = {}
        for model, count in self.demand.items():
            self.chance.choice(up).asked[model] = count
        for node in up:
            node.tell()

    def _holders(self, model: ModelId) -> list[int]:
        counts = [0] * len(self.sizes[model])
        for node in self.nodes:
            if node.up:
                for index in node.held.get(model, ()):
                    counts[index] += 1
        return counts

    # -- looking on

    def _look(self, minute: int) -> None:
        now = self.now
        asked = {model for node in self.nodes if node.up for model in node.asked}
        # Who asked has left: nobody wants that model any more as far as the swarm can know.
        self.demand = {model: count for model, count in self.demand.items() if model in asked}
        counts = {model: self._holders(model) for model in self.demand}
        every = [count for held in counts.values() for count in held]
        for model, held in counts.items():
            for index, count in enumerate(held):
                self._thin(ShardRef(model, index), count, now)
        for ref in [ref for ref in self.thin_since if ref.model not in self.demand]:
            del self.thin_since[ref]
        self.verdict.samples.append(
            Sample(
                now,
                sum(count > 0 for count in every) / max(1, len(every)),
                sum(count > 1 for count in every) / max(1, len(every)),
                min(every, default=0), statistics.median(every) if every else 0.0, self.moves,
                sum(node.up for node in self.nodes),
            )
        )  # fmt: skip
        if now > self.terms.hours * HOUR - CALM_S:
            self.verdict.calm_moves += self.moves
        self.moves = 0
        for node in self.nodes:
            used = sum(
                self.sizes[ref.model][ref.index] for ref in (node.steward._fetched if node.up else ())  # noqa: SLF001
            )
            if node.up and used > node.steward.plan().budget_bytes and minute % 30 == 0:
                self.fail(f"node {node.number} went over its budget")
            while node.moves and now - node.moves[0] > HOUR:
                node.moves.popleft()
            self.verdict.most_moves = max(self.verdict.most_moves, len(node.moves))

    def _thin(self, ref: ShardRef, count: int, now: float) -> None:
        """Of a demanded shard: since when it has had fewer than two copies."""
        if count >= 2:
            since = self.thin_since.pop(ref, None)
            if since is not None:
                self.verdict.slowest_s = max(self.verdict.slowest_s, now - since)
            return
        since = self.thin_since.setdefault(ref, now)
        if count == 0 and self.demanded_since[ref.model] < now - WITHIN_S:
            self.fail(f"nobody has shard {ref.index} of {ref.model}")
        elif now - max(since, self.last_loss) > WITHIN_S:
            self.fail(f"shard {ref.index} of {ref.model} has had {count} copies for {(now - since) / 60:.0f} min")

    def _judge(self) -> None:
        verdict = self.verdict
        if verdict.calm_moves:
            self.fail(f"{verdict.calm_moves} moves in the last {CALM_S / 60:.0f} min")
        if verdict.again:
            self.fail(f"{verdict.again} times a node fetched what it had dropped within {AGAIN_S / 60:.0f} min")


def simulate(terms: Terms) -> Verdict:
    """In a loop of its own, in virtual time."""
    selector = VirtualTime()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(SimSwarm(terms).run())
    finally:
        loop.close()


# -- the picture

WIDTH, LEFT, RIGHT = 860, 64, 16


def picture(verdict: Verdict, terms: Terms) -> str:
    """Three graphs over the hours: what is there, how many copies, how many moves."""
    hours = terms.hours
    per_hour = [sum(one.moves for one in verdict.samples[at : at + 15]) * 4 for at in range(0, len(verdict.samples), 15)]
    most = max([1, *per_hour])
    copies = max([1.0, *(one.median for one in verdict.samples)])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 560" role="img" aria-labelledby="t d" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '  <title id="t">The autopilot in a simulated swarm</title>',
        f'  <desc id="d">{terms.nodes} nodes and {terms.models} models over {hours:g} hours. Shares of demanded shards with '
        "one and with two copies, the smallest and the median number of copies, and moves an hour.</desc>",
        "  <style>",
        "    .frame { fill: none; stroke: #5b6472 } .churn { fill: #5b6472; opacity: .12 }",
        "    .text { fill: #1c2430 } .small { fill: #4a5361; font-size: 12px }",
        "    .one { stroke: #3f6fd8; fill: none; stroke-width: 2 } .two { stroke: #b04a00; fill: none; stroke-width: 2 }",
        "    .bar { fill: #3f6fd8 }",
        "    @media (prefers-color-scheme: dark) {",
        "      .frame { stroke: #8b96a8 } .churn { fill: #8b96a8; opacity: .2 }",
        "      .text { fill: #e8ecf2 } .small { fill: #aab4c3 }",
        "      .one { stroke: #7aa2ff } .two { stroke: #ff9d5c } .bar { fill: #7aa2ff }",
        "    }",
        "  </style>",
    ]
    across = (WIDTH - LEFT - RIGHT) / hours

    def frame(top: int, height: int, title: str, high: str) -> None:
        start, end = LEFT + terms.churn_from_h * across, LEFT + terms.churn_to_h * across
        parts.append(f'  <rect class="churn" x="{start:.1f}" y="{top}" width="{end - start:.1f}" height="{height}"/>')
        parts.append(f'  <rect class="frame" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{height}"/>')
        parts.append(f'  <text class="text" x="{LEFT}" y="{top - 8}">{title}</text>')
        parts.append(f'  <text class="small" x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{high}</text>')
        parts.append(f'  <text class="small" x="{LEFT - 6}" y="{top + height}" text-anchor="end">0</text>')

    def line(kind: str, values: list[float], high: float, top: int, height: int) -> None:
        points, last = [], None
        for sample, value in zip(verdict.samples, values, strict=True):
            if value != last:  # a corner at each change is all that a step has
                x = LEFT + sample.at / HOUR * across
                if last is not None:
                    points.append(f"{x:.1f},{top + height * (1 - last / high):.1f}")
                points.append(f"{x:.1f},{top + height * (1 - value / high):.1f}")
            last = value
        points.append(f"{LEFT + hours * across:.1f},{top + height * (1 - (last or 0) / high):.1f}")
        parts.append(f'  <polyline class="{kind}" points="{" ".join(points)}"/>')

    frame(30, 120, "Demanded shards with one copy (blue) and with two (orange); shaded: nodes come and go", "100 %")
    line("two", [one.safe for one in verdict.samples], 1.0, 30, 120)
    line("one", [one.covered for one in verdict.samples], 1.0, 30, 120)
    frame(200, 140, "Copies of a demanded shard: median (blue), fewest (orange)", f"{copies:g}")
    line("one", [one.median for one in verdict.samples], copies, 200, 140)
    line("two", [float(one.least) for one in verdict.samples], copies, 200, 140)
    frame(390, 120, f"Fetches and drops an hour, in all of {terms.nodes} nodes", str(most))
    for place, count in enumerate(per_hour):
        height = 120 * count / most
        if count:
            parts.append(
                f'  <rect class="bar" x="{LEFT + place * across / 4:.1f}" y="{510 - height:.1f}" '
                f'width="{across / 4 - 1:.1f}" height="{height:.1f}"/>'
            )
    for hour in range(0, int(hours) + 1, 2):
        x = LEFT + hour * across
        parts.append(f'  <text class="small" x="{x:.1f}" y="528" text-anchor="middle">{hour} h</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def report(verdict: Verdict) -> str:
    quarter = [sum(one.moves for one in verdict.samples[at : at + 60]) for at in range(0, len(verdict.samples), 60)]
    lines = [
        f"fetches {verdict.fetches}, drops {verdict.drops}, refused {dict(verdict.refused)}, events {len(verdict.events)}",
        f"moves an hour in all: {quarter}",
        f"most moves of one node in an hour: {verdict.most_moves}",
        f"slowest until two copies: {verdict.slowest_s / 60:.0f} min",
        f"fetched again what was dropped: {verdict.again}; moves in the last hour: {verdict.calm_moves}",
        f"last fetch at {verdict.last_fetch_h:.1f} h, last drop at {verdict.last_drop_h:.1f} h",
        *(verdict.failures or ["all checks hold"]),
    ]
    return "\n".join(lines)


def main() -> None:
    terms = Terms()
    parser = argparse.ArgumentParser(description="The autopilot of many nodes in virtual time.")
    parser.add_argument("--nodes", type=int, default=terms.nodes)
    parser.add_argument("--models", type=int, default=terms.models)
    parser.add_argument("--hours", type=float, default=terms.hours)
    parser.add_argument("--seed", type=int, default=terms.seed)
    parser.add_argument("--svg", type=Path, help="where the picture goes")
    options = parser.parse_args()
    scale = options.hours / terms.hours
    terms = replace(
        terms, nodes=options.nodes, models=options.models, hours=options.hours, seed=options.seed,
        churn_from_h=terms.churn_from_h * scale, churn_to_h=terms.churn_to_h * scale,
    )  # fmt: skip
    began = time.perf_counter()
    verdict = simulate(terms)
    print(report(verdict))
    print(f"{time.perf_counter() - began:.0f} s")
    if options.svg:
        options.svg.write_text(picture(verdict, terms))
    sys.exit(bool(verdict.failures))


if __name__ == "__main__":
    main()
