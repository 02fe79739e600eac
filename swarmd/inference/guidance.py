"""Holding replies to a grammar: llguidance, which the wheel carries along with llama.cpp, by its C functions.

It says for each step which tokens go on, from the text alone: whoever has read the same tokens says the same, so a
replacement tail goes on where the lost one was. Work of one step and size of a grammar are limited inside it. Runs in the
worker process only.
"""

from __future__ import annotations

import ctypes as c
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from swarmd.domain.structure import Grammar
from swarmd.inference.grammars import fault, grammar_text
from swarmd.inference.native import Library, LlgConstraintInit, LlgTokenizerInit

SPECIAL = b"\xff"  # before the name of a control token: no text contains this byte
_NUMBERED = re.compile(r"\n\s*\d+ \| ")  # how it shows a line of the grammar
REASON_LENGTH = 300  # characters of its complaints


class GuidanceFailure(Exception):
    """The grammar cannot be honoured; the text says what about it."""


class Guidance:
    """Of one vocabulary."""

    def __init__(self, library: Library, *, pieces: Sequence[bytes], names: dict[str, int], ends: Sequence[int]) -> None:
        """`pieces`: texts of the tokens, `names`: control tokens by their texts. Raises GuidanceFailure."""
        if not ends:
            raise GuidanceFailure("the model has no token that ends a reply")
        self.call: Any = library.call
        self._names = names
        self.size, self.ends = len(pieces), list(ends)
        texts = list(pieces)
        for name, token in names.items():
            texts[token] = SPECIAL + name.encode()
        lengths = np.array([len(text) for text in texts], np.uint32)
        data = np.frombuffer(b"".join(texts), np.uint8)
        wanted = LlgTokenizerInit(
            vocab_size=self.size, tok_eos=ends[0], token_lens=lengths.ctypes.data, token_bytes=data.ctypes.data,
            use_approximate_greedy_tokenize_fn=True,
        )  # fmt: skip
        reason = c.create_string_buffer(REASON_LENGTH)
        self._tokenizer = self.call.llg_new_tokenizer(c.byref(wanted), reason, REASON_LENGTH)  # it copies the texts
        if not self._tokenizer:
            raise GuidanceFailure(f"the vocabulary cannot be held to a grammar: {reason.value.decode(errors='replace')}")

    def guide(self, grammar: Grammar) -> Guide:
        """For one reply. Raises GuidanceFailure."""
        found = fault(grammar)
        if found is not None:
            raise GuidanceFailure(found)
        wanted = LlgConstraintInit()
        self.call.llg_constraint_init_set_defaults(c.byref(wanted), self._tokenizer)
        wanted.log_stderr_level = 0
        text = grammar_text(grammar, self._names.get)
        if "\0" in text:
            raise GuidanceFailure("a schema contains a zero character")
        matcher = self.call.llg_new_matcher(c.byref(wanted), b"lark", text.encode())
        reason = self.call.llg_matcher_get_error(matcher)
        if reason:
            self.call.llg_free_matcher(matcher)
            raise GuidanceFailure(_shown(reason))
        guide = Guide(self, matcher)
        if guide.allowed() is None:
            guide.close()
            raise GuidanceFailure("nothing satisfies the schema, or it is too large")
        return guide

    def close(self) -> None:
        """When no guide is in use."""
        self.call.llg_free_tokenizer(self._tokenizer)


class Guide:
    """What may come next in one reply."""

    def __init__(self, guidance: Guidance, matcher: int) -> None:
        self._call, self._matcher, self._guidance = guidance.call, matcher, guidance
        self._bits = np.zeros(-(-guidance.size // 32), np.uint32)

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Shape (vocabulary,): tokens that go on. None: nothing does, or it cannot be found out within the limits."""
        if self._call.llg_matcher_is_stopped(self._matcher) and not self._call.llg_matcher_get_error(self._matcher):
            mask = np.zeros(self._guidance.size, np.bool_)
            mask[self._guidance.ends] = True
            return mask
        if self._call.llg_matcher_compute_mask_into(self._matcher, self._bits.ctypes.data, self._bits.nbytes):
            return None
        mask = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._guidance.size].astype(np.bool_)
        mask[self._guidance.ends] = mask[self._guidance.ends[0]]  # one of them is known there, the others end as well
        return mask if mask.any() else None

    def accept(self, token: int) -> bool:
        """A token that came. False: it does not fit."""
        if token in self._guidance.ends:
            return True
        return not self._call.llg_matcher_consume_token(self._matcher, token)

    def close(self) -> None:
        self._call.llg_free_matcher(self._matcher)


def _shown(reason: bytes) -> str:
    """Without the lines of a text that the client never saw."""
    said = _NUMBERED.split(reason.decode(errors="replace"), maxsplit=1)[0]
    return " ".join(said.rsplit("failed to compile JSON schema: ", 1)[-1].split())[:REASON_LENGTH]
