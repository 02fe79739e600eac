"""SQL of membership, invites and issued certificates."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord
from swarmd.store import network as sql
from swarmd.store.database import Database
from swarmd.store.network import MembershipRow

NODE = NodeId("ab" * 32)
ROW = MembershipRow(network=NetworkId("cd" * 32), certificate=b"\x01\x00", founded=True, joined_at=1.5)
INVITE = InviteRecord(tag=b"t" * 16, psk=b"p" * 32, created_at=1.0, expires_at=100.0, uses_left=1)


async def test_a_node_belongs_to_one_network_at_most() -> None:
    async with await Database.open(None) as db:
        assert await sql.read_membership(db) is None
        for row in (ROW, replace(ROW, founded=False, network=NetworkId("ef" * 32))):
            async with db.transaction() as tx:
                await sql.write_membership(tx, row)
            assert await sql.read_membership(db) == row


async def test_an_invite_is_kept_spent_and_never_overdrawn() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.add_invite(tx, INVITE)
            assert await sql.count_live_invites(tx, now=99.0) == 1
            assert await sql.count_live_invites(tx, now=100.0) == 0
        assert await sql.read_invite(db, INVITE.tag) == INVITE
        assert await sql.read_invite(db, b"other") is None
        async with db.transaction() as tx:
            await sql.spend_invite(tx, INVITE.tag)
            assert await sql.count_live_invites(tx, now=50.0) == 0
        assert await sql.read_invite(db, INVITE.tag) == replace(INVITE, uses_left=0)
        with pytest.raises(sqlite3.IntegrityError):
            async with db.transaction() as tx:
                await sql.spend_invite(tx, INVITE.tag)


async def test_a_cancelled_invite_is_not_live_and_old_ones_are_forgotten() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.add_invite(tx, INVITE)
            await sql.cancel_invite(tx, INVITE.tag)
            assert await sql.count_live_invites(tx, now=50.0) == 0
            await sql.forget_old_invites(tx, before=100.0)
        assert await sql.read_invite(db, INVITE.tag) == replace(INVITE, cancelled=True)
        async with db.transaction() as tx:
            await sql.forget_old_invites(tx, before=100.5)
        assert await sql.read_invite(db, INVITE.tag) is None


async def test_a_short_invite_is_burnt_or_ends_with_the_run_unless_it_was_used() -> None:
    used, live, burnt, long = (replace(INVITE, tag=bytes([number]) * 16, short=number < 3) for number in range(4))
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            for invite in (replace(used, uses_left=0), live, burnt, long):
                await sql.add_invite(tx, invite)
            await sql.burn_invite(tx, used.tag)
            await sql.burn_invite(tx, burnt.tag)
            await sql.cancel_short_invites(tx)
        found = {invite.tag: invite for invite in await sql.read_invites(db)}
    assert found[used.tag] == replace(used, uses_left=0)
    assert found[live.tag] == replace(live, cancelled=True)
    assert found[burnt.tag] == replace(burnt, cancelled=True, burnt=True)
    assert found[long.tag] == long


async def test_of_invites_without_use_only_the_newest_are_kept() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            for number in range(6):
                tag, made_at = bytes([number]) * 16, float(number)
                await sql.add_invite(tx, replace(INVITE, tag=tag, created_at=made_at, cancelled=number > 0))
            await sql.forget_spare_invites(tx, now=50.0, keep=2)
        assert [invite.created_at for invite in await sql.read_invites(db)] == [5.0, 4.0, 0.0], "newest first; 0 is live"


async def test_an_issued_certificate_is_found_by_invite_and_node() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.add_issued(tx, node=NODE, tag=INVITE.tag, certificate=b"c", issued_at=1.0)
            await sql.add_issued(tx, node=NODE, tag=None, certificate=b"renewed", issued_at=2.0)
            assert await sql.read_issued(tx, tag=INVITE.tag, node=NODE) == b"c"
            assert await sql.read_issued(tx, tag=INVITE.tag, node=NodeId("00" * 32)) is None
            assert await sql.read_issued(tx, tag=b"other", node=NODE) is None
        assert not await sql.has_admitted(db, own=NODE)
        assert await sql.has_admitted(db, own=NodeId("00" * 32))
        async with db.transaction() as tx:
            await sql.forget_invitations(tx)
        assert not await sql.has_admitted(db, own=NodeId("00" * 32))


async def test_the_newest_revocation_of_a_node_by_each_issuer_is_kept() -> None:
    founder, inviter = NetworkId("ee" * 32), NodeId("dd" * 32)
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.write_revocation(tx, node=NODE, issuer=founder, revoked_at=5, record=b"old")
            await sql.write_revocation(tx, node=NODE, issuer=founder, revoked_at=7, record=b"new")
            await sql.write_revocation(tx, node=NODE, issuer=inviter, revoked_at=8, record=b"inviter's")
            await sql.write_revocation(tx, node=NodeId("00" * 32), issuer=founder, revoked_at=6, record=b"other")
        assert await sql.read_revocations(db) == (b"other", b"new", b"inviter's")
        async with db.transaction() as tx:
            await sql.remove_revocation(tx, node=NODE, issuer=founder)
        assert await sql.read_revocations(db) == (b"other", b"inviter's")
        async with db.transaction() as tx:
            await sql.forget_invitations(tx)
        assert await sql.read_revocations(db) == ()


async def test_the_newest_certificate_of_a_node_is_found_and_renewals_do_not_pile_up() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            assert await sql.newest_issued(tx, node=NODE) is None
            await sql.add_issued(tx, node=NODE, tag=INVITE.tag, certificate=b"first", issued_at=1.0)
            for certificate in (b"second", b"third"):
                await sql.forget_renewals(tx, node=NODE)
                await sql.add_issued(tx, node=NODE, tag=None, certificate=certificate, issued_at=2.0)
            assert await sql.newest_issued(tx, node=NODE) == b"third"
            assert await sql.read_issued(tx, tag=INVITE.tag, node=NODE) == b"first"
        rows = await db.fetch_all("SELECT certificate FROM issued_certificates ORDER BY id")
        assert [bytes(row[0]) for row in rows] == [b"first", b"third"]
