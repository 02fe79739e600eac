"""Workers as threads of the test's own process: what is real is everything but the process. For tests that need many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading

import pytest

from swarmd.inference import worker, worker_process
from swarmd.inference.engine import Engine


class _Thread:
    """Enough of an asyncio.subprocess.Process."""

    def __init__(self, descriptor: int) -> None:
        self.pid = os.getpid()
        self.stderr = asyncio.StreamReader()
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._connection = socket.socket(fileno=os.dup(descriptor))
        threading.Thread(target=self._serve, daemon=True).start()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    def _serve(self) -> None:
        with self._connection, contextlib.suppress(EOFError, OSError):
            worker.serve(self._connection)
        with contextlib.suppress(RuntimeError):  # the test's loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.stderr.feed_eof()
        self._ended.set()


def workers_as_threads(patch: pytest.MonkeyPatch) -> None:
    """From now on. llama.cpp has one log callback per process, so they share one engine."""
    engine = Engine()

    async def start(*_arguments: str, pass_fds: tuple[int], **_rest: object) -> _Thread:
        return _Thread(pass_fds[0])

    patch.setattr(worker, "Engine", lambda: engine)
    patch.setattr(worker_process.asyncio, "create_subprocess_exec", start)
