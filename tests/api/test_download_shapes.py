"""What a request for shards of the hub may look like."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.download_shapes import SHARDS_MAX, DownloadPlace, DownloadShards, HubOrigin

INDICES = st.lists(st.integers(-2, 0x1_0000_0001), max_size=SHARDS_MAX + 2)


@given(INDICES)
def test_indices_are_in_range_and_not_too_many(indices: list[int]) -> None:
    body = msgspec.json.encode({"repo_id": "a/b", "filename": "x.gguf", "shards": indices})
    good = len(indices) <= SHARDS_MAX and all(0 <= index < 0xFFFF_FFFF for index in indices)
    if good:
        assert msgspec.json.decode(body, type=DownloadShards).shards == indices
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=DownloadShards)


def test_unknown_fields_are_refused() -> None:
    for kind, body in ((DownloadShards, b'{"repo_id":"a/b","filename":"x","n":1}'), (DownloadPlace, b'{"place":0,"n":1}')):
        with pytest.raises(msgspec.ValidationError, match="unknown field `n`"):
            msgspec.json.decode(body, type=kind)


def test_what_was_not_discovered_does_not_say_so() -> None:
    found = msgspec.to_builtins(HubOrigin(model_id="m", repo_id="a/b", filename="x.gguf"))
    assert found == {"model_id": "m", "repo_id": "a/b", "filename": "x.gguf"}
