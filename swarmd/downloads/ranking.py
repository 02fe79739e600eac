"""Which search hits suit this node and its swarm: the figures of swarmllm.md 2.4.1. Pure.

The contract speaks of VRAM. What counts here is the memory in which this node's workers may put weights, whatever it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from swarmd.domain.hub import HubRepo, HubVariant, RankedRepo
from swarmd.domain.ids import ModelId, model_slug
from swarmd.models.split_files import whole_name

RUN_FACTOR: Final = 1.15  # contract (4.10): weights in memory with what running them takes
_SHARD_BYTES: Final = 800_000_000  # contract: what a shard is taken to have, for an estimate
_SHARDS: Final = (2, 16)
_BOOMERANG: Final = 12 / 5  # contract: first and last shard with embedding and head
_RECOMMENDED: Final = "Q4_K_M"
_MANY, _ENOUGH = 10, 3  # replicas


def recommended(variants: tuple[HubVariant, ...]) -> HubVariant | None:
    """Exactly Q4_K_M, else the smallest Q4, else the first; None of none. `variants` sorted by size."""
    exact = next((one for one in variants if one.quant == _RECOMMENDED), None)
    fourth = next((one for one in variants if one.quant.removeprefix("UD-").startswith("Q4")), None)
    return exact or fourth or next(iter(variants), None)


def model_of(filename: str) -> ModelId | None:
    """The id under which a node knows this file; None where none can be made of the name."""
    try:
        return model_slug(whole_name(filename))
    except ValueError:
        return None


def shard_estimate(size_bytes: int) -> int:
    """Bytes of one shard, before the header is known."""
    count = min(max(-(-size_bytes // _SHARD_BYTES), _SHARDS[0]), _SHARDS[1])
    return -(-size_bytes // count)


def rank(
    repos: Iterable[HubRepo],
    *,
    memory_here: int,
    memory_swarm: int,
    peers: int,
    replicas: Callable[[ModelId], int],
) -> tuple[RankedRepo, ...]:
    """The best first. Memory in bytes, that of the swarm with this node's; `replicas`: nodes that hold any of a model."""
    ranked = [
        _ranked(repo, memory_here, memory_swarm, peers, replicas)
        for repo in repos
    ]
    return tuple(sorted(ranked, key=lambda one: (-one.score, one.repo.repo_id)))


def _ranked(
    repo: HubRepo, memory_here: int, memory_swarm: int, peers: int, replicas: Callable[[ModelId], int]
) -> RankedRepo:
    variant = recommended(repo.variants)
    size = 0 if variant is None else variant.size_bytes
    model = None if variant is None else model_of(variant.filename)
    copies = 0 if model is None else replicas(model)
    shard = shard_estimate(size) if size else 0
    boomerang = min(size, round(shard * _BOOMERANG))
    whole = _fits(size, memory_here)
    fits_boomerang, fits_shard = _fits(boomerang, memory_here), _fits(shard, memory_here)
    fits_swarm = _fits(size, memory_swarm)
    quality = math.log10(max(0, repo.downloads) + 10) / 7
    fit = 1.0 if whole else 0.6 if fits_boomerang or fits_shard else 0.1
    demand = 1.5 if copies == 0 else 1.2 if copies < _ENOUGH else 1.0 if copies < _MANY else 0.7
    small = min(max(1 - size / 8e9, 0.1), 1.0)
    return RankedRepo(
        repo=repo,
        recommended="" if variant is None else variant.quant or variant.filename,
        recommended_filename="" if variant is None else variant.filename,
        fits_vram=whole or fits_boomerang or fits_shard,
        fits_boomerang=fits_boomerang,
        fits_shard=fits_shard,
        fits_swarm=fits_swarm,
        est_shard_bytes=shard,
        est_boomerang_bytes=boomerang,
        replicas=copies,
        score=quality * fit * demand * small * 100 if variant is not None else 0.0,
        quality=quality,
        fit=fit,
        demand=demand,
        size=small,
        cta=_call(copies, whole=whole, swarm=fits_swarm, peers=peers),
    )


def _fits(size: int, memory: int) -> bool:
    return 0 < size * RUN_FACTOR <= memory


def _call(copies: int, *, whole: bool, swarm: bool, peers: int) -> str:
    """What a person could do with it. The contract names the answers and not their rules; these are ours."""
    if not swarm:
        return "unreachable"
    if copies:
        return "well_replicated" if copies >= _ENOUGH else "needs_more_hosts"
    if not whole:
        return "swarm_serveable"
    return "be_first_host" if peers else "downloadable"
