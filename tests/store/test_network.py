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
