"""What can happen: one frozen class per fact, published by the owner of the state it is about.

The class name is the wire name: `kind` of `PeerConnected` is `peer_connected`. Facts are rare and each matters; readings
belong in gauges, tokens and bytes in streams (style, principle 2). No fact holds `bytes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from swarmd.domain.ids import ModelId, NetworkId, NodeId, RequestId, ShardRef
from swarmd.domain.peers import Endpoint, NodeSummary

FACTS: dict[str, type[Fact]] = {}
"""Every fact class by its kind; filled as the classes are made, never changed afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Base of all facts."""

    kind: ClassVar[str] = "fact"

    def __init_subclass__(cls) -> None:
        # No super() here: a slotted dataclass is made twice, and the second class takes the first one's place.
        cls.kind = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        FACTS[cls.kind] = cls


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(Fact):
    """Every service of this node is ready."""

    node: NodeId
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFounded(Fact):
    """This node made a network key and is its first member."""

    network: NetworkId


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkJoined(Fact):
    """This node received its certificate."""

    network: NetworkId
    inviter: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAdmitted(Fact):
    """This node gave somebody a certificate against an invite code."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCodeMade(Fact):
    """This node has a live short code from now on."""

    nameplate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCodeEnded(Fact):
    """Nobody joins with this node's short code any more, though its time was not over."""

    nameplate: int
    burnt: bool
    """Somebody guessed its words wrong, or tried over and over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRevoked(Fact):
    """This node learned, from its own user or from a neighbour, that the founder put a node out of the network; or it has
    cut one off that an inviter put out, or that went with its inviter."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCloned(Fact):
    """Another machine says that it is this node: its data folder is a copy of ours, or, in the local network, it lies."""

    node: NodeId
    at: Endpoint | None
    """None: it was heard of through other members."""
    told_by: NodeId | None = None
    """The member that says it met the other machine; it may be wrong, or lie. None: there is a proof, a record that only our
    key can have signed; or an announcement in the local network, `at` which it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCloned(Fact):
    """Two machines show the identity of this member, both at the same time. The one that was there first stays."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected(Fact):
    """The control connection to a member is up."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDisconnected(Fact):
    """The control connection to a member is gone."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryReceived(Fact):
    """A node, linked to us or not, says something else about itself than before; a mere sign of life is no fact."""

    summary: NodeSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRejected(Fact):
    """A node said about itself what cannot be, or told of another what that one did not sign; it was not believed."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryForgotten(Fact):
    """Nothing was heard of a node for long, or it was put out: what it said about itself is not known any more."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDiscovered(Fact):
    """A manifest was checked and stored that this node did not know."""

    model: ModelId
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRemoved(Fact):
    """Shards, manifest and state of a model were deleted here."""

    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class HubProbeStarted(Fact):
    """The hub is asked for the header of a file, which takes seconds. Published by whoever asks."""

    repo_id: str
    filename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStarted(Fact):
    """Shards of a model are wanted here, and that is written down. Published by the desk, as the two below."""

    model: ModelId
    shards: tuple[int, ...]
    """Sorted; empty as long as they are not chosen."""
    hub: bool
    """The hub is asked for what no peer holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgressed(Fact):
    """A quarter more of what is wanted of a model has arrived."""

    model: ModelId
    percent: int
    """25, 50 or 75: the last quarter is the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadEnded(Fact):
    """Nothing more of a model is being fetched."""

    model: ModelId
    state: str
    """`complete`, `failed` or `cancelled`."""
    reason: str | None = None
    """Why it failed; None otherwise."""
    hub: bool = False
    """The hub would have been asked for what no near peer brings. Whether anything came from it, `Acquisition.from_hub`
    says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDownloadStarted(Fact):
    """Bytes of a shard begin to arrive."""

    shard: ShardRef
    source: NodeId | None
    """None: the hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStored(Fact):
    """A shard passed its hash check and has its final name on this node."""

    shard: ShardRef
    size_bytes: int
    source: NodeId | None
    """None: it was cut here from a local file, or came from the hub."""
    hub: bool = False
    """Its last bytes came from the hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRejected(Fact):
    """Bytes of a shard did not match their hash and were not kept."""

    shard: ShardRef
    source: NodeId | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRegistered(Fact):
    """A LoRA adapter can be asked for on this node."""

    adapter: str
    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRemoved(Fact):
    """A LoRA adapter cannot be asked for on this node any more."""

    adapter: str
    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRejected(Fact):
    """What a node sent of its adapter was not what its digest says, and was not kept."""

    source: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDropped(Fact):
    """A shard was deleted from this node's disk."""

    shard: ShardRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsWanted(Fact):
    """The autopilot set out to fetch shards, since the swarm has too few copies of them."""

    model: ModelId
    shards: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPruned(Fact):
    """The autopilot deleted a shard here, since the swarm has more copies of it than it needs."""

    shard: ShardRef
    reason: str
    freed_bytes: int
    remaining_local_shards: int
    """Of its model."""
    holders_before: int
    holders_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLocked(Fact):
    """The user of this node locked a shard against the autopilot, or unlocked it."""

    shard: ShardRef
    locked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotInstructed(Fact):
    """The user of this node changed what the autopilot may do."""

    about: str
    """`policy` or `schedule`."""
    model: ModelId | None
    """Whose policy it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(Fact):
    """A worker process of a model is up and its shards are loaded."""

    model: ModelId
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied(Fact):
    """A worker process ended without being asked to."""

    model: ModelId
    how: str
    """`crashed`, `hung` or `out of memory`, with the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped(Fact):
    """A worker process was ended on purpose; its memory is free."""

    model: ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStarted(Fact):
    """This node is the head of a new generation."""

    request: RequestId
    model: ModelId
    nodes: tuple[NodeId, ...]
    tokens: int = 0
    """That its stages may have to compute, each of them, if nothing is lost: the prompt and the longest reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResumed(Fact):
    """A generation of this head lost a node and goes on with these."""

    request: RequestId
    model: ModelId
    nodes: tuple[NodeId, ...]
    lost: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFinished(Fact):
    """A generation of this head ended, well or not."""

    request: RequestId
    model: ModelId
    completion_tokens: int
    duration_ms: float
    outcome: str
    """`stop`, `length`, `cancelled` or `failed`; `embedded` when there was nothing to generate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageServed(Fact):
    """This node ran its layers for somebody's generation, which has ended."""

    model: ModelId
    head: NodeId
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeFailed(Fact):
    """A stage of somebody's generation broke on this node, by this node's own fault."""

    model: ModelId
    head: NodeId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageUsed(Fact):
    """Another node ran its layers for a generation of this head; that stage has ended, the generation maybe not."""

    request: RequestId
    model: ModelId
    node: NodeId
    tokens: int
    """Sent to it, those of wrong guesses too: what it counts as `StageServed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsSeeded(Fact):
    """A peer was given bytes of shards, in one go or within some seconds."""

    node: NodeId
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRelayed(Fact):
    """This node passed on a connection of two others for so long: one that has ended, or a part of one that goes on."""

    opener: NodeId
    node: NodeId
    """The other end."""
    seconds: float
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged(Fact):
    """Live settings have new values."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidersChanged(Fact):
    """Keys of providers, or custom providers, are others now."""

    providers: tuple[str, ...]
    """Names of those that changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSwitched(Fact):
    """Whether `claude-*` goes through the local `claude` program is otherwise now."""

    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAvailable(Fact):
    """A newer version of this program can be had."""

    current_version: str
    latest_version: str
    changelog: str | None
    published_at: str | None
    """RFC 3339, as the release says."""
    downloaded: bool
    """It lies here, checked, and can be applied."""
