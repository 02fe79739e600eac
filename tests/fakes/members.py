"""Nodes without links: key, book, membership, invitations and gate over a database in memory, as many as a test
wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from swarmd.domain.peers import Endpoint
from swarmd.identity.keys import NodeKey
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.world import World
from swarmd.peers.book import PeerBook
from swarmd.peers.gate import Gate
from swarmd.peers.invitations import Invitations
from swarmd.peers.membership import Membership
from swarmd.store.database import Database


@dataclass(slots=True, kw_only=True)
class Member:
    """What `app` builds on the floors identity to peers, without sockets."""

    key: NodeKey
    world: World
    db: Database
    bus: EventBus
    book: PeerBook
    membership: Membership
    invitations: Invitations
    gate: Gate
    listening: list[Endpoint]


@asynccontextmanager
async def open_member(
    seed: int, *, world: World, folder: Path, database: Path | Database | None = None, is_open: bool = False
) -> AsyncIterator[Member]:
    """`seed` makes the key; `folder` holds the network key. `database`: a file, one that is open and stays so, or
    memory."""
    key = NodeKey(bytes([seed]) * 32)
    bus = EventBus()
    listening: list[Endpoint] = [Endpoint("0.0.0.0", 8800 + seed)]
    async with nullcontext(database) if isinstance(database, Database) else await Database.open(database) as db:
        book = PeerBook(own=key.node, db=db, clock=world.clock)
        membership = Membership(
            key=key,
            network_key_path=folder / f"network-{seed}.key",
            db=db,
            disk=Disk(),
            world=world,
            bus=bus,
            book=book,
            is_open=is_open,
        )
        invitations = Invitations(membership=membership, db=db, clock=world.clock, bus=bus)
        gate = Gate(
            key=key,
            membership=membership,
            invitations=invitations,
            world=world,
            software="swarmd/test",
            listening=lambda: tuple(listening),
        )
        await book.load()
        await membership.load()
        yield Member(
            key=key,
            world=world,
            db=db,
            bus=bus,
            book=book,
            membership=membership,
            invitations=invitations,
            gate=gate,
            listening=listening,
        )
