"""Memory for large messages, used again: a new page costs more than the copy into it, most of all in a virtual machine.

Taken from the system for every chunk and given back after it, memory was a tenth of the work of a node that receives shards,
and a third where the machine gives free pages back to its host.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Callable
from typing import Final

import msgspec

SPARES: Final = 4
"""As many as one holder fills at a time. What is beyond goes back to the system."""
REST_S: Final = 1.4  # a little less than what is between two looks of one session (`session._LOOK_S`)


class SpareMemory:
    """Blocks of one MiB and more, of one event loop. Nobody gives one back: it comes when nobody refers to it any more."""

    def __init__(self) -> None:
        self._spares: list[mmap.mmap] = []  # at most SPARES
        self._unneeded = 0
        """The fewest there were since the latest `rest`."""
        self._rested_at = -math.inf
        self._sessions = 0

    def enter(self) -> None:
        """A session more that takes, and calls `rest`."""
        self._sessions += 1

    def leave(self) -> None:
        """A session less. Without any nobody would call `rest`: nothing is kept."""
        self._sessions -= 1
        if not self._sessions:
            self._spares.clear()
            self._unneeded = 0

    def take(self, size: int) -> memoryview:
        """Writable, with whatever was in it before."""
        block = self._spare(size) or _new(size)
        # The views of a message refer to this array and not to the block, so it goes when the last of them does.
        array = (ctypes.c_char * size).from_buffer(block)
        vars(array)["lease"] = _Lease(self._put_back, block)
        return memoryview(array).cast("B")

    def rest(self, now: float) -> None:
        """Call it now and then: what was not needed since the last time goes back to the system. Every session does, so a
        call soon after another one says nothing about what is needed."""
        if now - self._rested_at < REST_S:
            return
        self._rested_at = now
        del self._spares[: self._unneeded]
        self._unneeded = len(self._spares)

    def _spare(self, size: int) -> mmap.mmap | None:
        """The smallest that is large enough. None that is much larger: its pages are there, and the peer's credit counts
        those of the message only."""
        block = min((block for block in self._spares if size <= len(block) <= 2 * size), key=len, default=None)
        if block is not None:
            self._spares.remove(block)
            self._unneeded = min(self._unneeded, len(self._spares))
        return block

    def _put_back(self, block: mmap.mmap) -> None:
        """In whichever thread the last reference went."""
        if self._sessions and len(self._spares) < SPARES:
            self._spares.append(block)


class _Lease(msgspec.Struct, gc=False):
    """Puts a block back when the last view of it goes.

    The collector does not know it. In a dead cycle that one runs weak references' callbacks, and `__del__` of what it knows,
    before it closes the coroutines, which may still read the message; what it does not know goes after them.
    """

    put_back: Callable[[mmap.mmap], None]
    block: mmap.mmap

    def __del__(self) -> None:
        self.put_back(self.block)


def _new(size: int) -> mmap.mmap:
    """Pages of its own, which the system hands out as they are written and takes back at once. Pieces that are joined at the
    end need half as long again (1.6 ms for 8 MiB, this 1.0), twice the memory for that moment, and leave holes behind."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: 4 page faults instead of 2048
        with contextlib.suppress(OSError):  # a kernel without
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
