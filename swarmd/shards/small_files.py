"""Files of a peer that are held whole in memory: manifests, headers, indices of adapters and their parts.

Over the bulk link, part by part. What comes is not believed: who asked compares it with what it must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from swarmd.domain.ids import NodeId, short
from swarmd.domain.peers import Purpose
from swarmd.domain.refusals import BadFile, NotFound, Refusal
from swarmd.kit.flow import Backoff
from swarmd.kit.world import World
from swarmd.shards.fetching import Lines
from swarmd.transport.rpc import Link, LinkLost, StreamReset
from swarmd.wire.events import TooManyStreams
from swarmd.wire.exchange import PART_BYTES
from swarmd.wire.messages import Refused

PART_TIMEOUT_S: Final = 120.0  # 4 MiB over an uplink of 1 Mbit/s take 34 s, behind as much again of somebody else's
BULK_PATIENCE_S: Final = 30.0  # the bulk link is dialled when the control link is up
FIRST_S: Final = 0.05
LIMIT_S: Final = 1.0
NOT_SENT: Final = (LinkLost, StreamReset, TooManyStreams, TimeoutError)
"""How `collect` fails where nobody is to blame."""


class _Part(Protocol):
    @property
    def total_bytes(self) -> int: ...


async def bulk_link(lines: Lines, node: NodeId, world: World) -> Link | None:
    """What is told of files comes over the control link, and the other one follows it. None: it does not."""
    backoff = Backoff(FIRST_S, 2.0, LIMIT_S, entropy=world.entropy)
    deadline = world.clock.monotonic() + BULK_PATIENCE_S
    while (link := lines.link(node, Purpose.BULK)) is None:
        if world.clock.monotonic() >= deadline or node not in lines.connected():
            return None
        await asyncio.sleep(backoff.delay())
    return link


async def collect(
    link: Link,
    ask: Callable[[int], object],
    part: type[_Part],
    *,
    within_s: float,
    limit: int = 0,
    exactly: int = 0,
) -> bytearray | Refusal:
    """One file, at most `limit` bytes of it, or `exactly` so many. `ask`: the message for what begins at an offset.

    No part is smaller than it can be: who is waited for sends it at some pace. BadFile when the peer does not keep to the
    rules, NotFound when it has it not. Raises NOT_SENT when it does not answer, or not all of it comes in time.
    """
    data = bytearray()
    total: int | None = None
    async with asyncio.timeout(within_s):
        while total is None or len(data) < total:
            reply = await link.call(ask(len(data)), part, timeout_s=PART_TIMEOUT_S)
            if isinstance(reply, Refused):
                return NotFound(what=f"{short(link.node)} does not send it: {reply.sentence[:200]}")
            stated, size = reply.message.total_bytes, len(reply.payload)
            wanted = exactly or total or limit
            if not 0 < stated <= wanted or ((exactly or total) and stated != wanted):
                return BadFile(what=f"{short(link.node)} offers {stated} bytes where {wanted} are taken")
            if size != min(PART_BYTES, stated - len(data)):
                return BadFile(what=f"{short(link.node)} sent {size} bytes after {len(data)} of {stated}")
            total = stated
            data += reply.payload
    return data
