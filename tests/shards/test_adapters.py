"""Registering adapters: from which places, with which words when something is wrong, and what a restart finds."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.adapters import Adapter, NewAdapter, is_adapter_id
from swarmd.domain.events import AdapterRegistered, AdapterRemoved
from swarmd.domain.refusals import Refusal
from swarmd.kit.bus import EventBus
from swarmd.kit.world import seeded_world
from swarmd.shards import adapters as module
from swarmd.shards.adapters import Adapters, AdapterSlices
from swarmd.store.database import Database, Transaction
from tests.fakes.adapters import known_model, random_adapter, write_adapter
from tests.fakes.gguf import TinyModel
from tests.fakes.holders import HastyDisk, open_store
from tests.fakes.inline_sqlite import inline_database
from tests.shards.test_adapter_exchange import exchange_of
from tests.shards.test_adapter_parts import SHAPE, AdapterParts

GOOD = NewAdapter(id="mine", name="Mine", base_model="tiny", rank=4, alpha=8.0, path="one/adapter_model.safetensors")


class Home:
    """One node's adapters over a database that stays."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder, self.db, self.bus, self.more = folder / "adapters", db, EventBus(), ""
        self.known = known_model(folder, SHAPE)
        self.store = open_store(1, folder)
        self.store.catalog._models[self.known.manifest.model] = self.known
        self.adapters = self.opened()

    def opened(self) -> Adapters:
        disk = HastyDisk()
        parts = AdapterParts(root=self.folder / ".parts", disk=disk, registered=lambda: made.digests())
        made = Adapters(
            folder=self.folder, more_folder=lambda: self.more, catalog=self.store.catalog, parts=parts,
            exchange=exchange_of(self.store, parts, self.bus), db=self.db, disk=disk, world=seeded_world(1), bus=self.bus,
        )  # fmt: skip
        return made

    async def add(self, **changed: object) -> Adapter:
        added = await self.adapters.register(replace(GOOD, **changed))
        assert isinstance(added, Adapter), added
        return added

    async def refused(self, **changed: object) -> tuple[str | None, str]:
        refusal = await self.adapters.register(replace(GOOD, **changed))
        assert isinstance(refusal, Refusal), refusal
        return getattr(refusal, "param", None), refusal.sentence


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with inline_database() as db:
        made = Home(tmp_path, db)
        await made.adapters.load()
        write_adapter(made.folder / "one", random_adapter(SHAPE))
        yield made


async def test_one_is_registered_kept_over_a_restart_and_removed(home: Home) -> None:
    with home.bus.spy() as spy:
        adapter = await home.add()
        assert (adapter.id, adapter.base_model, adapter.rank, adapter.alpha) == ("mine", "tiny", 4, 8.0)
        assert adapter.path == str(home.folder.resolve() / "one" / "adapter_model.safetensors")
        assert [fact.adapter for fact in spy.of(AdapterRegistered)] == ["mine"]
    slices = await home.adapters.prepare(adapter.ref, home.known, 0, len(home.known.manifest.shards) - 1, source=None)
    assert isinstance(slices, AdapterSlices)
    assert all(file is not None and file[0].read_bytes()[:4] == b"GGUF" for file in slices.files.values())
    home.adapters = home.opened()
    await home.adapters.load()
    assert home.adapters.all() == (adapter,)
    twin = await home.add(id="twin")
    assert twin.ref == adapter.ref
    with home.bus.spy() as spy:
        assert await home.adapters.remove("mine") == adapter
        assert [fact.adapter for fact in spy.of(AdapterRemoved)] == ["mine"]
    assert isinstance(
        await home.adapters.prepare(adapter.ref, home.known, 0, 0, source=None), AdapterSlices
    ), "the twin needs the same parts"
    await home.adapters.remove("twin")
    assert isinstance(await home.adapters.prepare(adapter.ref, home.known, 0, 0, source=None), Refusal)
    assert Path(adapter.path).exists() and home.adapters.all() == ()
    refusal = await home.adapters.remove("mine")
    assert isinstance(refusal, Refusal) and "'mine'" in refusal.sentence


async def test_one_whose_registration_was_cancelled_at_the_commit_has_its_parts_after_the_restart(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = home.db.transaction

    @asynccontextmanager
    async def too_late() -> AsyncIterator[Transaction]:
        async with real() as tx:
            yield tx
        raise asyncio.CancelledError

    monkeypatch.setattr(home.db, "transaction", too_late)
    with pytest.raises(asyncio.CancelledError):
        await home.adapters.register(GOOD)
    home.adapters = home.opened()
    await home.adapters.load()
    (adapter,) = home.adapters.all()
    assert isinstance(await home.adapters.prepare(adapter.ref, home.known, 0, 0, source=None), AdapterSlices)


async def test_without_an_id_it_gets_a_uuid(home: Home) -> None:
    adapter = await home.add(id=None)
    assert str(uuid.UUID(adapter.id)) == adapter.id and is_adapter_id(adapter.id)


async def test_a_file_outside_the_folder_is_refused_however_it_is_named(home: Home, tmp_path: Path) -> None:
    outside = write_adapter(tmp_path / "outside", random_adapter(SHAPE))
    (home.folder / "link.safetensors").symlink_to(outside)
    (home.folder / "circle").symlink_to(home.folder / "circle")
    for path in (
        str(outside), "../outside/adapter_model.safetensors", "one/../../outside/adapter_model.safetensors",
        "link.safetensors", "circle", "nothing.safetensors", "one", "", "a\0b", "x" * 4000,
    ):  # fmt: skip
        param, sentence = await home.refused(path=path)
        assert param == "path", sentence
    home.more = str(tmp_path / "outside")
    assert (await home.add(path=str(outside))).path == str(outside.resolve())
    assert (await home.add(id="absolute", path=str(home.folder / "one" / "adapter_model.safetensors"))).rank == 4


async def test_what_is_wrong_is_named_by_its_field(home: Home) -> None:
    for changed, field in (
        ({"base_model": "nobody"}, "base_model"), ({"base_model": "///"}, "base_model"), ({"id": "a:b"}, "id"),
        ({"id": ".x"}, "id"), ({"id": "x" * 65}, "id"), ({"rank": 5}, "rank"), ({"alpha": None}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
    ):  # fmt: skip
        assert (await home.refused(**changed))[0] == field, changed
    await home.add()
    assert (await home.refused())[0] == "id"
    assert home.adapters.all()[0].id == "mine" and len(home.adapters.all()) == 1


async def test_files_that_are_no_adapters_leave_nothing_behind(home: Home) -> None:
    path = home.folder / "one" / "adapter_model.safetensors"
    good = path.read_bytes()
    for bad in (b"", b"GGUF", good[:-1], good[:1000], b"\xff" * 100):
        path.write_bytes(bad)
        param, sentence = await home.refused()
        assert param == "path" and "safetensors" in sentence
    path.write_bytes(good)
    (path.parent / "adapter_config.json").write_text('{"use_dora": true}')
    assert "DoRA" in (await home.refused())[1]
    (path.parent / "adapter_config.json").write_text(" " * (1 << 20) + "{} ")
    assert "more than" in (await home.refused())[1]
    assert not list((home.folder / ".parts").iterdir())
    tensors = random_adapter(SHAPE)
    next(iter(tensors.values()))[0, 0] = float("nan")
    write_adapter(home.folder / "nan", tensors)
    assert "layer 0" in (await home.refused(path="nan/adapter_model.safetensors"))[1]
    assert not list((home.folder / ".parts").iterdir())


async def test_alpha_is_found_beside_the_file(home: Home) -> None:
    write_adapter(home.folder / "peft", random_adapter(SHAPE), r=4, lora_alpha=12)
    assert (await home.add(alpha=None, rank=None, path="peft/adapter_model.safetensors")).alpha == 12.0


async def test_there_is_a_most(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADAPTERS_LIMIT", 1)
    await home.add()
    assert "registered already" in (await home.refused(id="second"))[1]


async def test_a_damaged_part_of_ones_own_says_so(home: Home) -> None:
    adapter = await home.add()
    part = home.folder / ".parts" / adapter.ref.digest.hex() / "layer_000"
    part.write_bytes(bytes(part.stat().st_size))
    refusal = await home.adapters.prepare(adapter.ref, home.known, 0, 0, source=None)
    assert isinstance(refusal, Refusal) and "add it again" in refusal.sentence


async def test_an_adapter_of_another_shape_is_refused(home: Home) -> None:
    write_adapter(home.folder / "wide", random_adapter(TinyModel(width=128, layers=3)))
    param, sentence = await home.refused(path="wide/adapter_model.safetensors")
    assert param == "path" and "does not fit its base model" in sentence
