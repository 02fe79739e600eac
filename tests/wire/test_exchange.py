"""Codes are for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ModelId
from swarmd.domain.models import CHUNK_BYTES
from swarmd.wire.exchange import (
    PART_BYTES,
    AskChunk,
    AskChunkMap,
    AskHeader,
    AskManifest,
    ChunkMap,
    HeaderPart,
    ManifestPart,
    ShardChunk,
    pack_chunks,
    unpack_chunks,
)
from swarmd.wire.frames import MAX_PAYLOAD
from swarmd.wire.messages import decode, encode


def test_every_message_comes_back_under_its_code() -> None:
    model, layout = ModelId("tiny"), "0" * 32
    for code, message in (
        (100, AskManifest(model=model, layout=layout, offset=0)),
        (101, ManifestPart(total_bytes=1)),
        (102, AskHeader(model=model, layout=layout, offset=1 << 24)),
        (103, HeaderPart(total_bytes=2)),
        (104, AskChunk(model=model, layout=layout, shard=3, chunk=4)),
        (105, ShardChunk()),
        (106, AskChunkMap(model=model, layout=layout, shard=3)),
        (107, ChunkMap()),
    ):
        assert encode(message)[0] == code
        assert decode(*encode(message)) == message


def test_a_chunk_is_the_largest_payload() -> None:
    assert CHUNK_BYTES == MAX_PAYLOAD and PART_BYTES < MAX_PAYLOAD


@given(st.integers(0, 200), st.frozensets(st.integers(0, 199)))
def test_a_map_of_chunks_comes_back(count: int, some: frozenset[int]) -> None:
    numbers = some.intersection(range(count))
    packed = pack_chunks(numbers, count)
    assert len(packed) == (count + 7) // 8 and unpack_chunks(packed, count) == numbers


@given(st.binary(max_size=30), st.integers(0, 200))
def test_a_map_from_anybody_is_a_map_or_refused(payload: bytes, count: int) -> None:
    try:
        numbers = unpack_chunks(memoryview(payload), count)
    except ValueError:
        return
    assert pack_chunks(numbers, count) == payload


def test_bits_beyond_the_last_chunk_are_no_map() -> None:
    assert unpack_chunks(b"\x07", 3) == {0, 1, 2}
    for payload in (b"\x08", b"", b"\x07\x00"):
        with pytest.raises(ValueError, match="chunks"):
            unpack_chunks(payload, 3)
