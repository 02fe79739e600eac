"""What peers write for people: refusal sentences, reasons of resets and goodbyes, names of programs. Pure.

It ends up in logs, on terminals and in error replies, so it is cleaned once, where it comes off the wire: nobody above
this floor has to think of it. What is compared or parsed (ids, layouts) is checked by its own parser instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from swarmd.wire.generation import StageBroken
from swarmd.wire.messages import CODES, Refused

MAX_CHARACTERS: Final = 200  # two lines of a terminal: every sentence of ours about one thing fits, a flood does not
_CUT: Final = "…"


def cleaned(text: str) -> str:
    """One line without control characters (and without those that turn the writing direction), at most MAX_CHARACTERS."""
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - len(_CUT)] + _CUT
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


WITH_SENTENCES: Final = frozenset(CODES[cls] for cls in (Refused, StageBroken))
"""Codes of the messages that `cleaned_message` cleans; the others need not be asked, of which one comes with every token."""


def cleaned_message(message: object) -> object:
    """The same message with its sentences cleaned."""
    match message:
        case Refused(kind=kind, sentence=sentence):
            return Refused(kind=cleaned(kind), sentence=cleaned(sentence))
        case StageBroken(reason=reason):
            return replace(message, reason=cleaned(reason))
        case _:
            raise AssertionError(f"{type(message).__name__} has no sentence")
