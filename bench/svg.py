"""Pictures of measurements, for light and dark pages. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, ROW = 860, 250, 30, 44, 30
COLOURS = ("a", "b", "c", "d")
STYLE = """  <style>
    .frame { fill: none; stroke: #5b6472 } .grid { stroke: #5b6472; opacity: .25 }
    .limit { stroke: #b04a00; stroke-dasharray: 5 4 }
    .text { fill: #1c2430 } .small { fill: #4a5361; font-size: 12px } .dot { opacity: .55 }
    .a { color: #3f6fd8 } .b { color: #b04a00 } .c { color: #2e7d4f } .d { color: #8a4fb5 }
    .dot, .middle { fill: currentColor } .line { fill: none; stroke: currentColor; stroke-width: 2 }
    @media (prefers-color-scheme: dark) {
      .frame { stroke: #8b96a8 } .grid { stroke: #8b96a8 } .limit { stroke: #ff9d5c }
      .text { fill: #e8ecf2 } .small { fill: #aab4c3 }
      .a { color: #7aa2ff } .b { color: #ff9d5c } .c { color: #6fd19a } .d { color: #cf9bff }
    }
  </style>"""


def ticks(high: float) -> list[float]:
    """From 0 to at least `high` in four to ten round steps."""
    high = high if high > 0 and math.isfinite(high) else 1.0
    step = 10.0 ** math.floor(math.log10(high / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if high / (step * factor) <= 8)
    return [step * number for number in range(math.ceil(high / step - 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:,.6g}".replace(",", " ")


def _document(title: str, says: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d" '
        'font-family="system-ui, sans-serif" font-size="13">'
    )
    words = [f'  <title id="t">{escape(title)}</title>', f'  <desc id="d">{escape(says)}</desc>', STYLE]
    words.append(f'  <text class="text" x="16" y="22">{escape(title)}</text>')
    return "\n".join([head, *words, *parts, "</svg>\n"])


def strip(title: str, unit: str, rows: Mapping[str, Sequence[float]], *, limits: Mapping[str, float] | None = None) -> str:
    """A row for each arm: a dot for each round, a bar at the median. `limits`: a broken line in a row at that value."""
    limits = limits or {}
    scale = ticks(max([*limits.values(), *(value for values in rows.values() for value in values), 0.0]))
    across, bottom = (WIDTH - LEFT - RIGHT) / scale[-1], TOP + ROW * len(rows)
    parts: list[str] = []
    for value in scale:
        x = LEFT + value * across
        parts.append(f'  <line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'  <text class="small" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{_label(value)}</text>')
    parts.append(f'  <text class="small" x="{WIDTH - RIGHT}" y="{bottom + 36}" text-anchor="end">{escape(unit)}</text>')
    for number, (name, values) in enumerate(rows.items()):
        y = TOP + ROW * (number + 0.5)
        parts.append(f'  <text class="small" x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'  <g class="{COLOURS[number % len(COLOURS)]}">')
        parts += [f'    <circle class="dot" cx="{LEFT + value * across:.1f}" cy="{y:.1f}" r="3"/>' for value in values]
        if values:
            x = LEFT + statistics.median(values) * across
            parts.append(f'    <rect class="middle" x="{x - 1.5:.1f}" y="{y - 10:.1f}" width="3" height="20"/>')
        parts.append("  </g>")
        if name in limits:
            x = LEFT + limits[name] * across
            parts.append(f'  <line class="limit" x1="{x:.1f}" y1="{y - 14:.1f}" x2="{x:.1f}" y2="{y + 14:.1f}"/>')
    return _document(title, f"{title}; {unit}; medians " + _medians(rows), bottom + 48, parts)


def _medians(rows: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(values):.4g}" for name, values in rows.items() if values)


def lines(title: str, panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[float, float]]]]], across: str) -> str:
    """Panels below each other, each with what its values are and its series of points; `across`: what the x axis is."""
    left, height, gap = 70, 150, 52
    xs = [x for _, series in panels for points in series.values() for x, _ in points]
    scale = ticks(max([*xs, 0.0]))
    wide = (WIDTH - left - RIGHT) / scale[-1]
    parts: list[str] = []
    for number, (what, series) in enumerate(panels):
        top = TOP + 22 + number * (height + gap)
        rise = ticks(max([*(y for points in series.values() for _, y in points), 0.0]))
        parts.append(f'  <text class="small" x="{left}" y="{top - 8}">{escape(what)}</text>')
        parts.append(f'  <rect class="frame" x="{left}" y="{top}" width="{WIDTH - left - RIGHT}" height="{height}"/>')
        for value in (rise[0], rise[-1]):
            y = top + height * (1 - value / rise[-1])
            parts.append(f'  <text class="small" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>')
        for place, (name, points) in enumerate(series.items()):
            drawn = " ".join(f"{left + x * wide:.1f},{top + height * (1 - y / rise[-1]):.1f}" for x, y in points)
            parts.append(f'  <g class="{COLOURS[place % len(COLOURS)]}"><polyline class="line" points="{drawn}"/>')
            x, y = WIDTH - RIGHT, top - 8
            parts.append(
                f'  <text class="middle" x="{x - 150 * (len(series) - 1 - place)}" y="{y}" font-size="12" '
                f'text-anchor="end">{escape(name)}</text></g>'
            )
        if number == len(panels) - 1:
            for value in scale:
                x, y = left + value * wide, top + height + 18
                parts.append(f'  <text class="small" x="{x:.1f}" y="{y}" text-anchor="middle">{_label(value)}</text>')
            x, y = WIDTH - RIGHT, top + height + 36
            parts.append(f'  <text class="small" x="{x}" y="{y}" text-anchor="end">{escape(across)}</text>')
    bottom = TOP + 22 + len(panels) * (height + gap)
    return _document(title, f"{title}, over {across}: " + "; ".join(what for what, _ in panels), bottom, parts)
