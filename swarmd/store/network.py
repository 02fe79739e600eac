"""SQL of our membership, the invites we gave and the certificates we issued.

Functions take a `Transaction` where the caller composes them with others, the `Database` where one statement is all.
Certificates are bytes here; `identity/certificates` knows what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.domain.membership import InviteRecord
from swarmd.store.database import Database, Row, Transaction

_INVITE: Final = "tag, psk, created_at, expires_at, uses_left, cancelled, short, burnt, role"


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipRow:
    """Which network this node belongs to, and what proves it."""

    network: NetworkId
    certificate: bytes | None
    """None: an open network that was entered without one."""
    founded: bool
    """This node made the network."""
    joined_at: float
    """Unix seconds."""


async def read_membership(db: Database) -> MembershipRow | None:
    row = await db.fetch_one("SELECT network, certificate, founded, joined_at FROM membership")
    if row is None:
        return None
    network, certificate, founded, joined_at = row
    return MembershipRow(network=NetworkId(network), certificate=certificate, founded=bool(founded), joined_at=joined_at)


async def write_membership(tx: Transaction, row: MembershipRow) -> None:
    """Replaces what was there."""
    await tx.execute(
        "INSERT OR REPLACE INTO membership (only_row, network, certificate, founded, joined_at) VALUES (1, ?, ?, ?, ?)",
        (row.network, row.certificate, int(row.founded), row.joined_at),
    )


async def forget_invitations(tx: Transaction) -> None:
    """Everything that was issued, promised or taken back in a network we leave."""
    await tx.execute("DELETE FROM invites")
    await tx.execute("DELETE FROM issued_certificates")
    await tx.execute("DELETE FROM revocations")


async def read_revocations(db: Database) -> tuple[bytes, ...]:
    """The oldest first."""
    rows = await db.fetch_all("SELECT record FROM revocations ORDER BY revoked_at, node, issuer")
    return tuple(bytes(row[0]) for row in rows)


async def write_revocation(
    tx: Transaction, *, node: NodeId, issuer: NodeId | NetworkId, revoked_at: int, record: bytes
) -> None:
    """Replaces an older one of the same node by the same issuer."""
    await tx.execute(
        "INSERT OR REPLACE INTO revocations (node, issuer, revoked_at, record) VALUES (?, ?, ?, ?)",
        (node, issuer, revoked_at, record),
    )


async def remove_revocation(tx: Transaction, *, node: NodeId, issuer: NodeId | NetworkId) -> None:
    await tx.execute("DELETE FROM revocations WHERE node = ? AND issuer = ?", (node, issuer))


async def add_invite(tx: Transaction, invite: InviteRecord) -> None:
    await tx.execute(
        f"INSERT INTO invites ({_INVITE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            invite.tag,
            invite.psk,
            invite.created_at,
            invite.expires_at,
            invite.uses_left,
            int(invite.cancelled),
            int(invite.short),
            int(invite.burnt),
            invite.role,
        ),
    )


async def read_invite(source: Database | Transaction, tag: bytes) -> InviteRecord | None:
    row = await source.fetch_one(f"SELECT {_INVITE} FROM invites WHERE tag = ?", (tag,))
    return None if row is None else _invite(row)


async def read_invites(source: Database | Transaction) -> list[InviteRecord]:
    """All that are remembered, newest first."""
    rows = await source.fetch_all(f"SELECT {_INVITE} FROM invites ORDER BY created_at DESC, tag")
    return [_invite(row) for row in rows]


def _invite(row: Row) -> InviteRecord:
    tag, psk, created_at, expires_at, uses_left, cancelled, short, burnt, role = row
    return InviteRecord(
        tag=tag,
        psk=psk,
        created_at=created_at,
        expires_at=expires_at,
        uses_left=uses_left,
        cancelled=bool(cancelled),
        short=bool(short),
        burnt=bool(burnt),
        role=role,
    )


async def count_live_invites(tx: Transaction, *, now: float) -> int:
    row = await tx.fetch_one("SELECT COUNT(*) FROM invites WHERE uses_left > 0 AND cancelled = 0 AND expires_at > ?", (now,))
    assert row is not None, "COUNT gives a row"
    return int(row[0])


async def forget_old_invites(tx: Transaction, *, before: float) -> None:
    """Invites that expired before that moment; whoever comes with one of them later gets silence."""
    await tx.execute("DELETE FROM invites WHERE expires_at < ?", (before,))


async def forget_spare_invites(tx: Transaction, *, now: float, keep: int) -> None:
    """Of the invites nobody can join with, all but the newest `keep`."""
    await tx.execute(
        "DELETE FROM invites WHERE tag IN (SELECT tag FROM invites WHERE uses_left = 0 OR cancelled = 1 OR expires_at <= ?"
        " ORDER BY created_at DESC, tag LIMIT -1 OFFSET ?)",
        (now, keep),
    )


async def cancel_invite(tx: Transaction, tag: bytes) -> None:
    await tx.execute("UPDATE invites SET cancelled = 1 WHERE tag = ?", (tag,))


async def burn_invite(tx: Transaction, tag: bytes) -> None:
    """One that was used before stays that: whoever guesses afterwards changes nothing."""
    await tx.execute("UPDATE invites SET cancelled = 1, burnt = 1 WHERE tag = ? AND uses_left > 0 AND cancelled = 0", (tag,))


async def cancel_short_invites(tx: Transaction) -> None:
    await tx.execute("UPDATE invites SET cancelled = 1 WHERE short = 1 AND uses_left > 0")


async def spend_invite(tx: Transaction, tag: bytes) -> None:
    """One use. The caller has checked in this transaction that one is left; the table refuses to go below zero."""
    await tx.execute("UPDATE invites SET uses_left = uses_left - 1 WHERE tag = ?", (tag,))


async def read_issued(tx: Transaction, *, tag: bytes, node: NodeId) -> bytes | None:
    """The certificate that `node` already got for this invite."""
    row = await tx.fetch_one("SELECT certificate FROM issued_certificates WHERE invite_tag = ? AND node = ?", (tag, node))
    return None if row is None else bytes(row[0])


async def add_issued(tx: Transaction, *, node: NodeId, tag: bytes | None, certificate: bytes, issued_at: float) -> None:
    """`tag` None: a renewal. With a tag it replaces what the node got for the same invite."""
    await tx.execute(
        "INSERT OR REPLACE INTO issued_certificates (node, invite_tag, certificate, issued_at) VALUES (?, ?, ?, ?)",
        (node, tag, certificate, issued_at),
    )


async def newest_issued(tx: Transaction, *, node: NodeId) -> bytes | None:
    """The certificate that `node` got last, by whatever way."""
    row = await tx.fetch_one(
        "SELECT certificate FROM issued_certificates WHERE node = ? ORDER BY issued_at DESC, id DESC LIMIT 1", (node,)
    )
    return None if row is None else bytes(row[0])


async def read_issued_newest(db: Database, *, limit: int) -> tuple[bytes, ...]:
    """The certificate that each node got last; of many nodes those served last."""
    rows = await db.fetch_all(
        "SELECT certificate, MAX(issued_at) AS at FROM issued_certificates GROUP BY node ORDER BY at DESC LIMIT ?", (limit,)
    )
    return tuple(bytes(row[0]) for row in rows)


async def forget_renewals(tx: Transaction, *, node: NodeId) -> None:
    """The next one takes their place: a member has one renewal here at most, and one row for each invite it came with."""
    await tx.execute("DELETE FROM issued_certificates WHERE node = ? AND invite_tag IS NULL", (node,))


async def has_admitted(source: Database | Transaction, *, own: NodeId) -> bool:
    """Whether anybody else got a certificate from us."""
    return await source.fetch_one("SELECT 1 FROM issued_certificates WHERE node <> ? LIMIT 1", (own,)) is not None
