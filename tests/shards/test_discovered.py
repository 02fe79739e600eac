"""What is learned without being asked for: its limits, and what gives way to what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.events import ModelRemoved
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import NotFound
from swarmd.domain.shards import Acquisition
from swarmd.models import catalog as catalogs
from swarmd.models.catalog import KnownModel
from swarmd.shards import discovered
from swarmd.shards.discovered import LEARNED_BYTES, LEAST_BYTES, SHARES, Spare, plan_place
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Holder, Store, discovered_of, offer, open_store
from tests.shards.test_desk import SHARD, TINY, Folks, ended, until, with_model

A, B, C = (NodeId(letter * 64) for letter in "abc")
PLENTY = {"free_bytes": 1 << 50, "free_places": 1 << 20}
SHARE = LEARNED_BYTES // SHARES


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


@pytest.fixture
def _one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model takes 13 kB: each of four peers may introduce one."""
    monkeypatch.setattr(discovered, "LEAST_BYTES", 20_000)
    monkeypatch.setattr(discovered, "LEARNED_BYTES", 80_000)


def spares(*of: tuple[NodeId | None, int]) -> list[Spare]:
    return [
        Spare(model=ModelId(f"m-{number}"), introducer=node, size_bytes=size) for number, (node, size) in enumerate(of)
    ]


def test_one_peer_has_a_share_by_bytes_and_by_number() -> None:
    assert plan_place([], A, SHARE, **PLENTY) == ()
    assert plan_place([], A, SHARE + 1, **PLENTY) is None
    many = spares(*[(A, 1000)] * (SHARE // LEAST_BYTES))
    assert plan_place(many, A, 1, **PLENTY) is None
    assert plan_place(many[1:], A, 1, **PLENTY) == ()
    assert plan_place(many, B, 1, **PLENTY) == (), "nobody has to go as long as there is room"


def test_who_is_over_its_share_gives_way_newest_first() -> None:
    full = spares(*[(A, SHARE // 2), (B, SHARE // 2)] * SHARES)
    assert plan_place(full, A, LEAST_BYTES, **PLENTY) is None, "not for more of the same"
    assert plan_place(full, C, SHARE // 2, **PLENTY) == ("m-7",)
    assert plan_place(full, C, SHARE, **PLENTY) == ("m-7", "m-6")


def test_a_small_disk_and_a_full_catalogue_are_shared_as_well() -> None:
    sizes = LEAST_BYTES * 8
    some = spares((A, sizes), (A, sizes))
    assert plan_place(some, A, LEAST_BYTES, free_bytes=0, free_places=99) is None
    assert plan_place(some, B, LEAST_BYTES, free_bytes=0, free_places=99) == ("m-1",)
    assert plan_place([], B, LEAST_BYTES, free_bytes=0, free_places=99) is None
    assert plan_place([], B, LEAST_BYTES, free_bytes=1 << 40, free_places=0) is None


@given(
    told=st.lists(st.tuples(st.sampled_from((A, B, C)), st.integers(1, SHARE)), max_size=60),
    free=st.integers(0, 2 * LEARNED_BYTES),
)
def test_whatever_is_told_the_limit_holds_and_nothing_comes_back(told: list[tuple[NodeId, int]], free: int) -> None:
    here: list[Spare] = []
    for number, (node, size) in enumerate(told):
        used = sum(spare.size_bytes for spare in here)
        one = Spare(model=ModelId(f"m-{number}"), introducer=node, size_bytes=size)
        going = plan_place(here, node, size, free_bytes=max(0, free - used), free_places=256 - len(here))
        if going is None:
            continue
        gone = [spare for spare in here if spare.model in going]
        assert len(gone) == len(going) and all(spare.introducer != node for spare in gone)
        here = [spare for spare in here if spare not in gone] + [one]
        assert sum(max(spare.size_bytes, LEAST_BYTES) for spare in here) <= LEARNED_BYTES
        assert sum(spare.size_bytes for spare in here) <= free
        for spare in gone:  # who gave way does not push out others in turn
            used = sum(spare.size_bytes for spare in here)
            back = plan_place(
                here, spare.introducer, spare.size_bytes, free_bytes=max(0, free - used), free_places=256 - len(here)
            )
            assert not back


async def learned(store: Store, folder: Path, name: str, node: NodeId) -> KnownModel:
    manifest, header, layout = offer(folder, ModelId(name), store.key)
    known = await store.catalog.adopt(manifest, header, expect=(ModelId(name), layout), introducer=node)
    assert isinstance(known, KnownModel), known
    return known


async def test_only_what_nobody_asked_for_gives_way(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    first, second, third = [await learned(store, tmp_path, name, A) for name in ("c", "b", "a")]
    judge = discovered_of(store)
    assert judge.spare_bytes() == 3 * first.stored_bytes and judge.spare_bytes(but=ModelId("a")) == 2 * first.stored_bytes
    await store.catalog.pin(ModelId("a"))
    assert not judge.is_merely(ModelId("a")) and not judge.is_merely(ModelId("x")) and judge.is_merely(ModelId("b"))
    with store.bus.spy() as spy:
        await judge.give_way(0)
        assert spy.facts == []
        await judge.give_way(1)
        assert spy.of(ModelRemoved) == [ModelRemoved(model=ModelId("b"))], "the newest"
    assert not store.catalog.folder(ModelId("b")).exists() and not store.catalog.was_removed(ModelId("b"))
    await judge.give_way(1 << 40)
    assert [known.manifest.model for known in store.catalog.all()] == ["a"]
    assert third.introducer == A and open_store(1, tmp_path).catalog.get(ModelId("a")).introducer == A
    assert second.stored_bytes == first.stored_bytes


async def test_a_full_catalogue_makes_a_place_for_a_file_of_this_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(1, tmp_path)
    known = await learned(store, tmp_path, "a", A)
    await learned(store, tmp_path, "b", A)
    judge = discovered_of(store)
    assert judge.admit_own(known) == ("a",), "its own name"
    await store.catalog.pin(ModelId("a"))
    assert judge.admit_own(known) == ()
    monkeypatch.setattr(catalogs, "MODELS_LIMIT", 2)
    assert judge.admit_own(known) == ("b",)
    assert isinstance(judge.admit(B, known), NotFound)


async def models_of(holder: Holder, folder: Path, *seeds: int) -> list[ModelId]:
    made: list[ModelId] = []
    for seed in seeds:
        added = await holder.desk.add_file(write_model(folder / f"model-{seed}.gguf", TinyModel(seed=seed)), SHARD)
        assert isinstance(added, str), added
        made.append(added)
    return made


def merely(holder: Holder) -> set[ModelId]:
    return {known.manifest.model for known in holder.store.catalog.all() if not known.pinned}


@pytest.mark.usefixtures("_one_each")
async def test_one_member_does_not_fill_the_catalogue(folks: Folks, tmp_path: Path) -> None:
    one, three, two = await folks.start(1), await folks.start(3), await folks.start(2)
    first, second, third = await models_of(one, tmp_path, 1, 2, 3)
    (fourth,) = await models_of(three, tmp_path, 4)
    await two.connect(one)
    await until(lambda: merely(two) == {first} and not two.desk._learner._busy)
    await two.connect(three)
    await until(lambda: merely(two) == {first, fourth})
    started = await two.desk.acquire(second, (0,))
    assert isinstance(started, Acquisition), "what somebody asks for needs no share"
    assert (await ended(two, second)).state == "complete"
    assert merely(two) == {first, fourth} and two.store.catalog.get(third) is None


@pytest.mark.usefixtures("_one_each")
async def test_what_has_no_room_is_not_sent_again_and_again(folks: Folks, tmp_path: Path, tiny: Path) -> None:
    one, two = await folks.start(1), await folks.start(2)
    big = write_model(tmp_path / "big.gguf", TinyModel(tokenizer=True, layers=40))
    assert await one.desk.add_file(big, SHARD) == "big"
    await two.connect(one)
    await until(lambda: bool(two.desk._learner._sizes) and not two.desk._learner._busy)
    assert two.store.catalog.all() == () and two.desk._learner._unknown(one.id) == []
    assert await one.desk.add_file(tiny, SHARD) == TINY
    two.hear(one)
    await until(lambda: merely(two) == {TINY})


async def test_what_is_merely_known_makes_room_for_what_is_wanted(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    (other,) = await models_of(one, tmp_path, 2)
    await two.connect(one)
    await until(lambda: merely(two) == {TINY, other})
    wanted, spare = two.store.catalog.get(TINY), two.store.catalog.get(other)
    assert wanted is not None and spare is not None
    limit = sum(spec.size_bytes for spec in wanted.manifest.shards) + wanted.stored_bytes
    two.desk._limit_bytes = lambda: limit  # type: ignore[method-assign]
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    done = await ended(two)
    assert done.state == "complete" and len(done.transfers) == len(wanted.manifest.shards), done
    assert two.store.catalog.get(other) is None and not two.store.catalog.folder(other).exists()


async def test_a_file_finds_room_where_models_are_merely_known(folks: Folks, tiny: Path, tmp_path: Path) -> None:
    one, two = await folks.start(1), await folks.start(2)
    (other,) = await models_of(one, tmp_path, 2)
    await two.connect(one)
    await until(lambda: merely(two) == {other})
    two.in_memory.add(other)
    spare = two.store.catalog.get(other)
    assert spare is not None
    limit = tiny.stat().st_size + spare.stored_bytes  # room for one of the two
    two.desk._limit_bytes = lambda: limit  # type: ignore[method-assign]
    assert two.desk._discovered.spare_bytes() == 0, "a worker uses it"
    two.in_memory.clear()
    assert await two.desk.add_file(tiny, SHARD) == TINY
    assert two.store.catalog.get(other) is None
