"""Files that come whole from a peer: what is taken and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import BadFile, Refusal
from swarmd.shards import small_files
from swarmd.shards.small_files import collect
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import WithPayload
from swarmd.wire.exchange import AskManifest, ManifestPart
from tests.transport.nodes import nodes


async def collected(
    answer: Callable[[AskManifest, memoryview, PeerIdentity], Awaitable[WithPayload]], *, within_s: float = 5.0
) -> bytearray | Refusal:
    """From a peer that answers like this."""
    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        server.dispatcher.answer(AskManifest, answer)
        return await collect(
            await client.link_to(server),
            lambda offset: AskManifest(model=ModelId("tiny"), layout="0" * 32, offset=offset),
            ManifestPart,
            limit=100,
            within_s=within_s,
        )


def in_parts(total: int, sizes: list[int]) -> Callable[[AskManifest, memoryview, PeerIdentity], Awaitable[WithPayload]]:
    left = list(sizes)

    async def answer(ask: AskManifest, payload: memoryview, peer: PeerIdentity) -> WithPayload:
        return WithPayload(ManifestPart(total_bytes=total), bytes(left.pop(0)))

    return answer


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(0, [1]), (101, [10]), (20, [0]), (20, [21]), (20, [10, 11]), (20, [1]), (20, [10, 9])],
    ids=["nothing", "too much", "an empty part", "more than stated", "more in the end", "a drop", "less in the end"],
)
async def test_parts_that_break_the_rules_are_refused(
    total: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "PART_BYTES", 10)
    assert isinstance(await collected(in_parts(total, sizes)), BadFile)


@pytest.mark.parametrize(("total", "sizes"), [(20, [10, 10]), (21, [10, 10, 1]), (3, [3])])
async def test_parts_as_a_node_sends_them_are_taken(
    total: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "PART_BYTES", 10)
    assert await collected(in_parts(total, sizes)) == bytes(total)


async def test_a_file_that_does_not_come_in_time_is_not_waited_for() -> None:
    async def never(ask: AskManifest, payload: memoryview, peer: PeerIdentity) -> WithPayload:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await collected(never, within_s=0.05)
