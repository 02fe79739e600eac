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
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import encode
from swarmd.shards.whole import WholeCheck
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
