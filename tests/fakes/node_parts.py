"""A node from its workers to its pipeline, in memory: processes that only answer, peers that say what they are told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from swarmd.config.settings import InferenceSettings, Settings
from swarmd.domain.ids import ModelId, NodeId, ShardRef
from swarmd.domain.models import Manifest
from swarmd.domain.peers import Holding, NodeSummary, PeerIdentity, PeerRecord, PeerView, Purpose
from swarmd.inference import worker_frames as frames
from swarmd.inference import workers as workers_module
from swarmd.inference.forwarding import Stages
from swarmd.inference.pipeline import Pipeline
from swarmd.inference.signs import ALIVE_S
from swarmd.inference.worker_process import OnAnswer, Outcome
from swarmd.inference.workers import Workers
from swarmd.kit.bus import EventBus
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.models.catalog import KnownModel
from swarmd.shards.registry import Registry
from swarmd.transport.stream import Received
from swarmd.wire.generation import OpenStage, StageAlive
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model

NOTHING = memoryview(b"")
OWN = NodeId("0" * 64)
PIECES = (b"a", b"b", b"c", b"")
END = 3


class Open:
    """As `EncryptedPipelines`: nobody wants any."""

    def demanded(self, _model: ModelId) -> bool:
        return False


class FakeWorker:
    """As `WorkerProcess`. What is in `held` is answered when `release` is called, everything else at once."""

    description = "fake"

    def __init__(self, *, held: tuple[type, ...] = ()) -> None:
        self.held = held
        self.commands: list[frames.Command] = []
        self.waiting: deque[tuple[frames.Command, OnAnswer]] = deque()  # at most what the test asks for
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pid = 1 << 30  # nobody's

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    def ask(self, command: frames.Command, _payload: object, on_answer: OnAnswer, *, deadline_s: float) -> None:
        self.commands.append(command)
        self.waiting.append((command, on_answer))
        if not isinstance(command, self.held):
            self.release()

    def release(self) -> None:
        command, on_answer = self.waiting.popleft()
        on_answer(Outcome(*self._answer(command)))

    async def call(
        self, command: frames.Command, payload: object = b"", *, deadline_s: float
    ) -> tuple[frames.Answer, memoryview]:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.ask(command, payload, lambda outcome: done.done() or done.set_result(outcome), deadline_s=deadline_s)
        outcome = await done
        assert outcome.answer is not None
        return outcome.answer, outcome.payload

    async def stop(self) -> None:
        if self.alive:
            self.ended.set_result("was stopped")

    def loads(self) -> list[int]:
        return [command.shard for command in self.commands if isinstance(command, frames.Load)]

    @staticmethod
    def _answer(command: frames.Command) -> tuple[frames.Answer, memoryview]:
        match command:
            case frames.OpenVocabulary():
                pieces = memoryview(b"".join(PIECES))
                return frames.VocabularyOpen(0, END, False, [END], [len(piece) for piece in PIECES]), pieces
            case frames.Tokenize() | frames.RenderChat():
                return frames.Tokenized(), memoryview(np.zeros(3, np.int32)).cast("B")
            case frames.CheckGrammar():
                return frames.Done(), NOTHING
            case frames.Step(outputs=outputs):
                return frames.Stepped(1, [(0, []) for _ in outputs]), NOTHING
            case frames.StartSequence():
                return frames.Started(0), NOTHING
            case frames.Load(shard=shard):
                return frames.Loaded(shard, 1, 64), NOTHING
            case _:
                return frames.Done(), NOTHING


class FakeStream:
    """Ours to a stage elsewhere: `say` is what comes back."""

    def __init__(self, node: NodeId) -> None:
        self.peer = PeerIdentity(node=node, purpose=Purpose.CONTROL, software="t/1")
        self.said: asyncio.Queue[object] = asyncio.Queue(16)
        self.sent: list[object] = []
        self.closed = False

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def receive(self) -> Received:
        try:
            async with asyncio.timeout(ALIVE_S):
                return Received(await self.said.get(), NOTHING)
        except TimeoutError:
            return Received(StageAlive(), NOTHING)

    def on_message(self, on_message: object, on_end: object) -> None:
        pass

    def send_now(self, message: object, _payload: memoryview) -> bool:
        self.sent.append(message)
        return True


@dataclass
class FakePeer:
    """A neighbour with shards; how it answers is up to the test."""

    node: NodeId
    shards: tuple[int, ...]
    says: object = None
    """The answer to `OpenStage`; None keeps the head waiting."""
    loaded: tuple[int, ...] = ()
    free: int = 1 << 40
    opened: list[tuple[OpenStage, FakeStream]] = field(default_factory=list)

    def open(self, request: OpenStage, _produced: object = NOTHING) -> FakeStream:
        stream = FakeStream(self.node)
        self.opened.append((request, stream))
        if self.says is not None:
            stream.said.put_nowait(self.says)
        return stream


class FakeLinks:
    def __init__(self) -> None:
        self.peers: dict[NodeId, FakePeer] = {}
        self.layouts: dict[ModelId, str] = {}

    def link(self, node: NodeId) -> FakePeer | None:
        return self.peers.get(node)

    def summaries(self) -> dict[NodeId, NodeSummary]:
        return {
            peer.node: NodeSummary(
                node=peer.node, version=1, software="t/1", started_at=0.0, ram_free_bytes=peer.free,
                ram_total_bytes=1 << 50, holdings=tuple(
                    Holding(model=model, layout=layout, shards=peer.shards, loaded=peer.loaded)
                    for model, layout in self.layouts.items()
                ),
            )
            for peer in self.peers.values()
        }  # fmt: skip

    def views(self) -> list[PeerView]:
        return [
            PeerView(record=PeerRecord(node=node, endpoints=(), last_seen=None), connected=True, summary=summary)
            for node, summary in self.summaries().items()
        ]


class FakeStorage:
    def __init__(self) -> None:
        self.shards: dict[ModelId, tuple[int, ...]] = {}

    def held(self, model: ModelId) -> tuple[int, ...]:
        return self.shards.get(model, ())

    def has_vision(self, model: ModelId) -> bool:
        return False

    def arriving(self, model: ModelId) -> tuple[int, ...]:
        return ()

    def path(self, ref: ShardRef) -> Path:
        return Path(f"/nowhere/{ref.model}/{ref.index}")


class FakeCatalog:
    def __init__(self) -> None:
        self.known: dict[ModelId, KnownModel] = {}

    def get(self, model: ModelId) -> KnownModel | None:
        return self.known.get(model)

    def all(self) -> tuple[KnownModel, ...]:
        return tuple(self.known.values())

    def vocabulary_path(self, model: ModelId) -> Path:
        return Path(f"/nowhere/{model}")


@dataclass
class NodeParts:
    """What `open_parts` wires together."""

    catalog: FakeCatalog
    storage: FakeStorage
    links: FakeLinks
    registry: Registry
    bus: EventBus
    supervisor: Supervisor
    workers: Workers
    stages: Stages
    pipeline: Pipeline
    processes: list[FakeWorker]
    free: int = 1 << 40
    held: tuple[type, ...] = ()
    """Commands that the next worker keeps waiting."""

    def add(self, known: KnownModel, name: str, shards: tuple[int, ...]) -> ModelId:
        model = ModelId(name)
        manifest: Manifest = replace(known.manifest, model=model, name=name)
        self.catalog.known[model] = replace(known, manifest=manifest)
        self.storage.shards[model] = shards
        self.links.layouts[model] = manifest.layout
        return model

    def meet(self, digit: str, *shards: int, **rest: object) -> FakePeer:
        peer = FakePeer(NodeId(digit * 64), shards, **rest)
        self.links.peers[peer.node] = peer
        return peer


def tiny_known(folder: Path, *, layers: int = 4) -> KnownModel:
    """One shard a layer; nothing of it needs to be on a disk afterwards."""
    data = write_model(folder / "tiny.gguf", TinyModel(layers=layers, tokenizer=True)).read_bytes()
    whole = cut_model(data, shard_size_bytes=1)
    return KnownModel(
        manifest=whole.manifest, header=whole.header, architecture=whole.architecture, files=whole.files, pinned=True
    )


@asynccontextmanager
async def open_parts(
    world: World, patch: pytest.MonkeyPatch, *, settings: Callable[[], Settings] | None = None
) -> AsyncIterator[NodeParts]:
    standard = Settings(inference=InferenceSettings(context_tokens=256, max_batch_size=2))
    current = settings or (lambda: standard)
    catalog, storage, links, bus = FakeCatalog(), FakeStorage(), FakeLinks(), EventBus()
    registry = Registry(node=OWN, catalog=catalog, storage=storage, bus=bus, summaries=links.summaries)
    parts: NodeParts

    async def start_worker(**_rest: object) -> FakeWorker:
        await asyncio.sleep(0)
        parts.processes.append(FakeWorker(held=parts.held))
        return parts.processes[-1]

    patch.setattr(workers_module, "start_worker", start_worker)
    async with Supervisor("test", world=world) as supervisor:
        workers = Workers(
            node=OWN, catalog=catalog, storage=storage, registry=registry, bus=bus, world=world, settings=current,
            memory_limit=lambda: parts.free,
        )  # fmt: skip
        stages = Stages(
            node=OWN, catalog=catalog, registry=registry, workers=workers, links=links, spawn=supervisor.spawn, world=world,
            bus=bus,
        )  # fmt: skip
        pipeline = Pipeline(
            node=OWN, catalog=catalog, registry=registry, workers=workers, stages=stages, links=links, encrypted=Open(),
            spawn=supervisor.spawn, world=world, bus=bus, settings=current,
        )  # fmt: skip
        parts = NodeParts(
            catalog=catalog, storage=storage, links=links, registry=registry, bus=bus, supervisor=supervisor,
            workers=workers, stages=stages, pipeline=pipeline, processes=[],
        )  # fmt: skip
        await supervisor.start(workers)
        yield parts
