"""SQL of the nodes we know and where they were reached."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint
from swarmd.store.database import Database, Transaction


class Source(Enum):
    """Who told us an endpoint; earlier ones are believed more."""

    MANUAL = "manual"  # a person gave the address
    INVITE = "invite"  # it stood in the code we joined with
    OBSERVED = "observed"  # the node came from there and said its port
    INTRODUCED = "introduced"  # a member told us
    LAN = "lan"  # somebody in the local network said so, member or not


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    endpoint: Endpoint
    source: Source
    known_since: float
    """Unix seconds."""
    last_ok: float | None
    """Unix seconds of the last link over this endpoint; None when there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRow:
    node: NodeId
    known_since: float
    last_seen: float | None
    endpoints: tuple[EndpointRow, ...]


async def read_peers(db: Database) -> tuple[PeerRow, ...]:
    """Everybody we know, in the order of their ids."""
    endpoints: dict[str, list[EndpointRow]] = {}
    for node, host, port, source, known_since, last_ok in await db.fetch_all(
        "SELECT node, host, port, source, known_since, last_ok FROM peer_endpoints ORDER BY node, host, port"
    ):
        row = EndpointRow(endpoint=Endpoint(host, port), source=Source(source), known_since=known_since, last_ok=last_ok)
        endpoints.setdefault(node, []).append(row)
    return tuple(
        PeerRow(
            node=NodeId(node),
            known_since=known_since,
            last_seen=last_seen,
            endpoints=tuple(endpoints.get(node, ())),
        )
        for node, known_since, last_seen in await db.fetch_all(
            "SELECT node, known_since, last_seen FROM peers ORDER BY node"
        )
    )


async def add_peer(tx: Transaction, node: NodeId, *, now: float) -> None:
    """Nothing happens when it is known."""
    await tx.execute("INSERT OR IGNORE INTO peers (node, known_since) VALUES (?, ?)", (node, now))


async def add_endpoint(tx: Transaction, node: NodeId, endpoint: Endpoint, *, source: Source, now: float) -> None:
    """Nothing happens when it is known: the first source stays."""
    await tx.execute(
        "INSERT OR IGNORE INTO peer_endpoints (node, host, port, source, known_since) VALUES (?, ?, ?, ?, ?)",
        (node, endpoint.host, endpoint.port, source.value, now),
    )


async def remove_endpoint(tx: Transaction, node: NodeId, endpoint: Endpoint) -> None:
    await tx.execute(
        "DELETE FROM peer_endpoints WHERE node = ? AND host = ? AND port = ?", (node, endpoint.host, endpoint.port)
    )


async def mark_seen(tx: Transaction, node: NodeId, *, endpoint: Endpoint | None, now: float) -> None:
    """A link to the node was up now, over `endpoint` when we dialled it."""
    await tx.execute("UPDATE peers SET last_seen = ? WHERE node = ?", (now, node))
    if endpoint is not None:
        await tx.execute(
            "UPDATE peer_endpoints SET last_ok = ? WHERE node = ? AND host = ? AND port = ?",
            (now, node, endpoint.host, endpoint.port),
        )


async def remove_peer(tx: Transaction, node: NodeId) -> None:
    """With its endpoints."""
    await tx.execute("DELETE FROM peers WHERE node = ?", (node,))
