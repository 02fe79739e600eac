"""What went over the wire to a port of a place, as somebody on the line sees it."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field

from tests.rig.nodes import Node

ETH_P_IP, TCP = 0x0800, 6


@dataclass
class Recorder:
    """Records the first bytes of every TCP connection to `port` of a node, from the moment it is made until `stop`."""

    node: Node
    port: int
    streams: dict[tuple[bytes, int], dict[int, bytes]] = field(default_factory=dict)
    """Payloads by their offset from the first sequence number, of each (address, port) that calls."""
    _first: dict[tuple[bytes, int], int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._ear = self.node.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)))
        self._ear.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def stop(self) -> list[bytes]:
        """The recorded streams, whole from their first byte on, the longest first."""
        self._over.set()
        self._thread.join()
        self._ear.close()
        return sorted(map(self.whole, self.streams), key=len, reverse=True)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._take(self._ear.recv(65536)[14:])
            except TimeoutError:
                continue

    def _take(self, packet: bytes) -> None:
        head = (packet[0] & 15) * 4
        if packet[9] != TCP:
            return
        source, target, sequence = struct.unpack_from(">HHI", packet, head)
        if target != self.port:
            return
        caller = (packet[12:16], source)
        if packet[head + 13] & 2:  # SYN
            self._first[caller] = sequence + 1
            self.streams[caller] = {}
        size = struct.unpack_from(">H", packet, 2)[0]
        data = packet[head + (packet[head + 12] >> 4) * 4 : size]
        if data and caller in self.streams:
            self.streams[caller][(sequence - self._first[caller]) % 2**32] = data

    def whole(self, caller: tuple[bytes, int]) -> bytes:
        """Of one caller, from the first byte as far as nothing is missing."""
        data, parts = b"", self.streams[caller]
        while len(data) in parts:
            data += parts[len(data)]
        return data
