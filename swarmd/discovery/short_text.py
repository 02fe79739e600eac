"""The text of a short code: `7-crossover-clockwork`, or `7-crossover-clockwork@192.168.1.5:8810`. Pure.

The number says which code is meant, the words are the secret, and behind the @ may stand where to look: the inviter itself,
or a node that both can reach. Typed by people, so case, spaces and underscores are forgiven; a word that is none is not,
for it would cost the one guess.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Final

from swarmd.discovery.short_words import FIRST, SECOND
from swarmd.domain.peers import MAX_NAMEPLATE, Endpoint, parse_endpoint
from swarmd.domain.refusals import BadCode, Invalid
from swarmd.peers.addresses import ip_of, refuse

WORD_BYTES: Final = 2
"""Fresh bytes that a code needs: one for each word, 16 bits together. Enough where a guess costs a code
(`peers.short_codes`)."""
USUAL_PORT: Final = 8810  # PEER_PORT_OFFSET above the default of node.listen_port
SAMPLE: Final = "7-crossover-clockwork"
TEXT_LIMIT: Final = 512  # characters: the longest host name fits twice
REMEDY: Final = f"write it as it was shown, like {SAMPLE}"

_PARTS: Final = re.compile(r"[\s_-]+")  # what may stand between the parts
_SHAPE: Final = re.compile(r"\s*[0-9]{1,4}[\s_-]+\w")  # more digits than a number has: a code with a mistake all the same
_SHOWN: Final = 20  # characters of a wrong word in an error
_NEAR: Final = 0.7  # of 1: one letter wrong in four, two in seven


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCode:
    """A short code that could be read."""

    nameplate: int
    words: str = field(repr=False)
    """The number and the words in their one spelling: what both sides put into SPAKE2."""
    at: Endpoint | None
    """Where to look; None: in the local network."""


def make_short(nameplate: int, fresh: bytes) -> str:
    """The text for the guest. `fresh`: WORD_BYTES from a cryptographic source, used once."""
    assert len(fresh) == WORD_BYTES, f"a short code needs {WORD_BYTES} fresh bytes, not {len(fresh)}"
    return f"{nameplate}-{FIRST[fresh[0]]}-{SECOND[fresh[1]]}"


def looks_short(text: str) -> bool:
    """Whether this is meant as a short code, right or wrong."""
    return _SHAPE.match(text[:TEXT_LIMIT]) is not None


def read_short(text: str) -> ShortCode | BadCode | Invalid:
    """Invalid: the address behind the @ is none that may be dialled."""
    if len(text) > TEXT_LIMIT:
        return BadCode(reason=f"it has {len(text)} characters", remedy=REMEDY)
    code, sign, where = text.partition("@")
    parts = _PARTS.split(code.strip().lower())
    if len(parts) != 3:
        return BadCode(reason=f"it is not a number and two words but has {len(parts)} parts", remedy=REMEDY)
    number, first, second = parts
    if not (number.isascii() and number.isdigit() and len(number) <= 4 and 1 <= int(number) <= MAX_NAMEPLATE):
        return BadCode(reason=f"its number is {number[:_SHOWN]!r} and not one from 1 to {MAX_NAMEPLATE}", remedy=REMEDY)
    for word, known in ((first, FIRST), (second, SECOND)):
        if word not in known:
            return _unknown(word, known)
    at = _place(where.strip()) if sign else None
    if isinstance(at, Invalid):
        return at
    return ShortCode(nameplate=int(number), words=f"{int(number)}-{first}-{second}", at=at)


def _unknown(word: str, known: tuple[str, ...]) -> BadCode:
    if word in FIRST or word in SECOND:
        return BadCode(reason=f"{word!r} is in the other word's place", remedy=REMEDY)
    near = difflib.get_close_matches(word[:_SHOWN], known, n=1, cutoff=_NEAR)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return BadCode(reason=f"{word[:_SHOWN]!r} is no word of a short code{guess}", remedy=REMEDY)


def _place(text: str) -> Endpoint | Invalid:
    """`host:port`, or a host alone with USUAL_PORT."""
    if (address := ip_of(text.removeprefix("[").removesuffix("]"))) is not None:  # IPv6, with brackets or without
        endpoint = Endpoint(str(address), USUAL_PORT)
    else:
        try:
            endpoint = parse_endpoint(text if ":" in text else f"{text}:{USUAL_PORT}")
        except ValueError as error:
            return Invalid(what=f"behind the @ stands no address: {error}", param="code")
    return refuse(endpoint) or endpoint
