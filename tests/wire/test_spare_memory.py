"""Memory of large messages: used again when nobody refers to it, and not kept for nothing."""

from __future__ import annotations

import ctypes
import gc
import threading

from swarmd.wire.spare_memory import SPARES, SpareMemory

MEGABYTE = 1024 * 1024


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_memory_is_used_again_when_the_last_view_of_it_is_gone() -> None:
    memory = SpareMemory()
    first = memory.take(3 * MEGABYTE + 1)
    assert len(first) == 3 * MEGABYTE + 1
    where = address(first)
    piece = first[5:10].toreadonly()
    del first
    other = memory.take(3 * MEGABYTE + 1)
    assert address(other) != where, "a piece of it was still referred to"
    del piece
    assert address(memory.take(4 * MEGABYTE)) != where, "it is too small"
    assert address(memory.take(2 * MEGABYTE)) == where


def test_a_message_that_is_kept_is_not_written_over() -> None:
    memory = SpareMemory()
    kept: list[memoryview] = []
    for number in range(3 * SPARES):
        view = memory.take(MEGABYTE)
        view[:] = bytes([number]) * MEGABYTE
        if number % 2:
            kept.append(view[MEGABYTE // 2 :])
    assert [view[0] for view in kept] == list(range(1, 3 * SPARES, 2))
    assert all(len(set(view[::4096])) == 1 for view in kept)


def test_no_more_than_the_limit_is_kept_and_nothing_for_long() -> None:
    memory = SpareMemory()
    views = [memory.take(MEGABYTE) for _ in range(SPARES + 3)]
    views.clear()
    assert len(memory._spares) == SPARES
    memory.rest()
    assert len(memory._spares) == SPARES, "they were all in use a moment ago"
    memory.take(MEGABYTE)
    memory.rest()
    assert len(memory._spares) == 1, "one of them was needed"
    memory.rest()
    memory.rest()
    assert memory._spares == []


def test_the_last_view_may_go_in_a_thread() -> None:
    memory = SpareMemory()
    views = [memory.take(MEGABYTE)]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert len(memory._spares) == 1
