from __future__ import annotations

import msgspec

from swarmd.api import live_shapes


def test_models_changed_has_no_data() -> None:
    assert msgspec.json.encode(live_shapes.Envelope(type="models_changed")) == b'{"type":"models_changed"}'
