"""Who belongs to the network: what the founder knows, what others know, and putting somebody out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.ids import NodeId
from swarmd.domain.membership import MemberView
from swarmd.domain.refusals import Forbidden, NotFound
from swarmd.identity.certificates import LIFE_S
from swarmd.kit.world import seeded_world
from swarmd.peers.members import Members
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


def members(node: Node) -> Members:
    return Members(membership=node.member.membership, lines=node.links, db=node.member.db)


async def listed(node: Node) -> dict[NodeId, MemberView]:
    return {view.node: view for view in await members(node).views()}


async def trio(swarm: Swarm) -> tuple[Node, Node, Node]:
    world = seeded_world(7)
    a, b, c = [await swarm.start(seed, world=world) for seed in (1, 2, 3)]
    await joined(b, a)
    await joined(c, a)
    await asyncio.sleep(5)
    return a, b, c


async def test_a_node_without_a_network_has_no_members(swarm: Swarm) -> None:
    assert await members(await swarm.start(1)).views() == ()


async def test_the_founder_knows_everybody_it_admitted_also_those_away(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    await swarm.stop(3)
    await asyncio.sleep(5)
    views = await listed(a)
    assert list(views) == [a.id, *sorted((b.id, c.id))]
    assert [(views[node.id].is_self, views[node.id].connected, views[node.id].role) for node in (a, b, c)] == [
        (True, False, "inviter"),
        (False, True, "member"),
        (False, False, "member"),
    ]
    for node in (b, c):
        view = views[node.id]
        assert view.issued_at is not None and view.expires_at == view.issued_at + LIFE_S
        assert view.last_seen is not None and view.revoked_at is None


async def test_another_member_knows_the_certificates_of_those_it_is_linked_to(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    assert next(iter(await listed(b))) == b.id
    assert {node: view.role for node, view in (await listed(b)).items()} == {a.id: "inviter", b.id: "member", c.id: "member"}
    await swarm.stop(3)
    await asyncio.sleep(5)
    away = (await listed(b))[c.id]
    assert (away.role, away.issued_at, away.expires_at, away.connected) == (None, None, None, False)
    assert away.last_seen is not None


async def test_putting_out_is_said_by_everybody_until_the_node_is_admitted_again(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    out = await members(a).revoke(c.id)
    assert isinstance(out, MemberView)
    assert out.revoked_at is not None and not out.connected
    await asyncio.sleep(2)
    for node in (a, b, c):
        assert (await listed(node))[c.id].revoked_at == out.revoked_at
        assert (await listed(node))[b.id].revoked_at is None
    await joined(c, a)
    await asyncio.sleep(5)
    for node in (a, b, c):
        assert (await listed(node))[c.id].revoked_at is None


async def test_who_may_not_and_whom_nobody_knows(swarm: Swarm) -> None:
    a, b, c = await trio(swarm)
    refused = await members(b).revoke(c.id)
    assert isinstance(refused, Forbidden) and "founded the network" in refused.sentence
    assert isinstance(await members(a).revoke(a.id), Forbidden)
    assert isinstance(await members(a).revoke(NodeId("00" * 32)), NotFound)
    assert a.member.membership.revocations.records() == ()
