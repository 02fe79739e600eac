"""Writes to a transport's socket within the call.

uvloop collects what is written and sends it when the callbacks of the loop's turn are over. For a token that is the wrong
end of the turn: the next node would begin only when this one has tidied up, some 0.1 ms later at every hop. So as long as
nothing waits in the transport, the bytes go straight to its socket; what the socket does not take, the transport gets, and
with it all the back pressure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

Bytes = bytes | bytearray | memoryview
_PARTS: Final = 16  # of one system call: what POSIX promises


class DirectWriter:
    """Beside one stream transport, whose only writer it is. A transport without a socket of its own (TLS, in memory) is
    written to as usual."""

    __slots__ = ("_fd", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        self._transport: Final = transport
        self._fd: Final[int] = -1 if sock is None else sock.fileno()

    def write(self, parts: Sequence[Bytes]) -> None:
        """Sends all parts in order, now or through the transport."""
        transport = self._transport
        sent = 0
        direct = self._fd >= 0 and len(parts) <= _PARTS
        if direct and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            try:
                sent = os.writev(self._fd, parts)
            except OSError:  # full, or broken: then the transport finds out in its own way
                sent = 0
        for part in parts:
            size = len(part)
            if sent >= size:
                sent -= size
            else:
                transport.write(memoryview(part)[sent:] if sent else part)
                sent = 0
