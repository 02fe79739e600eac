"""QR codes: a text as a picture for a page, and as lines for a terminal. Pure; the only `segno`."""

from __future__ import annotations

import io
from typing import Final

import segno

MOST_CHARACTERS: Final = 1000
"""Version 22, 105 modules on a side: about what the camera of a phone still reads off a screen, and 113 columns of a
terminal. The code of a node with four addresses has 203; only long DNS names lead beyond."""
QUIET: Final = 4  # modules around the symbol: ISO 18004
_MASK: Final = 3  # any is legal; to try all eight for the prettiest takes 30 ms, on the loop that also carries tokens
_HALVES: Final = {(False, False): " ", (True, False): "\u2580", (False, True): "\u2584", (True, True): "\u2588"}


def as_svg(text: str) -> str | None:
    """An `<svg>` element, black on white, that takes any size: mostly 4 kB, at most 17. None: too long to be scanned."""
    symbol = _symbol(text)
    if symbol is None:
        return None
    out = io.BytesIO()
    symbol.save(
        out, kind="svg", border=QUIET, dark="#000", light="#fff", omitsize=True, xmldecl=False, nl=False, svgclass=None,
        lineclass=None,
    )  # fmt: skip
    return out.getvalue().decode()


def as_lines(text: str) -> list[str] | None:
    """Two modules in a character, the upper and the lower half of a block: to be shown black on white. None: too long."""
    symbol = _symbol(text)
    if symbol is None:
        return None
    rows = [[module == 1 for module in row] for row in symbol.matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def _symbol(text: str) -> segno.QRCode | None:
    """With the least error correction: a screen has no scratches, and a smaller symbol is read from farther away."""
    if len(text) > MOST_CHARACTERS:
        return None
    return segno.make_qr(text, error="l", mask=_MASK, boost_error=False)
