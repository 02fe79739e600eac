"""Nodes without links: key, book, membership, invitations and gate over a database in memory, as many as a test
wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from swarmd.domain.ids import NodeId
from swarmd.domain.peers import Endpoint, NodeSummary
from swarmd.identity.keys import NodeKey
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.peers.book import PeerBook
from swarmd.peers.gate import Gate
from swarmd.peers.invitations import Invitations
from swarmd.peers.membership import Membership
from swarmd.peers.short_codes import ShortCodes
from swarmd.store.database import Database

T = TypeVar("T")


async def inline(work: Callable[[], T]) -> T:
    """In place of a thread: while a loop waits for one, virtual time runs on to the next timer."""
    return work()


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
    short_codes: ShortCodes
    gate: Gate
    listening: list[Endpoint]
    summaries: dict[NodeId, NodeSummary] = field(default_factory=dict)
    """What linked nodes said of themselves; here what a test says."""
    plates: set[int] = field(default_factory=set)
    """Numbers of short codes in the local network."""


@asynccontextmanager
async def open_member(
    seed: int, *, world: World, folder: Path, database: Path | Database | None = None, is_open: bool = False
) -> AsyncIterator[Member]:
    """`seed` makes the key; `folder` holds the network key. `database`: a file, one that is open and stays so, or
    memory."""
    key = NodeKey(bytes([seed]) * 32)
    bus = EventBus()
    listening: list[Endpoint] = [Endpoint("0.0.0.0", 8800 + seed)]
    summaries: dict[NodeId, NodeSummary] = {}
    plates: set[int] = set()
    async with (
        nullcontext(database) if isinstance(database, Database) else await Database.open(database) as db,
        Supervisor(f"member {seed}", world=world) as supervisor,
    ):
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
        short_codes = ShortCodes(
            membership=membership,
            invitations=invitations,
            summaries=lambda: summaries,
            heard=lambda: frozenset(plates),
            spawn=supervisor.spawn,
            world=world,
            bus=bus,
            compute=inline,
        )
        gate = Gate(
            key=key,
            membership=membership,
            invitations=invitations,
            short_codes=short_codes,
            world=world,
            software="swarmd/test",
            listening=lambda: tuple(listening),
        )
        await book.load()
        await membership.load()
        await short_codes.load()
        yield Member(
            key=key,
            world=world,
            db=db,
            bus=bus,
            book=book,
            membership=membership,
            invitations=invitations,
            short_codes=short_codes,
            gate=gate,
            listening=listening,
            summaries=summaries,
            plates=plates,
        )
