from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from swarmd.api.calls import Call, Caller, Reply
from swarmd.domain.ids import ModelId, RequestId, ShardRef


def test_path_parameters_by_name() -> None:
    request: Any = SimpleNamespace()
    caller = Caller(address="127.0.0.1", local=True, keyed=True, known_host=True)
    call = Call(request=request, request_id=RequestId("r"), caller=caller, now=0.0, path={"model": "tiny-q8", "index": "7"})
    assert call.model == ModelId("tiny-q8")
    assert call.shard == ShardRef(ModelId("tiny-q8"), 7)
    assert call.stream is None and call.body is None


def test_a_reply_is_200_without_headers_unless_told() -> None:
    assert (Reply(body=1).status, Reply(body=1).headers) == (200, {})
