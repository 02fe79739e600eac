"""QR codes: the same symbol for page and terminal, bounded."""

from __future__ import annotations

import re

from swarmd.kit.qr import MOST_CHARACTERS, QUIET, as_lines, as_svg

TEXT = "swarm://" + "AbC-_9" * 50


def drawn(svg: str) -> set[tuple[int, int]]:
    """The dark modules of the one stroked path: a pen that moves right, and down at each row."""
    (path,) = re.findall(r'<path stroke="#000" d="([^"]*)"/>', svg)
    x, y, dark = 0, 0, set[tuple[int, int]]()
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", path):
        steps = [float(number) for number in numbers.split()]
        if command == "h":
            dark |= {(x + step, y) for step in range(int(steps[0]))}
            x += int(steps[0])
        else:
            x, y = x + int(steps[0]), y + int(steps[1])
    return dark


def test_page_and_terminal_show_the_same_symbol() -> None:
    svg, lines = as_svg(TEXT), as_lines(TEXT)
    assert svg is not None and lines is not None
    seen: set[tuple[int, int]] = set()
    for row, line in enumerate(lines):
        seen |= {(x, 2 * row) for x, half in enumerate(line) if half in "▀█"}
        seen |= {(x, 2 * row + 1) for x, half in enumerate(line) if half in "▄█"}
    assert seen == drawn(svg)
    assert min(x for x, _ in seen) == min(y for _, y in seen) == QUIET, "the margin is part of the symbol"
    corner = {(QUIET + x, QUIET + y) for x in range(7) for y in range(7) if {x, y} & {0, 6} or {x, y} <= {2, 3, 4}}
    assert {(x, y) for x, y in seen if x < QUIET + 8 and y < QUIET + 8} == corner, "a finder pattern in the corner"


def test_the_svg_is_plain_and_small() -> None:
    svg = as_svg("x" * MOST_CHARACTERS)
    assert svg is not None and len(svg) < 20_000
    assert set(re.findall(r"<(\w+)", svg)) == {"svg", "path"}
    assert not re.search(r"style|script|href| on\w+=", svg)


def test_what_no_camera_reads_is_not_drawn() -> None:
    assert as_svg("x" * (MOST_CHARACTERS + 1)) is None
    assert as_lines("x" * (MOST_CHARACTERS + 1)) is None
