"""Addresses: what may be dialled, kept, passed on."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.peers import Endpoint
from swarmd.domain.refusals import Invalid
from swarmd.peers.addresses import MAX_ENDPOINTS, announced, as_seen_from, on_link, parse_multiaddr, refuse

NODE = "ab" * 32


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.9", "169.254.3.3", "8.8.8.8", "::1", "fd00::1", "attic", "a.b-c.d"],
)
def test_private_public_and_loopback_may_be_dialled(host: str) -> None:
    assert refuse(Endpoint(host, 8810)) is None


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.251", "multicast"),
        ("ff02::fb", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.200", "documentation"),
        ("203.0.113.7", "documentation"),
        ("2001:db8::1", "documentation"),
        ("::ffff:192.0.2.1", "documentation"),
        ("", "neither"),
        ("a b", "neither"),
        ("-a", "neither"),
        ("256.1.1.1", "neither"),
        ("a" * 254, "neither"),
        ("[::1]", "neither"),
    ],
)
def test_what_nobody_may_dial_is_refused_with_the_reason(host: str, why: str) -> None:
    refusal = refuse(Endpoint(host, 8810))
    assert isinstance(refusal, Invalid)
    assert why in refusal.sentence


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_is_a_port(port: int) -> None:
    assert isinstance(refuse(Endpoint("10.0.0.1", port)), Invalid)


def test_an_unspecified_host_becomes_the_one_we_saw() -> None:
    assert as_seen_from((Endpoint("0.0.0.0", 7),), observed_host="10.0.0.9") == (Endpoint("10.0.0.9", 7),)
    assert as_seen_from((Endpoint("::", 7),), observed_host="::ffff:10.0.0.9") == (Endpoint("10.0.0.9", 7),)
    assert as_seen_from((Endpoint("0.0.0.0", 7),), observed_host=None) == ()


def test_loopback_means_something_only_on_the_same_machine() -> None:
    stated = (Endpoint("127.0.0.1", 7), Endpoint("10.0.0.9", 7))
    assert as_seen_from(stated, observed_host="10.0.0.9") == (Endpoint("10.0.0.9", 7),)
    assert as_seen_from(stated, observed_host="127.0.0.1") == stated
    assert as_seen_from(stated, observed_host=None) == (Endpoint("10.0.0.9", 7),)


def test_what_we_saw_comes_first_and_the_list_is_short_and_clean() -> None:
    stated = (*(Endpoint(f"10.0.1.{n}", 7) for n in range(20)), Endpoint("192.0.2.1", 7), Endpoint("0.0.0.0", 7))
    kept = as_seen_from(stated, observed_host="10.0.0.9")
    assert len(kept) == MAX_ENDPOINTS
    assert kept[0] == Endpoint("10.0.0.9", 7)


def test_on_link_is_what_needs_no_router() -> None:
    interfaces = tuple(ipaddress.ip_interface(one) for one in ("127.0.0.1/8", "192.168.1.5/24", "fd00::5/64"))
    reached = {host: on_link(ipaddress.ip_address(host), interfaces) for host in ("192.168.1.9", "fd00::9")}
    assert all(reached.values())
    assert not any(on_link(ipaddress.ip_address(host), interfaces) for host in ("127.0.0.1", "192.168.2.9", "8.8.8.8"))


def test_a_node_that_listens_everywhere_announces_its_interfaces() -> None:
    interfaces = ("127.0.0.1", "::1", "192.168.1.17", "fe80::1", "fd00::17", "8.8.8.8")
    everywhere = announced((Endpoint("0.0.0.0", 8810),), interfaces)
    assert [one.host for one in everywhere] == ["192.168.1.17", "8.8.8.8"]
    both = announced((Endpoint("::", 8810),), interfaces)
    assert [one.host for one in both] == ["192.168.1.17", "8.8.8.8", "fd00::17"]
    assert announced((Endpoint("10.0.0.9", 1),), interfaces) == (Endpoint("10.0.0.9", 1),)


def test_loopback_is_announced_only_when_there_is_nothing_else() -> None:
    assert announced((Endpoint("127.0.0.1", 1),), ("127.0.0.1",)) == (Endpoint("127.0.0.1", 1),)
    assert announced((Endpoint("0.0.0.0", 1),), ("127.0.0.1",)) == (Endpoint("127.0.0.1", 1),)
    assert announced((Endpoint("127.0.0.1", 1), Endpoint("10.0.0.9", 1)), ()) == (Endpoint("10.0.0.9", 1),)


@pytest.mark.parametrize(
    ("text", "endpoint", "node"),
    [
        ("/ip4/1.2.3.4/tcp/8810", Endpoint("1.2.3.4", 8810), None),
        (f" /ip4/1.2.3.4/tcp/8810/p2p/{NODE}\n", Endpoint("1.2.3.4", 8810), NODE),
        ("/ip6/fd00::1/tcp/1", Endpoint("fd00::1", 1), None),
        ("/dns/attic.example/tcp/65535", Endpoint("attic.example", 65535), None),
        ("/dns4/attic/tcp/1", Endpoint("attic", 1), None),
    ],
)
def test_a_multiaddr_is_read(text: str, endpoint: Endpoint, node: str | None) -> None:
    assert parse_multiaddr(text) == (endpoint, node)


def test_what_is_written_is_read_again() -> None:
    for endpoint in (Endpoint("1.2.3.4", 8810), Endpoint("fd00::1", 1), Endpoint("attic", 2)):
        assert parse_multiaddr(endpoint.multiaddr()) == (endpoint, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3.4:8810",
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/udp/8810",
        "/ip4/fd00::1/tcp/1",
        "/ip6/1.2.3.4/tcp/1",
        "/dns/1.2.3.4/tcp/1",
        "/ip4/attic/tcp/1",
        "/ip4/1.2.3.4/tcp/x",
        "/ip4/1.2.3.4/tcp/0",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/123456",
        "/ip4/1.2.3.4/tcp/٣",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/192.0.2.7/tcp/1",
        "/ip4/1.2.3.4/tcp/1/p2p/",
        "/ip4/1.2.3.4/tcp/1/p2p/ABCDEF",
        f"/ip4/1.2.3.4/tcp/1/ipfs/{NODE}",
        "/ip4/1.2.3.4/tcp/1/p2p/" + NODE + "/x",
    ],
)
def test_what_is_no_multiaddr_is_refused(text: str) -> None:
    assert isinstance(parse_multiaddr(text), Invalid)


@given(st.text(max_size=600))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, "/ip4/" + text, f"/dns/{text}/tcp/1"):
        parse_multiaddr(candidate)
