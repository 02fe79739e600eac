"""Caches of what prompts have in common: a system prompt, or the chat so far, is computed once.

A prefix is known by keys, one for every whole prefill chunk of the prompt: a digest of all tokens up to there, keyed with a
secret of the head. So a stage finds again what it has computed without knowing, or being able to guess, a token; and nobody
else's request can find it. Only whole chunks of a prompt are kept, never a reply: they are taken up at a chunk's boundary,
where a run from the beginning would have the same numbers in the same steps. Therefore a reply is bit for bit the same with
and without (design, section 4, point 11), which it would not be if a reply's tokens, computed one by one, were taken for
those of the next prompt.

What is kept lies outside llama.cpp's cells, as bytes: cells stay free for those who run, and who comes next finds the cells
as if nothing were kept.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import blake3
import numpy as np
import numpy.typing as npt

KEY_BYTES: Final = 16  # nobody finds two prefixes with one key, and 1,000 of them fit a small message
SECRET_BYTES: Final = 32  # BLAKE3's keyed mode
ENTRIES: Final = 256  # of one worker, whatever their size: looking through them must stay cheap

State = npt.NDArray[np.uint8]
"""One shard's cache of one sequence, as llama.cpp writes it."""


def prefix_keys(secret: bytes, salt: bytes, tokens: Sequence[int], rows: int) -> list[bytes]:
    """One key behind each whole chunk of `rows` tokens that is not the end of the prompt: of its last token the logits are
    needed, so at least that one is computed. `salt`: what else the caches depend on."""
    digest = blake3.blake3(salt, key=secret)
    keys: list[bytes] = []
    for end in range(rows, len(tokens), rows):
        digest.update(array("i", tokens[end - rows : end]).tobytes())
        keys.append(digest.digest(KEY_BYTES))
    return keys


@dataclass(frozen=True, slots=True)
class Kept:
    """The caches behind `keys`, in each of some shards."""

    keys: tuple[bytes, ...]
    positions: int
    states: Mapping[int, State]
    """By shard index."""
    size_bytes: int


class Caches(Protocol):
    """Of the shards of a worker. Numbers are llama.cpp's."""

    def save(self, number: int, shards: Sequence[int]) -> Mapping[int, State] | None:
        """None where a shard has not all positions any more: a window slides."""
        ...

    def restore(self, number: int, states: Mapping[int, State], positions: int) -> bool:
        """False: there is no room. Then nothing is changed."""
        ...


class Prefixes:
    """Of one worker. The least recently used goes first when there is more than the budget."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # by their last key; at most ENTRIES
        self._by_key: dict[tuple[bytes, tuple[int, ...]], Kept] = {}  # one for every key of what is kept
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def restore(self, number: int, keys: Sequence[bytes], shards: Sequence[int], rows: int) -> int:
        """Gives a sequence without cells the longest prefix there is. Returns its positions; 0: none."""
        wanted = tuple(shards)
        for count in range(len(keys), 0, -1):
            found = self._by_key.get((keys[count - 1], wanted))
            if found is not None:
                self._kept.move_to_end(found.keys[-1])
                return count * rows if self._caches.restore(number, found.states, count * rows) else 0
        return 0

    def knows(self, keys: Sequence[bytes], shards: Sequence[int]) -> bool:
        """All of it is kept already."""
        return bool(keys) and (keys[-1], tuple(shards)) in self._by_key

    def keep(self, number: int, keys: Sequence[bytes], shards: Sequence[int], rows: int, budget_bytes: int) -> None:
        """The sequence's cells are those of just these keys."""
        if not keys or self.knows(keys, shards):
            return
        states = self._caches.save(number, shards)
        if states is None:
            return
        size = sum(state.nbytes for state in states.values())
        if size > budget_bytes:
            return
        wanted = tuple(shards)
        for shorter in keys[:-1]:  # a chat that goes on: what it had before is the beginning of what it has now
            known = self._kept.get(shorter)
            if known is not None and tuple(known.states) == wanted:
                self._drop(known)
        kept = Kept(tuple(keys), len(keys) * rows, states, size)
        if (same := self._kept.get(kept.keys[-1])) is not None:
            self._drop(same)  # of other shards
        self._kept[kept.keys[-1]] = kept
        self._bytes += size
        for key in keys:
            self._by_key[key, wanted] = kept
        self.shrink(budget_bytes)

    def shrink(self, budget_bytes: int) -> None:
        while self._kept and (self._bytes > budget_bytes or len(self._kept) > ENTRIES):
            self._drop(next(iter(self._kept.values())))

    def _drop(self, kept: Kept) -> None:
        del self._kept[kept.keys[-1]]
        self._bytes -= kept.size_bytes
        wanted: Any = tuple(kept.states)
        for key in kept.keys:
            if self._by_key.get((key, wanted)) is kept:
                del self._by_key[key, wanted]
