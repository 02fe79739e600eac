"""Bodies of the provider endpoints."""

from __future__ import annotations

import msgspec
import pytest

from swarmd.api.provider_shapes import ModelStatusRequest, ProvidersChanged, ProvidersRequest
from swarmd.providers.known import TWELVE


def test_the_twelve_have_a_field_each() -> None:
    names = [known.name for known in TWELVE]
    keys = [field for field in ProvidersRequest.__struct_fields__ if field.endswith("_key")]
    assert keys == [f"{name}_key" for name in names]
    assert list(ProvidersChanged.__struct_fields__) == ["status", *names]


def test_limits() -> None:
    fine = msgspec.json.encode({"models": ["x"] * 20})
    assert len(msgspec.json.decode(fine, type=ModelStatusRequest).models) == 20
    for bad in ({"models": ["x"] * 21}, {"models": [""]}, {"models": ["x" * 257]}, {"models": "x"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(bad), type=ModelStatusRequest)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"custom": [{"name": "x", "base_url": "y", "other": 1}]}', type=ProvidersRequest)
