"""Which addresses are worth keeping, dialling and passing on. Pure.

A node behind a container bridge or a VPN reports addresses that mean nothing elsewhere; every system in this field has
that as its first complaint. So an unspecified or loopback address is never taken at its word: see `as_seen_from`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from swarmd.domain.ids import NodeId, parse_node_id
from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Invalid

MAX_ENDPOINTS: Final = 8  # per node: IPv4, IPv6, VPN and public address are four; twice that

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address of this machine with the network it is in."""

_REFUSED_RANGES: Final = tuple(
    (ipaddress.ip_network(text), why)
    for text, why in (
        ("0.0.0.0/8", "an unspecified address"),  # RFC 1122, 3.2.1.3
        ("255.255.255.255/32", "the broadcast address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("192.0.2.0/24", "reserved for documentation"),  # RFC 5737
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("2001:db8::/32", "reserved for documentation"),  # RFC 3849
        ("3fff::/20", "reserved for documentation"),  # RFC 9637
    )
)

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TEXT_LIMIT: Final = 512  # characters: a host name, a node id and the words between fit twice


def ip_of(host: str) -> IpAddress | None:
    """The address that `host` is, IPv4 taken out of its IPv6 wrapping; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_unspecified(host: str) -> bool:
    address = ip_of(host)
    return address is not None and address.is_unspecified


def is_loopback(host: str) -> bool:
    address = ip_of(host)
    return host == "localhost" if address is None else address.is_loopback


def on_link(address: IpAddress, interfaces: tuple[IpInterface, ...]) -> bool:
    """Whether this machine reaches `address` without a router; loopback does not count."""
    return not address.is_loopback and any(address in one.network for one in interfaces)


def refuse(endpoint: Endpoint) -> Invalid | None:
    """Why nobody may be dialled there; None when one may. Private and loopback addresses are fine (design, ruling
    12.9)."""
    if not 1 <= endpoint.port <= 65535:
        return Invalid(what=f"{endpoint.port} is not a TCP port: give one from 1 to 65535", param="code")
    address = ip_of(endpoint.host)
    if address is None:
        if _HOST_NAME.fullmatch(endpoint.host) and not endpoint.host.replace(".", "").isdigit():
            return None
        return Invalid(what=f"{endpoint.host[:80]!r} is neither an IP address nor a host name", param="code")
    if address.is_unspecified:
        return Invalid(what=f"{address} is an unspecified address: give the one where the node can be reached", param="code")
    for network, why in _REFUSED_RANGES:
        if address in network:
            return Invalid(what=f"{address} is {why}: give the address where the node can be reached", param="code")
    return None


def as_seen_from(endpoints: tuple[Endpoint, ...], *, observed_host: str | None) -> tuple[Endpoint, ...]:
    """What to keep of the endpoints that a node at `observed_host` states, best first, at most MAX_ENDPOINTS.

    An unspecified host becomes the observed one; a loopback host is kept only when the node really came over loopback.
    `observed_host` None: the statement came through somebody else.
    """
    kept: dict[Endpoint, None] = {}
    for stated in endpoints:
        host = stated.host
        if is_unspecified(host):
            if observed_host is None:
                continue
            host = observed_host
        elif is_loopback(host) and not (observed_host is not None and is_loopback(observed_host)):
            continue
        address = ip_of(host)
        endpoint = Endpoint(host if address is None else str(address), stated.port)
        if refuse(endpoint) is None:
            kept[endpoint] = None
    # What we saw ourselves beats what was said.
    ordered = sorted(kept, key=lambda endpoint: endpoint.host != observed_host)
    return tuple(ordered[:MAX_ENDPOINTS])


def announced(bound: tuple[Endpoint, ...], interfaces: tuple[str, ...]) -> tuple[Endpoint, ...]:
    """Where others may reach a node that listens on `bound`, for an invite code; `interfaces`: this machine's
    addresses.

    An unspecified bound address stands for every interface of its family (`::` for both). Order: private IPv4, other
    IPv4, IPv6, names as they were given; loopback only when there is nothing else. Link-local IPv6 has no meaning
    elsewhere.
    """
    found: dict[Endpoint, None] = {}
    for endpoint in bound:
        if not is_unspecified(endpoint.host):
            found[endpoint] = None
            continue
        both = ":" in endpoint.host
        for host in interfaces:
            if (address := ip_of(host)) is not None and (both or address.version == 4):
                found[Endpoint(str(address), endpoint.port)] = None
    usable = [endpoint for endpoint in found if refuse(endpoint) is None and not _is_link_local(endpoint.host)]
    elsewhere = [endpoint for endpoint in usable if not is_loopback(endpoint.host)]
    return tuple(sorted(elsewhere or usable, key=_invite_rank)[:MAX_ENDPOINTS])


def parse_multiaddr(text: str) -> tuple[Endpoint, NodeId | None] | Invalid:
    """`/ip4/192.168.1.7/tcp/8810`, `/ip6/...`, `/dns/...`, each with an optional `/p2p/<node id>` at the end."""
    hint = "expected /ip4/<address>/tcp/<port>, optionally followed by /p2p/<node id>"
    wrong = Invalid(what=f"{text[:80]!r} is neither an invite code nor a multiaddr: {hint}", param="code")
    parts = text.strip().split("/")
    if len(text) > _TEXT_LIMIT or len(parts) not in (5, 7) or parts[0] != "" or parts[3] != "tcp":
        return wrong
    kind, host, port = parts[1], parts[2], parts[4]
    address = ip_of(host)
    match kind:
        case "ip4" | "ip6":
            fits = address is not None and (":" in host) == (kind == "ip6")
        case "dns" | "dns4" | "dns6":
            fits = address is None
        case _:
            fits = False
    if not (fits and port.isascii() and port.isdigit() and len(port) <= 5):
        return wrong
    endpoint = Endpoint(host if address is None else str(address), int(port))
    if (refusal := refuse(endpoint)) is not None:
        return refusal
    if len(parts) == 5:
        return endpoint, None
    try:
        node = parse_node_id(parts[6])
    except ValueError as error:
        return Invalid(what=str(error), param="code")
    return (endpoint, node) if parts[5] == "p2p" else wrong


def _is_link_local(host: str) -> bool:
    address = ip_of(host)
    return address is not None and address.version == 6 and address.is_link_local


def _invite_rank(endpoint: Endpoint) -> int:
    address = ip_of(endpoint.host)
    if address is None:
        return 0  # somebody configured a name on purpose
    if address.version == 4:
        return 1 if address.is_private else 2
    return 3
