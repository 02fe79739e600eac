"""SQL of the peers we know."""

from __future__ import annotations

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.store import peers as sql
from swarmd.store.database import Database
from swarmd.store.peers import EndpointRow, PeerRow, Source

A, B = NodeId("aa" * 32), NodeId("bb" * 32)
HERE, THERE = Endpoint("10.0.0.1", 1), Endpoint("fd00::2", 2)


async def test_peers_and_endpoints_come_back_as_they_were() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            await sql.add_peer(tx, B, now=1.0)
            await sql.add_peer(tx, A, now=2.0)
            await sql.add_peer(tx, A, now=3.0)  # known already
            await sql.add_endpoint(tx, A, HERE, source=Source.INVITE, now=2.0)
            await sql.add_endpoint(tx, A, HERE, source=Source.INTRODUCED, now=3.0)  # the first source stays
            await sql.add_endpoint(tx, A, THERE, source=Source.OBSERVED, now=3.0)
            await sql.mark_seen(tx, A, endpoint=HERE, now=4.0)
        assert await sql.read_peers(db) == (
            PeerRow(
                node=A,
                known_since=2.0,
                last_seen=4.0,
                endpoints=(
                    EndpointRow(endpoint=HERE, source=Source.INVITE, known_since=2.0, last_ok=4.0),
                    EndpointRow(endpoint=THERE, source=Source.OBSERVED, known_since=3.0, last_ok=None),
                ),
            ),
            PeerRow(node=B, known_since=1.0, last_seen=None, endpoints=()),
        )


async def test_what_is_removed_is_gone_with_its_endpoints() -> None:
    async with await Database.open(None) as db:
        async with db.transaction() as tx:
            for node in (A, B):
                await sql.add_peer(tx, node, now=1.0)
                await sql.add_endpoint(tx, node, HERE, source=Source.MANUAL, now=1.0)
            await sql.remove_peer(tx, A)
            await sql.remove_endpoint(tx, B, HERE)
        assert await sql.read_peers(db) == (PeerRow(node=B, known_since=1.0, last_seen=None, endpoints=()),)
        assert await db.fetch_all("SELECT * FROM peer_endpoints") == []
