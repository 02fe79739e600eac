"""From a fact to what dashboards hear of it: one row for each class, or an explicit SILENT. Pure.

Kinds and categories are those of swarmllm.md 2.10 where it has one for the fact; else the fact's own name. A test walks the
registry of facts, so a new fact fails it until somebody decided here what people are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from msgspec import UNSET, UnsetType

from swarmd.api import live_shapes
from swarmd.api.views import time_text
from swarmd.domain import events
from swarmd.domain.events import Fact
from swarmd.domain.ids import ModelId, NodeId, ShardRef, short

INFO, SUCCESS, WARNING, ERROR = "info", "success", "warning", "error"
TOAST_MS: Final = {INFO: 4000, SUCCESS: 4000, WARNING: 6000, ERROR: 8000}
"""How long a toast stays: the contract's 4 s (swarmllm.md 2.1), and longer where somebody may have to do something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one activity says. `toast`: how loudly; None: only in the list."""

    message: str
    toast: str | None = None
    kind: str | None = None
    """None: the row's."""
    model: ModelId | None = None
    node: NodeId | None = None
    shard: ShardRef | None = None
    number: float | None = None
    reason: str | None = None
    pruned: events.ShardPruned | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What happens on dashboards when a fact is published."""

    kind: str = ""
    category: str = ""
    say: Callable[[Any], Said] | None = None
    models_changed: bool = False
    peers_changed: bool = False
    """The list of peers goes out at once."""
    update: Callable[[Any], live_shapes.Update] | None = None
    """What `update_available` says."""


SILENT: Final = Row()
"""Nobody is told; the next tick shows whatever it changed."""


def _stored(fact: events.ShardStored) -> Said:
    if fact.source is not None:
        where, kind = f"arrived from node {short(fact.source)}", "shard_p2p_complete"
    elif fact.hub:
        where, kind = "arrived from the hub", "shard_download_complete"
    else:
        where, kind = "came from a file of this machine", "shard_verified"  # cut here, or put here by hand
    return Said(message=f"{_shard(fact.shard)} {where}", kind=kind, shard=fact.shard, node=fact.source)


def _download_started(fact: events.DownloadStarted) -> Said:
    what = _counted(len(fact.shards)) if fact.shards else "shards"
    where = "the hub and from peers" if fact.hub else "peers"
    return Said(message=f"fetching {what} of {fact.model} from {where}", toast=INFO, model=fact.model)


def _download_ended(fact: events.DownloadEnded) -> Said:
    match fact.state:
        case "complete":
            kind = "hf_download_complete" if fact.hub else "model_download_complete"
            return Said(message=f"{fact.model} is here, all that was wanted", kind=kind, toast=SUCCESS, model=fact.model)
        case "cancelled":
            return Said(message=f"{fact.model}: download cancelled", kind="download_cancelled", toast=INFO, model=fact.model)
        case _:
            kind, why = "hf_download_failed" if fact.hub else "shard_download_failed", fact.reason or "unknown"
            message = f"{fact.model} could not be fetched: {why}"
            return Said(message=message, kind=kind, toast=ERROR, model=fact.model, reason=why)


def _counted(shards: int) -> str:
    return f"{shards} shard{'' if shards == 1 else 's'}"


def _refused(fact: events.ShardRejected) -> Said:
    """The reason names the shard, and people have read that already."""
    ref = fact.shard
    inside = f"shard {ref.number} of {ref.model}"
    reason = fact.reason.replace(f" of {inside}", "").replace(inside, "it")
    message = f"{_shard(ref)} was refused: {reason}"
    return Said(message=message, toast=ERROR, shard=ref, node=fact.source, reason=reason)


def _unloaded(fact: events.WorkerReady, gone: frozenset[int]) -> Said:
    """A worker that has fewer shards than before says that it is ready, too."""
    one = next(iter(gone)) if len(gone) == 1 else None
    numbers = " and ".join(str(index + 1) for index in sorted(gone))
    which = f"shards {numbers} of {fact.model} were" if one is None else f"{_shard(ShardRef(fact.model, one))} was"
    stay = f"{_counted(len(fact.shards))} stay{'s' if len(fact.shards) == 1 else ''} loaded"
    return Said(
        message=f"{which} unloaded, {stay}", kind="shard_unloaded_memory", model=fact.model,
        shard=None if one is None else ShardRef(fact.model, one),
    )  # fmt: skip


def _loaded(fact: events.WorkerReady, new: frozenset[int]) -> Said:
    """Of a model that had others in memory."""
    one = next(iter(new)) if len(new) == 1 else None
    numbers = " and ".join(str(index + 1) for index in sorted(new))
    which = f"shards {numbers} of {fact.model} are" if one is None else f"{_shard(ShardRef(fact.model, one))} is"
    return Said(
        message=f"{which} loaded, too: {_counted(len(fact.shards))} now", kind="shard_loaded_memory", model=fact.model,
        shard=None if one is None else ShardRef(fact.model, one),
    )  # fmt: skip


def _finished(fact: events.GenerationFinished) -> Said:
    failed = fact.outcome == "failed"
    made = "embeddings" if fact.outcome == "embedded" else f"{fact.completion_tokens} tokens"
    message = f"{fact.model}: {made} in {fact.duration_ms / 1e3:.1f} s ({fact.outcome})"
    return Said(
        message=message,
        kind="inference_failed" if failed else "inference_completed",
        toast=ERROR if failed else None,
        model=fact.model,
        number=round(fact.duration_ms, 1),
    )


def _short_code_ended(fact: events.ShortCodeEnded) -> Said:
    if not fact.burnt:
        return Said(message=f"the short code {fact.nameplate} was cancelled")
    message = f"somebody tried the short code {fact.nameplate} with wrong words: it is burnt, make a new one"
    return Said(message=message, toast=WARNING)


def _cloned(fact: events.IdentityCloned) -> str:
    if fact.at is not None:
        return f"a machine at {fact.at} says that it is this node"
    if fact.told_by is not None:
        return f"node {short(fact.told_by)} says that it met another machine with this node's key"
    return "another machine has this node's key"


ROWS: Final[Mapping[type[Fact], Row]] = {
    events.NodeStarted: Row(
        kind="daemon_started", category="system",
        say=lambda fact: Said(message=f"swarmd {fact.version} is ready", node=fact.node),
    ),
    events.NetworkFounded: Row(
        kind="network_founded", category="network",
        say=lambda fact: Said(message=f"founded network {fact.network[:16]}", toast=INFO),
    ),
    events.NetworkJoined: Row(
        kind="network_joined", category="network",
        say=lambda fact: Said(message=f"joined network {fact.network[:16]}", toast=SUCCESS, node=fact.inviter),
    ),
    events.MemberAdmitted: Row(
        kind="member_admitted", category="security",
        say=lambda fact: Said(message=f"node {short(fact.node)} joined with an invite code", toast=INFO, node=fact.node),
    ),
    events.ShortCodeMade: SILENT,
    events.ShortCodeEnded: Row(kind="short_code_ended", category="security", say=_short_code_ended),
    events.MemberRevoked: Row(
        kind="member_revoked", category="security", peers_changed=True,
        say=lambda fact: Said(message=f"node {short(fact.node)} was put out of the network", toast=WARNING, node=fact.node),
    ),
    events.IdentityCloned: Row(
        kind="identity_cloned", category="security",
        say=lambda fact: Said(
            message=f"{_cloned(fact)}: is its data folder a copy?", toast=WARNING, node=fact.node,
        ),
    ),
    events.PeerCloned: Row(
        kind="peer_cloned", category="security",
        say=lambda fact: Said(
            message=f"two machines say that they are node {short(fact.node)}: the second one is not let in",
            toast=WARNING, node=fact.node,
        ),
    ),
    events.PeerConnected: Row(
        kind="peer_connected", category="network", peers_changed=True, models_changed=True,
        say=lambda fact: Said(message=f"node {short(fact.node)} is connected", toast=INFO, node=fact.node),
    ),
    events.PeerDisconnected: Row(
        kind="peer_disconnected", category="network", peers_changed=True, models_changed=True,
        say=lambda fact: Said(
            message=f"node {short(fact.node)} is gone: {fact.reason}", toast=WARNING, node=fact.node, reason=fact.reason
        ),
    ),
    events.SummaryReceived: SILENT,
    events.SummaryRejected: SILENT,
    events.SummaryForgotten: SILENT,
    events.ModelDiscovered: Row(
        kind="model_discovered", category="model", models_changed=True,
        say=lambda fact: Said(message=f"{fact.name} is known now", model=fact.model),
    ),
    events.ModelRemoved: Row(
        kind="model_removed", category="model", models_changed=True,
        say=lambda fact: Said(message=f"{fact.model} was removed", toast=INFO, model=fact.model),
    ),
    events.HubProbeStarted: Row(
        kind="hf_probe_started", category="download",
        say=lambda fact: Said(message=f"reading the header of {fact.filename} in {fact.repo_id}", toast=INFO),
    ),
    events.DownloadStarted: Row(kind="download_started", category="download", models_changed=True, say=_download_started),
    events.DownloadProgressed: Row(
        kind="download_progressed", category="download",
        say=lambda fact: Said(
            message=f"{fact.percent} % of what is wanted of {fact.model} is here", model=fact.model, number=fact.percent
        ),
    ),
    events.DownloadEnded: Row(category="download", models_changed=True, say=_download_ended),
    events.ShardDownloadStarted: Row(
        kind="shard_download_started", category="download", models_changed=True,
        say=lambda fact: Said(
            message=f"{_shard(fact.shard)} is coming from {f'node {short(fact.source)}' if fact.source else 'the hub'}",
            shard=fact.shard, node=fact.source,
        ),
    ),
    events.ShardStored: Row(kind="shard_verified", category="download", models_changed=True, say=_stored),
    events.ShardRejected: Row(
        kind="shard_verify_failed", category="download", models_changed=True,
        say=_refused,
    ),
    events.AdapterRegistered: Row(
        kind="adapter_registered", category="model", models_changed=True,
        say=lambda fact: Said(message=f"adapter {fact.adapter} of {fact.model} is ready", toast=SUCCESS, model=fact.model),
    ),
    events.AdapterRemoved: Row(
        kind="adapter_removed", category="model", models_changed=True,
        say=lambda fact: Said(message=f"adapter {fact.adapter} of {fact.model} was removed", toast=INFO, model=fact.model),
    ),
    events.AdapterRejected: Row(
        kind="adapter_verify_failed", category="download",
        say=lambda fact: Said(
            message=f"an adapter of node {short(fact.source)} was refused: {fact.reason}", toast=ERROR, node=fact.source,
            reason=fact.reason,
        ),
    ),
    events.ShardDropped: Row(
        kind="shard_deleted", category="model", models_changed=True,
        say=lambda fact: Said(message=f"{_shard(fact.shard)} was deleted here", toast=INFO, shard=fact.shard),
    ),
    events.ShardsWanted: Row(
        kind="auto_fetch_started", category="auto_manage",
        say=lambda fact: Said(
            message=f"the autopilot fetches {_counted(len(fact.shards))} of {fact.model}: {fact.reason}",
            model=fact.model, number=len(fact.shards), reason=fact.reason,
        ),
    ),
    events.ShardPruned: Row(
        kind="shard_pruned", category="auto_manage", models_changed=True,
        say=lambda fact: Said(
            message=f"the autopilot dropped {_shard(fact.shard)}: {fact.reason}", toast=INFO, shard=fact.shard,
            reason=fact.reason, pruned=fact,
        ),
    ),
    events.ShardLocked: Row(
        kind="shard_locked", category="auto_manage", models_changed=True,
        say=lambda fact: Said(
            message=f"{_shard(fact.shard)} was {'locked' if fact.locked else 'unlocked'}", shard=fact.shard
        ),
    ),
    events.AutopilotInstructed: Row(
        kind="auto_manage_updated", category="auto_manage",
        say=lambda fact: Said(
            message=f"the autopilot's {fact.about} {f'for {fact.model} ' if fact.model else ''}was changed", model=fact.model
        ),
    ),
    events.WorkerReady: Row(
        kind="model_loaded", category="model", models_changed=True,
        say=lambda fact: Said(message=f"{fact.model} is loaded ({_counted(len(fact.shards))})", model=fact.model),
    ),
    events.WorkerDied: Row(
        kind="worker_died", category="model", models_changed=True,
        say=lambda fact: Said(message=f"the worker of {fact.model} ended: {fact.how}", toast=ERROR, model=fact.model),
    ),
    events.WorkerStopped: Row(
        kind="model_unloaded", category="model", models_changed=True,
        say=lambda fact: Said(message=f"{fact.model} was unloaded, its memory is free", model=fact.model),
    ),
    events.GenerationStarted: Row(
        kind="inference_request", category="inference",
        say=lambda fact: Said(
            message=f"{fact.model} answers on {len(fact.nodes)} node{'s' if len(fact.nodes) != 1 else ''}", model=fact.model
        ),
    ),
    events.GenerationResumed: Row(
        kind="inference_resumed", category="inference",
        say=lambda fact: Said(
            message=f"{fact.model} goes on without node {short(fact.lost)}", toast=WARNING, model=fact.model, node=fact.lost
        ),
    ),
    events.GenerationFinished: Row(kind="inference_completed", category="inference", say=_finished),
    events.StageServed: Row(
        kind="stage_served", category="inference",
        say=lambda fact: Said(
            message=f"ran layers of {fact.model} for node {short(fact.head)}: {fact.tokens} tokens",
            model=fact.model, node=fact.head, number=fact.tokens,
        ),
    ),
    events.ServeFailed: Row(
        kind="serve_failed", category="inference",
        say=lambda fact: Said(
            message=f"layers of {fact.model} for node {short(fact.head)} failed here: {fact.reason}", toast=WARNING,
            model=fact.model, node=fact.head, reason=fact.reason,
        ),
    ),
    events.StageUsed: SILENT,
    events.ShardsSeeded: SILENT,
    events.CircuitRelayed: SILENT,
    events.UpdateAvailable: Row(
        kind="update_available", category="system", update=lambda fact: live_shapes.Update(
            current_version=fact.current_version, latest_version=fact.latest_version, changelog=fact.changelog,
            published_at=fact.published_at, downloaded=fact.downloaded,
        ),
        say=lambda fact: Said(message=f"version {fact.latest_version} can be installed", toast=INFO),
    ),
    events.SettingsChanged: Row(
        kind="config_updated", category="system",
        say=lambda fact: Said(message=f"settings changed: {', '.join(fact.keys)}", toast=INFO),
    ),
    events.ProvidersChanged: Row(
        kind="providers_updated", category="provider", models_changed=True,
        say=lambda fact: Said(message=f"providers changed: {', '.join(fact.providers) or 'which keys count'}", toast=INFO),
    ),
    events.SubscriptionSwitched: Row(
        kind="claude_subscription", category="provider", models_changed=True,
        say=lambda fact: Said(
            message=f"claude models {'go' if fact.enabled else 'no longer go'} through the local claude program", toast=INFO
        ),
    ),
}  # fmt: skip


def row_of(fact: Fact) -> Row:
    """Facts of plugins have no row here: they are silent."""
    return ROWS.get(type(fact), SILENT)


def activity(
    fact: Fact,
    *,
    now: float,
    from_hub: bool | None = None,
    loaded_before: frozenset[int] = frozenset(),
    name_of: Callable[[ModelId], str | None] = lambda _model: None,
) -> live_shapes.Activity | None:
    """The row's activity for this fact, heard at `now`; None when it is silent.

    What a fact does not say itself: whether anything of a download that ended came from the hub (None: nobody knows), and
    which shards a worker that is ready had before. `name_of`: a model's name for people; None: it is not known here.
    """
    row = row_of(fact)
    if row.say is None:
        return None
    if isinstance(fact, events.DownloadEnded) and fact.state == "complete" and from_hub is not None:
        said = _download_ended(replace(fact, hub=from_hub))
    elif isinstance(fact, events.WorkerReady) and (gone := loaded_before.difference(fact.shards)):
        said = _unloaded(fact, gone)
    elif isinstance(fact, events.WorkerReady) and loaded_before and (new := frozenset(fact.shards) - loaded_before):
        said = _loaded(fact, new)
    else:
        said = row.say(fact)
    model = said.shard.model if said.shard else said.model
    name = None if model is None else name_of(model)
    index: int | UnsetType = said.shard.index if said.shard else UNSET
    return live_shapes.Activity(
        kind=said.kind or row.kind,
        category=row.category,
        message=said.message,
        timestamp=time_text(now),
        toast_level=said.toast,
        toast_duration_ms=UNSET if said.toast is None else TOAST_MS[said.toast],
        model_id=model,
        model_name=UNSET if name is None else name,
        node_id=None if said.node is None else short(said.node),
        shard_index=index,
        detail_num=UNSET if said.number is None else said.number,
        detail_str=UNSET if said.reason is None else said.reason,
        freed_bytes=UNSET if said.pruned is None else said.pruned.freed_bytes,
        holder_count_before=UNSET if said.pruned is None else said.pruned.holders_before,
        holder_count_after=UNSET if said.pruned is None else said.pruned.holders_after,
        remaining_local_shards=UNSET if said.pruned is None else said.pruned.remaining_local_shards,
    )


def _shard(shard: ShardRef) -> str:
    return f"shard {shard.number} of {shard.model}"
