"""Ports of home routers: a router in memory for the times, and miniupnpc against a router that speaks the protocol."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swarmd.domain.peers import Endpoint
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World
from swarmd.peers import port_mapping
from swarmd.peers.port_mapping import LEASE_S, PORTS_TRIED, RENEW_S, NoGateway, PortMapping, PortTaken, UpnpGateway

OUTSIDE = "93.184.216.34"


@dataclass
class Router:
    outside: str = OUTSIDE
    taken: set[int] = field(default_factory=set)
    mapped: dict[int, int] = field(default_factory=dict)
    asked: int = 0
    trouble: str = ""

    def find_now(self) -> str:
        if self.trouble:
            raise NoGateway(self.trouble)
        return self.outside

    def map_now(self, outside: int, inside: int) -> None:
        self.asked += 1
        if outside in self.taken:
            raise PortTaken(f"port {outside} is taken")
        self.mapped[outside] = inside

    def unmap_now(self, outside: int) -> None:
        del self.mapped[outside]


def mapping(router: Router, world: World) -> tuple[PortMapping, list[Endpoint | None]]:
    seen: list[Endpoint | None] = []
    made = PortMapping(
        gateway=lambda: router, port=lambda: 8810, changed=lambda: seen.append(made.external), world=world
    )
    return made, seen


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _in_this_thread(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Virtual time does not pass while a real thread works."""
    if "looptime" in request.keywords:

        async def to_thread(call, *args):
            return call(*args)

        monkeypatch.setattr(port_mapping.asyncio, "to_thread", to_thread)


@pytest.mark.looptime
async def test_the_port_is_forwarded_renewed_and_taken_back_at_the_end(world: World) -> None:
    router = Router()
    made, seen = mapping(router, world)
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(made)
        await settle()
        assert made.external == Endpoint(OUTSIDE, 8810) and router.mapped == {8810: 8810}
        router.mapped.clear()  # the router was restarted
        await asyncio.sleep(RENEW_S)
        assert router.mapped == {8810: 8810} and router.asked == 2
        assert seen == [Endpoint(OUTSIDE, 8810)]
    assert router.mapped == {}


@pytest.mark.looptime
async def test_a_port_that_another_node_at_home_has_is_left_to_it(world: World) -> None:
    router = Router(taken={8810, 8811})
    made, _ = mapping(router, world)
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(made)
        await settle()
        assert made.external == Endpoint(OUTSIDE, 8812) and router.mapped == {8812: 8810}
        await asyncio.sleep(RENEW_S)
        assert router.asked == 4, "renewed at the port it has"


@pytest.mark.looptime
@pytest.mark.parametrize("outside", ["192.168.0.5", "100.64.1.2", "", "0.0.0.0"])
async def test_behind_two_routers_nothing_is_promised(
    world: World, outside: str, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(outside=outside)
    made, seen = mapping(router, world)
    with caplog.at_level(logging.INFO):
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(made)
            await asyncio.sleep(50 * RENEW_S)
    assert made.external is None and seen == [] and router.mapped == {}
    assert 1 <= caplog.text.count("behind another router") <= 50 * RENEW_S / 3600 + 1, "said once an hour"


@pytest.mark.looptime
async def test_a_router_that_comes_late_is_found_and_one_that_goes_is_missed(world: World) -> None:
    router = Router(trouble="no router answers")
    made, seen = mapping(router, world)
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(made)
        await settle()
        assert made.external is None
        router.trouble = ""
        await asyncio.sleep(61.0)
        assert made.external is not None
        router.trouble = "gone"
        await asyncio.sleep(RENEW_S)
        assert made.external is None
        router.trouble, router.taken = "", set(range(8810, 8810 + PORTS_TRIED))
        await asyncio.sleep(2 * RENEW_S)
        assert made.external is None and seen == [Endpoint(OUTSIDE, 8810), None]


async def test_without_the_package_it_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(port_mapping.importlib, "import_module", missing)
    made = PortMapping(gateway=UpnpGateway, port=lambda: 1, changed=lambda: None, world=world)
    with caplog.at_level(logging.WARNING):
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(made)
    assert "pip install 'swarmd[upnp]'" in caplog.text


class Igd(BaseHTTPRequestHandler):
    """As much of UPnP IGD 1 as a home router shows: its description, and the three actions we use."""

    mappings: dict[int, tuple[str, int, int]]

    def do_GET(self) -> None:
        service = (
            "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
            "<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/control</controlURL>"
            "<eventSubURL>/events</eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service>"
        )
        common = (
            "<service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>"
            "<serviceId>urn:upnp-org:serviceId:WANCommonIFC1</serviceId><controlURL>/common</controlURL>"
            "<eventSubURL>/events</eventSubURL><SCPDURL>/common.xml</SCPDURL></service>"
        )

        def device(kind: str, services: str, inner: str) -> str:
            return (
                f"<device><deviceType>urn:schemas-upnp-org:device:{kind}:1</deviceType><friendlyName>r</friendlyName>"
                f"<UDN>uuid:{kind}</UDN><serviceList>{services}</serviceList><deviceList>{inner}</deviceList></device>"
            )

        tree = device(
            "InternetGatewayDevice", "", device("WANDevice", common, device("WANConnectionDevice", service, ""))
        )
        self._answer(f'<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">{tree}</root>')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        action = self.headers["soapaction"].strip('"').rpartition("#")[2]

        def value(name: str) -> str:
            found = re.search(rf"<{name}[^>]*>([^<]*)</{name}>", body)
            return found[1] if found else ""

        answer = ""
        match action:
            case "GetStatusInfo":
                answer = "<NewConnectionStatus>Connected</NewConnectionStatus><NewUptime>1</NewUptime>"
            case "GetExternalIPAddress":
                answer = f"<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>"
            case "AddPortMapping":
                port = int(value("NewExternalPort"))
                if port == 8810:
                    self._fault(718, "ConflictInMappingEntry")
                    return
                lease = int(value("NewLeaseDuration"))
                self.mappings[port] = (value("NewInternalClient"), int(value("NewInternalPort")), lease)
            case "DeletePortMapping":
                del self.mappings[int(value("NewExternalPort"))]
            case _:
                self._fault(401, "Invalid Action")
                return
        kind = "urn:schemas-upnp-org:service:WANIPConnection:1"
        self._answer(
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
            f'<u:{action}Response xmlns:u="{kind}">{answer}</u:{action}Response></s:Body></s:Envelope>'
        )

    def _fault(self, code: int, text: str) -> None:
        self._answer(
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><detail>'
            f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
            f"<errorDescription>{text}</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>",
            500,
        )

    def _answer(self, text: str, status: int = 200) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """The tests' output is not a router's log."""


@pytest.fixture
def igd() -> Iterator[ThreadingHTTPServer]:
    Igd.mappings = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Igd)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_real_client_maps_a_port_at_a_router(world: World, igd: ThreadingHTTPServer) -> None:
    seen = asyncio.Event()
    url = f"http://127.0.0.1:{igd.server_address[1]}/root.xml"
    made = PortMapping(
        gateway=lambda: UpnpGateway(description_url=url), port=lambda: 8810, changed=seen.set, world=world
    )
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(made)
        async with asyncio.timeout(10):
            await seen.wait()
        assert made.external == Endpoint(OUTSIDE, 8811), "the first port was another machine's"
        assert Igd.mappings == {8811: ("127.0.0.1", 8810, LEASE_S)}
    assert Igd.mappings == {}, "taken back at the end"


def test_a_router_that_is_not_there_is_a_failure_with_a_reason() -> None:
    gateway = UpnpGateway(description_url="http://127.0.0.1:9/root.xml")
    with pytest.raises(NoGateway, match="the router"):
        gateway.find_now()
    with pytest.raises(NoGateway):
        gateway.map_now(1, 2)
