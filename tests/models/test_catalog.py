"""What the catalogue takes, keeps and forgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.events import ModelDiscovered, ModelRemoved
from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.models import TrustLevel
from swarmd.domain.refusals import BadFile, Busy, IdTaken, UnsupportedModel
from swarmd.identity.keys import Signed
from swarmd.models import catalog as catalogs
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode, signed
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import HastyDisk, Store, offer, open_store
from tests.fakes.shards import cut_model

MODEL = ModelId("tiny")


def parts(tmp_path: Path, store: Store, *, shard_size: int = 100_000, sign: bool = True) -> tuple[bytes, bytes]:
    data = write_model(tmp_path / "tiny.gguf", TinyModel()).read_bytes()
    cut = cut_model(data, shard_size_bytes=shard_size)
    manifest = cut.manifest
    if sign:
        manifest = signed(manifest, store.key.node, lambda text: store.key.sign(Signed.MANIFEST, text))
    return encode(manifest), data[: cut.header.data_offset]


async def test_a_model_is_known_once_and_after_a_restart(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    manifest, header = parts(tmp_path, store)
    with store.bus.spy() as spy:
        known = await store.catalog.adopt(manifest, header)
        assert isinstance(known, KnownModel) and len(known.files) == len(known.manifest.shards)
        assert await store.catalog.adopt(manifest, header) is known
        assert spy.of(ModelDiscovered) == [ModelDiscovered(model=MODEL, name="tiny")]
    assert store.catalog.vocabulary_path(MODEL).exists() and store.catalog.trust(MODEL) is TrustLevel.DISCOVERED
    await store.catalog.pin(MODEL)
    await store.catalog.pin(MODEL)
    again = open_store(1, tmp_path)
    found = again.catalog.get(MODEL)
    assert found is not None and found.manifest == known.manifest and again.catalog.trust(MODEL) is TrustLevel.PINNED


async def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    manifest, header = parts(tmp_path, store)
    forged = manifest.replace(b'"name":"tiny"', b'"name":"evil"')
    for data, head in ((forged, header), (manifest, header[:-1]), (manifest, header[:-1] + b"x"), (b"{}", header)):
        assert isinstance(await store.catalog.adopt(data, head), BadFile)
    assert store.catalog.all() == () and not store.catalog.folder(MODEL).exists()


async def test_an_architecture_that_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    manifest, header = parts(tmp_path, store)
    outcome = await store.catalog.adopt(manifest, header.replace(b"llama", b"lxxma"))
    assert isinstance(outcome, BadFile | UnsupportedModel)


async def test_a_peer_must_send_what_was_asked_for_and_signed(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    unsigned, header = parts(tmp_path, store, sign=False)
    manifest, _ = parts(tmp_path, store)
    layout = cut_model((tmp_path / "tiny.gguf").read_bytes(), shard_size_bytes=100_000).manifest.layout
    assert isinstance(await store.catalog.adopt(unsigned, header, expect=(MODEL, layout)), BadFile)
    assert isinstance(await store.catalog.adopt(manifest, header, expect=(MODEL, "0" * 32)), BadFile)
    assert isinstance(await store.catalog.adopt(manifest, header, expect=(ModelId("other"), layout)), BadFile)
    assert isinstance(await store.catalog.adopt(manifest, header, expect=(MODEL, layout)), KnownModel)


async def test_another_layout_of_a_known_model_is_refused(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    assert isinstance(await store.catalog.adopt(*parts(tmp_path, store)), KnownModel)
    assert isinstance(await store.catalog.adopt(*parts(tmp_path, store, shard_size=200_000)), IdTaken)


async def test_there_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogs, "MODELS_LIMIT", 0)
    store = open_store(1, tmp_path)
    assert isinstance(await store.catalog.adopt(*parts(tmp_path, store)), BadFile)


async def test_removing_and_half_a_folder(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    manifest, header = parts(tmp_path, store)
    await store.catalog.adopt(manifest, header)
    assert await store.catalog.remove(MODEL) == 3
    assert store.catalog.get(MODEL) is None and not store.catalog.folder(MODEL).exists()
    await store.catalog.adopt(manifest, header)
    (store.catalog.folder(MODEL) / catalogs.HEADER_NAME).unlink()
    (tmp_path / "models" / "not a model").mkdir()
    (tmp_path / "models" / "not a model" / catalogs.MANIFEST_NAME).write_text("{}")
    again = open_store(1, tmp_path)
    assert again.catalog.all() == ()
    assert isinstance(await again.catalog.adopt(manifest, header), KnownModel)


async def test_a_folder_of_another_model_is_left_alone(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    known = await store.catalog.adopt(*parts(tmp_path, store))
    assert isinstance(known, KnownModel) and replace(known.manifest) == known.manifest
    store.catalog.folder(MODEL).rename(store.catalog.folder(ModelId("stolen")))
    assert open_store(1, tmp_path).catalog.all() == ()


async def test_what_was_removed_is_remembered_until_it_is_wanted_again(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    manifest, header = parts(tmp_path, store)
    await store.catalog.adopt(manifest, header)
    with store.bus.spy() as spy:
        await store.catalog.remove(MODEL)
        assert spy.of(ModelRemoved) == [ModelRemoved(model=MODEL)]
    again = open_store(1, tmp_path).catalog
    assert again.was_removed(MODEL) and not again.was_removed(ModelId("other"))
    assert isinstance(await again.adopt(manifest, header), KnownModel)
    assert not again.was_removed(MODEL) and not open_store(1, tmp_path).catalog.was_removed(MODEL)


async def test_the_removed_are_bounded_and_a_broken_list_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "REMOVED_LIMIT", 2)
    store = open_store(1, tmp_path)
    for name in ("a", "b", "a", "c"):
        await store.catalog.remove(ModelId(name))
    again = open_store(1, tmp_path)
    assert [name for name in "abc" if again.catalog.was_removed(ModelId(name))] == ["a", "c"]
    (tmp_path / "models" / catalogs.REMOVED_NAME).write_text("../x")
    assert not open_store(1, tmp_path).catalog.was_removed(ModelId("a"))


async def test_a_removal_and_an_adoption_that_were_killed_are_cleared_away(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    await store.catalog.adopt(*parts(tmp_path, store))
    await store.catalog.remove(MODEL)
    left, half, strange = (tmp_path / "models" / name for name in (MODEL, "half", "strange"))
    for folder, name in ((left, "shard_000.gguf"), (half, catalogs.HEADER_NAME), (strange, "shard_000.gguf")):
        folder.mkdir()
        (folder / name).write_bytes(b"x")
    (tmp_path / "models" / "file").write_bytes(b"x")
    open_store(1, tmp_path)
    assert (left.exists(), half.exists(), strange.exists()) == (False, False, True)


async def test_a_model_that_is_let_in_may_replace_others(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    node = NodeId("a" * 64)
    manifest, header, layout = offer(tmp_path, ModelId("one"), store.key)
    one = await store.catalog.adopt(manifest, header, expect=(ModelId("one"), layout), introducer=node)
    assert isinstance(one, KnownModel) and one.introducer == node
    other = parts(tmp_path, store)
    assert isinstance(await store.catalog.adopt(*other, admit=lambda _: Busy(what="no")), Busy)
    assert [known.manifest.model for known in store.catalog.all()] == ["one"]
    with store.bus.spy() as spy:
        known = await store.catalog.adopt(*other, admit=lambda _: (ModelId("one"),))
        assert isinstance(known, KnownModel) and known.introducer is None
        assert [type(fact) for fact in spy.facts] == [ModelRemoved, ModelDiscovered]
    assert not store.catalog.folder(ModelId("one")).exists() and store.catalog.stored_bytes() == known.stored_bytes
    assert open_store(1, tmp_path).catalog.stored_bytes() == known.stored_bytes


async def test_a_full_disk_keeps_no_half_model(tmp_path: Path) -> None:
    class FullDisk(HastyDisk):
        def write_atomic_now(self, path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
            if path.name == catalogs.MANIFEST_NAME:
                raise OSError(28, "no space left")
            super().write_atomic_now(path, data, mode=mode)

    store = open_store(1, tmp_path, disk=FullDisk())
    with pytest.raises(OSError, match="no space left"):
        await store.catalog.adopt(*parts(tmp_path, store))
    assert store.catalog.all() == () and not store.catalog.folder(MODEL).exists()
