"""Which addresses a provider may have: against requests that somebody forges through this node.

The text is looked at when it is set. Where a name leads is looked at when a socket is made for it, each time: a name that
answered with a public address when it was set may answer with that of the router a minute later.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

URL_LENGTH: Final = 500
_HOST: Final = re.compile(r"[A-Za-z0-9._:\-]{1,253}")


class Place(Enum):
    PUBLIC = "public"
    PRIVATE = "private"
    """This machine, or a network that is not the internet."""
    NOWHERE = "nowhere"
    """No machine has it: multicast, unspecified, reserved."""


class AddressRefused(OSError):
    """A provider's name leads where it may not. `str()` is one clause."""


def place_of(address: str) -> Place:
    """Of an IP address. Addresses of IPv4 in those of IPv6 count as what is inside."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Place.NOWHERE
    if isinstance(parsed, ipaddress.IPv6Address):
        inside = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if inside is None and parsed in _NAT64:
            inside = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        parsed = inside or parsed
    if parsed.is_multicast or parsed.is_unspecified or parsed == _BROADCAST:
        return Place.NOWHERE
    if parsed.is_global:
        return Place.PUBLIC
    if parsed.is_loopback or parsed.is_link_local or any(parsed in network for network in _PRIVATE):
        return Place.PRIVATE
    return Place.NOWHERE


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")
_PRIVATE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""Shared address space (RFC 6598) is where overlay networks put their nodes."""


def url_problem(url: str) -> str | None:
    """What is wrong with the text of a base URL, as a clause for people; None: nothing."""
    if len(url) > URL_LENGTH or not re.fullmatch(r"[!-~]+", url):
        return f"an address has 1 to {URL_LENGTH} printable ASCII characters without blanks"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "this is no address: write https://host/v1"
    if parts.scheme not in ("http", "https"):
        return "an address begins with https:// (or http:// in your own network)"
    if parts.username is not None or parts.password is not None:
        return "an address has no name and password in it: give the key apart"
    if parts.query or parts.fragment or "?" in url or "#" in url:
        return "an address ends with its path: no ? and no #"
    if not _HOST.fullmatch(host) or port == 0:
        return "this is no address: write https://host/v1"
    if ".." in parts.path or "\\" in parts.path:
        return "an address has no .. in its path"
    return None


def literal_problem(url: str, *, private: bool) -> str | None:
    """The same for an address whose host is written as numbers: it needs no look-up to be refused."""
    parts = urlsplit(url)
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return None
    return _refusal(place_of(parts.hostname or ""), encrypted=parts.scheme == "https", private=private)


def socket_maker(*, encrypted: bool, private: bool) -> Callable[[Any], socket.socket]:
    """For aiohttp's connector: makes a socket for an address that was looked up, or raises AddressRefused.

    `private`: whether the owner allows addresses that are not public. Without encryption only such ones will do: keys and
    prompts do not cross the internet in the clear.
    """

    def make(found: Any) -> socket.socket:
        family, kind, protocol, _, address = found
        if (problem := _refusal(place_of(str(address[0])), encrypted=encrypted, private=private)) is not None:
            raise AddressRefused(problem)
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


def _refusal(place: Place, *, encrypted: bool, private: bool) -> str | None:
    match place:
        case Place.NOWHERE:
            return "its address is none that a server can have"
        case Place.PRIVATE:
            if private:
                return None
            return "its address is on this machine or in a private network, which providers.private_addresses does not allow"
        case Place.PUBLIC:
            return None if encrypted else "its address is a public one, which needs https://"
