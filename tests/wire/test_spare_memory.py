"""Memory of large messages: used again when nobody refers to it, and not kept for nothing."""

from __future__ import annotations

import ctypes
import gc
import threading
import types
from collections.abc import Generator

from swarmd.wire.spare_memory import REST_S, SPARES, SpareMemory

MEGABYTE = 1024 * 1024


def open_memory(sessions: int = 1) -> SpareMemory:
    memory = SpareMemory()
    for _ in range(sessions):
        memory.enter()
    return memory


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_memory_is_used_again_when_the_last_view_of_it_is_gone() -> None:
    memory = open_memory()
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
    memory = open_memory()
    kept: list[memoryview] = []
    for number in range(3 * SPARES):
        view = memory.take(MEGABYTE)
        view[:] = bytes([number]) * MEGABYTE
        if number % 2:
            kept.append(view[MEGABYTE // 2 :])
    assert [view[0] for view in kept] == list(range(1, 3 * SPARES, 2))
    assert all(len(set(view[::4096])) == 1 for view in kept)


def test_a_small_message_does_not_keep_a_large_block() -> None:
    """The credit counts the message: eight of 1 MiB in resident blocks of 8 MiB would be eight times as much."""
    memory = open_memory()
    memory.take(8 * MEGABYTE)
    small = memory.take(MEGABYTE)
    assert [len(block) for block in memory._spares] == [8 * MEGABYTE]
    del small
    memory.take(5 * MEGABYTE)
    assert len(memory._spares) == 2, "a message that is not much smaller has the block"


def test_no_more_than_the_limit_is_kept_and_nothing_for_long() -> None:
    memory = open_memory()
    views = [memory.take(MEGABYTE) for _ in range(SPARES + 3)]
    views.clear()
    assert len(memory._spares) == SPARES
    memory.rest(100.0)
    assert len(memory._spares) == SPARES, "they were all in use a moment ago"
    memory.take(MEGABYTE)
    memory.rest(102.0)
    assert len(memory._spares) == 1, "one of them was needed"
    memory.rest(104.0)
    memory.rest(106.0)
    assert memory._spares == []


def test_looks_of_many_sessions_at_one_moment_do_not_drop_what_was_just_used() -> None:
    memory = open_memory()
    views = [memory.take(MEGABYTE) for _ in range(SPARES)]
    views.clear()
    for session in range(50):
        memory.rest(100.0 + session / 100)
        assert len(memory._spares) == SPARES
    memory.rest(100.0 + REST_S)
    assert memory._spares == []


def test_nothing_is_kept_when_the_last_session_is_gone() -> None:
    memory = open_memory(sessions=2)
    views = [memory.take(MEGABYTE) for _ in range(2)]
    views.pop()
    memory.leave()
    assert len(memory._spares) == 1
    memory.leave()
    assert memory._spares == []
    views.pop()  # a handler had it for longer than its link lived
    assert memory._spares == []


def test_a_coroutine_in_a_dead_cycle_does_not_read_another_message() -> None:
    """The collector closes it after it has called the weak references of what is in the cycle."""
    memory = open_memory()
    seen: list[bytes] = []

    @types.coroutine
    def for_ever() -> Generator[None]:
        yield

    async def handler(payload: memoryview, cycle: list[object]) -> None:
        try:
            await for_ever()
        finally:
            other = memory.take(MEGABYTE)
            other[:4] = b"THEM"
            seen.append(bytes(payload[:4]))

    view = memory.take(MEGABYTE)
    view[:4] = b"mine"
    cycle: list[object] = []
    running = handler(view.toreadonly(), cycle)
    cycle.append(running)
    running.send(None)
    del view, running, cycle
    gc.collect()
    assert seen == [b"mine"]
    assert len(memory._spares) == 2, "and both blocks are back"


def test_the_last_view_may_go_in_a_thread() -> None:
    memory = open_memory()
    views = [memory.take(MEGABYTE)]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert len(memory._spares) == 1
