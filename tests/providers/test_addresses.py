"""Where providers may be."""

from __future__ import annotations

import socket

import pytest

from swarmd.providers.addresses import AddressRefused, Place, literal_problem, place_of, socket_maker, url_problem


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("93.184.216.34", Place.PUBLIC),
        ("2606:4700::1111", Place.PUBLIC),
        ("127.0.0.1", Place.PRIVATE),
        ("127.9.9.9", Place.PRIVATE),
        ("::1", Place.PRIVATE),
        ("10.1.2.3", Place.PRIVATE),
        ("172.16.0.1", Place.PRIVATE),
        ("192.168.1.1", Place.PRIVATE),
        ("100.64.3.4", Place.PRIVATE),
        ("169.254.169.254", Place.PRIVATE),
        ("fe80::1%eth0", Place.PRIVATE),
        ("fd00::1", Place.PRIVATE),
        ("::ffff:127.0.0.1", Place.PRIVATE),
        ("::ffff:93.184.216.34", Place.PUBLIC),
        ("2002:7f00:1::", Place.PRIVATE),
        ("64:ff9b::a00:1", Place.PRIVATE),
        ("0.0.0.0", Place.NOWHERE),
        ("::", Place.NOWHERE),
        ("224.0.0.1", Place.NOWHERE),
        ("255.255.255.255", Place.NOWHERE),
        ("240.0.0.1", Place.NOWHERE),
        ("ff02::1", Place.NOWHERE),
        ("no address", Place.NOWHERE),
    ],
)
def test_places(address: str, place: Place) -> None:
    assert place_of(address) is place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://name:secret@api.example.com",
        "https://@api.example.com",
        "https://api.example.com/v1?key=x",
        "https://api.example.com/v1#x",
        "https://api.example.com/v1#",
        "https://api.example.com:0/",
        "https://api.example.com:99999/",
        "https://[::1",
        "https:///v1",
        "https://api.example.com/../v1",
        "https://a b/v1",
        "https://exämple.com",
        f"https://{'a' * 500}.com",
    ],
)
def test_texts_that_are_no_base_url(url: str) -> None:
    assert url_problem(url)


@pytest.mark.parametrize("url", ["https://api.example.com/v1", "http://127.0.0.1:8000/v1", "http://[fd00::1]:80", "https://node"])
def test_texts_that_are(url: str) -> None:
    assert url_problem(url) is None


def test_numbers_are_refused_without_a_look_up() -> None:
    assert "private_addresses" in (literal_problem("http://127.0.0.1/v1", private=False) or "")
    assert "https" in (literal_problem("http://93.184.216.34", private=True) or "")
    assert literal_problem("http://127.0.0.1/v1", private=True) is None
    assert literal_problem("https://name.example", private=False) is None
    assert literal_problem("https://[::ffff:10.0.0.1]/", private=False)


def found(address: str) -> tuple[object, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443))


def test_a_name_that_leads_inside_gets_no_socket() -> None:
    """DNS rebinding: what counts is the address that the socket would go to."""
    make = socket_maker(encrypted=True, private=False)
    make(found("93.184.216.34")).close()
    for address in ("127.0.0.1", "169.254.169.254", "192.168.0.1", "0.0.0.0"):
        with pytest.raises(AddressRefused):
            make(found(address))
    make = socket_maker(encrypted=False, private=True)
    make(found("127.0.0.1")).close()
    with pytest.raises(AddressRefused, match="https"):
        make(found("93.184.216.34"))
