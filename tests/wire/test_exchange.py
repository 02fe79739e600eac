"""Codes are for ever."""

from __future__ import annotations

from swarmd.domain.ids import ModelId
from swarmd.domain.models import CHUNK_BYTES
from swarmd.wire.exchange import PART_BYTES, AskChunk, AskHeader, AskManifest, HeaderPart, ManifestPart, ShardChunk
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
    ):
        assert encode(message)[0] == code
        assert decode(*encode(message)) == message


def test_a_chunk_is_the_largest_payload() -> None:
    assert CHUNK_BYTES == MAX_PAYLOAD and PART_BYTES < MAX_PAYLOAD
