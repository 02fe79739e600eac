"""Any bytes are a message or a fault, and every refusal has a code."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.mcp_protocol import (
    BUG,
    CALLERS_FAULT,
    CANNOT_NOW,
    VERSIONS,
    Answer,
    Notification,
    RpcRequest,
    error_of,
    fault_of,
    negotiated,
    other_version,
    read,
)
from swarmd.api.mcp_shapes import RpcError
from swarmd.api.replies import Broken, NoKey, TooManyRequests, UnknownModel
from swarmd.domain.ids import RequestId
from swarmd.domain.refusals import Busy, Invalid, Refusal
from tests.fakes.rim import no_coverage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
MESSAGE = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | JSON},
    optional={"id": JSON, "method": st.just("ping") | JSON, "params": JSON, "result": JSON, "error": JSON},
)


@given(st.binary(max_size=40) | (MESSAGE | JSON).map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_and_can_be_answered(data: bytes) -> None:
    found = read(data)
    match found:
        case RpcRequest():
            assert not isinstance(found.id, bool)
            answer = msgspec.json.encode(error_of(found.id, fault_of(Invalid(what="x"))))
            assert msgspec.json.decode(answer)["id"] == found.id
        case RpcError():
            assert found.id is None and found.error.code in (-32700, -32600)
        case Notification() | Answer():
            pass


def test_kinds() -> None:
    assert read(b'{"jsonrpc":"2.0","id":"a","method":"ping"}') == RpcRequest(id="a", method="ping", params={})
    assert read(b'{"jsonrpc":"2.0","method":"x","params":{"a":1}}') == Notification(method="x", params={"a": 1})
    assert read(b'{"jsonrpc":"2.0","id":1,"error":{}}') == Answer()


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Invalid(what="x"), CALLERS_FAULT), (UnknownModel(what="x"), CALLERS_FAULT), (NoKey(given=True), CALLERS_FAULT),
        (no_coverage(), CANNOT_NOW), (Busy(what="x"), CANNOT_NOW), (TooManyRequests(retry_after_s=1), CANNOT_NOW),
        (Broken(request=RequestId("r")), BUG),
    ],
)  # fmt: skip
def test_codes(refusal: Refusal, code: int) -> None:
    fault = fault_of(refusal)
    data: Any = fault.data
    assert (fault.code, fault.message) == (code, refusal.sentence) and data["code"]


def test_versions() -> None:
    assert [negotiated(one) for one in (*VERSIONS, "2024-11-05", "")] == [*VERSIONS, VERSIONS[0], VERSIONS[0]]
    assert other_version(None, 1) is None and other_version(VERSIONS[-1], 1) is None
    wrong = other_version("2026-07-28", 1)
    assert wrong is not None and wrong.id == 1 and wrong.error.data["supported"] == list(VERSIONS)
