from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.hub import HubRepo, HubVariant, RankedRepo
from swarmd.downloads.ranking import RUN_FACTOR, model_of, rank, recommended, shard_estimate

GB = 1_000_000_000


def variant(size: int, quant: str) -> HubVariant:
    return HubVariant(filename=f"m-{quant}.gguf", size_bytes=size, quant=quant)


def repo(size: int = 4 * GB, *, downloads: int = 1000, name: str = "a/b", quant: str = "Q4_K_M") -> HubRepo:
    return HubRepo(repo_id=name, downloads=downloads, likes=0, variants=(variant(size, quant),))


def ranked(one: HubRepo, *, here: int = 0, swarm: int = 0, peers: int = 0, copies: int = 0) -> RankedRepo:
    (found,) = rank([one], memory_here=here, memory_swarm=swarm, peers=peers, replicas=lambda _: copies)
    return found


def test_which_variant_is_recommended() -> None:
    small, four, exact, first = variant(1, "Q2_K"), variant(2, "UD-Q4_K_XL"), variant(3, "Q4_K_M"), variant(4, "Q8_0")
    assert recommended((small, four, exact, first)) is exact
    assert recommended((small, four, first)) is four
    assert recommended((small, first)) is small
    assert recommended(()) is None


@pytest.mark.parametrize(
    ("size", "shard"), [(8 * GB, 800_000_000), (100_000_000, 50_000_000), (160 * GB, 10 * GB), (1, 1)]
)
def test_shards_are_estimated_as_the_contract_says(size: int, shard: int) -> None:
    assert shard_estimate(size) == shard


@pytest.mark.parametrize(
    ("copies", "demand"), [(0, 1.5), (1, 1.2), (2, 1.2), (3, 1.0), (9, 1.0), (10, 0.7), (1000, 0.7)]
)
def test_the_score_is_that_of_the_contract(copies: int, demand: float) -> None:
    found = ranked(repo(downloads=990), here=100 * GB, copies=copies)
    assert found.quality == pytest.approx(math.log10(1000) / 7)
    assert (found.fit, found.demand, found.size) == (1.0, demand, 0.5)
    assert found.score == pytest.approx(found.quality * found.fit * demand * 0.5 * 100)
    assert found.replicas == copies


def test_what_fits() -> None:
    size = 8 * GB  # ten shards of 0.8 GB, 1.92 GB at both ends
    for memory, whole, boomerang, shard in (
        (size * RUN_FACTOR, True, True, True), (size * RUN_FACTOR - 1e6, False, True, True),
        (1.92 * GB * RUN_FACTOR - 1e6, False, False, True), (0.8 * GB * RUN_FACTOR - 1e6, False, False, False),
        (0, False, False, False),
    ):  # fmt: skip
        found = ranked(repo(size), here=int(memory) + (1 if whole else 0))
        assert found.fit == (1.0 if whole else 0.6 if shard else 0.1)
        assert (found.fits_boomerang, found.fits_shard) == (boomerang, shard)
        assert found.fits_vram == (whole or boomerang or shard)
    assert (found.est_shard_bytes, found.est_boomerang_bytes) == (800_000_000, 1_920_000_000)


@pytest.mark.parametrize(
    ("here", "swarm", "peers", "copies", "cta"),
    [
        (0, 0, 5, 5, "unreachable"), (100, 100, 0, 0, "downloadable"), (100, 100, 2, 0, "be_first_host"),
        (1, 100, 2, 0, "swarm_serveable"), (1, 100, 2, 1, "needs_more_hosts"), (1, 100, 2, 3, "well_replicated"),
    ],
)  # fmt: skip
def test_what_could_be_done(here: int, swarm: int, peers: int, copies: int, cta: str) -> None:
    assert ranked(repo(), here=here * GB, swarm=swarm * GB, peers=peers, copies=copies).cta == cta


def test_a_repository_without_models_is_last_and_breaks_nothing() -> None:
    empty = HubRepo(repo_id="a/empty", downloads=10**9, likes=0, variants=())
    found = rank([empty, repo()], memory_here=GB, memory_swarm=GB, peers=0, replicas=lambda _: 0)
    assert [one.repo.repo_id for one in found] == ["a/b", "a/empty"]
    assert (found[1].score, found[1].recommended, found[1].fits_vram) == (0.0, "", False)


@given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(-5, 10**10)), max_size=8), st.integers(0, 10**13))
def test_the_best_is_first_whatever_comes(rows: list[tuple[int, int]], memory: int) -> None:
    repos = [repo(size, downloads=downloads, name=f"a/{number}") for number, (size, downloads) in enumerate(rows)]
    found = rank(repos, memory_here=memory, memory_swarm=memory, peers=1, replicas=lambda _: 0)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {one.repo.repo_id for one in found} == {one.repo_id for one in repos}


def test_a_split_model_has_the_name_of_the_whole() -> None:
    assert model_of("dir/Big-Q4_0-00001-of-00003.gguf") == model_of("dir/Big-Q4_0.gguf")
    assert model_of("///.gguf") is None
