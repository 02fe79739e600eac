"""The code a person is shown: the same while it is good, a new one otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.discovery.codes import LEAST_LIFE_S, LEFT_S, LIFE_LIMIT_S, USES_LIMIT
from swarmd.discovery.invites import LIFE_S, Invite, read_invite
from swarmd.discovery.join import Joined
from swarmd.domain.membership import InviteState, InviteView, NetworkCode, NewInvite, Phase
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
    assert isinstance(code, NewInvite)
    assert code.invite.uses_left == 2
    assert code.invite.expires_at == pytest.approx(code.invite.created_at + 7200, abs=1)
    assert (await shown(a)).code != code.code
    assert isinstance(await b.joiner.join(code.code), Joined)
    assert isinstance(await c.joiner.join(code.code), Joined)
    assert await d.joiner.join(code.code) == UsedUp()


async def test_a_short_code_is_one_more_invite_and_the_only_short_one(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    first = await a.codes.short_code()
    await asyncio.sleep(1.0)  # the list is in the order of time
    second = await a.codes.short_code()
    assert isinstance(first, NewInvite) and isinstance(second, NewInvite)
    assert first.code != second.code
    numbers = [int(one.code.split("-")[0]) for one in (first, second)]
    assert a.member.short_codes.nameplates() == (numbers[1],)
    assert [(row.state, row.short) for row in await a.codes.invites()] == [
        (InviteState.LIVE, True),
        (InviteState.CANCELLED, True),
    ]
    assert not [word for word in second.code.split("-")[1:] if word in repr(await a.codes.invites())]
    await a.codes.cancel(second.invite.id)
    assert a.member.short_codes.nameplates() == ()
    await joined(b, a)
    assert isinstance(await b.codes.short_code(), Forbidden)
    a.member.plates.update(range(1, 1000))
    assert isinstance(await a.codes.short_code(), Busy)


async def test_impossible_terms_are_refused(swarm: Swarm) -> None:
    a = await swarm.start(1)
    bad_lives = [(life_s, 1) for life_s in (0.0, -1.0, LEAST_LIFE_S - 1, LIFE_LIMIT_S + 1, float("nan"))]
    for life_s, uses in (*bad_lives, (60.0, 0), (60.0, USES_LIMIT + 1)):
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
        made = await a.codes.new_code()
        assert isinstance(made, NewInvite)
    refused = await a.codes.new_code()
    assert isinstance(refused, Busy) and "swarmd invite --cancel ID" in refused.sentence
    assert isinstance(await a.codes.cancel(made.invite.id), InviteView)
    assert isinstance(await a.codes.new_code(), NewInvite)


async def test_every_asking_makes_another_code_and_the_list_has_none_of_them(swarm: Swarm) -> None:
    a = await swarm.start(1)
    made = [await a.codes.new_code() for _ in range(3)]
    codes = [one.code for one in made if isinstance(one, NewInvite)]
    assert len(set(codes)) == 3
    listed = await a.codes.invites()
    assert {row.id for row in listed} == {one.invite.id for one in made if isinstance(one, NewInvite)}
    assert not [code for code in codes if code in repr(listed)]


async def test_a_cancelled_code_is_refused_with_that_reason_and_who_joined_stays(swarm: Swarm) -> None:
    a, b, c = [await swarm.start(seed) for seed in (1, 2, 3)]
    code = await a.codes.new_code(uses=2)
    assert isinstance(code, NewInvite)
    assert isinstance(await b.joiner.join(code.code), Joined)
    ended = await a.codes.cancel(code.invite.id)
    assert isinstance(ended, InviteView)
    assert (ended.state, ended.uses_left) == (InviteState.CANCELLED, 1)
    said = await c.joiner.join(code.code)
    assert isinstance(said, Forbidden) and "with this code any more" in said.sentence
    assert b.member.membership.network == a.member.membership.network


async def test_a_cancelled_code_is_not_handed_out_again(swarm: Swarm) -> None:
    a = await swarm.start(1)
    first = await shown(a)
    (row,) = await a.codes.invites()
    await a.codes.cancel(row.id)
    assert (await shown(a)).code != first.code


async def test_after_a_restart_there_is_a_new_code_and_the_old_one_works(swarm: Swarm) -> None:
    a, b = await swarm.start(1), await swarm.start(2)
    old = await shown(a)
    await swarm.stop(1)
    a = await swarm.start(1)
    new = await shown(a)
    assert new.code != old.code
    assert new.network == old.network
    assert isinstance(await b.joiner.join(old.code), Joined)


async def test_inviters_make_codes_and_the_last_in_a_row_only_for_members(swarm: Swarm) -> None:
    founder, first, second, third, member = [await swarm.start(seed) for seed in range(1, 6)]
    for guest, host in ((first, founder), (second, first), (third, second)):
        made = await host.codes.new_code(role="inviter")
        assert isinstance(made, NewInvite) and made.invite.role == "inviter"
        assert isinstance(await guest.joiner.join(made.code), Joined)
        assert isinstance(await host.codes.new_code(role="inviter", uses=2), NewInvite)
    refused = await third.codes.new_code(role="inviter")
    assert isinstance(refused, Forbidden) and "inviters, only members" in refused.sentence
    assert await third.codes.invites() == (), "said when it is asked for, not when somebody comes with it"
    await joined(member, third)  # the code of every day
    own = member.member.membership.certificate
    assert own is not None and [link.node for link in own.chain()] == [member.id, third.id, second.id, first.id]
    refused = await member.codes.new_code()
    assert isinstance(refused, Forbidden) and "may not invite" in refused.sentence
    assert [row.role for row in await first.codes.invites()] == ["inviter", "inviter"]


async def test_a_code_of_an_inviter_that_was_put_out_admits_nobody(swarm: Swarm) -> None:
    founder, first, guest = [await swarm.start(seed) for seed in range(1, 4)]
    made = await founder.codes.new_code(role="inviter")
    assert isinstance(made, NewInvite) and isinstance(await first.joiner.join(made.code), Joined)
    code = (await shown(first)).code
    assert await founder.member.membership.revoke(first.id)
    await founder.links.enforce(first.id)
    await asyncio.sleep(2)
    assert isinstance(await guest.joiner.join(code), Forbidden)
    assert guest.member.membership.network is None
