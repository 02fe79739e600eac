"""Where models on the hub are searched for, looked into and asked for.

Asking for one makes a manifest of the file's header, signed here and told to the swarm before any data has come, so that
others can join in; the data is then the desk's business. Publishes `HubProbeStarted`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
from blake3 import blake3

from swarmd.config.settings import Settings
from swarmd.domain.events import HubProbeStarted
from swarmd.domain.hub import ModelOrigin, ProbeProgress, ProbeView, RankedRepo
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import BadFile, IdTaken, Invalid, NoSpace, NotFound, Refusal, UnsupportedModel
from swarmd.domain.shards import Acquisition
from swarmd.downloads.hub import Hub
from swarmd.downloads.probe import Probed, Prober
from swarmd.downloads.ranking import model_of, rank
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.world import World
from swarmd.models import manifest as manifests
from swarmd.models.architectures import check_supported
from swarmd.models.catalog import MODELS_LIMIT, Catalog, KnownModel
from swarmd.models.gguf import BadGguf, GgufHeader
from swarmd.models.slicing import fair_share as shares
from swarmd.models.slicing import plan_layout
from swarmd.models.split_files import quant_of, whole_name
from swarmd.shards.desk import MEGABYTE, ShardDesk
from swarmd.shards.fetching import Lines
from swarmd.shards.registry import Registry

SOURCE_NAME: Final = "hf_source.json"  # the contract's name, in the model's folder
SOURCE_LIMIT: Final = 4096  # bytes
PROBES: Final = 1000  # remembered; contract: swarmllm.md 2.4
SHARDS_ASKED: Final = 256  # in one request; contract: the same

logger = logging.getLogger(__name__)


class _Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The file `hf_source.json`."""

    repo_id: str
    filename: str
    auto_discovered: bool = False


class HubDesk:
    """One per node."""

    def __init__(
        self,
        *,
        node: NodeId,
        hub: Hub,
        prober: Prober,
        desk: ShardDesk,
        catalog: Catalog,
        registry: Registry,
        lines: Lines,
        disk: Disk,
        bus: EventBus,
        world: World,
        settings: Callable[[], Settings],
        sign: manifests.Sign,
        memory_here: Callable[[], int],
        memory_swarm: Callable[[], int],
    ) -> None:
        """`memory_here`: bytes that workers of this node may take; `memory_swarm`: of all connected nodes, this one too."""
        self._node, self._hub, self._prober, self._desk, self._catalog = node, hub, prober, desk, catalog
        self._registry, self._lines, self._disk, self._bus, self._world = registry, lines, disk, bus, world
        self._settings, self._sign = settings, sign
        self._memory_here, self._memory_swarm = memory_here, memory_swarm
        self._probes: OrderedDict[ModelId, ModelOrigin] = OrderedDict()
        self._probing: dict[tuple[str, str], int] = {}
        self._confirmed: dict[ModelId, str] = {}

    async def search(self, query: str) -> tuple[RankedRepo, ...] | Refusal:
        """The best for this node first. Refuses HubFailed, HubForbidden."""
        found = await self._hub.search(query)
        if isinstance(found, Refusal):
            return found
        return rank(
            found,
            memory_here=self._memory_here(),
            memory_swarm=self._memory_swarm(),
            peers=len(self._lines.connected()),
            replicas=self._replicas,
        )

    async def probe(self, repo_id: str, filename: str) -> ProbeView | Refusal:
        """What the header of a file on the hub says. Refuses Invalid, NotFound, BadFile, HubFailed, HubForbidden."""
        model = model_of(filename)
        if model is None:
            return Invalid(what=f"no model id can be made of the file name {filename[:80]!r}", param="filename")
        probed = await self._probe(repo_id, filename)
        if isinstance(probed, Refusal):
            return probed
        architecture = check_supported(probed.header)
        cuts = () if isinstance(architecture, UnsupportedModel) else plan_layout(probed.header, self._shard_bytes())
        unsupported = next((one for one in (architecture, cuts) if isinstance(one, UnsupportedModel)), None)
        self._remember(ModelOrigin(model=model, repo_id=repo_id, filename=probed.source.filename))
        return ProbeView(
            model=model,
            source=probed.source,
            total_bytes=sum(part.size_bytes for part in probed.source.parts),
            header_bytes=probed.header.data_offset,
            shard_count=0 if isinstance(cuts, Refusal) else len(cuts),
            architecture=_architecture(probed.header),
            architecture_supported=unsupported is None,
            reason=None if unsupported is None else unsupported.what,
            replicas=self._replicas(model),
        )

    def probing(self) -> tuple[ProbeProgress, ...]:
        """Headers that are being read now."""
        return tuple(
            ProbeProgress(repo_id=repo_id, filename=filename, read_bytes=size)
            for (repo_id, filename), size in self._probing.items()
        )

    async def fetch(
        self, repo_id: str, filename: str, *, shards: tuple[int, ...] | None, fair_share: bool, model: ModelId | None
    ) -> Acquisition | Refusal:
        """Fetch shards of a file on the hub in the background. `shards`: sorted and distinct; None: all, or this node's
        share of them. `model`: the id it is to have; None: after the file's name.

        Answers when the wish is on the disk. Refuses as `probe`, and UnsupportedModel, NoSpace, Busy.
        """
        before = {known.manifest.model for known in self._catalog.all()}
        known = await self._known(repo_id, filename, model)
        if isinstance(known, Refusal):
            return known
        outcome = await self._ask(known, shards, fair_share=fair_share)
        model = known.manifest.model
        if isinstance(outcome, Refusal) and model not in before and self._desk.acquisition(model) is None:
            await self._catalog.evict((model,))  # whoever was refused has not asked for it
        return outcome

    async def _ask(
        self, known: KnownModel, shards: tuple[int, ...] | None, *, fair_share: bool
    ) -> Acquisition | Refusal:
        wanted = self._wanted(known, shards, fair_share=fair_share)
        if isinstance(wanted, Refusal):
            return wanted
        begun = await self._desk.acquire(known.manifest.model, wanted, "user")
        if not isinstance(begun, Refusal):
            await self._catalog.pin(known.manifest.model)
            if fair_share:
                await self._catalog.share(known.manifest.model)
        return begun

    async def origin(self, model: ModelId) -> ModelOrigin | Refusal:
        """The hub source of a model: as its manifest says, as probed or found before, or by a search. NotFound: none."""
        known = self._catalog.get(model)
        if known is not None and known.manifest.source is not None:
            source = known.manifest.source
            return ModelOrigin(model=model, repo_id=source.repo_id, filename=source.filename)
        kept = await self._kept(model) or self._probes.get(model)
        if kept is not None:
            return kept
        if known is None and self._registry.view(model) is None:
            return NotFound(what=f"this node knows no model {model}")
        return await self._discover(model, known)

    async def confirm(self, known: KnownModel) -> Refusal | None:
        """For `HubLine`: a manifest that somebody else made is compared with the file at the hub, once a run."""
        source = known.manifest.source
        assert source is not None, "only models of the hub are asked about"
        if known.manifest.publisher == self._node or self._confirmed.get(known.manifest.model) == known.identity:
            return None
        probed = await self._prober.probe(source.repo_id, source.filename, commit=source.commit)
        if isinstance(probed, Refusal):
            return probed
        if probed.source != source or blake3(probed.header_data).hexdigest() != known.manifest.header_blake3:
            what = f"the manifest of {known.manifest.model} does not describe {source.filename} of {source.repo_id}"
            return BadFile(what=f"{what} at the hub: remove the model and fetch it from the hub")
        if len(self._confirmed) >= MODELS_LIMIT:
            self._confirmed.clear()
        self._confirmed[known.manifest.model] = known.identity
        return None

    # ---- inside

    async def _known(self, repo_id: str, filename: str, model: ModelId | None) -> KnownModel | Refusal:
        """The model in the catalogue, there from now on."""
        model = model or model_of(filename)
        if model is None:
            return Invalid(what=f"no model id can be made of the file name {filename[:80]!r}", param="filename")
        present = self._catalog.get(model)
        source = None if present is None else present.manifest.source
        if source is not None and (source.repo_id, whole_name(source.filename)) == (repo_id, whole_name(filename)):
            assert present is not None
            return present
        probed = await self._probe(repo_id, filename)
        return probed if isinstance(probed, Refusal) else await self._adopt(model, probed)

    async def _probe(self, repo_id: str, filename: str) -> Probed | Refusal:
        """Seen by everybody as long as it lasts."""
        self._bus.publish(HubProbeStarted(repo_id=repo_id, filename=filename))
        key = (repo_id, filename)
        self._probing.setdefault(key, 0)

        def progress(size: int, _what: str) -> None:
            self._probing[key] = size

        try:
            return await self._prober.probe(repo_id, filename, progress=progress)
        finally:
            self._probing.pop(key, None)

    async def _adopt(self, model: ModelId, probed: Probed) -> KnownModel | Refusal:
        cuts = plan_layout(probed.header, self._shard_bytes())
        if isinstance(cuts, Refusal):
            return cuts
        manifest = manifests.build_manifest(
            header=probed.header,
            cuts=cuts,
            hashes=[None] * len(cuts),
            header_blake3=await asyncio.to_thread(lambda: blake3(probed.header_data).hexdigest()),
            model=model,
            name=_name(probed.header) or model,
            file_size_bytes=probed.size_bytes,
            shard_size_bytes=self._shard_bytes(),
            created_at=int(self._world.clock.now()),
            source=probed.source,
        )
        signed = manifests.signed(manifest, self._node, self._sign)
        try:
            present = self._catalog.get(model)
            if present is not None and present.manifest.header_blake3 == manifest.header_blake3:
                # Cut by somebody who did not know of the hub: it stays as it is cut.
                return await self._catalog.take_source(model, probed.source) or NotFound(what=f"model {model} was removed")
            known = await self._desk.adopt_own(model, manifests.encode(signed), probed.header_data)
            if isinstance(known, KnownModel):
                await self._keep(ModelOrigin(model=model, repo_id=probed.source.repo_id, filename=probed.source.filename))
        except OSError as error:
            logger.warning("model %s cannot be kept: %s", model, error)
            return NoSpace(needed_bytes=len(probed.header_data), free_bytes=0)
        if isinstance(known, KnownModel) and known.manifest.header_blake3 != manifest.header_blake3:
            return IdTaken(what=f"another model is called {model} here: remove that one, or give this one another model_id")
        return known

    def _wanted(
        self, known: KnownModel, shards: tuple[int, ...] | None, *, fair_share: bool
    ) -> tuple[int, ...] | Invalid:
        count, model = len(known.manifest.shards), known.manifest.model
        if fair_share:
            return shares(self._node, model, count, len(self._lines.connected()))
        if shards is None:
            return tuple(range(count))
        outside = [index for index in shards if not 0 <= index < count]
        if outside:
            return Invalid(what=f"model {model} has no shard {outside[0]}: it has {count}, from 0 on", param="shards")
        return shards

    def _shard_bytes(self) -> int:
        return self._settings().model.shard_size_mb * MEGABYTE

    def _replicas(self, model: ModelId) -> int:
        view = self._registry.view(model)
        return 0 if view is None else len(view.holders)

    def _remember(self, origin: ModelOrigin) -> None:
        self._probes[origin.model] = origin
        self._probes.move_to_end(origin.model)
        while len(self._probes) > PROBES:
            self._probes.popitem(last=False)

    async def _kept(self, model: ModelId) -> ModelOrigin | None:
        try:
            data = await self._disk.read_bytes(self._catalog.folder(model) / SOURCE_NAME, limit=SOURCE_LIMIT)
            kept = msgspec.json.decode(data, type=_Origin)
        except (OSError, msgspec.MsgspecError):
            return None
        return ModelOrigin(model=model, repo_id=kept.repo_id, filename=kept.filename, discovered=kept.auto_discovered)

    async def _keep(self, origin: ModelOrigin) -> None:
        """Raises OSError."""
        kept = _Origin(repo_id=origin.repo_id, filename=origin.filename, auto_discovered=origin.discovered)
        await self._disk.write_atomic(self._catalog.folder(origin.model) / SOURCE_NAME, msgspec.json.encode(kept))

    async def _discover(self, model: ModelId, known: KnownModel | None) -> ModelOrigin | Refusal:
        """A file on the hub of the same name, and of the same size where that is known."""
        quant = quant_of(f"{model}.gguf")
        words = model[: model.lower().rfind(quant.lower().replace("_", "-"))] if quant else model
        found = await self._hub.search(words.strip("-.").replace("-", " "))
        if isinstance(found, Refusal):
            return found
        for repo in found:
            for variant in repo.variants:
                same_size = known is None or variant.parts > 1 or variant.size_bytes == known.manifest.file_size_bytes
                if model_of(variant.filename) == model and same_size:
                    origin = ModelOrigin(model=model, repo_id=repo.repo_id, filename=variant.filename, discovered=True)
                    self._remember(origin)
                    if known is not None:
                        try:
                            await self._keep(origin)
                        except OSError as error:
                            logger.warning("the hub source of %s cannot be written down: %s", model, error)
                    return origin
        return NotFound(what=f"no file at the hub is called like model {model}")


def _name(header: GgufHeader) -> str | None:
    try:
        return header.text("general.name")
    except BadGguf:
        return None


def _architecture(header: GgufHeader) -> str:
    try:
        return (header.text("general.architecture") or "unknown")[:64]
    except BadGguf:
        return "unknown"

