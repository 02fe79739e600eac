from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NodeId
from swarmd.domain.models import CHUNK_BYTES, Manifest, ShardSpec, TensorSpan
from swarmd.domain.refusals import BadFile
from swarmd.models.gguf_values import ValueType, number_value, text_value
from swarmd.models.manifest import (
    MANIFEST_LIMIT,
    PayloadHasher,
    canonical_bytes,
    check_against_header,
    decode,
    encode,
    quantization,
    signed,
)
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import CutModel, cut_model

PUBLISHER = NodeId("ab" * 32)


def sign(message: bytes) -> bytes:
    """Stands for Ed25519: 64 bytes that only this message has."""
    return blake3(message, key=b"k" * 32).digest(length=64)


def verify(publisher: NodeId, message: bytes, signature: bytes) -> bool:
    return publisher == PUBLISHER and signature == sign(message)


def nobody(publisher: NodeId, message: bytes, signature: bytes) -> bool:
    raise AssertionError("an unsigned manifest has nothing to verify")


@cache
def model(*, tied: bool = True) -> CutModel:
    with tempfile.TemporaryDirectory() as folder:
        data = write_model(Path(folder) / "model.gguf", TinyModel(layers=5, tied=tied, rope_factors=True)).read_bytes()
    return cut_model(data, shard_size_bytes=110_000)


def test_it_says_what_the_model_is() -> None:
    manifest = model().manifest
    assert len(manifest.shards) == 3
    assert (manifest.architecture, manifest.layer_count, manifest.width, manifest.vocab_size) == ("llama", 5, 64, 320)
    assert (manifest.context_length, manifest.quantization, manifest.publisher) == (4096, "Q8_0", None)
    for shard, payload in zip(manifest.shards, model().payloads, strict=True):
        assert (shard.size_bytes, shard.blake3) == (len(payload), blake3(payload).hexdigest())
        assert shard.chunk_blake3 == (shard.blake3,), "one chunk"


def test_it_comes_back_as_it_was() -> None:
    manifest = model().manifest
    assert decode(encode(manifest), verify=nobody) == manifest
    named = signed(manifest, PUBLISHER, sign)
    assert named.publisher == PUBLISHER and len(named.signature) == 128
    assert decode(encode(named), verify=verify) == named
    assert check_against_header(named, model().header) is None


def test_what_is_signed_does_not_depend_on_the_signature_or_the_order_of_keys() -> None:
    named = signed(model().manifest, PUBLISHER, sign)
    assert canonical_bytes(named) == canonical_bytes(replace(named, signature=""))
    shuffled = dict(reversed(msgspec.json.decode(encode(named)).items()))
    found = decode(msgspec.json.encode(shuffled), verify=verify)
    assert isinstance(found, Manifest) and canonical_bytes(found) == canonical_bytes(named)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ""},
        {"signature": "00" * 64},
        {"signature": "AB" * 64},
        {"signature": "zz"},
        {"publisher": "cd" * 32},
        {"publisher": None},
        {"name": "another"},
        {"created_at": 1},
        {"publisher": None, "signature": "00"},
    ],
)
def test_a_signature_that_is_not_the_publishers(change: dict[str, Any]) -> None:
    named = replace(signed(model().manifest, PUBLISHER, sign), **change)
    refusal = decode(encode(named), verify=verify)
    assert isinstance(refusal, BadFile)
    assert "signature" in refusal.sentence


def with_shard(index: int, change: Callable[[ShardSpec], ShardSpec]) -> Manifest:
    manifest = model().manifest
    shards = list(manifest.shards)
    shards[index] = change(shards[index])
    return replace(manifest, shards=tuple(shards))


def with_tensor(index: int, change: Callable[[TensorSpan], TensorSpan]) -> Manifest:
    """The last tensor of a shard changed, and the shard's size with it."""

    def changed(shard: ShardSpec) -> ShardSpec:
        tensors = (*shard.tensors[:-1], change(shard.tensors[-1]))
        return replace(shard, tensors=tensors, size_bytes=sum(tensor.size_bytes for tensor in tensors))

    return with_shard(index, changed)


def broken() -> dict[str, tuple[Manifest, str]]:
    good = model().manifest
    end = good.file_size_bytes
    inner = good.shards[1].tensors
    return {
        "model id": (replace(good, model="../etc"), "model id"),  # type: ignore[arg-type]
        "publisher": (replace(good, publisher=NodeId("AB")), "node id"),
        "no name": (replace(good, name=""), "printable"),
        "name with an escape": (replace(good, name="a\x1b[2Jb"), "printable"),
        "long name": (replace(good, name="a" * 300), "printable"),
        "no layers": (replace(good, layer_count=0), "0 layers"),
        "too many layers": (replace(good, layer_count=513), "513 layers"),
        "width": (replace(good, width=-1), "-1 elements"),
        "file size": (replace(good, file_size_bytes=1 << 60), "bytes of the file"),
        "header beyond the file": (replace(good, header_size_bytes=end + 1), "bytes of the header"),
        "header beyond the cap": (
            replace(good, header_size_bytes=1 << 30, file_size_bytes=1 << 40),
            "bytes of the header",
        ),
        "shard size": (replace(good, shard_size_bytes=0), "0 bytes a shard"),
        "time": (replace(good, created_at=-1), "0 seconds"),
        "header hash": (replace(good, header_blake3="0" * 63), "hash of its header"),
        "layout": (replace(good, layout="0" * 33), "layout id"),
        "no shards": (replace(good, shards=()), "0 shards"),
        "a shard missing": (replace(good, shards=good.shards[1:]), "calls itself 1"),
        "the last shard missing": (replace(good, shards=good.shards[:-1]), "end at layer"),
        "layer gap": (with_shard(1, lambda s: replace(s, layer_start=s.layer_start + 1)), "shard 1 has the layers"),
        "no layer": (with_shard(0, lambda s: replace(s, layer_end=0)), "shard 0 has the layers"),
        "layers beyond the model": (with_shard(2, lambda s: replace(s, layer_end=6)), "shard 2 has the layers"),
        "no tensors": (with_shard(1, lambda s: replace(s, tensors=(), size_bytes=0)), "its tensors 0"),
        "size": (with_shard(1, lambda s: replace(s, size_bytes=s.size_bytes + 1)), "its tensors"),
        "hash": (with_shard(1, lambda s: replace(s, blake3="x" * 64)), "hash that is not"),
        "chunk hash": (with_shard(1, lambda s: replace(s, chunk_blake3=("F" * 64,))), "hash that is not"),
        "chunk count": (with_shard(1, lambda s: replace(s, chunk_blake3=s.chunk_blake3 * 2)), "2 chunks"),
        "tensor name": (with_tensor(1, lambda t: replace(t, name="a\nb")), "no name"),
        "tensor twice": (with_tensor(1, lambda t: replace(t, name=inner[0].name)), "there twice"),
        "tensor in the header": (with_shard(0, lambda s: replace(s, tensors=_moved(s, 0))), "outside the file"),
        "tensor behind the file": (with_tensor(2, lambda t: replace(t, offset_bytes=end)), "outside the file"),
        "huge tensor": (with_tensor(2, lambda t: replace(t, size_bytes=1 << 62)), "outside the file"),
        "empty tensor": (with_tensor(1, lambda t: replace(t, size_bytes=0)), "outside the file"),
        "negative tensor": (with_tensor(1, lambda t: replace(t, size_bytes=-5)), "outside the file"),
        "tensors out of order": (
            with_shard(1, lambda s: replace(s, tensors=tuple(reversed(s.tensors)))),
            "out of order",
        ),
        "overlap between shards": (
            with_tensor(1, lambda t: replace(t, offset_bytes=t.offset_bytes + 32)),
            "overlap",
        ),
        "one name, two places": (
            with_tensor(1, lambda t: replace(t, name=good.shards[0].tensors[-1].name)),
            "two places",
        ),
    }


def _moved(shard: ShardSpec, offset: int) -> tuple[TensorSpan, ...]:
    return (replace(shard.tensors[0], offset_bytes=offset), *shard.tensors[1:])


BROKEN = broken()


@pytest.mark.parametrize(("manifest", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_an_inconsistent_manifest_is_refused_with_what_is_wrong(manifest: Manifest, words: str) -> None:
    refusal = decode(encode(manifest), verify=verify)
    assert isinstance(refusal, BadFile), refusal
    assert words in refusal.sentence
    assert refusal.sentence.isprintable()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"model":1}', b" " * (MANIFEST_LIMIT + 1)],
    ids=["empty", "open", "list", "null", "object", "no UTF-8", "deep", "type", "large"],
)
def test_what_is_no_manifest(data: bytes) -> None:
    assert isinstance(decode(data, verify=verify), BadFile)


@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    raw = bytearray(encode(signed(model().manifest, PUBLISHER, sign)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = decode(bytes(raw), verify=verify)
    assert isinstance(found, BadFile) or canonical_bytes(found) == canonical_bytes(signed(model().manifest, PUBLISHER, sign))


def test_a_manifest_of_another_header_is_refused() -> None:
    manifest, header = model().manifest, model().header
    metadata = header.metadata
    wrong = {
        "describes": replace(manifest, width=128),
        "describes ": replace(manifest, architecture="qwen2"),
        "does not end": replace(manifest, header_size_bytes=manifest.header_size_bytes - 32),
        "does not hold": with_shard(1, lambda s: replace(s, tensors=s.tensors[1:])),
        "does not hold ": with_tensor(1, lambda t: replace(t, name="blk.9.attn_q.weight")),
        "layout id": replace(manifest, layout="0" * 32),
    }
    for words, bad in wrong.items():
        refusal = check_against_header(bad, header)
        assert isinstance(refusal, BadFile) and words.strip() in refusal.sentence, words
    unsupported = replace(header, metadata={**metadata, "general.architecture": text_value("gpt2")})
    assert isinstance(check_against_header(manifest, unsupported), BadFile)
    assert isinstance(check_against_header(manifest, model(tied=False).header), BadFile)


def test_a_cut_inside_a_pattern_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", TinyModel(architecture="gemma3", layers=7, tied=True, period=3))
    gemma = cut_model(path.read_bytes(), shard_size_bytes=1)
    assert [shard.layer_end for shard in gemma.manifest.shards] == [3, 6, 7]
    first, *others = gemma.manifest.shards
    moved = replace(gemma.manifest, shards=(replace(first, layer_end=2), replace(others[0], layer_start=2), others[1]))
    refusal = check_against_header(moved, gemma.header)
    assert isinstance(refusal, BadFile) and "multiples of 3" in refusal.sentence


def test_hashes_do_not_depend_on_the_pieces() -> None:
    payload = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"end"
    expected = tuple(
        blake3(payload[start : start + CHUNK_BYTES]).hexdigest() for start in range(0, len(payload), CHUNK_BYTES)
    )
    for size in (len(payload), CHUNK_BYTES, 3_000_001):
        hasher = PayloadHasher()
        for start in range(0, len(payload), size):
            hasher.feed(payload[start : start + size])
        found = hasher.finish()
        assert (found.size_bytes, found.blake3, found.chunk_blake3) == (len(payload), blake3(payload).hexdigest(), expected)
    full = PayloadHasher()
    full.feed(bytes(CHUNK_BYTES))
    assert len(full.finish().chunk_blake3) == 1, "no empty chunk behind a full one"


def test_quantization_of_a_file_that_does_not_say() -> None:
    header = model().header
    for value in (text_value("Q8_0"), number_value(ValueType.UINT32, 999)):
        assert quantization(replace(header, metadata={**header.metadata, "general.file_type": value})) == "unknown"
    assert quantization(replace(header, metadata={})) == "unknown"
