"""The text format of Prometheus, version 0.0.4: families of samples become lines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarmd.kit.tallies import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
NO_LABELS: Final[Labels] = {}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its label values. Names follow the conventions of Prometheus: base units, `_total` of counters."""

    name: str
    kind: str
    """`counter` or `gauge`; `histogram`, when the values are Histograms."""
    help: str
    samples: Sequence[tuple[Labels, float | Histogram]]


def counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, [(NO_LABELS, value)])


def gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, [(NO_LABELS, value)])


def histogram(name: str, help: str, value: Histogram) -> Family:
    return Family(name, "histogram", help, [(NO_LABELS, value)])


def exposition(families: Iterable[Family]) -> str:
    lines: list[str] = []
    for family in families:
        text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
        lines += (f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            if isinstance(value, Histogram):
                lines += _buckets(family.name, labels, value)
            else:
                lines.append(f"{family.name}{_shown(labels)} {_number(value)}")
    return "\n".join(lines) + "\n"


def _buckets(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines: list[str] = []
    so_far = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        at = "+Inf" if bound == float("inf") else _number(bound)
        lines.append(f"{name}_bucket{_shown({**labels, 'le': at})} {so_far}")
    return [*lines, f"{name}_sum{_shown(labels)} {_number(histogram.total)}", f"{name}_count{_shown(labels)} {so_far}"]


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) and not value.is_integer() else str(int(value))
