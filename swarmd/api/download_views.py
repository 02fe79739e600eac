"""Downloads and the hub as JSON rows. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import UNSET

from swarmd.api import download_shapes as shapes
from swarmd.api.views import count_failed, count_in, percent, shard_state, time_text
from swarmd.domain.hub import ModelOrigin, ProbeView, RankedRepo
from swarmd.domain.ids import ModelId, short
from swarmd.domain.shards import Acquisition, ModelView, Transfer, TransferState

LOG_SHOWN: Final = 10  # contract: swarmllm.md 2.4.3
OVER_SHOWN: Final = 16  # in a tick; the desk remembers 256, each with all its shards, and a dashboard shows a handful
TAGS_SHOWN: Final = 32  # of a repository; a hub lets its users write hundreds
HUB: Final = "huggingface"

_OVER: Final = ("complete", "failed", "cancelled")
_ORDER: Final = ("downloading", "awaiting_manifest", "other", "failed", "complete")


def download_rows(found: Iterable[Acquisition], *, known: Mapping[ModelId, ModelView]) -> list[shapes.DownloadRow]:
    """In the contract's order (swarmllm.md 2.4.3); in it, those that run in the order of the queue. `known`: the models, for
    what their acquisitions do not say."""
    rows = list[shapes.DownloadRow]()
    for one in sorted(found, key=_order):
        view = known.get(one.model)
        rows.append(download_row(one, name=one.name or (one.model if view is None else view.name), view=view))
    return rows


def for_the_tick(found: Iterable[Acquisition]) -> list[Acquisition]:
    """What a dashboard hears of every 2 s: what is on its way, and the latest of what is over; `GET downloads` has all."""
    over, running = list[Acquisition](), list[Acquisition]()
    for one in found:
        (over if one.state in _OVER else running).append(one)
    return [*running, *sorted(over, key=lambda one: one.started_at, reverse=True)[:OVER_SHOWN]]


def _order(one: Acquisition) -> tuple[int, bool, int]:
    state = one.state if one.state in _ORDER else "other"
    return _ORDER.index(state), one.state in _OVER, one.place


def download_row(one: Acquisition, *, name: str, view: ModelView | None = None) -> shapes.DownloadRow:
    total = sum(transfer.total_bytes for transfer in one.transfers)
    done = sum(transfer.done_bytes for transfer in one.transfers)
    speed, over = round(one.bytes_per_second), one.state in _OVER
    return shapes.DownloadRow(
        model_id=one.model,
        model_name=name,
        state=one.state,
        source=HUB if one.from_hub or _only_the_hub_has_it(one, view) else "network",
        total_shards=len(one.transfers),
        downloaded_shards=count_in(one, TransferState.COMPLETE, TransferState.VERIFYING),
        verified_shards=count_in(one, TransferState.COMPLETE),
        failed_shards=count_failed(one),
        total_bytes=total,
        downloaded_bytes=done,
        overall_pct=percent(done, total),
        speed_bytes_per_sec=speed,
        eta_secs=math.ceil((total - done) / speed) if one.state == "downloading" and speed > 0 else None,
        cancellable=not over,
        started_at=time_text(one.started_at),
        trigger=one.trigger,
        log=_latest(one.log),
        shard_details=[_detail(transfer, shard_state(one, transfer)) for transfer in one.transfers],
        reason=one.reason,
        place=None if over else one.place,
        paused=one.state == "paused",
    )


def _only_the_hub_has_it(one: Acquisition, view: ModelView | None) -> bool:
    """Nothing has come yet, and no connected node holds any of what is still to come."""
    if view is None or view.manifest is None or view.manifest.source is None:
        return False
    if one.state in _OVER or any(transfer.source is not None for transfer in one.transfers):
        return False
    coming = {transfer.index for transfer in one.transfers if transfer.state is not TransferState.COMPLETE}
    return bool(coming) and not any(shard.holders for shard in view.shards if shard.index in coming)


def _detail(transfer: Transfer, state: str) -> shapes.ShardDetail:
    sender = None if transfer.source is None else short(transfer.source)
    return shapes.ShardDetail(
        index=transfer.index,
        state=state,
        progress_pct=percent(transfer.done_bytes, transfer.total_bytes),
        downloaded_bytes=transfer.done_bytes,
        total_bytes=transfer.total_bytes,
        source=HUB if transfer.hub else sender,
        speed_bytes_per_sec=round(transfer.bytes_per_second),
        log=_latest(transfer.log),
    )


def _latest(log: tuple[str, ...]) -> list[str]:
    return list(reversed(log))[:LOG_SHOWN]


def repo_rows(found: Iterable[RankedRepo]) -> list[shapes.HubRepoRow]:
    """The best first (contract: swarmllm.md 2.4.1)."""
    return [_repo_row(ranked) for ranked in sorted(found, key=lambda ranked: ranked.score, reverse=True)]


def _repo_row(ranked: RankedRepo) -> shapes.HubRepoRow:
    repo = ranked.repo
    return shapes.HubRepoRow(
        repo_id=repo.repo_id,
        downloads=repo.downloads,
        likes=repo.likes,
        variants=[
            shapes.HubVariantRow(filename=one.filename, size_bytes=one.size_bytes, quant=one.quant, parts=one.parts)
            for one in repo.variants
        ],
        recommended_variant=ranked.recommended,
        fits_vram=ranked.fits_vram,
        fits_boomerang=ranked.fits_boomerang,
        fits_shard=ranked.fits_shard,
        est_shard_size=ranked.est_shard_bytes,
        est_boomerang_size=ranked.est_boomerang_bytes,
        network_replicas=ranked.replicas,
        composite_score=round(ranked.score, 3),
        score_breakdown=shapes.ScoreBreakdown(
            quality=round(ranked.quality, 3), fit=ranked.fit, demand=ranked.demand, size=round(ranked.size, 3)
        ),
        task_tags=list(repo.tags[:TAGS_SHOWN]),
        swarm_cta_status=ranked.cta,
        recommended_filename=ranked.recommended_filename,
        fits_swarm=ranked.fits_swarm,
        gated=repo.gated,
    )


def probe(found: ProbeView) -> shapes.HubProbe:
    return shapes.HubProbe(
        status="ok",
        total_size=found.total_bytes,
        header_size=found.header_bytes,
        shard_count=found.shard_count,
        architecture=found.architecture,
        architecture_supported=found.architecture_supported,
        network_replicas=found.replicas,
        model_id=found.model,
        repo_id=found.source.repo_id,
        filename=found.source.filename,
        commit=found.source.commit,
        parts=len(found.source.parts),
        reason=found.reason,
    )


def origin(found: ModelOrigin) -> shapes.HubOrigin:
    return shapes.HubOrigin(
        model_id=found.model,
        repo_id=found.repo_id,
        filename=found.filename,
        auto_discovered=True if found.discovered else UNSET,
    )
