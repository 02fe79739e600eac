"""The supervisor of worker processes: one per model, its shards loaded and unloaded without a restart.

Owner of what is in memory. A worker that ends without being asked is reported (`WorkerDied`, with how: crashed, hung, out of
memory) and started again with the shards it had, after a growing delay. Memory is checked before a shard is loaded, with
numbers in the refusal. Never in the node's own process: killing a worker returns all its memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil

from swarmd.config.settings import Settings
from swarmd.domain.events import WorkerDied, WorkerReady, WorkerStopped
from swarmd.domain.ids import ModelId, NodeId, ShardRef, short
from swarmd.domain.refusals import Busy, Invalid, NoCapacity, NotFound, Refusal, WorkerFailed
from swarmd.domain.structure import Grammar
from swarmd.inference import worker_frames as frames
from swarmd.inference.batching import Batcher
from swarmd.inference.memory import shard_bytes
from swarmd.inference.tallies import Tallies
from swarmd.inference.worker_process import CommandFailed, WorkerGone, WorkerProcess, start_worker
from swarmd.kit.bus import EventBus
from swarmd.kit.flow import Backoff
from swarmd.kit.service import Ready, Supervisor
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.shards.adapters import AdapterSlices
from swarmd.shards.registry import Registry
from swarmd.shards.storage import ShardStorage
from swarmd.wire.frames import MAX_PAYLOAD

PREFILL_ROWS = 128
"""Most rows of one prefill step: see `prefill_rows`.

Large enough that matrix products dominate, small enough that several chunks are in flight over three stages, and one chunk
of the widest published model (16,384) is 8 MB: one wire message.
"""
BYTES_PER_NUMBER = 4  # int32 tokens, float32 hidden states
KV_BUDGET_BYTES = 512 * 1024 * 1024
"""Caches for a whole model: two or three long chats of a 1B model, many of a small one. A part of a model takes its part."""
LOAD_DEADLINE_S = 600.0  # 40 GB from a spinning disk at 100 MB/s take 400 s
COMMAND_DEADLINE_S = 60.0  # bookkeeping and tokenising; a prompt of 4 MB tokenises in seconds
FIRST_RESTART_S, LIMIT_RESTART_S = 0.5, 60.0
QUIET_S = 60.0  # a worker that lived this long is well: the next restart waits the short delay again
IDLE_LOOK_S = 15.0  # between looks for models that nobody uses: a quarter of the shortest time that can be set
LOADS_WAITING = 32  # requests that wait for one model to load: three heads with the usual ten each
ADAPTERS_LIMIT = 8  # LoRA adapters in one worker: each switch costs as much as some steps, so more would only thrash
STOPPING = "cannot be started: the node is stopping"

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker as shown to people."""

    model: ModelId
    state: str
    """`ready`, `restarting` or `stopped`."""
    shards: tuple[int, ...]
    pid: int | None
    rss_bytes: int
    description: str
    shard_bytes: int = 0
    """Forecast of what its shards take, caches included."""
    cells: int = 0
    """Tokens that its caches hold."""
    cells_used: int = 0
    """Promised to sequences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What the head must know of a vocabulary to print tokens."""

    pieces: tuple[bytes, ...]
    ends: frozenset[int]
    """Tokens that end a generation."""
    controls: Mapping[int, str] = field(default_factory=dict[int, str])
    """Tokens without text and how templates write them."""


class Seat:
    """One sequence in a worker, with its share of the KV cells. Owned by whoever took it; `release` gives it back."""

    def __init__(
        self,
        host: _Host,
        process: WorkerProcess,
        batcher: Batcher,
        sequence: int,
        cells: int,
        adapter: _LoadedAdapter | None = None,
    ) -> None:
        self._host, self.process, self.batcher, self.sequence, self._cells = host, process, batcher, sequence, cells
        self._adapter = adapter
        self._released = False

    @property
    def adapter(self) -> int:
        """The worker's number of it; 0: none."""
        return 0 if self._adapter is None else self._adapter.number

    def release(self) -> None:
        if not self._released:
            self._released = True
            if self._adapter is not None:
                self._adapter.users -= 1
            self._host.give_back(self.process, self.sequence, self._cells)


@dataclass(slots=True, kw_only=True, eq=False)
class _LoadedAdapter:
    """A LoRA adapter in a worker."""

    number: int
    """For the worker."""
    sizes: dict[int, int]
    """Bytes it takes, by shard that has it."""
    users: int = 0
    """Sequences, running or about to begin: it must not go."""


class _Host:
    """One model's worker: the process, its shards, its free sequences."""

    def __init__(self, known: KnownModel, settings: Settings, backoff: Backoff, now: Callable[[], float]) -> None:
        """`now`: monotonic seconds."""
        manifest = known.manifest
        self._now = now
        self.known = known
        self.lock = asyncio.Lock()
        self.backoff = backoff
        self.process: WorkerProcess | None = None
        self.batcher: Batcher | None = None
        """Of this process."""
        self.shards: set[int] = set()
        self.wanted: set[int] = set()
        """What to load again after a crash."""
        self.texts: Texts | None = None
        self.loading: dict[int, int] = {}
        """Bytes promised to shards on their way into memory, by index: the machine's free memory does not show them yet."""
        self.flights: dict[frozenset[int], asyncio.Task[Refusal | None]] = {}
        """Loads under way, by the shards that are wanted: who wants the same waits for the same."""
        self.waiting = 0
        self.reading = 0
        """Prompts that its process renders or tokenises now, and grammars that it checks."""
        self.used_at = now()
        """When something was last loaded for somebody, a prompt read, or a sequence begun or ended; monotonic seconds."""
        self.adapters: OrderedDict[bytes, _LoadedAdapter] = OrderedDict()
        """By digest, the latest used last; at most ADAPTERS_LIMIT."""
        self.adapter_loading = 0
        """Bytes promised to one on its way into memory."""
        self._adapters_made = 0
        self.not_before = 0.0
        self.started_at = 0.0
        self.sequences = settings.inference.max_batch_size
        self.context = min(settings.inference.context_tokens, manifest.context_length)
        per_token = known.architecture.kv_bytes_per_token(manifest.layer_count)
        affordable = KV_BUDGET_BYTES // max(1, per_token)
        self.cells = max(self.context, min(affordable, self.context * self.sequences))
        self._free = list(range(self.sequences))
        self._free_cells = self.cells

    def memory_bytes(self, index: int) -> int:
        """Forecast for one shard."""
        return shard_bytes(self.known, index, cells=self.cells, rows=prefill_rows(self.known.manifest.width))

    def loaded_bytes(self) -> int:
        adapters = sum(sum(adapter.sizes.values()) for adapter in self.adapters.values())
        return sum(self.memory_bytes(index) for index in self.shards) + adapters

    def adapter(self, digest: bytes) -> _LoadedAdapter:
        """In this worker, or new to it."""
        found = self.adapters.get(digest)
        if found is None:
            self._adapters_made += 1
            found = self.adapters[digest] = _LoadedAdapter(number=self._adapters_made, sizes={})
        self.adapters.move_to_end(digest)
        return found

    def serves(self, wanted: frozenset[int]) -> bool:
        """These shards are loaded, and nobody is about to change that."""
        return self.process is not None and self.process.alive and wanted <= self.shards and not self.lock.locked()

    @property
    def cells_used(self) -> int:
        return self.cells - self._free_cells

    def used(self) -> None:
        self.used_at = self._now()

    def idle(self) -> bool:
        """Nothing is loaded, on its way, or waited for."""
        return not (self.shards or self.loading or self.flights or self.lock.locked())

    def take(self, cells: int, adapter: _LoadedAdapter | None = None) -> Seat | Busy:
        assert self.process is not None and self.batcher is not None
        if not self._free:
            return Busy(
                what=f"all {self.sequences} sequences of model {self.known.manifest.model} are in use: try again soon"
            )
        if cells > self._free_cells:
            return Busy(
                what=f"the caches of model {self.known.manifest.model} have {self._free_cells} free cells and this request "
                f"wants {cells}: try again soon, or ask for fewer tokens"
            )
        self._free_cells -= cells
        self.used()
        if adapter is not None:
            adapter.users += 1
        return Seat(self, self.process, self.batcher, self._free.pop(0), cells, adapter)

    def give_back(self, process: WorkerProcess, sequence: int, cells: int) -> None:
        if process is not self.process:
            return  # that worker is gone, and its sequences with it
        self._free.append(sequence)
        self._free.sort()  # low numbers first, so that a lone user always runs as sequence 0
        self._free_cells += cells
        self.used()
        process.ask(frames.EndSequence(sequence), b"", _ignore, deadline_s=COMMAND_DEADLINE_S)

    def reset_seats(self) -> None:
        self._free = list(range(self.sequences))
        self._free_cells = self.cells
        self.adapters.clear()  # of a process that is gone


class Workers:
    """Service. All methods belong to the event loop."""

    name = "workers"

    def __init__(
        self,
        *,
        node: NodeId,
        catalog: Catalog,
        storage: ShardStorage,
        registry: Registry,
        bus: EventBus,
        world: World,
        settings: Callable[[], Settings],
        memory_limit: Callable[[], int],
        tallies: Tallies | None = None,
    ) -> None:
        """`memory_limit`: bytes that all workers together may use now, free memory of the machine considered."""
        self._tallies = tallies or Tallies()
        self._node, self._catalog, self._storage, self._registry = node, catalog, storage, registry
        self._bus, self._world, self._settings, self._memory_limit = bus, world, settings, memory_limit
        self._hosts: dict[ModelId, _Host] = {}
        self._supervisor: Supervisor | None = None

    async def run(self, ready: Ready) -> None:
        async with Supervisor("workers", world=self._world) as supervisor:
            self._supervisor = supervisor
            ready()
            try:
                while True:
                    await asyncio.sleep(IDLE_LOOK_S)
                    await self._unload_idle()
            finally:
                self._supervisor = None
                hosts, self._hosts = list(self._hosts.values()), {}
                await asyncio.gather(*(host.process.stop() for host in hosts if host.process))

    # -- what others see

    def loaded(self, model: ModelId) -> tuple[int, ...]:
        host = self._hosts.get(model)
        return tuple(sorted(host.shards)) if host else ()

    def cells_per_session(self, model: ModelId) -> int | None:
        """Most tokens one sequence may have on this node: the context. None for an unknown model."""
        known = self._catalog.get(model)
        return min(self._settings().inference.context_tokens, known.manifest.context_length) if known else None

    def memory_needed(self, model: ModelId, index: int) -> int:
        host = self._host(model)
        assert host is not None, "asked for the memory of an unknown model"
        return host.memory_bytes(index)

    def free_bytes(self) -> int:
        """What further shards may use on this node.

        Too little rather than too much while a shard loads: a part of it is gone from the machine's free memory already.
        """
        promised = sum(sum(host.loading.values()) + host.adapter_loading for host in self._hosts.values())
        return max(0, self._memory_limit() - promised)

    def available_bytes(self, model: ModelId | None = None) -> int:
        """What shards of this model may use, or of any: with what idle models would give back."""
        return self.free_bytes() + sum(host.loaded_bytes() for other, host in self._idle() if other != model)

    def loading(self, model: ModelId) -> frozenset[int]:
        """Shards on their way into memory: `free_bytes` counts them as there already."""
        host = self._hosts.get(model)
        return frozenset(host.loading) if host else frozenset()

    def prefix_budget_bytes(self) -> int:
        """That a worker may keep of the beginnings of prompts."""
        return self._settings().inference.prefix_cache_mb * 1_000_000

    def session_timeout_s(self) -> int:
        """After so long without a step a session of this node is over."""
        return self._settings().inference.session_timeout_seconds

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return tuple(_status(model, host) for model, host in sorted(self._hosts.items()))

    # -- loading

    async def ensure(self, model: ModelId, shards: Iterable[int]) -> Refusal | None:
        """Makes sure a worker runs with at least these shards loaded. Idempotent; who wants the same waits for one load."""
        wanted = frozenset(shards)
        host = self._host(model)
        if host is None:
            return NotFound(what=f"model {model} is not known on this node")
        if host.serves(wanted):
            return None
        if self._supervisor is None:
            return WorkerFailed(model=model, how=STOPPING)
        flight = host.flights.get(wanted)
        # Loads are counted too: they go on when whoever asked for them hangs up.
        if host.waiting >= LOADS_WAITING or (flight is None and len(host.flights) >= LOADS_WAITING):
            return Busy(what=f"{LOADS_WAITING} requests already wait for model {model} to load: try again soon")
        if flight is None:
            flight = host.flights[wanted] = self._supervisor.spawn(
                self._ensure(host, wanted), name=f"load shards of {model}"
            )
        host.waiting += 1
        try:
            await asyncio.wait((flight,))
        finally:
            host.waiting -= 1
        return WorkerFailed(model=model, how=STOPPING) if flight.cancelled() else flight.result()

    async def _ensure(self, asked: _Host, wanted: frozenset[int]) -> Refusal | None:
        try:
            return await self._load_missing(asked.known.manifest.model, wanted)
        finally:
            del asked.flights[wanted]

    async def _load_missing(self, model: ModelId, wanted: frozenset[int]) -> Refusal | None:
        async with self._locked(model) as host:
            if host is None:
                return NotFound(what=f"model {model} is not known on this node")
            try:
                process = await self._running(host)
                missing = sorted(wanted - host.shards)
                await self._make_room(model, sum(host.memory_bytes(index) for index in missing))
                needed = self._room_for(host, missing)
                if isinstance(needed, Refusal):
                    return needed
                host.loading = needed  # no await since it was compared with what is free
                try:
                    for index in tuple(needed):
                        await self._load(host, process, index)
                        del needed[index]
                finally:
                    host.loading = {}
            except WorkerGone as gone:
                return WorkerFailed(model=model, how=str(gone))
            except CommandFailed as failed:
                return WorkerFailed(model=model, how=f"refused: {failed}")
        return None

    async def take_seat(
        self, model: ModelId, shards: Iterable[int], *, cells: int, adapter: AdapterSlices | None = None
    ) -> Seat | Refusal:
        """A sequence of its own on a worker with these shards; `cells`: the most tokens it will have; `adapter`: what is
        applied to it."""
        wanted = frozenset(shards)
        host = self._host(model)
        if host is not None and cells > host.cells:
            return Invalid(
                what=f"the caches of model {model} have {host.cells} cells on node {short(self._node)} and this request "
                f"wants {cells}: ask for fewer tokens, or raise inference.context_tokens there",
                param="max_tokens",
            )
        refusal = await self.ensure(model, wanted)
        if refusal is not None:
            return refusal
        host = self._hosts.get(model)
        if host is None or host.process is None or not host.process.alive or not wanted <= host.shards:
            return WorkerFailed(model=model, how="ended before it could be used")
        if adapter is None:
            return host.take(cells)  # no await since we looked at the shards
        refusal = await self._apart(model, self._load_adapter(model, wanted, adapter))
        if refusal is not None:
            return refusal
        loaded = host.adapters.get(adapter.ref.digest)
        if self._hosts.get(model) is not host or loaded is None or not wanted <= loaded.sizes.keys():
            return Busy(what=f"the adapter left the memory of node {short(self._node)} at once: try again soon")
        return host.take(cells, loaded)  # no await since we looked at the adapter

    async def _load_adapter(
        self, model: ModelId, wanted: frozenset[int], slices: AdapterSlices
    ) -> Refusal | None:
        """Into these shards, which are loaded."""
        async with self._locked(model) as host:
            if host is None or host.process is None or not host.process.alive or not wanted <= host.shards:
                return WorkerFailed(model=model, how="ended before it could be used")
            digest = slices.ref.digest
            missing = {index: slices.files[index] for index in sorted(wanted)}
            if (known := host.adapters.get(digest)) is not None:
                missing = {index: file for index, file in missing.items() if index not in known.sizes}
            try:
                if known is None and len(host.adapters) >= ADAPTERS_LIMIT and not await self._drop_adapter(host, digest):
                    where = f"of model {model} on node {short(self._node)}"
                    return Busy(what=f"{ADAPTERS_LIMIT} adapters {where} are in use: try again soon")
                needed = sum(file[1] for file in missing.values() if file is not None)
                await self._make_room(model, needed)
                while needed > self.free_bytes():
                    if not await self._drop_adapter(host, digest):
                        return NoCapacity(node=self._node, needed_bytes=needed, free_bytes=self.free_bytes())
                loaded = host.adapter(digest)
                host.adapter_loading = needed  # no await since it was compared with what is free
                try:
                    for index, file in missing.items():
                        command = frames.LoadAdapter(index, loaded.number, None if file is None else str(file[0]))
                        try:
                            await host.process.call(command, deadline_s=COMMAND_DEADLINE_S)
                        except CommandFailed:
                            if file is None or await asyncio.to_thread(file[0].exists):
                                raise
                            # Others' adapters made room for a newer one. Asked again, it is fetched again.
                            where = f"the disk of node {short(self._node)}"
                            return Busy(what=f"the adapter left {where} at once: try again soon")
                        loaded.sizes[index] = 0 if file is None else file[1]
                finally:
                    host.adapter_loading = 0
            except WorkerGone as gone:
                return WorkerFailed(model=model, how=str(gone))
            except CommandFailed as failed:
                return WorkerFailed(model=model, how=f"refused: {failed}")
        return None

    async def _drop_adapter(self, host: _Host, keep: bytes) -> bool:
        """The longest unused one that nobody uses. False: there is none. Raises WorkerGone, CommandFailed."""
        assert host.process is not None
        for digest, adapter in host.adapters.items():
            if digest != keep and not adapter.users:
                del host.adapters[digest]
                await host.process.call(frames.UnloadAdapter(adapter.number), deadline_s=COMMAND_DEADLINE_S)
                return True
        return False

    async def load_shard(self, ref: ShardRef) -> tuple[int, ...] | Refusal:
        if ref.index not in self._storage.held(ref.model):
            return NotFound(what=f"shard {ref.number} of model {ref.model} is not on this node: download it first")
        refusal = await self.ensure(ref.model, (ref.index,))
        return refusal if refusal is not None else self.loaded(ref.model)

    async def unload_shard(self, ref: ShardRef) -> tuple[int, ...] | Refusal:
        return await self._apart(ref.model, self._unload_shard(ref))

    async def _unload_shard(self, ref: ShardRef) -> tuple[int, ...] | Refusal:
        host = self._hosts.get(ref.model)
        if host is None or ref.index not in host.shards:
            return NotFound(what=f"shard {ref.number} of model {ref.model} is not loaded on this node")
        if host.shards == {ref.index}:
            refusal = await self._unload_model(ref.model)
            return refusal if isinstance(refusal, Refusal) else ()
        async with host.lock:
            # Looked at under the lock: while we waited, a generation may have begun, or the worker ended.
            if self._registry.in_use(ref):
                return Busy(what=f"shard {ref.number} of model {ref.model} is in use: try again when the reply is finished")
            if host.process is None or ref.index not in host.shards:
                host.wanted.discard(ref.index)
                return self.loaded(ref.model)
            try:
                await host.process.call(frames.Unload(ref.index), deadline_s=COMMAND_DEADLINE_S)
            except (WorkerGone, CommandFailed) as error:
                return WorkerFailed(model=ref.model, how=str(error))
            host.shards.discard(ref.index)
            host.wanted.discard(ref.index)
            for adapter in host.adapters.values():
                adapter.sizes.pop(ref.index, None)
            self._registry.set_loaded(ref.model, host.shards)
            self._bus.publish(WorkerReady(model=ref.model, shards=tuple(sorted(host.shards))))  # others plan with it
        return self.loaded(ref.model)

    async def unload_model(self, model: ModelId) -> int | Refusal:
        """Ends the worker. Returns the bytes it had resident; 0 when none was running."""
        return await self._apart(model, self._unload_model(model))

    async def _unload_model(self, model: ModelId) -> int | Refusal:
        host = self._hosts.get(model)
        if host is None:
            return 0
        busy = Busy(what=f"model {model} is in use: try again when the reply is finished")
        if self._in_use(host):
            return busy
        async with host.lock:
            # A lease is taken before its shards are loaded, so one that was taken while we waited shows here.
            if self._in_use(host):
                return busy
            freed = _status(model, host).rss_bytes
            host.wanted.clear()
            self._hosts.pop(model, None)
            if host.process:
                await host.process.stop()
            self._registry.set_loaded(model, ())
        self._bus.publish(WorkerStopped(model=model))
        return freed

    # -- text

    async def texts(self, model: ModelId) -> Texts | Refusal:
        """Token texts of a model whose header this node has, whether or not it holds shards of it."""
        host = self._host(model)
        if host is not None and host.texts is not None:
            return host.texts
        process = await self._apart(model, self._process(model))
        if isinstance(process, Refusal):
            return process
        host = self._hosts.get(model)
        if host is None or host.texts is None:
            return WorkerFailed(model=model, how="ended before it could be used")
        return host.texts

    async def _process(self, model: ModelId) -> WorkerProcess | Refusal:
        """The live worker of a model, with its vocabulary open."""
        host = self._hosts.get(model)
        if host is not None and host.texts is not None and host.process is not None and host.process.alive:
            return host.process  # without the lock: a long load is no reason for a prompt to wait here
        async with self._locked(model) as host:
            if host is None:
                return NotFound(what=f"model {model} is not known on this node")
            try:
                return await self._running(host)
            except WorkerGone as gone:
                return WorkerFailed(model=model, how=str(gone))
            except CommandFailed as failed:
                return WorkerFailed(model=model, how=f"refused: {failed}")

    async def tokenize(
        self, model: ModelId, command: frames.RenderChat | frames.Tokenize
    ) -> list[int] | Refusal | CommandFailed:
        """Token ids of a prompt. A template's complaint comes back as the CommandFailed with kind `template`."""
        payload = await self._read(model, command)
        if isinstance(payload, CommandFailed):
            return payload if payload.kind == "template" else WorkerFailed(model=model, how=f"refused: {payload}")
        return payload if isinstance(payload, Refusal) else payload.cast("i").tolist()

    async def check_grammar(self, model: ModelId, grammar: Grammar) -> Refusal | None:
        """Whether replies of this model can be held to it; else Invalid says what stands against it."""
        found = await self._read(model, frames.CheckGrammar(grammar))
        if isinstance(found, CommandFailed):
            return Invalid(what=str(found)) if found.kind == "grammar" else WorkerFailed(
                model=model, how=f"refused: {found}"
            )  # fmt: skip
        return found if isinstance(found, Refusal) else None

    # -- inside

    async def _read(
        self, model: ModelId, command: frames.RenderChat | frames.Tokenize | frames.CheckGrammar
    ) -> memoryview | Refusal | CommandFailed:
        """What the worker answers to something that needs no shard. It is not unloaded meanwhile."""
        process = await self._apart(model, self._process(model))
        if isinstance(process, Refusal):
            return process
        host = self._hosts.get(model)
        if host is None or host.process is not process:
            return WorkerFailed(model=model, how="ended before it could be used")
        host.reading += 1  # it must not be unloaded meanwhile: it may be all of the model that is here
        try:
            _, payload = await process.call(command, deadline_s=COMMAND_DEADLINE_S)
        except WorkerGone as gone:
            return WorkerFailed(model=model, how=str(gone))
        except CommandFailed as failed:
            return failed
        finally:
            host.reading -= 1
            host.used()
        return payload

    def _host(self, model: ModelId) -> _Host | None:
        host = self._hosts.get(model)
        known = self._catalog.get(model)
        if host is not None and (known is None or known.manifest.layout != host.known.manifest.layout) and host.idle():
            # The model was deleted, perhaps added again from another file: its worker has the old one's vocabulary.
            del self._hosts[model]
            if host.process is not None and self._supervisor is not None:
                self._supervisor.spawn(host.process.stop(), name=f"stop worker {model}")
            host = None
        if host is None and known is not None:
            backoff = Backoff(FIRST_RESTART_S, 2.0, LIMIT_RESTART_S, entropy=self._world.entropy)
            host = self._hosts[model] = _Host(known, self._settings(), backoff, self._world.clock.monotonic)
        return host

    async def _apart(self, model: ModelId, work: Coroutine[Any, Any, T]) -> T | WorkerFailed:
        """Runs to its end whoever hangs up: a load or an unload half done would leave us wrong about the worker."""
        if self._supervisor is None:
            work.close()
            return WorkerFailed(model=model, how=STOPPING)
        task = self._supervisor.spawn(work, name=f"worker of {model}")
        await asyncio.wait((task,))
        return WorkerFailed(model=model, how=STOPPING) if task.cancelled() else task.result()

    @asynccontextmanager
    async def _locked(self, model: ModelId) -> AsyncGenerator[_Host | None]:
        """The model's host with its lock held; another one when it was unloaded while we waited. None: unknown model."""
        while True:
            host = self._host(model)
            if host is None:
                yield None
                return
            async with host.lock:
                if self._hosts.get(model) is host:
                    yield host
                    return

    def _in_use(self, host: _Host) -> bool:
        manifest = host.known.manifest
        leased = (self._registry.in_use(ShardRef(manifest.model, spec.index)) for spec in manifest.shards)
        return host.reading > 0 or any(leased)

    async def _running(self, host: _Host) -> WorkerProcess:
        """The live process of a host, started once its backoff allows. Raises WorkerGone, CommandFailed."""
        if host.process is not None and host.process.alive:
            return host.process
        model = host.known.manifest.model
        clock = self._world.clock
        await asyncio.sleep(max(0.0, host.not_before - clock.monotonic()))
        supervisor = self._supervisor
        if supervisor is None:
            raise WorkerGone(STOPPING)
        host.process, host.shards = None, set()
        host.reset_seats()
        process = await start_worker(spawn=supervisor.spawn, name=f"worker {model}", threads=self._threads())
        if self._supervisor is None:  # `run` did not know of this process when it stopped the others
            await process.stop()
            raise WorkerGone(STOPPING)
        batcher = Batcher(process, later=asyncio.get_running_loop().call_later, tallies=self._tallies)
        host.process, host.batcher, host.started_at = process, batcher, clock.monotonic()
        host.used()
        supervisor.spawn(self._mourn(host, process), name=f"watch worker {model}")
        try:
            answer, payload = await process.call(
                frames.OpenVocabulary(str(self._catalog.vocabulary_path(model))), deadline_s=COMMAND_DEADLINE_S
            )
        except CommandFailed:
            host.process = None  # of no use, and nothing to mourn
            await process.stop()
            raise
        assert isinstance(answer, frames.VocabularyOpen)
        host.texts = _texts(answer, payload)
        logger.info("worker of %s runs as process %d", model, process.pid)
        return process

    def _room_for(self, host: _Host, missing: Sequence[int]) -> dict[int, int] | NotFound | NoCapacity:
        """Bytes that each of these shards will take. All or nothing: a part of them is of no use to who asks."""
        model = host.known.manifest.model
        held = self._storage.held(model)
        for index in missing:
            if index not in held:
                return NotFound(what=f"shard {index + 1} of model {model} is not on this node")
        needed = {index: host.memory_bytes(index) for index in missing}
        total, free = sum(needed.values()), self.free_bytes()
        if total > free:
            return NoCapacity(node=self._node, needed_bytes=total, free_bytes=self.available_bytes(model))
        return needed

    async def _make_room(self, model: ModelId, total: int) -> None:
        """Unloads other models that nobody uses, the least recently used first, if that makes enough room for this one."""
        if not self.free_bytes() < total <= self.available_bytes(model):
            return
        for other, idle in sorted(self._idle(), key=lambda one: one[1].used_at):
            if self.free_bytes() >= total:
                return
            if other == model or not self._is_idle(idle):  # looked at again: we awaited since
                continue
            logger.info("model %s leaves the memory: %s needs the room", other, model)
            await self._unload_model(other)

    def _idle(self) -> list[tuple[ModelId, _Host]]:
        return [(model, host) for model, host in self._hosts.items() if self._is_idle(host)]

    def _is_idle(self, host: _Host) -> bool:
        """In memory, and nobody uses it or is about to."""
        busy = host.lock.locked() or host.flights or host.waiting or host.process is None
        return not busy and not self._in_use(host)

    async def _unload_idle(self) -> None:
        minutes = self._settings().inference.idle_unload_minutes
        latest = self._world.clock.monotonic() - 60.0 * minutes
        for model, host in self._idle():
            if minutes and host.used_at <= latest and self._is_idle(host):
                logger.info("model %s leaves the memory: nobody has used it for %d minutes", model, minutes)
                await self._unload_model(model)

    async def _load(self, host: _Host, process: WorkerProcess, index: int) -> None:
        known = host.known
        model = known.manifest.model
        embedding = known.files[index].embedding
        table = None
        if embedding is not None:
            table = frames.EmbeddingsAt(
                offset_bytes=embedding.file_offset,
                kind=embedding.type,
                rows=embedding.rows,
                width=embedding.columns,
                row_bytes=embedding.row_bytes,
                scale=known.architecture.embedding_scale,
            )
        command = frames.Load(
            shard=index,
            path=str(self._storage.path(ShardRef(model, index))),
            last=index == len(known.files) - 1,
            embeddings=table,
            cells=host.cells,
            sequences=host.sequences,
            rows=prefill_rows(known.manifest.width),
            threads=self._threads(),
        )
        await process.call(command, deadline_s=LOAD_DEADLINE_S)
        host.shards.add(index)
        host.wanted.add(index)
        host.used()
        self._registry.set_loaded(model, host.shards)
        self._bus.publish(WorkerReady(model=model, shards=tuple(sorted(host.shards))))

    async def _mourn(self, host: _Host, process: WorkerProcess) -> None:
        """Waits for the end of a process nobody asked to end; reports it and starts it again with its shards."""
        how = await asyncio.shield(process.ended)
        model = host.known.manifest.model
        if host.process is not process or self._hosts.get(model) is not host:
            return  # stopped on purpose
        clock = self._world.clock
        if clock.monotonic() - host.started_at >= QUIET_S:
            host.backoff.reset()
        delay_s = host.backoff.delay()
        host.not_before = clock.monotonic() + delay_s
        host.shards = set()
        self._registry.set_loaded(model, ())
        logger.warning("worker of %s %s; it starts again in %.1f s", model, how, delay_s)
        self._tallies.worker_deaths += 1
        self._bus.publish(WorkerDied(model=model, how=how))
        host.wanted &= set(self._storage.held(model))  # one that was deleted must not keep the others away
        if host.wanted:
            refusal = await self.ensure(model, frozenset(host.wanted))
            if refusal is not None:
                logger.warning("worker of %s did not come back: %s", model, refusal.sentence)

    def _threads(self) -> int:
        return threads_for(self._settings())


def prefill_rows(width: int) -> int:
    """Rows of one prefill step, on every node alike, because bits depend on it (design, section 4, point 11).

    A chunk of hidden states is one wire message: wider models than 16,384 have fewer rows.
    """
    return min(PREFILL_ROWS, MAX_PAYLOAD // (BYTES_PER_NUMBER * width))


def threads_for(settings: Settings) -> int:
    """Threads of each worker: the setting, or a share of the physical cores by contribution (swarmllm.md 5.1)."""
    if settings.resources.max_cpu_threads > 0:
        return settings.resources.max_cpu_threads
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    share = {"minimal": 0.5, "moderate": 0.75, "maximum": 1.0}[settings.node.contribution]
    return max(1, round(cores * share))


def _texts(opened: frames.VocabularyOpen, payload: memoryview) -> Texts:
    pieces: list[bytes] = []
    at = 0
    for length in opened.lengths:
        pieces.append(bytes(payload[at : at + length]))
        at += length
    return Texts(pieces=tuple(pieces), ends=frozenset(opened.ends), controls=dict(opened.controls))


def _status(model: ModelId, host: _Host) -> WorkerStatus:
    process = host.process
    if process is None or not process.alive:
        state = "restarting" if host.wanted else "stopped"
        return WorkerStatus(model=model, state=state, shards=(), pid=None, rss_bytes=0, description="")
    try:
        rss = psutil.Process(process.pid).memory_info().rss
    except psutil.Error:
        rss = 0
    return WorkerStatus(
        model=model, state="ready", shards=tuple(sorted(host.shards)), pid=process.pid, rss_bytes=rss,
        description=process.description, shard_bytes=host.loaded_bytes(), cells=host.cells, cells_used=host.cells_used,
    )  # fmt: skip


def _ignore(_outcome: object) -> None:
    """Bookkeeping whose failure means the worker is gone, which `_mourn` reports."""
