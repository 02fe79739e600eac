"""What the reference says of an invite's terms is what the node accepts."""

from __future__ import annotations

import msgspec
import pytest

from swarmd.api.invite_shapes import InviteRequest
from swarmd.discovery.codes import LEAST_LIFE_S, LIFE_LIMIT_S, USES_LIMIT
from swarmd.discovery.invites import LIFE_S, USES


def test_the_reference_names_the_limits_of_the_node() -> None:
    (_,), parts = msgspec.json.schema_components([InviteRequest])
    about = parts["InviteRequest"]["properties"]
    assert (about["uses"]["minimum"], about["uses"]["maximum"], about["uses"]["default"]) == (1, USES_LIMIT, USES)
    life = about["life_seconds"]
    assert (life["minimum"], life["maximum"], life["default"]) == (LEAST_LIFE_S, LIFE_LIMIT_S, LIFE_S)


@pytest.mark.parametrize("body", [b'{"uses": 1.5}', b'{"uses": true}', b'{"life_seconds": "1d"}', b'{"life": 60}'])
def test_other_types_and_fields_are_refused(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=InviteRequest)
