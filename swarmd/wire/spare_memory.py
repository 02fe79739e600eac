"""Memory for large messages, used again: a new page costs more than the copy into it, most of all in a virtual machine.

Taken from the system for every chunk and given back after it, memory was a tenth of the work of a node that receives shards,
and a third where the machine gives free pages back to its host.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from typing import Final

SPARES: Final = 4
"""As many as one holder fills at a time. What is beyond goes back to the system."""


class SpareMemory:
    """Blocks of one MiB and more, of one event loop. Nobody gives one back: it comes when nobody refers to it any more."""

    def __init__(self) -> None:
        self._spares: list[mmap.mmap] = []  # at most SPARES
        self._unneeded = 0
        """The fewest there were since the latest `rest`."""

    def take(self, size: int) -> memoryview:
        """Writable, with whatever was in it before."""
        block = self._spare(size) or _new(size)
        # The views of a message refer to this array and not to the block, so it goes when the last of them does.
        array = (ctypes.c_char * size).from_buffer(block)
        weakref.finalize(array, self._put_back, block).atexit = False
        return memoryview(array).cast("B")

    def rest(self) -> None:
        """Call it now and then: what was not needed since the last time goes back to the system."""
        del self._spares[: self._unneeded]
        self._unneeded = len(self._spares)

    def _spare(self, size: int) -> mmap.mmap | None:
        """The smallest that is large enough."""
        block = min((block for block in self._spares if len(block) >= size), key=len, default=None)
        if block is not None:
            self._spares.remove(block)
            self._unneeded = min(self._unneeded, len(self._spares))
        return block

    def _put_back(self, block: mmap.mmap) -> None:
        """In whichever thread the last reference went."""
        if len(self._spares) < SPARES:
            self._spares.append(block)


def _new(size: int) -> mmap.mmap:
    """Pages of its own, which the system hands out as they are written and takes back at once. Pieces that are joined at the
    end need half as long again (1.6 ms for 8 MiB, this 1.0), twice the memory for that moment, and leave holes behind."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: 4 page faults instead of 2048
        with contextlib.suppress(OSError):  # a kernel without
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
