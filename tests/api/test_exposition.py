"""The text format, read by Prometheus' own parser."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from swarmd.api.exposition import Family, counter, exposition, gauge, histogram
from swarmd.kit.tallies import Histogram


def test_what_is_written_is_what_is_read() -> None:
    seconds = Histogram((0.5, 2))
    for value in (0.1, 0.5, 1.25, 7):
        seconds.add(value)
    odd = 'a "quoted\\ thing"\nin two lines'
    text = exposition(
        [
            counter("x_things_total", "Things,\nin two lines \\ n.", 3),
            gauge("x_level", "How far.", -1.25),
            Family("x_odd", "gauge", "Labels.", [({"a": odd, "b": ""}, math.inf), ({"a": "", "b": "é"}, 1e15)]),
            histogram("x_seconds", "How long.", seconds),
            Family("x_empty", "gauge", "Nothing yet.", []),
        ]
    )
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert found["x_things"].type == "counter" and found["x_things"].documentation == "Things,\nin two lines \\ n."
    assert [sample.value for sample in found["x_things"].samples] == [3]
    assert found["x_level"].samples[0].value == -1.25
    samples = found["x_odd"].samples
    assert [(one.labels["a"], one.labels["b"], one.value) for one in samples] == [(odd, "", math.inf), ("", "é", 1e15)]
    assert found["x_seconds"].type == "histogram"
    assert [(s.name, s.labels.get("le"), s.value) for s in found["x_seconds"].samples] == [
        ("x_seconds_bucket", "0.5", 2), ("x_seconds_bucket", "2", 3), ("x_seconds_bucket", "+Inf", 4),
        ("x_seconds_sum", None, 8.85), ("x_seconds_count", None, 4),
    ]  # fmt: skip
    assert found["x_empty"].samples == []
