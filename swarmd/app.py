"""The wiring: who is there, in which order they start, and how the node ends. The only file that knows everybody.

Read it as the table of contents of the program. Floors are built bottom up with constructor arguments and nothing else;
services start in that order and stop in reverse. Whatever happens before is recovery: the same path after a clean stop and
after `kill -9`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import logging
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from swarmd import __version__
from swarmd.api import whereabouts
from swarmd.api.adapters import AdapterHandlers
from swarmd.api.answers import Answers
from swarmd.api.api_key import FILE_NAME as API_KEY_NAME
from swarmd.api.api_key import ensure_api_key
from swarmd.api.autopilot import AutopilotHandlers
from swarmd.api.credits import CreditHandlers
from swarmd.api.downloads import DownloadHandlers
from swarmd.api.embeddings import EmbeddingHandlers
from swarmd.api.encrypted import EncryptedHandlers
from swarmd.api.fresh import Fresh, News
from swarmd.api.guard import Gate as ApiGate
from swarmd.api.history import History
from swarmd.api.live_settings import LiveSettings
from swarmd.api.mcp import McpHandlers
from swarmd.api.mcp_sessions import Sessions
from swarmd.api.mcp_tools import McpTools
from swarmd.api.members import MemberHandlers
from swarmd.api.messages import MessagesHandlers
from swarmd.api.metrics import Metrics
from swarmd.api.models import ModelHandlers
from swarmd.api.network import NetworkHandlers
from swarmd.api.node import NodeHandlers
from swarmd.api.openai import OpenAiHandlers
from swarmd.api.outlook import Outlook
from swarmd.api.pages import NONCE_LIFE_S, TICKET_LIFE_S, PageHandlers, read_static_now
from swarmd.api.pass_through import PassThrough
from swarmd.api.passes import OneTimePasses
from swarmd.api.providers import ProviderHandlers
from swarmd.api.responses import ResponseHandlers
from swarmd.api.responses_archive import ResponseArchive
from swarmd.api.responses_runs import ResponseRuns
from swarmd.api.route import complete
from swarmd.api.routes import table
from swarmd.api.server import ApiServer
from swarmd.api.status import StatusHandlers
from swarmd.api.storage import StorageHandlers
from swarmd.api.targets import Targets
from swarmd.api.updates import UpdateHandlers
from swarmd.api.ws import LiveFeed
from swarmd.config.loading import Loaded
from swarmd.config.settings import PEER_PORT_OFFSET, Settings, Value
from swarmd.discovery.codes import NetworkCodes
from swarmd.discovery.join import Joiner
from swarmd.discovery.lan import Lan, Multicast
from swarmd.domain.events import NodeStarted
from swarmd.domain.ids import ModelId, NodeId, ShardRef, model_slug, short
from swarmd.domain.models import TrustLevel
from swarmd.domain.peers import Endpoint, NodeSummary, PeerIdentity, parse_endpoint
from swarmd.domain.refusals import Refusal
from swarmd.domain.updates import parse_version
from swarmd.downloads.access import hub_endpoint, hub_token_now
from swarmd.downloads.engine import Engine
from swarmd.downloads.files import Files
from swarmd.downloads.hub import Hub
from swarmd.downloads.probe import Prober
from swarmd.downloads.ranges import RangeClient
from swarmd.economy.census import Census
from swarmd.economy.demand import Demand
from swarmd.economy.ledger import Ledger
from swarmd.economy.shelf import Shelf
from swarmd.economy.steward import Steward
from swarmd.economy.trust_records import ModelTrust
from swarmd.hardware import Hardware, addresses, interfaces, region
from swarmd.identity.keys import KeyFileError, NodeKey, Signed, ensure_node_key, verify
from swarmd.inference.embedding import Embeddings
from swarmd.inference.encrypted import EncryptedPipelines
from swarmd.inference.forwarding import Stages
from swarmd.inference.herald import Herald
from swarmd.inference.pipeline import Pipeline
from swarmd.inference.tallies import Tallies
from swarmd.inference.turns import StageTurns
from swarmd.inference.workers import Workers
from swarmd.kit.bus import EventBus
from swarmd.kit.disk import Disk, Locked
from swarmd.kit.gauges import Gauges
from swarmd.kit.logs import MIN_SECRET, Redactor
from swarmd.kit.notify import READY, STOPPING, Notifier, status_line
from swarmd.kit.service import Fatal, Supervisor
from swarmd.kit.world import World
from swarmd.models.catalog import Catalog, KnownModel
from swarmd.peers.addresses import announced
from swarmd.peers.book import PeerBook
from swarmd.peers.gate import Gate
from swarmd.peers.gossip import Gossip
from swarmd.peers.invitations import Invitations
from swarmd.peers.links import Links
from swarmd.peers.members import Members
from swarmd.peers.membership import Membership
from swarmd.peers.port_mapping import PortMapping, UpnpGateway
from swarmd.peers.renewal import Renewal
from swarmd.peers.reputation import Reputation
from swarmd.peers.short_codes import ShortCodes
from swarmd.peers.surroundings import Surroundings
from swarmd.providers.desk import Providers
from swarmd.providers.environment import read_file_now as read_variables_now
from swarmd.providers.sealing import USE as SEALING
from swarmd.shards.adapter_exchange import AdapterExchange
from swarmd.shards.adapter_parts import AdapterParts
from swarmd.shards.adapters import Adapters
from swarmd.shards.desk import ShardDesk
from swarmd.shards.hub_desk import HubDesk
from swarmd.shards.hub_source import HubLine
from swarmd.shards.registry import Registry
from swarmd.shards.serving import ShardServer, upload_limit
from swarmd.shards.storage import ShardStorage
from swarmd.shards.whole import WholeCheck
from swarmd.store.database import BadMigration, Database, DatabaseUnusable, SchemaTooNew
from swarmd.transport.connection import Connection
from swarmd.transport.doors import Doors
from swarmd.transport.greeting import Greeting
from swarmd.transport.rpc import Dispatcher
from swarmd.updates.launcher import EXIT_AGAIN
from swarmd.updates.releases import Releases
from swarmd.updates.signs_of_life import SignsOfLife
from swarmd.updates.staging import Staging
from swarmd.updates.updater import Updater
from swarmd.updates.versions import Versions

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
STOP_TIMEOUT_S: Final = 4.0  # per service; most take milliseconds, and the whole must end within 10 s
BUILTIN_NAME: Final = "swarmd-builtin.gguf"
BUILTIN_SHARD_BYTES: Final = 800 * 1024
"""The built-in model has 7 MB in 8 layers: about one layer a shard, so that up to eight nodes can share it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A running node, for whoever opened it."""

    node: NodeId
    url: str
    """Of the API and the dashboard."""
    api_key_path: Path
    peer_endpoint: Endpoint
    stop: asyncio.Event
    """Set by `POST /api/admin/shutdown`; whoever holds the node leaves its block then."""
    pipeline: Pipeline
    workers: Workers
    desk: ShardDesk
    registry: Registry
    joiner: Joiner
    codes: NetworkCodes
    links: Links
    bus: EventBus
    steward: Steward
    encrypted: EncryptedPipelines
    embeddings: Embeddings
    adapters: Adapters
    updater: Updater


@asynccontextmanager
async def open_node(
    loaded: Loaded,
    *,
    world: World,
    environ: Mapping[str, str],
    flags: Mapping[str, Value | None],
    redactor: Redactor | None = None,
    above: Notifier | None = None,
) -> AsyncGenerator[Node]:
    """Builds floors 2 to 9, starts every service, yields the node, and stops everything in reverse.

    `above`: who started this process and wants to hear that it lives. Raises Fatal with an exit code and a sentence when the
    node cannot start or go on.
    """
    disk, bus, gauges = Disk(), EventBus(), Gauges()
    folder = Path(loaded.settings.node.data_dir)
    with _fatal_start(), contextlib.ExitStack() as held:
        disk.make_folder_now(folder, mode=0o700)
        held.enter_context(disk.locked(folder / "lock"))  # one node per folder
        live = LiveSettings(loaded, environ=environ, flags=flags, bus=bus, disk=disk)
        key = await ensure_node_key(folder / "identity.key", disk=disk, entropy=world.entropy)
        api_key = await ensure_api_key(
            folder, setting=loaded.settings.api.api_key, disk=disk, entropy=world.entropy
        )
        if redactor is not None:
            redactor.hide(api_key)
        variables = await asyncio.to_thread(read_variables_now, folder, disk=disk)
        hub_token = await asyncio.to_thread(hub_token_now, environ, disk)
        if redactor is not None and hub_token is not None:
            _hide_hub_token(redactor, hub_token)
        where = loaded.settings.identity.region
        here = await asyncio.to_thread(region, setting=where, environ=environ, disk=disk)
        database = await Database.open(folder / "state.sqlite", disk=disk)
        kept = held.pop_all()
    with kept:
        built: _Built | None = None
        try:
            async with Supervisor("node", world=world, stop_timeout_s=STOP_TIMEOUT_S) as supervisor:
                built = _Built(
                    folder=folder, live=live, key=key, api_key=api_key, database=database, disk=disk, bus=bus,
                    gauges=gauges, world=world, supervisor=supervisor, region=here, environ=environ, hub_token=hub_token,
                    above=above or Notifier(),
                    variables=variables, redactor=redactor,
                )  # fmt: skip
                yield await built.start()
        finally:
            if built is not None:  # after its services: they would open what was closed under them
                await built.close()
            await whereabouts.forget(folder, disk=disk)
            await database.close()


def _hide_hub_token(redactor: Redactor, token: str) -> None:
    """One that is too short to be struck out is used all the same: a hub of one's own may have such tokens."""
    if len(token) >= MIN_SECRET:
        redactor.hide(token)
        return
    logger.warning(
        "the token of the hub (HF_TOKEN) has fewer than %d characters: it is used, but is not struck out of the log; "
        "tokens of Hugging Face have 37",
        MIN_SECRET,
    )


@contextlib.contextmanager
def _fatal_start():  # noqa: ANN202  a generator of nothing
    """What can be wrong with a data folder, as the end of the node with one sentence."""
    try:
        yield
    except Locked:
        sentence = "another swarmd runs on this data folder: stop it, or choose another with --data-dir"
        raise Fatal(EXIT_ERROR, sentence) from None
    except (KeyFileError, SchemaTooNew, DatabaseUnusable, BadMigration) as error:
        raise Fatal(EXIT_ERROR, str(error)) from error
    except OSError as error:
        raise Fatal(EXIT_ERROR, f"the data folder cannot be used: {error}") from error


class _Built:
    """Everybody, constructed floor by floor; `start` starts the services in the same order."""

    def __init__(
        self,
        *,
        folder: Path,
        live: LiveSettings,
        key: NodeKey,
        api_key: str,
        database: Database,
        disk: Disk,
        bus: EventBus,
        gauges: Gauges,
        world: World,
        supervisor: Supervisor,
        region: str,
        environ: Mapping[str, str],
        hub_token: str | None,
        above: Notifier,
        variables: Mapping[str, str],
        redactor: Redactor | None,
    ) -> None:
        settings, spawn = live.current(), supervisor.spawn
        self._world, self._bus, self._supervisor, self._live = world, bus, supervisor, live
        self._key, self._folder, self._region, self._disk = key, folder, region, disk
        self._stop, self._above = asyncio.Event(), above
        self._ready = False
        dispatcher = Dispatcher()

        # floor 2: the machine
        self._hardware = Hardware(folder=folder, disk=disk)

        # floors 3 and 4: who we are, whom we know, what we know
        self._book = PeerBook(own=key.node, db=database, clock=world.clock)
        self._membership = Membership(
            key=key, network_key_path=folder / "network.key", db=database, disk=disk, world=world, bus=bus, book=self._book,
            is_open=settings.network.admission == "open",
        )  # fmt: skip
        invitations = Invitations(membership=self._membership, db=database, clock=world.clock, bus=bus)
        self._short_codes = ShortCodes(
            membership=self._membership, invitations=invitations, summaries=self._summaries, heard=self._heard_nameplates,
            spawn=spawn, world=world, bus=bus,
        )  # fmt: skip
        gate = Gate(
            key=key, membership=self._membership, invitations=invitations, short_codes=self._short_codes, world=world,
            software=f"swarmd/{__version__}", listening=self._listening,
        )  # fmt: skip
        self._doors = Doors(
            listen=Endpoint(settings.network.listen_address, settings.node.listen_port + PEER_PORT_OFFSET),
            authority=gate, on_connection=self._accepted, spawn=spawn, world=world, forward=self._forward,
        )  # fmt: skip
        gossip = Gossip(
            key=key, network=lambda: self._membership.network, certificate=self._membership.shown_certificate,
            revoked=self._membership.revocations.covers, bare=self._membership.takes_bare, world=world, bus=bus,
        )  # fmt: skip
        self._links = Links(
            own=key.node, book=self._book, dialler=self._doors, dispatcher=dispatcher, spawn=spawn, world=world, bus=bus,
            gauges=gauges, revocations=self._membership.revocations, gossip=gossip,
            max_peers=settings.network.max_peers, relay_bytes_per_s=self._relay_bytes_per_s,
        )  # fmt: skip
        self._members = Members(membership=self._membership, lines=self._links, db=database)
        self._renewal = Renewal(
            membership=self._membership, lines=self._links, dispatcher=dispatcher, db=database, world=world, bus=bus
        )
        self._reputation = Reputation(own=key.node, db=database, clock=world.clock, bus=bus)
        self._catalog = Catalog(root=folder / "models", disk=disk, bus=bus, verify=_verify_manifest)

        # between floors 4 and 5: files from the hub
        agent = f"swarmd/{__version__}"

        def hub_address() -> str:
            return hub_endpoint(live.current().downloads.hub_endpoint, environ)

        def proxy() -> str | None:
            return live.current().downloads.proxy or None

        hub = self._hub = Hub(endpoint=hub_address, token=lambda: hub_token, proxy=proxy, world=world, user_agent=agent)
        self._ranges = RangeClient(
            world=world, hub=hub_address, token=lambda: hub_token, proxy=proxy, user_agent=agent
        )
        engine = Engine(
            client=self._ranges, world=world, connections=lambda: live.current().downloads.connections,
            bytes_per_s=self._download_limit,
        )  # fmt: skip
        prober = Prober(hub=hub, client=self._ranges, world=world)

        # floor 5: shards, and how the network grows
        self._storage = ShardStorage(catalog=self._catalog, disk=disk)
        self._registry = Registry(
            node=key.node, catalog=self._catalog, storage=self._storage, bus=bus, summaries=self._summaries,
            trust=self._trust_in, locked=self._is_locked,
        )  # fmt: skip
        server = ShardServer(
            catalog=self._catalog, storage=self._storage, disk=disk, world=world, upload_limit=self._upload_limit,
            observed_host=self._observed_host, damaged=self._doubt, bus=bus,
        )  # fmt: skip
        server.register(dispatcher)
        parts = AdapterParts(
            root=folder / "adapters" / ".parts", disk=disk, registered=lambda: self._adapters.digests()
        )
        exchange = AdapterExchange(parts=parts, server=server, lines=self._links, world=world, bus=bus)
        exchange.register(dispatcher)
        self._adapters = Adapters(
            folder=folder / "adapters", more_folder=lambda: live.current().inference.adapter_folder,
            catalog=self._catalog, parts=parts, exchange=exchange, db=database, disk=disk, world=world, bus=bus,
        )  # fmt: skip
        self._desk = ShardDesk(
            node=key.node, catalog=self._catalog, storage=self._storage, registry=self._registry, lines=self._links,
            summaries=self._summaries, db=database, disk=disk, world=world, bus=bus, gauges=gauges,
            settings=live.current, sign=lambda message: key.sign(Signed.MANIFEST, message), before_drop=self._before_drop,
            in_memory=self._in_memory,
            hub=HubLine(
                engine=engine, client=self._ranges, files=Files(engine=engine, disk=disk), url=hub.url,
                confirm=self._confirm,
                whole=WholeCheck(
                    catalog=self._catalog, storage=self._storage, disk=disk, client=self._ranges, url=hub.url
                ).matches,
            ),
        )  # fmt: skip
        self._desk.register(dispatcher)
        self._hub_desk = HubDesk(
            node=key.node, hub=hub, prober=prober, desk=self._desk, catalog=self._catalog, registry=self._registry,
            lines=self._links, disk=disk, bus=bus, world=world, settings=live.current,
            sign=lambda message: key.sign(Signed.MANIFEST, message), memory_here=self._free_ram,
            memory_swarm=self._swarm_ram,
        )  # fmt: skip
        self._mapping = PortMapping(
            gateway=UpnpGateway, port=lambda: self._peer_endpoint().port, changed=lambda: self._herald.tell(), world=world,
        )
        self._surroundings = Surroundings(addresses=addresses, links=self._links, world=world)
        self._lan = Lan(
            own=key.node, network=lambda: self._membership.network, listening=self._peer_endpoint, interfaces=interfaces,
            links=self._links, nameplates=self._short_codes.nameplates_around, responder=Multicast(world=world), world=world,
            bus=bus,
        )  # fmt: skip
        self._joiner = Joiner(
            membership=self._membership, gate=gate, links=self._links, dialler=self._doors,
            segment=self._lan if settings.network.enable_mdns else None, world=world, bus=bus,
        )  # fmt: skip
        self._codes = NetworkCodes(
            membership=self._membership, invitations=invitations, short_codes=self._short_codes, links=self._links,
            world=world, announced=self._announced,
        )  # fmt: skip

        # floor 6: running layers
        self._tallies = Tallies()
        self._workers = Workers(
            node=key.node, catalog=self._catalog, storage=self._storage, registry=self._registry, bus=bus, world=world,
            settings=live.current, memory_limit=self._free_ram, tallies=self._tallies,
        )  # fmt: skip
        stages = Stages(
            node=key.node, catalog=self._catalog, registry=self._registry, workers=self._workers, links=self._links,
            spawn=spawn, world=world, bus=bus, adapters=self._adapters,
            turns=StageTurns(
                settings=live.current, weight=lambda node: self._ledger.weight(node), clock=world.clock
            ),
        )  # fmt: skip
        stages.register(dispatcher)
        self._encrypted = EncryptedPipelines(
            catalog=self._catalog, registry=self._registry, db=database, settings=live.current
        )
        self._pipeline = Pipeline(
            node=key.node, catalog=self._catalog, registry=self._registry, workers=self._workers, stages=stages,
            links=self._links, encrypted=self._encrypted, spawn=spawn, world=world, bus=bus, settings=live.current,
            tallies=self._tallies,
        )  # fmt: skip
        self._demand = Demand(bus=bus, clock=world.clock)
        self._herald = Herald(
            node=key.node, holdings=self._registry, announce=self._links.announce, world=world, bus=bus,
            software=f"swarmd/{__version__}", region=self._region, free_ram=self._workers.available_bytes,
            total_ram_bytes=psutil.virtual_memory().total, layer_ms=stages.layer_ms, endpoints=self._listening,
            demand=self._demand.told, nameplates=self._short_codes.nameplates, peers=self._links.views,
            sessions=lambda: stages.sessions, nickname=lambda: live.current().identity.nickname,
        )  # fmt: skip

        # floor 7: what the swarm needs
        self._census = Census(
            ours=self._herald.summary, peers=self._links.views, models=self._registry.models,
            min_replicas=lambda: live.current().auto_manage.min_replicas,
        )  # fmt: skip
        self._trust = ModelTrust(
            db=database, bus=bus, clock=world.clock, pinned=self._is_pinned,
            known=lambda model: self._catalog.get(model) is not None,
            hosted=lambda model: bool(self._registry.held(model)), holders=self._census.holders,
            requests=self._census.requests,
        )  # fmt: skip
        self._steward = Steward(
            node=key.node, region=self._region, shelf=Shelf(catalog=self._catalog, registry=self._registry).models,
            peers=self._links.views, trust=self._trust.level, demand=self._demand.told, desk=self._desk,
            room=self._desk.room, used_bytes=lambda: self._storage.local_bytes() + self._catalog.stored_bytes(),
            settings=live.current, db=database, bus=bus, world=world,
        )  # fmt: skip

        versions = Versions(folder)
        releases = Releases(proxy=proxy, user_agent=agent, disk=disk)
        self._updater = Updater(
            current=parse_version(__version__), settings=live.current, versions=versions, releases=releases,
            staging=Staging(versions=versions, releases=releases, disk=disk, environ=environ), running=self._running,
            close_doors=self._close_doors, stop=self._stop, spawn=spawn, disk=disk, world=world, bus=bus,
        )  # fmt: skip
        self._ledger = Ledger(
            own=key.node, db=database, bus=bus, clock=world.clock,
            hosted_bytes=lambda: self._storage.local_bytes() if self._links.connected() else 0,
        )  # fmt: skip
        self._providers = Providers(
            db=database, sealing_key=key.sealing_key(SEALING), environ=environ, variables=variables,
            folder=folder / "claude", settings=live.current, disk=disk, bus=bus, world=world,
            user_agent=f"swarmd/{__version__}", redactor=redactor,
        )  # fmt: skip

        # floor 9: the rim
        self._archive = ResponseArchive(db=database, clock=world.clock)
        self._server = self._rim(api_key, disk)

    def _rim(self, api_key: str, disk: Disk) -> ApiServer:
        world, live, node = self._world, self._live, self._key.node
        tickets, news = OneTimePasses(world=world, life_s=TICKET_LIFE_S), News(self._bus)
        outlook = Outlook(
            models=self._registry, peers=self._links, census=self._census, machine=self._hardware,
            policy=self._steward.policy, clock=world.clock,
        )  # fmt: skip
        self._feed = LiveFeed(
            world=world, bus=self._bus, counters=self._pipeline, machine=self._hardware, peers=self._links,
            models=self._registry, desk=self._desk, trust=self._reputation, census=self._census, ledger=self._ledger,
            outlook=outlook, probes=self._hub_desk.probing, tokens=self._tokens_made,
        )  # fmt: skip
        self._history = History(
            world=world, tokens=self._tokens_made, machine=self._hardware, peers=self._links, counters=self._pipeline
        )
        targets = Targets(
            models=self._registry, adapters=self._adapters, settings=live.current, providers=self._providers
        )
        answers = Answers(self._pipeline, self._providers)
        sessions = Sessions(world)
        openai = OpenAiHandlers(
            models=self._registry, targets=targets, answers=answers, settings=live.current, entropy=world.entropy,
            providers=self._providers,
        )  # fmt: skip
        status = StatusHandlers(
            node=node, clock=world.clock, cards=openai.cards, running=self._pipeline, counters=self._pipeline,
            peers=self._links,
        )  # fmt: skip
        tools = McpTools(
            targets=targets, answers=answers, cards=openai.cards, status=status.now, entropy=world.entropy
        )
        mcp = McpHandlers(sessions=sessions, tools=tools, status=status, clock=world.clock)
        self._responses = ResponseRuns(answers=answers, archive=self._archive, world=world)
        self._embeddings = Embeddings(
            catalog=self._catalog, tokenizer=self._workers, reader=self._pipeline, clock=world.clock, bus=self._bus
        )
        self._metrics = Metrics(
            tallies=self._tallies, running=self._pipeline, workers=self._workers, traffic=self._links,
            models=self._registry, machine=self._hardware, providers=self._providers.counts, ledger=self._ledger,
            stored=self._archive, replies=self._responses, sockets=self._feed, updates=self._updater, bus=self._bus,
            clock=world.clock,
        )  # fmt: skip
        pages = PageHandlers(
            key=api_key, files=read_static_now(disk), nonces=OneTimePasses(world=world, life_s=NONCE_LIFE_S),
            tickets=tickets, subsystems=lambda: {"node": self._ready},
        )  # fmt: skip
        rows = complete(
            table(
                pages=pages,
                node=NodeHandlers(
                    node=node, clock=world.clock, settings=live, counters=self._pipeline, machine=self._hardware,
                    models=self._registry, peers=self._links, ledger=self._ledger, guesses=self._tallies, stop=self._stop,
                    figures=Fresh(news=news, clock=world.clock),
                ),
                models=ModelHandlers(
                    node=node, catalog=self._catalog, models=self._registry, desk=self._desk, memory=self._workers,
                    generations=self._pipeline, encrypted=self._encrypted, listing=Fresh(news=news, clock=world.clock),
                ),
                storage=StorageHandlers(
                    node=node, settings=live.current, models=self._registry, desk=self._desk, memory=self._workers,
                    peers=self._links, disk=disk, folder=self._folder / "models", machine=self._hardware, hub=self._hub_desk,
                ),
                downloads=DownloadHandlers(downloads=self._desk, hub=self._hub_desk, models=self._registry),
                network=NetworkHandlers(
                    peers=self._links, codes=self._codes, joiner=self._joiner, census=self._census, trust=self._reputation
                ),
                members=MemberHandlers(members=self._members),
                autopilot=AutopilotHandlers(autopilot=self._steward),
                credits=CreditHandlers(ledger=self._ledger, clock=world.clock),
                outlook=outlook,
                encrypted=EncryptedHandlers(encrypted=self._encrypted),
                adapters=AdapterHandlers(adapters=self._adapters),
                openai=openai,
                messages=MessagesHandlers(targets=targets, answers=answers, entropy=world.entropy),
                status=status,
                mcp=mcp,
                responses=ResponseHandlers(
                    targets=targets, runs=self._responses, archive=self._archive, entropy=world.entropy
                ),
                metrics=self._metrics,
                embeddings=EmbeddingHandlers(embeddings=self._embeddings, named=targets.named),
                feed=self._feed,
                updates=UpdateHandlers(updates=self._updater),
                providers=ProviderHandlers(desk=self._providers, settings=live.current, clock=world.clock),
                pass_through=PassThrough(targets=targets, providers=self._providers),
                history=self._history,
            )
        )  # fmt: skip
        settings = live.current()
        return ApiServer(
            rows=rows, gate=ApiGate(key=api_key, settings=live.current, clock=world.clock, tickets=tickets), pages=pages,
            feed=self._feed, world=world, address=settings.node.listen_address, port=settings.node.listen_port, news=news,
            hush=sessions.close_all,
        )  # fmt: skip

    async def close(self) -> None:
        """What is no service and holds connections."""
        self._hub.close()
        await self._ranges.close()

    async def start(self) -> Node:
        """Recovery, then every service in floor order."""
        with _fatal_start():
            await self._book.load()
            await self._reputation.load()
            await self._membership.load()
            await self._short_codes.load()
            await asyncio.to_thread(self._catalog.load_now)
            await asyncio.to_thread(self._storage.scan_now)
            await self._adapters.load()
            await self._encrypted.load()
            await self._trust.load()
            await self._steward.load()
            await self._updater.load()
            await self._ledger.load()
            await self._providers.load()
            await self._archive.recover()
        network = self._live.current().network
        lan = (self._lan,) if network.enable_mdns else ()
        mapping = (self._mapping,) if network.upnp else ()
        for service in (
            self._feed, self._ledger, self._metrics, self._hardware, self._history, self._reputation, self._doors,
            self._links, self._renewal, self._surroundings, *lan, *mapping, self._desk, self._workers, self._demand,
            self._herald, self._trust, self._steward, self._providers, self._responses, self._updater, self._server,
            SignsOfLife(above=self._above, stop=self._stop),
        ):  # fmt: skip
            await self._supervisor.start(service)
        address, port = self._server.bound
        host = "127.0.0.1" if address in ("0.0.0.0", "::") else address
        url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        await whereabouts.tell(self._folder, url, disk=self._disk)
        await self._cut_builtin(self._live.current())
        self._ready = True
        self._bus.publish(NodeStarted(node=self._key.node, version=__version__))
        logger.info("node %s is ready at %s", short(self._key.node), url)
        return Node(
            node=self._key.node, url=url, api_key_path=self._folder / API_KEY_NAME, peer_endpoint=self._peer_endpoint(),
            stop=self._stop, pipeline=self._pipeline, workers=self._workers, desk=self._desk, registry=self._registry,
            joiner=self._joiner, codes=self._codes, links=self._links, bus=self._bus,
            steward=self._steward,
            encrypted=self._encrypted, embeddings=self._embeddings, adapters=self._adapters,
            updater=self._updater,
        )  # fmt: skip

    async def _cut_builtin(self, settings: Settings) -> None:
        """A node that knows nobody and no other model gets the built-in one, so that it answers within its first minute.

        One that was killed while it was cut is completed; with peers, a part of it is what a node is meant to hold.
        """
        known = [entry.manifest.model for entry in self._catalog.all()]
        builtin = model_slug(BUILTIN_NAME)
        if not settings.ui.builtin_model or self._book.nodes() or known not in ([], [builtin]):
            return
        if self._catalog.was_removed(builtin):
            return  # a person did not want it
        with importlib.resources.as_file(importlib.resources.files("swarmd.builtin") / BUILTIN_NAME) as path:
            added = await self._desk.add_file(path, BUILTIN_SHARD_BYTES)
        if isinstance(added, Refusal):
            logger.warning("the built-in model could not be added: %s", added.sentence)

    # -- what one floor asks of another, late

    def _accepted(self, connection: Connection) -> None:
        self._links.accepted(connection)

    async def _forward(self, greeting: Greeting, node: NodeId, first: bytes) -> None:
        await self._links.relay.forward(greeting, node, first)

    def _summaries(self) -> dict[NodeId, NodeSummary]:
        """Of linked nodes: nobody else can be asked to do anything."""
        return {node: summary for node in self._links.connected() if (summary := self._links.summary(node)) is not None}

    def _heard_nameplates(self) -> frozenset[int]:
        return self._lan.heard_nameplates()

    async def _before_drop(self, ref: ShardRef) -> Refusal | None:
        if ref.index not in self._workers.loaded(ref.model):
            return None
        remaining = await self._workers.unload_shard(ref)
        return remaining if isinstance(remaining, Refusal) else None

    def _doubt(self, ref: ShardRef) -> None:
        self._desk.doubt(ref)

    def _in_memory(self) -> set[ModelId]:
        return {status.model for status in self._workers.statuses()}

    def _observed_host(self, peer: PeerIdentity) -> str | None:
        link = self._links.link(peer.node, peer.purpose)
        return link.connection.remote.host if link is not None and link.connection.via is None else None

    def _trust_in(self, model: ModelId) -> TrustLevel:
        return self._trust.level(model)

    def _is_locked(self, ref: ShardRef) -> bool:
        return self._steward.is_locked(ref)

    def _is_pinned(self, model: ModelId) -> bool:
        known = self._catalog.get(model)
        return known is not None and known.pinned

    def _running(self) -> int:
        """What an update waits for: replies of this head and of those that wait, and stages for others."""
        pipeline = self._pipeline
        return max(pipeline.active + pipeline.waiting, pipeline.stage_sessions)

    def _close_doors(self) -> None:
        self._pipeline.close_doors("this node restarts as a new version: try again in a minute")

    def _free_ram(self) -> int:
        """Bytes workers may still take: what the machine has free, within what the settings allow them."""
        settings = self._live.current()
        return self._hardware.free_ram_for_workers(
            max_ram_mb=settings.resources.max_ram_mb,
            contribution=settings.node.contribution,
            workers_rss_bytes=sum(status.rss_bytes for status in self._workers.statuses()),
        )

    def _swarm_ram(self) -> int:
        """Bytes that workers of all connected nodes may still take, as they say, with ours."""
        return self._free_ram() + sum(summary.ram_free_bytes for summary in self._summaries().values())

    def _tokens_made(self) -> int:
        """Of all replies of this head, since the start."""
        return self._tallies.token_s.count

    def _download_limit(self) -> float | None:
        mbps = self._live.current().downloads.max_mbps
        return mbps * 1e6 / 8 if mbps else None

    async def _confirm(self, known: KnownModel) -> Refusal | None:
        return await self._hub_desk.confirm(known)

    def _relay_bytes_per_s(self) -> float:
        network = self._live.current().network
        return network.relay_mbps * 1e6 / 8 if network.relay else 0.0

    def _upload_limit(self) -> float | None:
        return upload_limit(self._live.current())

    def _listening(self) -> tuple[Endpoint, ...]:
        """Where we accept links, as it was configured; a peer puts in the address it sees."""
        return (self._peer_endpoint(), *self._external())

    def _announced(self) -> tuple[Endpoint, ...]:
        """Where an invited node may find us."""
        hosts = tuple(str(interface.ip) for interface in interfaces())
        return announced((*self._external(), self._peer_endpoint()), hosts)

    def _peer_endpoint(self) -> Endpoint:
        endpoint = self._doors.endpoint
        assert endpoint is not None, "our doors listen"
        return endpoint

    def _external(self) -> tuple[Endpoint, ...]:
        text, mapped = self._live.current().network.external_address, self._mapping.external
        return ((parse_endpoint(text),) if text else ()) + ((mapped,) if mapped is not None else ())


def _verify_manifest(publisher: NodeId, message: bytes, signature: bytes) -> bool:
    return verify(publisher, Signed.MANIFEST, message, signature)


async def run_node(
    loaded: Loaded,
    *,
    world: World,
    environ: Mapping[str, str],
    flags: Mapping[str, Value | None],
    on_ready: Callable[[Node], None],
    redactor: Redactor | None = None,
    above: Notifier | None = None,
) -> int:
    """One node until SIGTERM, SIGINT, a shutdown request, or an update. Returns the exit code; raises Fatal."""
    above = above or Notifier()
    again = False
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        async with open_node(loaded, world=world, environ=environ, flags=flags, redactor=redactor, above=above) as node:
            on_ready(node)
            above.tell(READY, status_line(f"node {short(node.node)} at {node.url}"))

            def end() -> None:
                asked.set()
                node.stop.set()

            loop.add_signal_handler(signal.SIGTERM, end)
            loop.add_signal_handler(signal.SIGINT, end)
            if not asked.is_set():
                await node.stop.wait()
            again = node.updater.restarting and not asked.is_set()
            if not again:  # for systemd that would be the end of the service
                above.tell(STOPPING)
            logger.info("stopping%s", ", to start again as another version" if again else "")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return EXIT_AGAIN if again else EXIT_OK


