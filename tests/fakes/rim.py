"""The floors below the HTTP rim, small enough to set up in a line, and the rim itself on a real local port."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import aiohttp
import msgspec
from aiohttp import web

from swarmd.api.adapters import AdapterHandlers
from swarmd.api.answers import Answers
from swarmd.api.autopilot import AutopilotHandlers
from swarmd.api.credits import CreditHandlers
from swarmd.api.downloads import DownloadHandlers
from swarmd.api.embeddings import EmbeddingHandlers
from swarmd.api.encrypted import EncryptedHandlers
from swarmd.api.fresh import Fresh, News
from swarmd.api.guard import Gate
from swarmd.api.history import History
from swarmd.api.live_settings import LiveSettings
from swarmd.api.mcp import McpHandlers
from swarmd.api.mcp_sessions import Sessions
from swarmd.api.mcp_tools import McpTools
from swarmd.api.members import MemberHandlers
from swarmd.api.messages import MessagesHandlers
from swarmd.api.metrics import Metrics
from swarmd.api.models import ModelHandlers
from swarmd.api.network import NetworkHandlers
from swarmd.api.node import NodeHandlers
from swarmd.api.openai import OpenAiHandlers
from swarmd.api.openapi import several
from swarmd.api.outlook import Outlook
from swarmd.api.pages import NONCE_LIFE_S, TICKET_LIFE_S, PageHandlers, StaticFile
from swarmd.api.pass_through import PassThrough
from swarmd.api.passes import OneTimePasses
from swarmd.api.providers import ProviderHandlers
from swarmd.api.responses import ResponseHandlers
from swarmd.api.responses_archive import ResponseArchive
from swarmd.api.responses_runs import ResponseRuns
from swarmd.api.route import Route, complete
from swarmd.api.routes import table
from swarmd.api.server import ApiServer
from swarmd.api.status import StatusHandlers
from swarmd.api.storage import StorageHandlers
from swarmd.api.targets import Targets
from swarmd.api.updates import UpdateHandlers
from swarmd.api.ws import LiveFeed
from swarmd.config.loading import Loaded, Origin
from swarmd.config.settings import KEYS, Settings, with_values
from swarmd.domain.adapters import Adapter, AdapterRef, NewAdapter
from swarmd.domain.autopilot import (
    AutopilotPlan,
    Drop,
    Fetch,
    Guard,
    Kept,
    ModelPolicy,
    NotFetched,
    PruneRecord,
    Schedule,
    ShardCount,
)
from swarmd.domain.autopilot import Gate as Gate_
from swarmd.domain.credits import Account, CreditEntry, CreditKind, PeerAccount, Tier
from swarmd.domain.generation import (
    Embedded,
    EmbeddingRequest,
    Finish,
    GenerationFailed,
    GenerationRequest,
    StageTiming,
    TokenChunk,
    Usage,
)
from swarmd.domain.hub import HubPart, HubRepo, HubSource, HubVariant, ModelOrigin, ProbeProgress, ProbeView, RankedRepo
from swarmd.domain.ids import ModelId, NetworkId, NodeId, ShardRef, model_slug
from swarmd.domain.membership import (
    InviteId,
    InviteState,
    InviteView,
    MemberView,
    NetworkCode,
    NewInvite,
    Phase,
    RoleName,
)
from swarmd.domain.models import Manifest, TrustLevel
from swarmd.domain.peers import Endpoint, Holding, LinkView, NodeSummary, PeerRecord, PeerView, Purpose
from swarmd.domain.plans import EncryptedPipeline, PipelinePlan, Stage
from swarmd.domain.refusals import Busy, Invalid, NoCoverage, NotFound, Refusal
from swarmd.domain.regions import RegionView
from swarmd.domain.shards import Acquisition, FoundFile, ModelView, Rescan, ShardView, Transfer, TransferState
from swarmd.domain.updates import UpdateApplied, UpdateInfo, UpdateState, parse_version
from swarmd.inference.tallies import Tallies
from swarmd.inference.workers import WorkerStatus
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, seeded_world
from tests.fakes.inline_sqlite import inline_database_now
from tests.fakes.provider_desk import FakeProviders

KEY = "0123456789abcdef" * 4
OWN = NodeId("a" * 64)
PEER = NodeId("b" * 64)
TINY = ModelId("tiny-q8")
SPREAD = ModelId("spread-q8")
REPO = "owner/Tiny-GGUF"
LAN_CLIENT = "192.168.7.9"


def manifest(model: ModelId, *, layers: int) -> Manifest:
    return Manifest(
        model=model, name=model.upper(), architecture="llama", layer_count=layers, width=64, context_length=4096,
        vocab_size=320, quantization="Q8_0", file_size_bytes=10_000_000, header_size_bytes=1000, header_blake3="0" * 64,
        shard_size_bytes=1 << 29, layout="0" * 32, shards=(), publisher=None, created_at=1_700_000_000, signature="",
    )  # fmt: skip


def model_view(model: ModelId, *holders: tuple[NodeId, ...], loaded: tuple[int, ...] = ()) -> ModelView:
    """One shard of 5 MB and two layers per entry of `holders`."""
    shards = tuple(
        ShardView(
            index=index, size_bytes=5_000_000, layer_start=2 * index, layer_end=2 * index + 2, held=OWN in nodes,
            loaded=index in loaded, holders=nodes,
        )
        for index, nodes in enumerate(holders)
    )  # fmt: skip
    return ModelView(
        model=model, name=model.upper(), manifest=manifest(model, layers=2 * len(holders)), trust=TrustLevel.PINNED,
        shards=shards, holders=tuple(sorted({node for nodes in holders for node in nodes})), architecture_supported=True,
    )  # fmt: skip


def acquisition(model: ModelId, *, state: str = "downloading", done: int = 2_000_000) -> Acquisition:
    transfer = Transfer(index=0, state=TransferState.DOWNLOADING, done_bytes=done, total_bytes=5_000_000, source=PEER)
    return Acquisition(
        model=model, state=state, reason="no peer" if state == "failed" else None, transfers=(transfer,),
        bytes_per_second=1_000_000.0, started_at=1_700_000_000.0, log=("first", "second"), trigger="user",
    )  # fmt: skip


class FakeModels:
    """As `shards.registry.Registry`."""

    def __init__(self) -> None:
        self.known: dict[ModelId, ModelView] = {
            TINY: model_view(TINY, (OWN,), (OWN,), loaded=(0,)),
            SPREAD: model_view(SPREAD, (OWN,), (PEER,)),
        }

    def models(self) -> tuple[ModelId, ...]:
        return tuple(self.known)

    def view(self, model: ModelId, acquisition: Acquisition | None = None) -> ModelView | None:
        found = self.known.get(model)
        return replace(found, acquisition=acquisition) if found else None

    def held(self, model: ModelId) -> tuple[int, ...]:
        found = self.known.get(model)
        return found.held if found else ()

    def holders(self, ref: ShardRef) -> tuple[NodeId, ...]:
        return self.known[ref.model].shards[ref.index].holders


class FakeDesk:
    """As `shards.desk.ShardDesk`."""

    def __init__(self) -> None:
        self.running: dict[ModelId, Acquisition] = {}
        self.says: Refusal | None = None
        self.added: list[Path] = []
        self.shard_sizes: list[int | None] = []
        self.finish = asyncio.Event()
        self.finish.set()
        self.deleted: list[ModelId] = []

    async def add_file(self, path: Path, shard_size_bytes: int | None) -> ModelId | Refusal:
        self.added.append(path)
        self.shard_sizes.append(shard_size_bytes)
        return self.says or TINY

    async def acquire(
        self, model: ModelId, indices: tuple[int, ...] | None, trigger: str = "user"
    ) -> Acquisition | Refusal:
        if self.says:
            return self.says
        self.running[model] = acquisition(model)
        return self.running[model]

    def acquisition(self, model: ModelId) -> Acquisition | None:
        return self.running.get(model)

    def acquisitions(self) -> tuple[Acquisition, ...]:
        return tuple(self.running.values())

    async def cancel(self, model: ModelId) -> Refusal | None:
        return await self._changed(model, "cancelled")

    async def pause(self, model: ModelId) -> Refusal | None:
        return await self._changed(model, "paused")

    async def resume(self, model: ModelId) -> Refusal | None:
        return await self._changed(model, "downloading")

    async def move(self, model: ModelId, place: int) -> Refusal | None:
        if model not in self.running:
            return NotFound(what=f"nothing is being fetched for {model}")
        self.running[model] = replace(self.running[model], place=min(place, len(self.running) - 1))
        return None

    async def _changed(self, model: ModelId, state: str) -> Refusal | None:
        if model not in self.running or self.running[model].state in ("complete", "failed", "cancelled"):
            return NotFound(what=f"nothing is being fetched for {model}")
        self.running[model] = replace(self.running[model], state=state)
        return None

    async def delete_model(self, model: ModelId) -> int | Refusal:
        await self.finish.wait()
        if model not in (TINY, SPREAD):
            return NotFound(what=f"this node knows no model {model}")
        self.deleted.append(model)
        return self.says or 5

    async def delete_shard(self, ref: ShardRef) -> Refusal | None:
        return self.says

    async def rescan(self) -> Rescan:
        lies = FoundFile(path="/models/other.gguf", size_bytes=7, model=ModelId("other"), problem=None)
        return Rescan(models=(TINY,), files=(lies,))


def hub_source(*, repo_id: str = REPO, filename: str = "tiny.Q4_K_M.gguf") -> HubSource:
    part = HubPart(filename=filename, size_bytes=10_000_000, sha256=None, data_offset=1000, virtual_offset=1000)
    return HubSource(repo_id=repo_id, commit="c" * 40, parts=(part,))


def ranked(repo_id: str = REPO, *, score: float = 50.0, fit: float = 1.0, fits_swarm: bool = True) -> RankedRepo:
    variants = tuple(
        HubVariant(filename=f"tiny.{quant}.gguf", size_bytes=size, quant=quant)
        for quant, size in (("Q2_K", 400_000_000), ("Q4_K_M", 668_000_000), ("Q8_0", 1_100_000_000))
    )
    return RankedRepo(
        repo=HubRepo(repo_id=repo_id, downloads=50_000, likes=120, variants=variants, tags=("chat",)),
        recommended="Q4_K_M", recommended_filename="tiny.Q4_K_M.gguf", fits_vram=fit >= 0.6, fits_boomerang=fit >= 0.6,
        fits_shard=fit >= 0.6, fits_swarm=fits_swarm, est_shard_bytes=334_000_000, est_boomerang_bytes=801_600_000,
        replicas=2, score=score, quality=0.671, fit=fit, demand=1.2, size=0.917, cta="needs_more_hosts",
    )  # fmt: skip


class FakeHub:
    """As `shards.hub_desk.HubDesk`; what it fetches is in progress at `desk`."""

    def __init__(self, desk: FakeDesk) -> None:
        self._desk = desk
        self.says: Refusal | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.found: list[RankedRepo] = [ranked()]
        self.origins: dict[ModelId, ModelOrigin] = {}
        self.supported = True

    async def search(self, query: str) -> Sequence[RankedRepo] | Refusal:
        self.asked.append(("search", query))
        return self.says or self.found

    async def probe(self, repo_id: str, filename: str) -> ProbeView | Refusal:
        self.asked.append(("probe", repo_id, filename))
        return self.says or ProbeView(
            model=model_slug(filename), source=hub_source(repo_id=repo_id, filename=filename), total_bytes=668_000_000,
            header_bytes=1_700_000, shard_count=2 if self.supported else 0,
            architecture="llama" if self.supported else "rwkv", architecture_supported=self.supported,
            reason=None if self.supported else "this node runs llama and qwen2, not rwkv", replicas=1,
        )  # fmt: skip

    async def fetch(
        self, repo_id: str, filename: str, *, shards: tuple[int, ...] | None, fair_share: bool, model: ModelId | None
    ) -> Acquisition | Refusal:
        self.asked.append(("fetch", repo_id, filename, shards, fair_share, model))
        if self.says:
            return self.says
        named = model or model_slug(filename)
        self._desk.running[named] = acquisition(named)
        return self._desk.running[named]

    def probing(self) -> tuple[ProbeProgress, ...]:
        return ()

    async def origin(self, model: ModelId) -> ModelOrigin | Refusal:
        self.asked.append(("origin", model))
        return self.says or self.origins.get(model) or NotFound(what=f"no source of model {model} is known")


class FakeMemory:
    """As `inference.workers.Workers`."""

    def __init__(self) -> None:
        self.says: Refusal | None = None
        self.workers: list[WorkerStatus] = []

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return tuple(self.workers)

    def loaded(self, model: ModelId) -> tuple[int, ...]:
        return (0,) if model == TINY else ()

    async def load_shard(self, ref: ShardRef) -> tuple[int, ...] | Refusal:
        return self.says or (ref.index, 0)

    async def unload_shard(self, ref: ShardRef) -> tuple[int, ...] | Refusal:
        return self.says or (2, 1)

    async def unload_model(self, model: ModelId) -> int | Refusal:
        return self.says or 4_096_000_000


PLAN = PipelinePlan(
    model=SPREAD,
    layout="0" * 32,
    stages=(
        Stage(node=OWN, first_shard=0, last_shard=0, layer_start=0, layer_end=2),
        Stage(node=PEER, first_shard=1, last_shard=1, layer_start=2, layer_end=4),
    ),
    predicted_token_ms=20.0,
)
USAGE = Usage(
    prompt_tokens=7,
    completion_tokens=3,
    prefill_ms=12.34,
    decode_ms=40.0,
    stages=(
        StageTiming(node=OWN, layer_start=0, layer_end=2, compute_ms=4.0, node_ms=5.0),
        StageTiming(node=PEER, layer_start=2, layer_end=4, compute_ms=6.0, node_ms=7.0),
    ),
    link_ms=1.5,
)


def script(*texts: str, finish: Finish = Finish.STOP) -> list[TokenChunk]:
    chunks = [TokenChunk(sequence=number, text=text) for number, text in enumerate(texts)]
    return [*chunks, TokenChunk(sequence=len(texts), text="", finish=finish, usage=USAGE)]


class FakePipeline:
    """As `inference.pipeline.Pipeline`: replays a script, and knows who was cancelled."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []
        self.script: Sequence[TokenChunk | Exception | asyncio.Event] = script("Hel", "lo", "!")
        """An exception is raised, an event awaited, where it stands."""
        self.says: Refusal | None = None
        self.left = asyncio.Event()
        """Set when a generation's block is left, for whatever reason."""
        self.active = 0
        self.waiting = self.stage_sessions = 0
        self.requests_served = 1
        self.requests_made = 2
        self.forwards_served = 3
        self.last_tokens_per_second = 12.5

    def latencies_ms(self) -> Sequence[float]:
        return [10.0, 30.0, 20.0]

    async def open(self, request: GenerationRequest) -> FakeGeneration | Refusal:
        self.requests.append(request)
        return self.says or FakeGeneration(self)

    async def count_tokens(self, request: GenerationRequest) -> int | Refusal:
        self.requests.append(request)
        return self.says or sum(len(message.content) for message in request.messages)

    def plan(self, model: ModelId) -> PipelinePlan | Refusal:
        return self.says or PLAN


class FakeGeneration:
    plan = PLAN
    prompt_tokens = USAGE.prompt_tokens
    cached_tokens = USAGE.cached_tokens

    def __init__(self, owner: FakePipeline) -> None:
        self._owner, self._rest = owner, list(owner.script)

    async def __aenter__(self) -> Self:
        self._owner.active += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._owner.active -= 1
        self._owner.left.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        while self._rest:
            step = self._rest.pop(0)
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                return step
        raise StopAsyncIteration


class FakeEmbeddings:
    """Makes vectors of two numbers: the index of the text, and how long it is."""

    def __init__(self) -> None:
        self.requests: list[EmbeddingRequest] = []
        self.refusal: Refusal | None = None

    async def embed(self, request: EmbeddingRequest) -> Embedded | Refusal:
        self.requests.append(request)
        if self.refusal is not None:
            return self.refusal
        vectors = tuple(array("f", (index, len(one))).tobytes() for index, one in enumerate(request.inputs))
        return Embedded(vectors=vectors, tokens=sum(map(len, request.inputs)), nodes=(OWN, PEER))


class FakeEncrypted:
    """As `inference.encrypted.EncryptedPipelines`: of a model with five shards, all of them here."""

    def __init__(self) -> None:
        self.chosen: dict[ModelId, bool] = {}
        self.refusal: Refusal | None = None
        self.shards = 5

    def state(self, model: ModelId) -> EncryptedPipeline | Refusal:
        return self.refusal or EncryptedPipeline(
            chosen=self.chosen.get(model), by_default=False, has_first=True, has_last=True, shard_count=self.shards
        )

    async def choose(self, model: ModelId, *, enabled: bool) -> EncryptedPipeline | Refusal:
        self.chosen[model] = enabled
        return self.state(model)


class FakeAdapters:
    """As `shards.adapters.Adapters`: takes everything, unless it is to refuse."""

    def __init__(self) -> None:
        self.rows: dict[str, Adapter] = {}
        self.asked: list[NewAdapter] = []
        self.says: Refusal | None = None

    def all(self) -> tuple[Adapter, ...]:
        return tuple(self.rows.values())

    def get(self, id: str) -> Adapter | None:
        return self.rows.get(id)

    async def register(self, new: NewAdapter) -> Adapter | Refusal:
        self.asked.append(new)
        if self.says is not None:
            return self.says
        id = new.id or "4f9c1d3e-0000-4000-8000-000000000000"
        self.rows[id] = adapter(id, ModelId(new.base_model), name=new.name, path=new.path)
        return self.rows[id]

    async def remove(self, id: str) -> Adapter | Refusal:
        return self.rows.pop(id, None) or Invalid(what=f"no adapter {id!r} is registered here", param="id")


def adapter(id: str, model: ModelId, *, name: str = "Mine", path: str = "/a/b.safetensors") -> Adapter:
    ref = AdapterRef(digest=bytes([7]) * 32, size_bytes=1000)
    return Adapter(id=id, name=name, base_model=model, rank=16, alpha=32.0, path=path, ref=ref)


@dataclass
class FakePeers:
    """As `peers.links.Links`."""

    rows: list[PeerView] = field(
        default_factory=lambda: [
            PeerView(
                record=PeerRecord(node=PEER, endpoints=(Endpoint("192.168.1.5", 8810),), last_seen=1_700_000_000.0),
                connected=True, rtt_ms=1.6, min_rtt_ms=1.2, rtt_samples=5,
                summary=NodeSummary(
                    node=PEER, version=1, software="swarmd/0.1.0", started_at=1_699_999_000.0, region="DE",
                    ram_free_bytes=3_000_000_000, ram_total_bytes=8_000_000_000,
                    holdings=(Holding(model=SPREAD, layout="0" * 32, shards=(1,)),),
                ),
            )
        ]
    )  # fmt: skip
    links: list[LinkView] = field(
        default_factory=lambda: [
            LinkView(
                node=PEER, purpose=Purpose.CONTROL, via=None, remote=Endpoint("192.168.1.5", 8810), dialled=True, up_s=61.5,
                rtt_ms=1.6, min_rtt_ms=1.2, bytes_in=5_000, bytes_out=2_600_000, queued_bytes=0, streams=1,
            )
        ]
    )  # fmt: skip

    def views(self) -> tuple[PeerView, ...]:
        return tuple(self.rows)

    def lines(self) -> tuple[LinkView, ...]:
        return tuple(self.links)

    def traffic(self) -> dict[Purpose, tuple[int, int]]:
        return {Purpose.CONTROL: (5_000, 2_600_000)}


class FakeUpdates:
    """As `updates.updater.Updater`."""

    def __init__(self) -> None:
        self.info: UpdateInfo | None = None
        self.refusal: Refusal | None = None
        self.retried: list[bool] = []

    def state(self) -> UpdateState:
        return UpdateState(
            current=parse_version("0.1.0"), channel="stable" if self.info else "disabled", info=self.info,
            last_checked=1_700_000_000.0 if self.info else None, last_error=None, restart_required=bool(self.retried),
        )  # fmt: skip

    async def check(self) -> UpdateState | Refusal:
        return self.refusal or self.state()

    async def apply(self, *, retry: bool = False) -> UpdateApplied | Refusal:
        if self.refusal is not None:
            return self.refusal
        self.retried.append(retry)
        return UpdateApplied(version=parse_version("0.2.0"), running=2, patience_s=120.0)


class FakeTrust:
    """As `peers.reputation.Reputation`."""

    def score(self, node: NodeId) -> float:
        return 0.61234


class FakeCensus:
    """As `economy.census.Census`."""

    def here(self) -> str:
        return "US"

    def requests(self) -> dict[ModelId, int]:
        return {TINY: 5}

    def regions(self) -> dict[str, RegionView]:
        us = RegionView(nodes=3, holders={TINY: 2}, demand={TINY: 5}, gaps=(), targets={TINY: 2})
        return {"DE": RegionView(nodes=1, holders={}, demand={}, gaps=(SPREAD, TINY), targets={}), "US": us}


class FakeLedger:
    """As `economy.ledger.Ledger`: a node that did something and asked for something."""

    def __init__(self) -> None:
        self.books = Account(
            earned=700, spent=500, refunded=120, balance=320, held=80, pending=1, updated_at=1_700_000_000.0
        )
        self.entries = [
            CreditEntry(
                id=number, hour=1_699_999_200, at=1_700_000_000.0, kind=kind, amount=amount, quantity=abs(amount) // 10,
                events=1, peer=peer, model=TINY,
            )
            for number, (kind, amount, peer) in enumerate(
                ((CreditKind.SERVED, 700, PEER), (CreditKind.RESERVED, -500, None), (CreditKind.REFUNDED, 120, None)), 1
            )
        ]  # fmt: skip

    def account(self) -> Account:
        return self.books

    def tier(self) -> Tier:
        return Tier.SILVER

    def peer_tier(self, node: NodeId) -> Tier:
        return Tier.GOLD

    def peers(self) -> Sequence[PeerAccount]:
        return (PeerAccount(node=PEER, given=380, taken=700, last_at=1_700_000_000.0),)

    async def transactions(self, *, limit: int, before: int | None = None) -> tuple[Sequence[CreditEntry], int]:
        found = [entry for entry in reversed(self.entries) if before is None or entry.id < before]
        return found[:limit], len(self.entries)


class FakeCodes:
    """As `discovery.codes.NetworkCodes`: invites with ids 1111..., 2222..., in the order in which they were made."""

    def __init__(self) -> None:
        self.says: Refusal | None = None
        self.rows: list[InviteView] = []

    async def new_code(self, *, life_s: float, uses: int, role: RoleName = "member") -> NewInvite | Refusal:
        if self.says:
            return self.says
        made_at, letter = 1_700_000_000.0, "123456789abcdef"[len(self.rows)]
        invite = InviteView(
            id=InviteId(letter * 16), created_at=made_at, expires_at=made_at + life_s, uses_left=uses, role=role,
            state=InviteState.LIVE,
        )  # fmt: skip
        self.rows.insert(0, invite)
        return NewInvite(code=f"swarm://new{len(self.rows)}", invite=invite)

    async def short_code(self) -> NewInvite | Refusal:
        made = await self.new_code(life_s=600.0, uses=1)
        if isinstance(made, Refusal):
            return made
        self.rows[0] = replace(made.invite, short=True)
        return NewInvite(code="7-crossover-clockwork", invite=self.rows[0])

    async def invites(self) -> Sequence[InviteView]:
        return tuple(self.rows)

    async def cancel(self, id: str) -> InviteView | Refusal:
        for at, row in enumerate(self.rows):
            if row.id == id:
                self.rows[at] = replace(row, state=InviteState.CANCELLED)
                return self.rows[at]
        return NotFound(what=f"this node remembers no invite {id!r}")

    async def network_code(self) -> NetworkCode | Refusal:
        return NetworkCode(
            code="swarm://abc", node=OWN, network=NetworkId("c" * 64), phase=Phase.ESTABLISHED, peer_count=1,
            expires_at=1_700_086_400.0,
        )  # fmt: skip


class FakeMembers:
    """As `peers.members.Members`: a founder and one member."""

    def __init__(self) -> None:
        self.says: Refusal | None = None
        self.rows = [self._row(OWN, "inviter"), self._row(PEER, "member")]

    async def views(self) -> Sequence[MemberView]:
        return tuple(self.rows)

    async def revoke(self, node: NodeId) -> MemberView | Refusal:
        if self.says:
            return self.says
        for at, row in enumerate(self.rows):
            if row.node == node:
                self.rows[at] = replace(row, revoked_at=1_700_000_100, connected=False)
                return self.rows[at]
        return NotFound(what=f"this node knows no member {node[:16]}")

    @staticmethod
    def _row(node: NodeId, role: RoleName) -> MemberView:
        return MemberView(
            node=node, role=role, issued_at=1_700_000_000, expires_at=1_707_776_000, admitted_by="founder", below=0,
            revoked_at=None,
            connected=node == PEER, last_seen=1_700_000_050.0 if node == PEER else None, is_self=node == OWN,
        )  # fmt: skip


class FakeAutopilot:
    """As `economy.steward.Steward`: would fetch a shard of SPREAD and drops one of TINY."""

    def __init__(self) -> None:
        self.policies: dict[ModelId, ModelPolicy] = {}
        self.locks: set[ShardRef] = set()
        self.hours = Schedule()
        self.says: Refusal | None = None
        self.records = [
            PruneRecord(
                model=TINY, name="TINY-Q8", shard=1, reason="3 copies are there and 2 are needed", freed_bytes=5_000_000,
                remaining_local_shards=1, holder_count_before=3, holder_count_after=2, at=1_700_000_000.0,
            )
        ]  # fmt: skip
        self.planned = AutopilotPlan(
            enabled=True, reduced=False, contribution="minimal", pool=2, budget_bytes=1_000_000_000, used_bytes=5_000_000,
            pressure=0.125, moves_left=60,
            fetches=(Fetch(shard=ShardRef(SPREAD, 1), size_bytes=5_000_000, score=7.5, why="1 of 2 copies are there"),),
            drops=(
                Drop(shard=ShardRef(TINY, 1), size_bytes=5_000_000, score=2.5, why="3 copies are there", holders=3),
            ),
            not_fetched=(NotFetched(model=ModelId("heard"), index=None, gate=Gate_.TRUST, why="it is Discovered"),),
            kept=(Kept(shard=ShardRef(SPREAD, 0), guard=Guard.LOCKED, why="it is locked"),),
            counts=(ShardCount(shard=ShardRef(SPREAD, 1), holders=1, coming=0, target=2),),
        )  # fmt: skip

    def plan(self) -> AutopilotPlan:
        return self.planned

    def policy(self, model: ModelId) -> ModelPolicy:
        return self.policies.get(model, ModelPolicy())

    async def set_policy(self, model: ModelId, policy: ModelPolicy) -> Refusal | None:
        self.policies[model] = policy
        return self.says

    async def lock(self, shard: ShardRef, *, locked: bool) -> Refusal | None:
        (self.locks.add if locked else self.locks.discard)(shard)
        return self.says

    def schedule(self) -> Schedule:
        return self.hours

    async def set_schedule(self, schedule: Schedule) -> None:
        self.hours = schedule

    async def prune_history(self, limit: int) -> tuple[tuple[PruneRecord, ...], int]:
        return tuple(self.records[:limit]), len(self.records)


class FakeJoiner:
    def __init__(self) -> None:
        self.says: Refusal | None = None
        self.asked: list[str] = []

    async def join(self, text: str) -> Any:
        self.asked.append(text)
        if self.says:
            return self.says
        return SimpleNamespace(endpoint=Endpoint("10.0.0.5", 8810), inviter=PEER, linked=True, already=False)


class FakeMachine:
    def snapshot(self) -> Any:
        return SimpleNamespace(
            cpu_name="abacus", cpu_cores=2, total_ram_bytes=8_000_000_000, used_ram_bytes=3_000_000_000,
            free_ram_bytes=5_000_000_000, process_rss_bytes=90_000_000, total_disk_bytes=100_000_000_000,
            used_disk_bytes=40_000_000_000, free_disk_bytes=60_000_000_000, memory_bandwidth_gbps=None, gpu_name=None,
        )  # fmt: skip


INDEX = StaticFile(data=b'<meta name="swarmd-nonce" content="{{nonce}}">', media="text/html; charset=utf-8", etag='"i"')
SCRIPT = StaticFile(data=b"export {};", media="text/javascript; charset=utf-8", etag='"s"')


class CheckedServer(ApiServer):
    """Answers 599 where a reply is not what its row says: another status, or a body of another type. So every test of the
    rim is one of the contract, too."""

    def _handler(self, row: Route) -> Callable[[web.Request], Any]:
        handle = super()._handler(row)

        async def checked(request: web.Request) -> web.StreamResponse:
            response = await handle(request)
            fault = row_fault(row, response)
            return response if fault is None else web.Response(status=599, text=f"{row.method} {row.path}: {fault}")

        return checked


def row_fault(row: Route, response: web.StreamResponse) -> str | None:
    """What in a reply is not what its row says; streams and files are not looked into."""
    status = response.status
    if status == 500:
        return None  # a bug, which no row announces
    provider = row.elsewhere is not None and "x-swarm-provider" in response.headers
    if provider and status < 400:
        return None  # its body is the provider's own
    if status not in row.statuses and not provider:
        return f"status {status} is not in {row.statuses}"
    if not isinstance(response, web.Response) or response.content_type != "application/json":
        return None
    wanted = row.reply if status < 400 else row.bodies.get(status, row.errors.shapes)
    faults: list[str] = []
    for one in several(wanted):
        try:
            msgspec.json.decode(cast("bytes", response.body), type=one)
        except msgspec.MsgspecError as error:
            faults.append(str(error))
        else:
            return None
    return "; ".join(faults) or None


class Rim:
    """Everything a test may turn, and a client for the port. `address`: what the server takes callers for."""

    def __init__(
        self,
        folder: Path,
        *,
        world: World | None = None,
        extra: Sequence[Route] = (),
        age_s: float = 0.0,
        providers: Any = None,
    ) -> None:
        """`age_s`: of encoded replies; 0, since fakes change without a fact. `providers`: real ones in place of none that
        can be asked."""
        self.age_s = age_s
        self.providers: Any = providers or FakeProviders()
        self.world = world or seeded_world(1)
        self.folder = folder
        self.bus = EventBus()
        self.models, self.desk, self.memory = FakeModels(), FakeDesk(), FakeMemory()
        self.encrypted = FakeEncrypted()
        self.adapters = FakeAdapters()
        self.updates = FakeUpdates()
        self.pipeline, self.peers, self.machine = FakePipeline(), FakePeers(), FakeMachine()
        self.hub = FakeHub(self.desk)
        self.joiner = FakeJoiner()
        self.embeddings = FakeEmbeddings()
        self.codes = FakeCodes()
        self.members = FakeMembers()
        self.autopilot = FakeAutopilot()
        self.catalog: Any = SimpleNamespace(get=lambda model: None)
        self.stop = asyncio.Event()
        self.subsystems = {"peers": True, "inference": True}
        self.address: str | None = None
        self.nonces = OneTimePasses(world=self.world, life_s=NONCE_LIFE_S)
        self.tickets = OneTimePasses(world=self.world, life_s=TICKET_LIFE_S)
        loaded = Loaded(settings=Settings(), origins=dict.fromkeys(KEYS, Origin.DEFAULT), path=folder / "config.toml")
        self.settings = LiveSettings(loaded, environ={"HOME": str(folder)}, flags={}, bus=self.bus, disk=Disk())
        self.ledger, self.tallies = FakeLedger(), Tallies()
        self.outlook = Outlook(
            models=self.models, peers=self.peers, census=FakeCensus(), machine=self.machine, policy=self.autopilot.policy,
            clock=self.world.clock,
        )  # fmt: skip
        self.feed = LiveFeed(
            world=self.world, bus=self.bus, counters=self.pipeline, machine=self.machine, peers=self.peers,
            models=self.models, desk=self.desk, trust=FakeTrust(), census=FakeCensus(), ledger=self.ledger,
            outlook=self.outlook, tokens=lambda: self.tallies.token_s.count,
        )  # fmt: skip
        self.pages = PageHandlers(
            key=KEY, files={"index.html": INDEX, "main.js": SCRIPT, "panels/a.js": SCRIPT}, nonces=self.nonces,
            tickets=self.tickets, subsystems=lambda: self.subsystems,
        )  # fmt: skip
        self.sessions = Sessions(self.world)
        self.database = inline_database_now()
        self.news = News(self.bus)
        self.history = History(
            world=self.world, tokens=lambda: self.tallies.token_s.count, machine=self.machine, peers=self.peers,
            counters=self.pipeline,
        )  # fmt: skip
        self.rows = complete(self._table(), extra)
        self.server = CheckedServer(
            rows=self.rows, gate=self._gate(), pages=self.pages, feed=self.feed, world=self.world, address="127.0.0.1",
            port=0, news=self.news, hush=self.sessions.close_all,
        )  # fmt: skip
        self.supervisor = Supervisor("test", world=self.world)

    def _gate(self) -> Gate:
        return Gate(
            key=KEY, settings=self.settings.current, clock=self.world.clock, tickets=self.tickets, peer=self._peer_address
        )

    def _peer_address(self, request: web.Request) -> str:
        return request.remote or "" if self.address is None else self.address

    def _table(self) -> tuple[Route, ...]:
        targets = Targets(
            models=self.models, adapters=self.adapters, settings=self.settings.current, providers=self.providers
        )
        answers = Answers(self.pipeline, self.providers)
        openai = OpenAiHandlers(
            models=self.models, targets=targets, answers=answers, settings=self.settings.current,
            entropy=self.world.entropy, providers=self.providers,
        )  # fmt: skip
        status = StatusHandlers(
            node=OWN, clock=self.world.clock, cards=openai.cards, running=self.pipeline, counters=self.pipeline,
            peers=self.peers,
        )  # fmt: skip
        tools = McpTools(
            targets=targets, answers=answers, cards=openai.cards, status=status.now, entropy=self.world.entropy
        )
        mcp = McpHandlers(sessions=self.sessions, tools=tools, status=status, clock=self.world.clock)
        self.archive = ResponseArchive(db=self.database, clock=self.world.clock)
        self.responses = ResponseRuns(answers=answers, archive=self.archive, world=self.world)
        self.metrics = Metrics(
            tallies=self.tallies, running=self.pipeline, workers=self.memory, traffic=self.peers, models=self.models,
            machine=self.machine, providers=self.providers.counts, ledger=self.ledger, stored=self.archive,
            replies=self.responses, sockets=self.feed, updates=self.updates, bus=self.bus, clock=self.world.clock,
        )  # fmt: skip
        return table(
            pages=self.pages,
            node=NodeHandlers(
                node=OWN, clock=self.world.clock, settings=self.settings, counters=self.pipeline, machine=self.machine,
                models=self.models, peers=self.peers, ledger=self.ledger, guesses=self.tallies, stop=self.stop,
                figures=Fresh(news=self.news, clock=self.world.clock, age_s=self.age_s),
            ),
            models=ModelHandlers(
                node=OWN, catalog=self.catalog, models=self.models, desk=self.desk, memory=self.memory,
                generations=self.pipeline, encrypted=self.encrypted,
                listing=Fresh(news=self.news, clock=self.world.clock, age_s=self.age_s),
            ),
            storage=StorageHandlers(
                node=OWN, settings=self.settings.current, models=self.models, desk=self.desk, memory=self.memory,
                peers=self.peers, disk=Disk(), folder=self.folder, machine=self.machine, hub=self.hub,
            ),
            network=NetworkHandlers(
                peers=self.peers, codes=self.codes, joiner=self.joiner, census=FakeCensus(), trust=FakeTrust()
            ),
            members=MemberHandlers(members=self.members),
            autopilot=AutopilotHandlers(autopilot=self.autopilot),
            credits=CreditHandlers(ledger=self.ledger, clock=self.world.clock),
            outlook=self.outlook,
            encrypted=EncryptedHandlers(encrypted=self.encrypted),
            openai=openai,
            messages=MessagesHandlers(targets=targets, answers=answers, entropy=self.world.entropy),
            status=status,
            mcp=mcp,
            responses=ResponseHandlers(
                targets=targets, runs=self.responses, archive=self.archive, entropy=self.world.entropy
            ),
            metrics=self.metrics,
            embeddings=EmbeddingHandlers(embeddings=self.embeddings, named=targets.named),
            adapters=AdapterHandlers(adapters=self.adapters),
            feed=self.feed,
            updates=UpdateHandlers(updates=self.updates),
            downloads=DownloadHandlers(downloads=self.desk, hub=self.hub, models=self.models),
            providers=ProviderHandlers(desk=self.providers, settings=self.settings.current, clock=self.world.clock),
            pass_through=PassThrough(targets=targets, providers=self.providers),
            history=self.history,
        )  # fmt: skip

    def set(self, path: str, value: bool | int | str) -> None:
        """Another value of a setting, as if it had been there from the start."""
        loaded = cast("Any", self.settings)._loaded
        cast("Any", self.settings)._loaded = replace(loaded, settings=with_values(loaded.settings, {path: value}))

    @property
    def url(self) -> str:
        host, port = self.server.bound
        return f"http://{host}:{port}"

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            yield session


@asynccontextmanager
async def running(rim: Rim) -> AsyncIterator[Rim]:
    async with rim.database, rim.supervisor:
        await rim.supervisor.start(rim.feed)
        await rim.supervisor.start(rim.metrics)
        await rim.supervisor.start(rim.responses)
        await rim.supervisor.start(rim.server)
        yield rim


def keyed(**more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}", **more}


def no_coverage() -> NoCoverage:
    return NoCoverage(model=SPREAD, missing=(1,), shard_count=2)


def failed(refusal: Refusal | None = None) -> GenerationFailed:
    return GenerationFailed(refusal or Busy(what="the stage went away"))


Check = Callable[[], bool]


async def until(check: Check, *, timeout_s: float = 5.0) -> None:
    """Polls a real-socket condition."""
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.005)
