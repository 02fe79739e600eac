"""Bytes carried between two sockets, as a node between two others does."""

from __future__ import annotations

import asyncio
from typing import cast

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.transport.doors import Forward, Network
from swarmd.transport.greeting import Greeting


class _End(asyncio.Protocol):
    def __init__(self, over: asyncio.Event) -> None:
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self._over = over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()
        self._over.set()


def pipe(network: Network, target: Endpoint) -> Forward:
    """Over a connection of its own to `target`, until either side hangs up."""

    async def forward(greeting: Greeting, _node: NodeId, first: bytes) -> None:
        over = asyncio.Event()
        near, far = _End(over), _End(over)
        await network.connect(lambda: far, target)
        assert far.transport is not None
        near.other, far.other = far.transport, greeting.transport
        far.transport.write(first)
        greeting.transport.set_protocol(near)
        greeting.transport.resume_reading()
        await over.wait()

    return forward
