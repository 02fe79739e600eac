"""What is believed of a release feed, and what of a release is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.refusals import Invalid
from swarmd.domain.updates import parse_version
from swarmd.identity.keys import NodeKey, Signed
from swarmd.updates.feed import FEED_LIMIT, BadFeed, Feed, Release, address_problem, newest, open_feed, refusal

KEY, OTHER = NodeKey(bytes([1]) * 32), NodeKey(bytes([2]) * 32)
TRUSTED = {KEY.node}


def release(version: str = "0.2.0", **changes: Any) -> dict[str, Any]:
    wheel = {"file": f"swarmd-{version}-py3-none-any.whl", "size_bytes": 1000, "sha256": "a" * 64}
    return {"version": version, "wheel": wheel, "published_at": "2026-12-01T10:00:00Z", "changelog": "better"} | changes


def envelope(
    *releases: dict[str, Any], sequence: int = 7, key: NodeKey = KEY, use: Signed = Signed.RELEASES
) -> dict[str, Any]:
    text = json.dumps({"sequence": sequence, "releases": list(releases)})
    return {"feed": text, "signatures": [{"by": key.node, "signature": key.sign(use, text.encode()).hex()}]}


def opened(document: object, *, seen: int = 0) -> Feed | BadFeed:
    return open_feed(json.dumps(document).encode(), trusted=TRUSTED, seen=seen)


def refused(document: object, *, seen: int = 0) -> str:
    found = opened(document, seen=seen)
    assert isinstance(found, BadFeed), found
    return found.sentence


def test_a_feed_that_a_trusted_key_signed() -> None:
    feed = opened(envelope(release("0.2.0"), release("0.10.0"), release("1.0.0rc1")))
    assert isinstance(feed, Feed) and feed.sequence == 7
    found = newest(feed, prereleases=False)
    assert found is not None and found.version == "0.10.0"
    found = newest(feed, prereleases=True)
    assert found is not None and found.version == "1.0.0rc1"
    assert newest(Feed(sequence=1, releases=[]), prereleases=True) is None


def test_a_second_signature_replaces_a_key() -> None:
    document = envelope(release(), key=OTHER)
    assert "is not signed by a key that this node trusts" in refused(document)
    document["signatures"] += envelope(release())["signatures"]
    assert isinstance(opened(document), Feed)


@given(st.data())
def test_every_character_of_the_feed_is_signed(data: st.DataObject) -> None:
    document = envelope(release())
    text = document["feed"]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != text[place]))
    document["feed"] = text[:place] + other + text[place + 1 :]
    assert "is not signed" in refused(document)


def test_a_signature_made_for_something_else_is_none() -> None:
    assert "is not signed" in refused(envelope(release(), use=Signed.MANIFEST))
    document = envelope(release())
    document["signatures"][0]["by"] = OTHER.node
    assert "is not signed" in refused(document)


def test_an_old_feed_is_not_believed_again() -> None:
    assert isinstance(opened(envelope(release(), sequence=7), seen=7), Feed), "the same one is no news and no attack"
    assert "is an old one (number 6, and number 7 was seen)" in refused(envelope(release(), sequence=6), seen=7)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "../../etc"}, {"version": "0.2"}, {"version": 2}, {"published_at": "yesterday"}, {"min_python": "2.7"},
        {"surprise": 1}, {"changelog": "x" * 70_000}, {"requirements": ["-r other.txt"]}, {"requirements": ["aiohttp>=3"]},
        {"requirements": ["aiohttp @ file:///x"]}, {"requirements": ["a==1\n-e ."]}, {"requirements": ["a==1"] * 400},
        {"wheel": {"file": "../x.whl", "size_bytes": 1, "sha256": "a" * 64}},
        {"wheel": {"file": "a/b.whl", "size_bytes": 1, "sha256": "a" * 64}},
        {"wheel": {"file": "x.whl", "size_bytes": 10**12, "sha256": "a" * 64}},
        {"wheel": {"file": "x.whl", "size_bytes": 0, "sha256": "a" * 64}},
        {"wheel": {"file": "x.whl", "size_bytes": 1, "sha256": "A" * 64}},
        {"wheel": {"file": "x.whl", "size_bytes": 1}},
        {"wheelhouse": [{"file": "x.tar.gz", "size_bytes": 1, "sha256": "a" * 64}]},
        {"wheelhouse": [{"file": f"x{n}.whl", "size_bytes": 250_000_000, "sha256": "a" * 64} for n in range(9)]},
        {"wheelhouse": [{"file": "x.whl", "size_bytes": 1, "sha256": "a" * 64}] * 2},
    ],
    ids=lambda changes: str(changes)[:40],
)  # fmt: skip
def test_what_is_signed_and_still_not_a_feed(changes: dict[str, Any]) -> None:
    sentence = refused(envelope(release() | changes))
    assert "is signed, and not what" in sentence or "the files of version 0.2.0" in sentence


def test_one_version_twice() -> None:
    assert "names a version twice" in refused(envelope(release(), release()))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"feed": "{}", "signatures": []}', b"x" * (FEED_LIMIT + 1)]
)
def test_what_is_no_feed_at_all(data: bytes) -> None:
    assert isinstance(open_feed(data, trusted=TRUSTED, seen=0), BadFeed)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_raises_nothing(data: bytes) -> None:
    assert isinstance(open_feed(data, trusted=TRUSTED, seen=0), BadFeed)


def as_release(version: str, **changes: Any) -> Release:
    return msgspec.convert(release(version, **changes), Release)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (as_release("0.1.9"), "is older than 0.2.0, which runs"),
        (as_release("0.2.0rc1"), "is older than 0.2.0, which runs"),
        (as_release("0.2.0"), "is what runs"),
        (as_release("0.3.0", min_python="3.13"), "needs Python 3.13, and this node runs on 3.12"),
        (as_release("0.4.0"), "was tried here and rolled back"),
    ],
)
def test_what_a_node_does_not_switch_to(found: Release, words: str) -> None:
    said = refusal(found, current=parse_version("0.2.0"), rolled_back={"0.4.0"}, python=(3, 12))
    assert isinstance(said, Invalid) and words in said.sentence


def test_what_it_switches_to() -> None:
    assert (
        refusal(as_release("0.3.0", min_python="3.9"), current=parse_version("0.2.0"), rolled_back={}, python=(3, 12))
        is None
    )


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://example.org/feed.json", True), ("http://127.0.0.1:8000/feed.json", True), ("http://localhost/f", True),
        ("http://[::1]:80/f", True), ("http://example.org/feed.json", False), ("http://127.example.org/f", False),
        ("file:///etc/passwd", False), ("https://user:pass@example.org/", False), ("", False), ("https://a b/", False),
    ],
)  # fmt: skip
def test_where_a_feed_may_be(url: str, fine: bool) -> None:
    assert (address_problem(url) is None) == fine
