"""Domain values as JSON rows, one function per kind of row. Pure; nothing else in the rim builds them.

Sizes in `_mb` fields are millions of bytes, as disks are labelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Literal

from msgspec import UNSET, UnsetType

from swarmd.api import credit_shapes, download_shapes, invite_shapes, live_shapes, outlook_shapes, shapes
from swarmd.api.ports import Counters, Guesses, HardwareReading, JoinOutcome, Ledger
from swarmd.domain.credits import Account
from swarmd.domain.generation import Usage
from swarmd.domain.hub import ProbeProgress
from swarmd.domain.ids import ModelId, NodeId, short
from swarmd.domain.membership import InviteView, MemberView, NetworkCode, NewInvite
from swarmd.domain.models import Manifest
from swarmd.domain.peers import LinkView, PeerView, Purpose
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.regions import UNKNOWN, RegionView, as_region
from swarmd.domain.shards import Acquisition, ModelView, ShardView, Transfer, TransferState
from swarmd.kit import qr
from swarmd.peers.addresses import ip_of

HEALTHY_S: Final = 90.0  # contract: swarmllm.md 2.1.2
HOLDERS_SHOWN: Final = 32  # contract: swarmllm.md 2.2.2
MEMORY_FACTOR: Final = 1.15  # contract: swarmllm.md 2.2.1; weights, plus caches and buffers of a short chat
DOWNLOADS_SHOWN: Final = 100  # of other nodes, as the gaps below
GAPS_SHOWN: Final = 100  # of a region, every 2 s to every dashboard: more is not read, and names come from peers

_DOWNLOAD_STATES: Final = {
    TransferState.PENDING: "Queued",
    TransferState.DOWNLOADING: "Downloading",
    TransferState.VERIFYING: "Verifying",
}


def time_text(unix_s: float) -> str:
    """RFC 3339 in UTC, milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def megabytes(size_bytes: float) -> int:
    return round(size_bytes / 1_000_000)


# -- node


def hardware_row(reading: HardwareReading) -> shapes.HardwareRow:
    """The engine runs on the CPU; a GPU would be named here once one is bound."""
    return shapes.HardwareRow(
        gpu_name=reading.gpu_name,
        gpu_vram_mb=None,
        gpu_vram_used_mb=None,
        gpu_inference=False,
        inference_backend="llama.cpp (cpu)",
        models_on_cpu_fallback=[],
        memory_bandwidth_gbps=reading.memory_bandwidth_gbps,
        est_tokens_per_sec_7b=None,
        total_ram_mb=megabytes(reading.total_ram_bytes),
        used_ram_mb=megabytes(reading.used_ram_bytes),
        process_rss_mb=megabytes(reading.process_rss_bytes),
        available_disk_mb=megabytes(reading.free_disk_bytes),
        total_disk_mb=megabytes(reading.total_disk_bytes),
        used_disk_mb=megabytes(reading.used_disk_bytes),
        cpu_name=reading.cpu_name,
        cpu_cores=reading.cpu_cores,
    )


def inference_row(latencies_ms: Sequence[float], *, total_requests: int) -> shapes.InferenceRow:
    """Percentiles as the contract indexes them (swarmllm.md 2.1.1)."""
    if not latencies_ms:
        return shapes.InferenceRow(total_requests=total_requests, samples=0, avg_latency_ms=None)
    ordered = sorted(latencies_ms)
    count = len(ordered)

    def at(share: float) -> float:
        return round(ordered[min(count - 1, max(0, math.ceil(count * share) - 1))], 1)

    return shapes.InferenceRow(
        total_requests=total_requests,
        samples=count,
        avg_latency_ms=round(sum(ordered) / count, 1),
        min_latency_ms=round(ordered[0], 1),
        max_latency_ms=round(ordered[-1], 1),
        p50_latency_ms=round(ordered[(count - 1) // 2], 1),
        p95_latency_ms=at(0.95),
        p99_latency_ms=at(0.99),
    )


def stats(
    *,
    node: NodeId,
    version: str,
    uptime_s: float,
    counters: Counters,
    hosted_shards: int,
    peers: int,
    hardware: HardwareReading,
    ledger: Ledger,
    guesses: Guesses,
) -> shapes.Stats:
    return shapes.Stats(
        node_id=node,
        version=version,
        uptime_seconds=int(uptime_s),
        tier=ledger.tier().value,
        peers=peers,
        requests_served=counters.requests_served,
        forwards_served=counters.forwards_served,
        requests_made=counters.requests_made,
        active_requests=counters.active,
        tokens_per_second=counters.last_tokens_per_second,
        hosted_shards=hosted_shards,
        credits=credit_balance(ledger.account()),
        hardware=hardware_row(hardware),
        inference=inference_row(counters.latencies_ms(), total_requests=counters.requests_made),
        swarm_spec=shapes.SwarmSpec(hedge=None, prefetch=None, ngram=guessing(guesses)),
    )


def guessing(guesses: Guesses) -> shapes.Guessing:
    total, hits = guesses.proposed_tokens, guesses.accepted_tokens
    return shapes.Guessing(
        hits=hits, misses=total - hits, total=total, hit_rate=round(hits / total, 4) if total else None
    )


def credit_balance(account: Account) -> credit_shapes.CreditBalance:
    return credit_shapes.CreditBalance(
        balance=account.balance, lifetime_earned=account.earned, lifetime_spent=account.spent,
        lifetime_refunded=account.refunded, net_spent=account.spent - account.refunded,
    )  # fmt: skip


def live_stats(
    *,
    uptime_s: float,
    counters: Counters,
    peers: Sequence[PeerView],
    downloads: list[download_shapes.DownloadRow],
    hardware: HardwareReading,
    region: str,
    census: Mapping[str, RegionView],
    account: Account,
    capacity: outlook_shapes.SwarmCapacity,
    wishlist: outlook_shapes.Wishlist,
    traffic: live_shapes.NetworkTraffic | None,
    probes: Sequence[ProbeProgress] = (),
    flows: Sequence[live_shapes.LiveFlow] = (),
    tokens_now: float | None = None,
) -> live_shapes.LiveStats:
    connected = [peer for peer in peers if peer.connected]
    regions: dict[str, int] = {}
    for peer in (peer for peer in peers if peer.present):
        theirs = as_region(peer.summary.region) if peer.summary else UNKNOWN
        regions[theirs] = regions.get(theirs, 0) + 1
    return live_shapes.LiveStats(
        peers=len(connected),
        lan_peers=sum(is_lan(peer) for peer in connected),
        credits=credit_balance(account),
        active_requests=counters.active,
        tokens_per_second=counters.last_tokens_per_second,
        requests_served=counters.requests_served,
        requests_made=counters.requests_made,
        forwards_served=counters.forwards_served,
        uptime_seconds=int(uptime_s),
        acquisitions=downloads,
        region=region,
        region_summary=regions,
        region_demand={name: {**view.demand} for name, view in census.items() if view.demand},
        region_coverage_gaps={name: [*view.gaps[:GAPS_SHOWN]] for name, view in census.items() if view.gaps},
        hardware=hardware_row(hardware),
        swarm_capacity=capacity,
        wishlist=wishlist,
        network_traffic=traffic,
        peer_downloads=peer_downloads(connected) or UNSET,
        hub_probes=[
            live_shapes.LiveProbe(repo_id=one.repo_id, filename=one.filename, read_bytes=one.read_bytes) for one in probes
        ]
        or UNSET,
        flows=[*flows] or UNSET,
        tokens_now=UNSET if tokens_now is None else round(tokens_now, 1),
    )


def peer_downloads(peers: Iterable[PeerView]) -> list[live_shapes.PeerDownload]:
    """The first DOWNLOADS_SHOWN, by node."""
    found = (
        live_shapes.PeerDownload(
            model_id=holding.model, shard_index=index, node_id=short(peer.record.node), progress_pct=None
        )
        for peer in peers
        if peer.summary is not None
        for holding in peer.summary.holdings
        for index in holding.partial
    )
    return list(islice(found, DOWNLOADS_SHOWN))


def traffic(
    now: Mapping[Purpose, tuple[int, int]], before: Mapping[Purpose, tuple[int, int]] | None, *, seconds: float
) -> live_shapes.NetworkTraffic:
    """`before`: so many seconds ago; None: nobody looked."""
    came, went = (sum(pair[side] for pair in now.values()) for side in (0, 1))

    def rate(side: int, total: int) -> int | None:
        if before is None or seconds <= 0:
            return None
        return max(0, round((total - sum(pair[side] for pair in before.values())) / seconds))

    return live_shapes.NetworkTraffic(
        bytes_in=came, bytes_out=went, bytes_in_per_sec=rate(0, came), bytes_out_per_sec=rate(1, went)
    )


def live_shards(view: ModelView) -> list[live_shapes.LiveShard]:
    return [
        live_shapes.LiveShard(index=shard.index, local=shard.held, holders=len(shard.holders), in_vram=shard.loaded)
        for shard in view.shards
    ]


# -- peers


def peer_row(peer: PeerView, *, trust: float, now: float, whole: bool) -> shapes.PeerRow:
    """`whole`: with addresses and last contact; the WebSocket's rows go without."""
    summary = peer.summary
    seen = max((at for at in (peer.record.last_seen, peer.heard_at) if at is not None), default=None)
    return shapes.PeerRow(
        node_id=short(peer.record.node),
        nickname=(summary.nickname or None) if summary else None,
        latency_ms=None if peer.rtt_ms is None else round(peer.rtt_ms),
        trust_score=round(trust, 3),
        healthy=peer.present or (seen is not None and now - seen <= HEALTHY_S),
        gpu=summary.gpu if summary else None,
        hosted_models=sorted({holding.model for holding in summary.holdings}) if summary else [],
        is_lan_peer=is_lan(peer),
        version=summary.software.partition("/")[2] or summary.software if summary else None,
        uptime_seconds=max(0, int(now - summary.started_at)) if summary and peer.present else None,
        hosted_shards=sum(len(holding.shards) for holding in summary.holdings) if summary else 0,
        connected=peer.connected,
        region=as_region(summary.region) if summary else UNKNOWN,
        is_pool_member=False,
        is_anchor=False,
        predicted_rtt_ms=peer.rtt_ms,
        measured_min_rtt_ms=peer.min_rtt_ms,
        rtt_samples=peer.rtt_samples,
        via=None if peer.via is None else short(peer.via),
        total_ram_mb=megabytes(summary.ram_total_bytes) if summary and summary.ram_total_bytes else None,
        free_ram_mb=megabytes(summary.ram_free_bytes) if summary and summary.ram_total_bytes else None,
        addresses=[endpoint.multiaddr() for endpoint in peer.addresses or peer.record.endpoints] if whole else UNSET,
        last_seen=(None if seen is None else time_text(seen)) if whole else UNSET,
    )


def link_row(line: LinkView, *, nickname: str | None = None) -> shapes.LinkRow:
    return shapes.LinkRow(
        node_id=short(line.node),
        nickname=nickname,
        purpose=line.purpose.value,
        path="direct" if line.via is None else "relay",
        via=None if line.via is None else short(line.via),
        address=None if line.remote is None else line.remote.multiaddr(),
        dialled=line.dialled,
        up_seconds=int(line.up_s),
        rtt_ms=line.rtt_ms,
        min_rtt_ms=line.min_rtt_ms,
        bytes_in=line.bytes_in,
        bytes_out=line.bytes_out,
        queued_bytes=line.queued_bytes,
        streams=line.streams,
    )


def member_row(member: MemberView) -> shapes.MemberRow:
    return shapes.MemberRow(
        node_id=member.node,
        role=member.role,
        issued_at=_moment(member.issued_at),
        expires_at=_moment(member.expires_at),
        admitted_by=member.admitted_by,
        members_below=member.below,
        revoked_at=_moment(member.revoked_at),
        connected=member.connected,
        last_seen=_moment(member.last_seen),
        is_self=member.is_self,
    )


def _moment(unix_s: float | None) -> str | None:
    return None if unix_s is None else time_text(unix_s)


def is_lan(peer: PeerView) -> bool:
    """Reached at an address of this machine or of a private network, and not through a relay. Names are not looked up."""
    if peer.via is not None:
        return False
    known = peer.addresses or peer.record.endpoints
    address = ip_of(known[0].host) if known else None
    return address is not None and (address.is_private or address.is_link_local)


def network_map(regions: Mapping[str, RegionView]) -> shapes.NetworkMap:
    return shapes.NetworkMap(
        regions={
            region: shapes.RegionRow(
                total=view.nodes,
                models={**view.holders},
                demand={**view.demand},
                coverage_gaps=list(view.gaps),
                replication_target={**view.targets},
            )
            for region, view in regions.items()
        }
    )


def network_code(code: NetworkCode) -> shapes.NetworkCodeView:
    return shapes.NetworkCodeView(
        code=code.code,
        node_id=short(code.node),
        phase=code.phase.value,
        peer_count=code.peer_count,
        network_id=code.network,
        expires_at=time_text(code.expires_at),
    )


def invite_made(made: NewInvite) -> invite_shapes.InviteMade:
    return invite_shapes.InviteMade(
        code=made.code,
        id=made.invite.id,
        created_at=time_text(made.invite.created_at),
        expires_at=time_text(made.invite.expires_at),
        uses=made.invite.uses_left,
        role=made.invite.role,
        qr_svg=None if made.invite.short else qr.as_svg(made.code),
        short=made.invite.short,
    )


def invite_row(invite: InviteView) -> invite_shapes.InviteRow:
    return invite_shapes.InviteRow(
        id=invite.id,
        created_at=time_text(invite.created_at),
        expires_at=time_text(invite.expires_at),
        uses_left=invite.uses_left,
        state=invite.state.value,
        short=invite.short,
        role=invite.role,
    )


def joined(outcome: JoinOutcome) -> shapes.Joined:
    node, address = short(outcome.inviter), outcome.endpoint.multiaddr()
    if outcome.linked:
        message = f"connected to node {node}"
    else:
        message = f"this node is a member; node {node} is not linked yet, and is tried until it is"
    if outcome.already:
        message += " (it was a member before)"
    return shapes.Joined(status="ok", address=address, message=message)


# -- models and shards


def shard_row(shard: ShardView, *, memory: bool) -> shapes.ShardRow:
    """`memory`: with `in_vram`, which the storage list leaves out."""
    return shapes.ShardRow(
        index=shard.index,
        size_bytes=shard.size_bytes,
        layer_start=shard.layer_start,
        layer_end=shard.layer_end,
        local=shard.held,
        holders=len(shard.holders),
        holder_ids=[short(node) for node in shard.holders[:HOLDERS_SHOWN]],
        locked=shard.locked,
        in_vram=shard.loaded if memory else UNSET,
        download=_download(shard.transfer),
    )


def _download(transfer: Transfer | None) -> shapes.Download | UnsetType:
    state = _DOWNLOAD_STATES.get(transfer.state) if transfer else None
    if transfer is None or state is None:
        return UNSET
    return shapes.Download(
        state=state,
        progress_pct=percent(transfer.done_bytes, transfer.total_bytes),
        downloaded_bytes=transfer.done_bytes,
        total_bytes=transfer.total_bytes,
    )


def _vision(view: ModelView) -> shapes.VisionEncoder:
    offered = view.manifest is not None and view.manifest.source is not None and view.manifest.source.vision is not None
    return shapes.VisionEncoder(
        available=offered or bool(view.vision_holders),
        local=view.vision_here,
        holders=len(view.vision_holders),
        holder_ids=[short(node) for node in view.vision_holders[:HOLDERS_SHOWN]],
    )


def model_row(view: ModelView, *, node: NodeId, encrypted: bool = False) -> shapes.ModelRow:
    """`encrypted`: its pipeline begins and ends here."""
    held, manifest = view.held, view.manifest
    count, size = len(view.shards), _size(view)
    return shapes.ModelRow(
        id=view.model,
        name=view.name,
        total_size_bytes=size,
        shard_count=count,
        hosted_shards=len(held),
        global_available=sum(bool(shard.holders) for shard in view.shards),
        healthy=view.covered,
        status=_status(view),
        mode="full" if count and len(held) == count else "distributed",
        source=where_from(view),
        local=bool(held),
        peers_hosting=sum(holder != node for holder in view.holders),
        shards=[shard_row(shard, memory=True) for shard in view.shards],
        trust_level=view.trust.value,
        mmproj=_vision(view),
        encrypted_pipeline=encrypted,
        has_first_shard=0 in held,
        has_last_shard=bool(count) and count - 1 in held,
        hf_source=_hub_place(manifest),
        has_manifest=manifest is not None,
        has_header=manifest is not None,  # the catalogue knows a model only with both
        probed=manifest is not None and manifest.source is not None,
        estimated_vram_mb=megabytes(size * MEMORY_FACTOR),
        architecture=manifest.architecture if manifest else None,
        architecture_supported=view.architecture_supported,
        quantization=manifest.quantization if manifest else None,
        layer_count=manifest.layer_count if manifest else None,
        context_length=manifest.context_length if manifest else None,
        acquisition=_acquisition_word(view.acquisition),
        acquisition_progress=_progress(view.acquisition),
        cpu_placement_reason=None,
    )


def _hub_place(manifest: Manifest | None) -> shapes.HfSource | None:
    source = None if manifest is None else manifest.source
    return None if source is None else shapes.HfSource(repo_id=source.repo_id, filename=source.filename)


def stored_model(view: ModelView) -> shapes.StoredModel:
    size, held = _size(view), view.held
    ready = "available" if view.covered else "incomplete"
    if view.shards and len(held) == len(view.shards):
        ready = "ready"
    elif _acquisition_word(view.acquisition) == "downloading":
        ready = "downloading"
    return shapes.StoredModel(
        id=view.model,
        name=view.name,
        total_size_bytes=size,
        shard_count=len(view.shards),
        local_shards=len(held),
        local_bytes=sum(shard.size_bytes for shard in view.shards if shard.held),
        estimated_vram_mb=megabytes(size * MEMORY_FACTOR),
        shards=[shard_row(shard, memory=False) for shard in view.shards],
        ready=ready,
        all_shards_available=view.covered,
    )


def where_from(view: ModelView) -> Literal["local", "hybrid", "network"]:
    """`local` when all of it is here, `hybrid` when some is, `network` when nothing is."""
    if not view.held:
        return "network"
    return "local" if len(view.held) == len(view.shards) else "hybrid"


def _status(view: ModelView) -> str:
    if view.covered:
        return "loaded" if any(shard.loaded for shard in view.shards) else "ready"
    return "partial" if view.held else "available"


def _size(view: ModelView) -> int:
    return sum(shard.size_bytes for shard in view.shards)


def pipeline_plan(plan: PipelinePlan) -> shapes.PlanView:
    predicted = plan.predicted_token_ms
    return shapes.PlanView(
        model_id=plan.model,
        stages=[
            shapes.StageRow(
                node=short(stage.node),
                first_shard=stage.first_shard,
                last_shard=stage.last_shard,
                layers=(stage.layer_start, stage.layer_end),
                standbys=[short(node) for node in standbys],
                memory_mb=megabytes(stage.memory_bytes),
            )
            for stage, standbys in zip(plan.stages, plan.standbys or ((),) * len(plan.stages), strict=True)
        ],
        predicted_token_ms=predicted,
        predicted_tokens_per_second=round(1e3 / predicted, 2) if predicted else None,
    )


# -- acquisitions


def acquisition_status(one: Acquisition) -> shapes.AcquisitionStatus:
    failed = shapes.FailedState(failed=shapes.Failed(reason=one.reason or "unknown"))
    return shapes.AcquisitionStatus(
        model_id=one.model,
        state=failed if one.state == "failed" else one.state,
        total_shards=len(one.transfers),
        downloaded_shards=count_in(one, TransferState.COMPLETE, TransferState.VERIFYING),
        verified_shards=count_in(one, TransferState.COMPLETE),
        failed_shards=count_failed(one),
        total_bytes=sum(transfer.total_bytes for transfer in one.transfers),
        downloaded_bytes=sum(transfer.done_bytes for transfer in one.transfers),
        speed_bytes_per_sec=round(one.bytes_per_second),
        started_at=time_text(one.started_at),
        log=list(one.log),
        shard_progress={
            str(transfer.index): shapes.ShardProgress(
                state=shard_state(one, transfer), downloaded_bytes=transfer.done_bytes, total_bytes=transfer.total_bytes
            )
            for transfer in one.transfers
        },
        source=_source(one),
        trigger=one.trigger,
    )


def no_acquisition(model: ModelId) -> shapes.NoAcquisition:
    message = f"nothing is being fetched for {model}: POST /api/admin/models/{model}/add starts it"
    return shapes.NoAcquisition(model_id=model, state="unknown", message=message)


def _progress(one: Acquisition | None) -> shapes.AcquisitionProgress | None:
    if one is None or _acquisition_word(one) is None:
        return None
    return shapes.AcquisitionProgress(
        downloaded_bytes=sum(transfer.done_bytes for transfer in one.transfers),
        total_bytes=sum(transfer.total_bytes for transfer in one.transfers),
        downloaded_shards=count_in(one, TransferState.COMPLETE),
        total_shards=len(one.transfers),
        speed_bytes_per_sec=round(one.bytes_per_second),
        source=_source(one),
        trigger=one.trigger,
    )


def _source(one: Acquisition) -> str:
    return "huggingface" if one.from_hub else "peers"


def _acquisition_word(one: Acquisition | None) -> str | None:
    """The contract has two words (swarmllm.md 2.2.1): what waits or rests is still being fetched."""
    if one is None or one.state in ("complete", "cancelled"):
        return None
    return "failed" if one.state == "failed" else "downloading"


def count_in(one: Acquisition, *states: TransferState) -> int:
    """Shards in one of these states."""
    return sum(transfer.state in states for transfer in one.transfers)


def count_failed(one: Acquisition) -> int:
    """Not those that somebody did not want any more."""
    return 0 if one.state == "cancelled" else count_in(one, TransferState.FAILED)


def shard_state(one: Acquisition, transfer: Transfer) -> str:
    """What was given up with the whole did not fail: it never came to its turn, as far as anybody wants to know."""
    cancelled = one.state == "cancelled" and transfer.state is TransferState.FAILED
    return (TransferState.PENDING if cancelled else transfer.state).value


def percent(done: int, total: int) -> float:
    return round(100 * done / total, 1) if total else 0.0


# -- generations


def server_timing(usage: Usage) -> str:
    """`Server-Timing` of a reply: the prefill, then mean milliseconds per token of each stage and of the links."""
    parts = [f"prefill;dur={usage.prefill_ms:.1f}"]
    for number, stage in enumerate(usage.stages):
        label = f"{short(stage.node)} layers {stage.layer_start}-{stage.layer_end}"
        parts.append(f'stage{number};desc="{label}";dur={stage.node_ms:.3f}')
    return ", ".join([*parts, f"link;dur={usage.link_ms:.3f}"])
