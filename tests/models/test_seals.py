"""Hashes that come after the manifest: who may give them, for which shard, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.domain.hub import HubPart, HubSource
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.models import Manifest
from swarmd.domain.refusals import BadFile
from swarmd.identity.keys import Signed
from swarmd.models import seals
from swarmd.models.catalog import KnownModel
from swarmd.models.manifest import canonical_bytes, decode, encode, signed
from swarmd.shards.landing import ChunkMismatch
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Store, open_store
from tests.fakes.shards import CutModel, cut_model, hash_of

MODEL = ModelId("tiny")


def unsealed(cut: CutModel, **change: object) -> Manifest:
    """As it is made of a header on the hub, before anybody read the data."""
    start = cut.header.data_offset
    part = HubPart(
        filename="tiny.gguf", size_bytes=cut.manifest.file_size_bytes, sha256="5" * 64, data_offset=start,
        virtual_offset=start,
    )  # fmt: skip
    source = HubSource(repo_id="o/n", commit="c" * 40, parts=(replace(part, **change),))  # type: ignore[arg-type]
    shards = tuple(replace(shard, blake3="", chunk_blake3=()) for shard in cut.manifest.shards)
    return replace(cut.manifest, shards=shards, source=source)


def signed_by(store: Store, manifest: Manifest) -> Manifest:
    return signed(manifest, store.key.node, lambda text: store.key.sign(Signed.MANIFEST, text))


def seal_of(store: Store, cut: CutModel, index: int, **change: object) -> bytes:
    payload = replace(hash_of(cut.payloads[index]), **change)  # type: ignore[arg-type]
    sign = lambda text: store.key.sign(Signed.MANIFEST, text)  # noqa: E731
    return seals.encode(seals.make(unsealed(cut), index, payload, signer=store.key.node, sign=sign))


async def known_in(store: Store, folder: Path) -> tuple[CutModel, KnownModel]:
    data = write_model(folder / "tiny.gguf", TinyModel()).read_bytes()
    cut = cut_model(data, shard_size_bytes=100_000)
    known = await store.catalog.adopt(encode(signed_by(store, unsealed(cut))), data[: cut.header.data_offset])
    assert isinstance(known, KnownModel), known
    return cut, known


async def test_a_shard_is_sealed_once_and_stays_sealed(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    cut, known = await known_in(store, tmp_path)
    assert not any(shard.sealed for shard in known.manifest.shards)
    sealed = await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    assert isinstance(sealed, KnownModel)
    assert sealed.manifest.shards[1] == cut.manifest.shards[1] and not sealed.manifest.shards[0].sealed
    assert sealed.identity == known.identity, "what has arrived stays good"
    other = open_store(2, tmp_path / "other")
    late = await store.catalog.seal(MODEL, 1, seal_of(other, cut, 1, blake3="0" * 64))
    assert late is sealed, "the first seal stays"
    again = open_store(1, tmp_path)
    found = again.catalog.get(MODEL)
    assert found is not None and found.manifest.shards == sealed.manifest.shards
    await again.catalog.unseal(MODEL, 1)
    assert (found := again.catalog.get(MODEL)) is not None and not found.manifest.shards[1].sealed
    assert (found := open_store(1, tmp_path).catalog.get(MODEL)) is not None and not found.manifest.shards[1].sealed


async def test_bad_seals_are_refused(tmp_path: Path) -> None:
    store = open_store(1, tmp_path)
    cut, _ = await known_in(store, tmp_path)
    good = seal_of(store, cut, 1)
    chunks = hash_of(cut.payloads[1]).chunk_blake3
    for index, data in (
        (0, good),
        (99, good),
        (1, good[:-1]),
        (1, b"[" * 100_000),
        (1, good.replace(b'"index":1', b'"index":2')),
        (1, good.replace(store.key.node.encode(), b"0" * 64)),
        (1, seal_of(store, cut, 1, chunk_blake3=chunks[:-1])),
        (1, seal_of(store, cut, 1, blake3="X" * 64)),
        (1, b" " * (seals.SEAL_LIMIT + 1)),
    ):
        assert isinstance(await store.catalog.seal(MODEL, index, data), BadFile), (index, data[:80])
    assert isinstance(await store.catalog.seal(ModelId("other"), 1, good), BadFile)


async def test_an_unsealed_shard_lands_is_hashed_sealed_and_named(tmp_path: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    landing = await store.storage.open_landing(ref)
    payload = cut.payloads[1]
    for chunk in landing.missing():
        for block in landing.missing_blocks(chunk):
            await landing.write_block(block, [payload[block * landing.block_bytes :][: landing.block_size(block)]])
    hashed = await landing.hash()
    assert hashed == hash_of(payload)
    assert isinstance(await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1)), KnownModel)
    await landing.commit()
    assert store.storage.held(MODEL) == (1,) and await store.storage.verify(ref)


async def test_a_commit_against_another_seal_than_its_bytes_fails(tmp_path: Path) -> None:
    store, ref = open_store(1, tmp_path), ShardRef(MODEL, 1)
    cut, _ = await known_in(store, tmp_path)
    landing = await store.storage.open_landing(ref)
    for number in landing.missing():
        size = landing.chunk_size(number)
        await landing.write_chunk(number, bytes(size))
    await landing.hash()
    await store.catalog.seal(MODEL, 1, seal_of(store, cut, 1))
    with pytest.raises(ChunkMismatch):
        await landing.commit()
    assert store.storage.held(MODEL) == ()


def test_the_identity_tells_sources_apart(tmp_path: Path) -> None:
    cut = cut_model(write_model(tmp_path / "tiny.gguf", TinyModel()).read_bytes(), shard_size_bytes=100_000)
    first, other = unsealed(cut), unsealed(cut, sha256="6" * 64)
    assert len({seals.identity(cut.manifest), seals.identity(first), seals.identity(other)}) == 3
    renamed = replace(first, name="x", publisher=None, created_at=1)
    assert seals.identity(renamed) == seals.identity(first)


def test_a_manifest_signed_before_there_were_sources_is_still_good(tmp_path: Path) -> None:
    cut = cut_model(write_model(tmp_path / "tiny.gguf", TinyModel()).read_bytes(), shard_size_bytes=100_000)
    assert b'"source"' not in canonical_bytes(cut.manifest) and b'"source"' in canonical_bytes(unsealed(cut))


@pytest.mark.parametrize(
    "change",
    [
        {"filename": "../tiny.gguf"}, {"filename": "tiny.bin"}, {"filename": "/tiny.gguf"}, {"filename": "a//b.gguf"},
        {"sha256": "zz"}, {"size_bytes": 10}, {"data_offset": 0}, {"virtual_offset": 1}, {"virtual_offset": 1 << 50},
        {"filename": "a b.gguf"}, {"filename": "x" * 300 + ".gguf"},
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    cut = cut_model(write_model(tmp_path / "tiny.gguf", TinyModel()).read_bytes(), shard_size_bytes=100_000)

    def anybody(*_: object) -> bool:
        return True

    assert isinstance(decode(encode(unsealed(cut)), verify=anybody), Manifest)
    bad = unsealed(cut, **change)
    assert isinstance(decode(encode(bad), verify=anybody), BadFile)
    for source in (
        replace(bad.source, parts=()), replace(bad.source, repo_id="nobody"), replace(bad.source, repo_id="a/../b"),
        replace(bad.source, commit="main"), None,
    ):  # fmt: skip
        assert isinstance(decode(encode(replace(unsealed(cut), source=source)), verify=anybody), BadFile)
