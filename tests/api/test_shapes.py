from __future__ import annotations

import msgspec
import pytest

from swarmd.api import shapes


@pytest.mark.parametrize(
    ("request_type", "body"),
    [
        (shapes.JoinRequest, b'{"code": "x", "extra": 1}'),
        (shapes.AddFile, b'{"path": "/x", "extra": 1}'),
        (shapes.AddFile, b'{"path": ""}'),
        (shapes.SessionRequest, b'{"nonce": "x", "extra": 1}'),
    ],
)
def test_admin_bodies_refuse_unknown_fields(request_type: type, body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=request_type)


def test_what_does_not_apply_is_left_out_and_what_is_unknown_is_null() -> None:
    download = shapes.ShardDownload(status="already_local", model_id="m", shard_index=0)
    assert msgspec.to_builtins(download) == {"status": "already_local", "model_id": "m", "shard_index": 0}
    inference = shapes.InferenceRow(total_requests=0, samples=0, avg_latency_ms=None)
    assert msgspec.to_builtins(inference) == {"total_requests": 0, "samples": 0, "avg_latency_ms": None}
