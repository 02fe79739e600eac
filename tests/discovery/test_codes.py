"""The code a person is shown: the same while it is good, a new one otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.discovery.codes import LEFT_S, LIFE_LIMIT_S, USES_LIMIT
from swarmd.discovery.invites import LIFE_S, Invite, read_invite
from swarmd.discovery.join import Joined
from swarmd.domain.membership import NetworkCode, Phase
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Busy, Forbidden, Invalid, UsedUp
from swarmd.kit.world import SeededClock
from swarmd.peers.invitations import MAX_LIVE_INVITES
from tests.fakes.linked import Node, Swarm, joined, open_swarm

pytestmark = pytest.mark.looptime


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with open_swarm(tmp_path) as swarm:
        yield swarm


async def shown(node: Node) -> NetworkCode:
    code = await node.codes.network_code()
    assert isinstance(code, NetworkCode), code
    return code


async def test_the_same_code_is_shown_while_it_is_good(swarm: Swarm) -> None:
    a = await swarm.start(1)
    assert a.member.membership.network is None
    first, second = await asyncio.gather(shown(a), shown(a))
    assert first.code == second.code == (await shown(a)).code
    assert (first.node, first.network) == (a.id, a.member.membership.network)
    assert (first.phase, first.peer_count) == (Phase.SEEDLING, 0)
    invite = read_invite(first.code, now=a.member.world.clock.now())
    assert isinstance(invite, Invite)
    assert (invite.inviter, invite.network, invite.endpoints) == (a.id, first.network, (a.at,))
    assert first.expires_at == invite.expires_at == pytest.approx(a.member.world.clock.now() + LIFE_S, abs=60)


async def test_a_used_an_old_and_an_outdated_code_are_replaced(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    codes = [(await shown(a)).code]
    await joined(b, a)
    codes.append((await shown(a)).code)
    a.announced[:] = [Endpoint("10.9.9.9", 8810)]  # the machine moved
    codes.append((await shown(a)).code)
    assert isinstance(a.member.world.clock, SeededClock)
    a.member.world.clock.shift(LIFE_S - LEFT_S + 1)
    codes.append((await shown(a)).code)
    assert len(set(codes)) == 4
    assert (await shown(a)).code == codes[-1]
    assert (await shown(a)).phase is Phase.ESTABLISHED


async def test_a_code_on_other_terms(swarm: Swarm) -> None:
    a, b, c, d = [await swarm.start(seed) for seed in (1, 2, 3, 4)]
    code = await a.codes.new_code(life_s=7200, uses=2)
    assert isinstance(code, NetworkCode)
    assert (await shown(a)).code != code.code
    assert isinstance(await b.joiner.join(code.code), Joined)
    assert isinstance(await c.joiner.join(code.code), Joined)
    assert await d.joiner.join(code.code) == UsedUp()


async def test_impossible_terms_are_refused(swarm: Swarm) -> None:
    a = await swarm.start(1)
    for life_s, uses in ((0.0, 1), (-1.0, 1), (LIFE_LIMIT_S + 1, 1), (float("nan"), 1), (60.0, 0), (60.0, USES_LIMIT + 1)):
        assert isinstance(await a.codes.new_code(life_s=life_s, uses=uses), Invalid)
    a.announced.clear()
    assert isinstance(await a.codes.network_code(), Invalid)
    assert a.member.membership.network is None  # nothing was founded for nothing


async def test_a_member_that_did_not_found_the_network_has_no_codes(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    await joined(b, a)
    assert isinstance(await b.codes.network_code(), Forbidden)


async def test_the_number_of_codes_that_are_out_is_bounded(swarm: Swarm) -> None:
    a = await swarm.start(1)
    for _ in range(MAX_LIVE_INVITES):
        assert isinstance(await a.codes.new_code(), NetworkCode)
    assert isinstance(await a.codes.new_code(), Busy)


async def test_after_a_restart_there_is_a_new_code_and_the_old_one_works(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    old = await shown(a)
    await swarm.stop(1)
    a = await swarm.start(1)
    new = await shown(a)
    assert new.code != old.code
    assert new.network == old.network
    assert isinstance(await b.joiner.join(old.code), Joined)
