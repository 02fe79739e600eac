"""`/metrics`: what this node counts and measures, for Prometheus. docs/monitoring.md is about its use.

Everything is read when somebody asks; nothing is counted here but facts of the bus and how late the event loop is. Labels
are few: outcomes and purposes of ours, nodes by the short form of their id, models up to a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from aiohttp import web

from swarmd import __version__
from swarmd.api.calls import Call
from swarmd.api.exposition import CONTENT_TYPE, Family, Labels, counter, exposition, gauge, histogram
from swarmd.api.ports import (
    InMemory,
    Ledger,
    LiveReplies,
    Machine,
    Models,
    ProviderCounts,
    Running,
    Sockets,
    StoredResponses,
    Tallies,
    Traffic,
    Updates,
    WorkerReading,
)
from swarmd.domain.events import ShardRejected, ShardStored
from swarmd.domain.ids import short
from swarmd.domain.peers import Purpose
from swarmd.kit.bus import EventBus, Inbox
from swarmd.kit.service import Ready
from swarmd.kit.tallies import Histogram
from swarmd.kit.world import Clock

MODELS_LIMIT: Final = 32  # with a label of their own; the others together are `other`. More are never in memory at once
PEERS_LIMIT: Final = 64  # likewise, the first ones by id; others are not shown one by one
OTHER: Final = "other"
LAG_EVERY_S: Final = 1.0
LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SOURCES: Final = ("hub", "peer", "file")
STATES: Final = ("ready", "restarting", "stopped")


class Metrics:
    """A service, and the handler of `GET /metrics`."""

    name = "metrics"

    def __init__(
        self,
        *,
        tallies: Tallies,
        running: Running,
        workers: InMemory,
        traffic: Traffic,
        models: Models,
        machine: Machine,
        providers: ProviderCounts,
        ledger: Ledger,
        stored: StoredResponses,
        replies: LiveReplies,
        sockets: Sockets,
        updates: Updates,
        bus: EventBus,
        clock: Clock,
    ) -> None:
        self._tallies, self._running, self._workers, self._traffic = tallies, running, workers, traffic
        self._models, self._machine, self._bus, self._clock = models, machine, bus, clock
        self._providers, self._ledger, self._responses, self._replies = providers, ledger, stored, replies
        self._sockets, self._updates = sockets, updates
        self._began = clock.monotonic()
        self._lag = Histogram(LAG_S)
        self._stored = dict.fromkeys(SOURCES, 0)
        self._rejected = 0
        self._inbox: Inbox[ShardStored | ShardRejected] | None = None

    async def run(self, ready: Ready) -> None:
        with self._bus.subscribe(ShardStored, ShardRejected) as self._inbox:
            ready()
            while True:
                due = self._clock.ticks() + LAG_EVERY_S
                await asyncio.sleep(LAG_EVERY_S)
                self._lag.add(max(0.0, self._clock.ticks() - due))
                self._count()

    async def show(self, _call: Call) -> web.Response:
        self._count()
        families = [*self._requests(), *self._steps(), *self._memory(), *self._links(), *self._node()]
        body = exposition([*families, *self._around(await self._responses.count())])
        return web.Response(body=body.encode(), headers={"content-type": CONTENT_TYPE})

    def _count(self) -> None:
        for fact in self._inbox.drain() if self._inbox is not None else ():
            match fact:
                case ShardStored(size_bytes=size, source=source, hub=hub):
                    self._stored["hub" if hub else "file" if source is None else "peer"] += size
                case ShardRejected():
                    self._rejected += 1

    def _requests(self) -> Iterator[Family]:
        t = self._tallies
        yield Family(
            "swarmd_requests_total", "counter", "Requests of clients that have ended, by how.",
            [({"outcome": outcome}, count) for outcome, count in t.requests.items()],
        )  # fmt: skip
        yield gauge("swarmd_requests_running", "Requests that have a place now.", self._running.active)
        yield gauge("swarmd_requests_waiting", "Requests that wait for a place.", self._running.waiting)
        yield histogram("swarmd_queue_seconds", "How long requests, and texts of embeddings, waited for a place.", t.queue_s)
        yield histogram("swarmd_prefill_seconds", "From the first step to the first token.", t.prefill_s)
        yield histogram(
            "swarmd_time_to_first_token_seconds", "From the arrival of a request to its first token.", t.first_token_s
        )
        yield histogram("swarmd_token_seconds", "Between two tokens of a reply.", t.token_s)
        yield counter("swarmd_prompt_tokens_total", "Tokens of prompts, cached ones too.", t.prompt_tokens)
        yield counter("swarmd_cached_tokens_total", "Tokens that no stage had to compute again.", t.cached_tokens)
        yield counter("swarmd_completion_tokens_total", "Tokens of replies.", t.completion_tokens)
        yield counter("swarmd_embedded_tokens_total", "Tokens of texts that became vectors.", t.embedded_tokens)
        yield counter("swarmd_proposed_tokens_total", "Tokens guessed and computed along with others.", t.proposed_tokens)
        yield counter("swarmd_accepted_tokens_total", "Guessed tokens that were right.", t.accepted_tokens)
        yield counter("swarmd_resumes_total", "Times that lost stages of a request were replaced.", t.resumes)

    def _steps(self) -> Iterator[Family]:
        t = self._tallies
        yield histogram("swarmd_step_link_seconds", "Of a decode step outside all nodes: the wire, once around.", t.link_s)
        yield counter("swarmd_step_hops_total", "Ways between two nodes in those steps.", t.hops)
        named = [({"node": OTHER if node is None else short(node)}, stage) for node, stage in t.stages.items()]
        yield Family(
            "swarmd_stage_compute_seconds", "histogram", "Of a decode step in a node's engine, by node.",
            [(labels, stage.compute_s) for labels, stage in named],
        )  # fmt: skip
        yield Family(
            "swarmd_stage_node_seconds", "histogram", "Of a decode step from arrival at a node to departure, by node.",
            [(labels, stage.node_s) for labels, stage in named],
        )  # fmt: skip
        yield histogram("swarmd_batch_steps", "Users' steps in one batch of the workers here, prompts aside.", t.batch_steps)
        yield counter("swarmd_computed_rows_total", "Rows that this node's workers computed, for whomever.", t.rows)
        yield counter("swarmd_compute_seconds_total", "Time of this node's workers in the engine.", t.compute_s)
        yield gauge("swarmd_stage_sessions", "Stages that run here now, whoever's.", self._running.stage_sessions)
        yield counter(
            "swarmd_served_rows_total", "Rows run for other nodes' requests that have ended.", self._running.forwards_served
        )

    def _memory(self) -> Iterator[Family]:
        statuses = self._workers.statuses()
        yield counter("swarmd_worker_deaths_total", "Workers that ended without being asked.", self._tallies.worker_deaths)
        states = [status.state for status in statuses]
        yield Family(
            "swarmd_workers", "gauge", "Worker processes, by state.",
            [({"state": state}, states.count(state)) for state in STATES],
        )  # fmt: skip

        def by_model(name: str, help: str, of: Callable[[WorkerReading], int]) -> Family:
            return Family(name, "gauge", help, _few((status.model, of(status)) for status in statuses))

        yield by_model("swarmd_loaded_shards", "Shards in memory.", lambda status: len(status.shards))
        yield by_model("swarmd_loaded_bytes", "Forecast of what they take, caches included.", lambda one: one.shard_bytes)
        yield by_model("swarmd_worker_resident_bytes", "Memory of the worker process.", lambda one: one.rss_bytes)
        yield by_model("swarmd_cache_cells", "Tokens that the caches of a worker hold.", lambda one: one.cells)
        yield by_model("swarmd_cache_cells_used", "Of those, promised to sequences.", lambda one: one.cells_used)
        held = sum(len(self._models.held(model)) for model in self._models.models())
        yield gauge("swarmd_shards_held", "Shards on this node's disk.", held)

    def _links(self) -> Iterator[Family]:
        linked = sorted((view for view in self._traffic.views() if view.connected), key=lambda view: view.record.node)
        yield gauge("swarmd_peers_linked", "Members this node has a link to.", len(linked))
        kinds = [(line.purpose, "direct" if line.via is None else "relayed") for line in self._traffic.lines()]
        yield Family(
            "swarmd_links", "gauge", "Connections that are up, by purpose and path.",
            [
                ({"purpose": purpose.name.lower(), "path": path}, kinds.count((purpose, path)))
                for purpose in Purpose
                for path in ("direct", "relayed")
            ],
        )  # fmt: skip
        yield Family(
            "swarmd_peer_round_trip_seconds", "gauge", "Smoothed round trip to a linked member.",
            [
                ({"peer": short(view.record.node)}, view.rtt_ms / 1e3)
                for view in linked[:PEERS_LIMIT]
                if view.rtt_ms is not None
            ],
        )  # fmt: skip
        traffic = self._traffic.traffic()
        yield Family(
            "swarmd_link_bytes_total", "counter", "Bytes over links, by purpose and direction.",
            [
                ({"purpose": purpose.name.lower(), "direction": direction}, traffic.get(purpose, (0, 0))[which])
                for purpose in Purpose
                for which, direction in enumerate(("in", "out"))
            ],
        )  # fmt: skip

    def _node(self) -> Iterator[Family]:
        yield Family(
            "swarmd_stored_bytes_total", "counter", "Bytes of shards stored here, by where the last ones came from.",
            [({"source": source}, size) for source, size in self._stored.items()],
        )  # fmt: skip
        yield counter("swarmd_shards_rejected_total", "Chunks and shards that did not match their hash.", self._rejected)
        yield Family("swarmd_build_info", "gauge", "The running version.", [({"version": __version__}, 1)])
        yield gauge("swarmd_uptime_seconds", "Since the start of this node.", self._clock.monotonic() - self._began)
        resident = self._machine.snapshot().process_rss_bytes
        yield gauge("swarmd_resident_bytes", "Memory of the node and its workers together.", resident)
        yield histogram("swarmd_event_loop_lag_seconds", "How late the event loop wakes a task.", self._lag)


    def _around(self, stored: int) -> Iterator[Family]:
        yield Family(
            "swarmd_provider_requests_total", "counter", "Requests to providers that have ended, by how.",
            [
                ({"provider": provider, "outcome": outcome}, count)
                for provider, outcomes in self._providers.by_provider.items()
                for outcome, count in outcomes.items()
            ],
        )  # fmt: skip
        ahead, behind = self._replies.under_way()
        yield Family(
            "swarmd_responses_running", "gauge", "Replies of the Responses API that are made or wait, by where.",
            [({"where": "foreground"}, ahead), ({"where": "background"}, behind)],
        )  # fmt: skip
        yield gauge("swarmd_responses_stored", "Responses in the store.", stored)
        account = self._ledger.account()
        yield gauge("swarmd_credits_balance", "Credits of this node, by its own books.", account.balance)
        yield counter("swarmd_credits_earned_total", "Credits earned, since the node has books.", account.earned)
        yield counter(
            "swarmd_credits_spent_total", "Credits spent or set aside, those that came back too.", account.spent
        )
        yield gauge("swarmd_live_sockets", "Dashboards that have a socket now.", self._sockets.watching)
        update = self._updates.state()
        yield gauge("swarmd_update_available", "1 where a newer version is known.", int(update.info is not None))
        yield gauge("swarmd_update_error", "1 where the last look for versions failed.", int(update.last_error is not None))


def _few(figures: Iterable[tuple[str, int]]) -> Sequence[tuple[Labels, float]]:
    """By model; beyond MODELS_LIMIT together."""
    found: dict[str, int] = {}
    for model, figure in figures:
        key = model if model in found or len(found) < MODELS_LIMIT else OTHER
        found[key] = found.get(key, 0) + figure
    return [({"model": model}, figure) for model, figure in found.items()]
