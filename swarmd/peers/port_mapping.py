"""Asks the home router to forward a port to this node (UPnP IGD, `network.upnp`), so that others can dial it.

Off unless the owner says so: a router that anything in the house can tell to open ports is not to everybody's taste, and
nothing depends on it: nodes that cannot be dialled dial, or are relayed. The mapping is leased and renewed, so a router
forgets a node that was switched off.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from swarmd.domain.peers import Endpoint
from swarmd.kit.flow import Backoff
from swarmd.kit.logs import Seldom
from swarmd.kit.service import Ready
from swarmd.kit.world import World
from swarmd.peers.addresses import ip_of

LEASE_S: Final = 3600  # what a node that lost its power leaves open behind it
RENEW_S: Final = LEASE_S / 3  # a router that was restarted has forgotten all; two renewals may fail
FIRST_RETRY_S: Final = 30.0  # after a power cut the router needs a minute longer than we do
RETRY_LIMIT_S: Final = RENEW_S
PORTS_TRIED: Final = 8  # another node at home may have the first one
DISCOVER_MS: Final = 2000  # routers answer a search within a second; the protocol lets them wait as long as is asked for
CONFLICT: Final = "ConflictInMappingEntry"  # the protocol's word for a port that somebody else has
LAST_S: Final = 2.0  # for taking the mapping back at the end; the lease does it otherwise

logger = logging.getLogger(__name__)


class NoGateway(Exception):
    """No router answers, or it does not do what it was asked; the text is for people."""


class PortTaken(NoGateway):
    """The router forwards that port to another machine."""


class Gateway(Protocol):
    """A router. Every call blocks, up to some seconds, and raises NoGateway."""

    def find_now(self) -> str:
        """Its address on the outside."""
        ...

    def map_now(self, outside: int, inside: int) -> None: ...

    def unmap_now(self, outside: int) -> None: ...


class UpnpGateway:
    """The real one, by miniupnpc."""

    def __init__(self, *, description_url: str | None = None) -> None:
        """`description_url`: the router's, when it need not be searched for. Raises NoGateway without the package."""
        try:
            self._upnp: Any = importlib.import_module("miniupnpc").UPnP()
        except ImportError:
            raise NoGateway("the package miniupnpc is not installed: pip install 'swarmd[upnp]'") from None
        self._upnp.discoverdelay = DISCOVER_MS
        self._description_url = description_url

    def find_now(self) -> str:
        try:
            if self._description_url is not None:
                self._upnp.selectigd(self._description_url)
            elif self._upnp.discover() == 0:
                raise NoGateway("no router in this network answers to UPnP")
            else:
                self._upnp.selectigd()
            return str(self._upnp.externalipaddress())
        except NoGateway:
            raise
        except Exception as error:
            raise NoGateway(f"the router: {error}") from error

    def map_now(self, outside: int, inside: int) -> None:
        try:
            self._upnp.addportmapping(outside, "TCP", self._upnp.lanaddr, inside, "swarmd", "", LEASE_S)
        except Exception as error:
            kind = PortTaken if CONFLICT in str(error) else NoGateway
            raise kind(f"the router does not forward port {outside}: {error}") from error

    def unmap_now(self, outside: int) -> None:
        try:
            self._upnp.deleteportmapping(outside, "TCP")
        except Exception as error:
            raise NoGateway(f"the router: {error}") from error


class PortMapping:
    """A service. `external` is where others may dial while a mapping stands."""

    name = "port mapping"

    def __init__(
        self, *, gateway: Callable[[], Gateway], port: Callable[[], int], changed: Callable[[], object], world: World
    ) -> None:
        """`port`: where we listen. `changed`: called when `external` has."""
        self._gateway, self._port, self._changed = gateway, port, changed
        self._backoff = Backoff(FIRST_RETRY_S, 2.0, RETRY_LIMIT_S, entropy=world.entropy)
        self._seldom = Seldom(clock=world.clock)
        self._external: Endpoint | None = None

    @property
    def external(self) -> Endpoint | None:
        """On the router's outside; None while nothing is forwarded."""
        return self._external

    async def run(self, ready: Ready) -> None:
        try:
            gateway = self._gateway()
        except NoGateway as error:
            logger.warning("no port is forwarded: %s", error)
            return
        ready()
        try:
            while True:
                pause = RENEW_S
                try:
                    self._became(await self._map(gateway))
                    self._backoff.reset()
                except NoGateway as error:
                    level = logging.INFO if self._seldom.due(str(error)) else logging.DEBUG
                    logger.log(level, "no port is forwarded: %s", error)
                    self._became(None)
                    pause = self._backoff.delay()
                await asyncio.sleep(pause)
        finally:
            await self._take_back(gateway)

    async def _map(self, gateway: Gateway) -> Endpoint:
        """The port that leads to us, renewed or new. Raises NoGateway, also when it leads nowhere that others could dial."""
        host = await asyncio.to_thread(gateway.find_now)
        address, inside = ip_of(host), self._port()
        if address is None or not address.is_global:
            raise NoGateway(f"the router's own address {host or '?'} is behind another router")
        first = self._external.port if self._external is not None else inside
        taken: PortTaken | None = None
        for outside in dict.fromkeys((first, *range(inside, min(65536, inside + PORTS_TRIED)))):
            try:
                await asyncio.to_thread(gateway.map_now, outside, inside)
            except PortTaken as error:
                taken = error
                continue
            return Endpoint(str(address), outside)
        raise taken or NoGateway("there is no port left to ask for")

    def _became(self, external: Endpoint | None) -> None:
        if external == self._external:
            return
        if external is not None:
            logger.info("the router forwards %s to this node", external)
        self._external = external
        self._changed()

    async def _take_back(self, gateway: Gateway) -> None:
        if self._external is None:
            return
        try:
            async with asyncio.timeout(LAST_S):
                await asyncio.to_thread(gateway.unmap_now, self._external.port)
        except (NoGateway, TimeoutError) as error:
            logger.debug("the router keeps the port for up to %d s: %s", LEASE_S, error)
