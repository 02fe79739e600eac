"""Whether shards are the file: its SHA-256 over header, tensors and the zeros between them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import Manifest
from swarmd.downloads.ranges import RangeClient
from swarmd.kit.world import real_world
from swarmd.models.catalog import HEADER_NAME, KnownModel
from swarmd.models.manifest import encode
from swarmd.shards import whole
from swarmd.shards.landing import pieces
from swarmd.shards.whole import WholeCheck
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Store, open_store
from tests.fakes.shards import CutModel, cut_model
from tests.models.test_seals import signed_by, unsealed

MODEL = ModelId("tiny")


async def held(store: Store, cut: CutModel, data: bytes, manifest: Manifest) -> KnownModel:
    """All shards of it, as somebody else sealed them."""
    sealed = replace(manifest, shards=cut.manifest.shards)
    known = await store.catalog.adopt(encode(signed_by(store, sealed)), data[: cut.header.data_offset])
    assert isinstance(known, KnownModel), known
    for index, payload in enumerate(cut.payloads):
        landing = await store.storage.open_landing(ShardRef(MODEL, index))
        for number in landing.missing():
            start = number * 8192
            await landing.write_chunk(number, payload[start : start + landing.chunk_size(number)])
        await landing.commit()
    return known


def check_of(store: Store) -> WholeCheck:
    client = RangeClient(
        world=real_world(), hub=lambda: "http://127.0.0.1:9", token=lambda: None, proxy=lambda: None, user_agent="test"
    )
    return WholeCheck(
        catalog=store.catalog, storage=store.storage, disk=store.disk, client=client, url=lambda *_: "http://127.0.0.1:9/x"
    )


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(None, True), ("0" * 64, False), ("", None)],
    ids=["the file's own", "another file's", "the hub does not say"],
)
async def test_one_file(tmp_path: Path, tiny: Path, stated: str | None, expected: bool | None) -> None:
    data = tiny.read_bytes()
    store, cut = open_store(1, tmp_path), cut_model(data, shard_size_bytes=100_000)
    sha256 = (hashlib.sha256(data).hexdigest() if stated is None else stated) or None
    known = await held(store, cut, data, unsealed(cut, sha256=sha256))
    assert await check_of(store).matches(known) is expected


async def test_bytes_behind_the_tensors_leave_it_open(tmp_path: Path, tiny: Path) -> None:
    """Some writers put something there; that the hash does not fit says nothing about the shards then."""
    data = tiny.read_bytes()
    longer = data + b"what is this?"
    store, cut = open_store(1, tmp_path), cut_model(data, shard_size_bytes=100_000)
    cut = replace(cut, manifest=replace(cut.manifest, file_size_bytes=len(longer)))
    known = await held(store, cut, longer, unsealed(cut, sha256=hashlib.sha256(longer).hexdigest()))
    assert await check_of(store).matches(known) is None
    zeros = data + bytes(13)
    (tmp_path / "zeros").mkdir()
    other = open_store(2, tmp_path / "zeros")
    known = await held(other, cut, zeros, unsealed(cut, sha256=hashlib.sha256(zeros).hexdigest()))
    assert await check_of(other).matches(known) is True


async def test_both_copies_of_a_tied_embedding_are_compared(tmp_path: Path) -> None:
    """Seen: only the first shard's was hashed, and wrong bytes in the last one passed as the hub's file."""
    data = write_model(tmp_path / "tied.gguf", TinyModel(tied=True)).read_bytes()
    store, cut = open_store(1, tmp_path), cut_model(data, shard_size_bytes=100_000)
    known = await held(store, cut, data, unsealed(cut, sha256=hashlib.sha256(data).hexdigest()))
    assert await check_of(store).matches(known) is True
    last = known.manifest.shards[-1]
    position = 0
    for span in last.tensors:
        if span.name == "token_embd.weight":
            break
        position += span.size_bytes
    else:
        raise AssertionError("the embedding is not in the last shard")
    ((at, _, _),) = pieces(known.files[last.index].runs, position + span.size_bytes - 1, 1)
    with store.storage.path(ShardRef(MODEL, last.index)).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    assert await check_of(store).matches(known) is False


async def test_zeros_are_hashed_step_by_step_and_not_without_end(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: a hub file with 1.5 GB behind its tensors took that much memory at once, on the loop."""
    monkeypatch.setattr(whole, "STEP_BYTES", 1000)
    data = tiny.read_bytes() + bytes(2500)
    store, cut = open_store(1, tmp_path), cut_model(data, shard_size_bytes=100_000)
    known = await held(store, cut, data, unsealed(cut, sha256=hashlib.sha256(data).hexdigest()))
    assert await check_of(store).matches(known) is True
    monkeypatch.setattr(whole, "GAPS_LIMIT", 2499)
    assert await check_of(store).matches(known) is None


async def test_a_model_that_is_removed_meanwhile_is_an_error_of_the_disk(tmp_path: Path, tiny: Path) -> None:
    data = tiny.read_bytes()
    store, cut = open_store(1, tmp_path), cut_model(data, shard_size_bytes=100_000)
    known = await held(store, cut, data, unsealed(cut, sha256=hashlib.sha256(data).hexdigest()))
    header = store.catalog.folder(MODEL) / HEADER_NAME
    store.storage.forget(MODEL)
    await store.catalog.remove(MODEL)
    header.parent.mkdir()
    header.write_bytes(data[: cut.header.data_offset])
    with pytest.raises(OSError, match="not on this node"):
        await check_of(store).matches(known)
