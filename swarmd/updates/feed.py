"""The release feed: which versions there are, as somebody signed it whose key this node trusts. Pure.

    {"feed": "<the feed as JSON text>", "signatures": [{"by": "<public key, hex>", "signature": "<hex>"}]}

The signature (Ed25519) is over `swarmd/1/releases`, a zero byte and the text as it stands, so it covers every field and
needs no canonical form. Nothing of the text is looked at before its signature holds, and nothing of the envelope before its
size was checked. Several signatures let a key be replaced; one that is trusted is enough.

`sequence` counts up with every feed that is published: a node never takes one that is older than one it has seen, so that
who can answer in the feed's place cannot hide a release again. """

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from swarmd.domain.ids import NodeId
from swarmd.domain.refusals import Invalid, Refusal
from swarmd.domain.updates import Version, parse_version
from swarmd.identity.keys import Signed, verify

FEED_LIMIT: Final = 1024 * 1024  # bytes: a release with the hashes of its 40 dependencies has some 40 KB
RELEASES: Final = 64  # of one feed
WHEEL_LIMIT: Final = 256 * 1024 * 1024  # bytes: the engine's wheel, the largest there is, has 40 MB
HOUSE_LIMIT: Final = 2 * 1024**3  # bytes of all wheels of a release
FILES: Final = 200  # of a release's wheelhouse
REQUIREMENTS: Final = 300
CHANGELOG_LIMIT: Final = 64 * 1024  # characters

_HEX = r"^[0-9a-f]{64}$"
_WHEEL = r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,180}\.whl$"
_REQUIREMENT = (
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}==[A-Za-z0-9.!+_-]{1,60}"
    r"( *; *[A-Za-z0-9_ .'\"()<>=!]{1,200})?( --hash=sha256:[0-9a-f]{64}){0,200}$"
)
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


class WheelFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file beside the feed."""

    file: Annotated[str, Meta(pattern=_WHEEL)]
    size_bytes: Annotated[int, Meta(ge=1, le=WHEEL_LIMIT)]
    sha256: Annotated[str, Meta(pattern=_HEX)]


class Release(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[str, Meta(max_length=40)]
    wheel: WheelFile
    published_at: Annotated[str, Meta(pattern=_TIME)]
    changelog: Annotated[str, Meta(max_length=CHANGELOG_LIMIT)] = ""
    min_python: Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}$")] = "3.11"
    requirements: Annotated[list[Annotated[str, Meta(pattern=_REQUIREMENT)]], Meta(max_length=REQUIREMENTS)] = msgspec.field(
        default_factory=list[str]
    )
    """All that the version needs, pinned, as pip's requirement files have it: `name==1.2.3 --hash=sha256:...`. Without a
    hash it is not fetched from an index, only taken from the environment that runs or from the wheelhouse."""
    wheelhouse: Annotated[list[WheelFile], Meta(max_length=FILES)] = msgspec.field(default_factory=list[WheelFile])
    """Wheels of those, beside the feed, for nodes without a package index."""

    @property
    def number(self) -> Version:
        return parse_version(self.version)


class Feed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sequence: Annotated[int, Meta(ge=1, le=2**53)]
    releases: Annotated[list[Release], Meta(max_length=RELEASES)]


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    by: Annotated[str, Meta(pattern=_HEX)]
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}$")]


class Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    feed: Annotated[str, Meta(max_length=FEED_LIMIT)]
    signatures: Annotated[list[Signature], Meta(min_length=1, max_length=8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFeed(Invalid):
    """What came from the feed's address is not to be believed."""


def open_feed(data: bytes, *, trusted: Collection[str], seen: int) -> Feed | BadFeed:
    """`trusted`: public keys, hex; `seen`: the highest sequence this node has taken, 0 before the first."""
    if len(data) > FEED_LIMIT:
        return BadFeed(what=f"the release feed has more than {FEED_LIMIT} bytes")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return BadFeed(what=f"the release feed is not one: {error}")
    text = envelope.feed.encode()
    keys = set(trusted)
    if not any(
        one.by in keys and verify(NodeId(one.by), Signed.RELEASES, text, bytes.fromhex(one.signature))
        for one in envelope.signatures
    ):
        return BadFeed(what="the release feed is not signed by a key that this node trusts (updates.signed_by)")
    try:
        feed = msgspec.json.decode(text, type=Feed)
        versions = [one.number for one in feed.releases]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return BadFeed(what=f"the release feed is signed, and not what this version can read: {error}")
    if len(set(versions)) != len(versions):
        return BadFeed(what="the release feed names a version twice")
    for release in feed.releases:
        files = [release.wheel, *release.wheelhouse]
        if len({one.file for one in files}) != len(files) or sum(one.size_bytes for one in files) > HOUSE_LIMIT:
            return BadFeed(what=f"the files of version {release.version} have one name twice, or are too large together")
    if feed.sequence < seen:
        sentence = f"the release feed is an old one (number {feed.sequence}, and number {seen} was seen): it is not believed"
        return BadFeed(what=sentence)
    return feed


def newest(feed: Feed, *, prereleases: bool) -> Release | None:
    """What the feed says is the newest, whatever runs here."""
    wanted = [one for one in feed.releases if prereleases or not one.number.is_prerelease]
    return max(wanted, key=lambda one: one.number, default=None)


def refusal(
    release: Release, *, current: Version, rolled_back: Collection[str], python: Sequence[int] = sys.version_info[:2]
) -> Refusal | None:
    """Why this node does not switch to a release."""
    if release.number == current:
        return Invalid(what=f"version {current} is what runs")
    if release.number < current:
        return Invalid(
            what=f"version {release.version} is older than {current}, which runs: a node does not go back by itself"
        )
    if tuple(map(int, release.min_python.split("."))) > tuple(python):
        have = ".".join(map(str, python))
        return Invalid(what=f"version {release.version} needs Python {release.min_python}, and this node runs on {have}")
    if release.version in rolled_back:
        return Invalid(
            what=f"version {release.version} was tried here and rolled back; `swarmd update apply --retry` tries it again"
        )
    return None


_ADDRESS = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[!-~]*)?")


def address_problem(url: str) -> str | None:
    """By https, or by http from this machine: what is signed still tells who is listening what runs here."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return "the address of the release feed (updates.feed_url) is none"
    if found.group(1) == "http" and not _is_this_machine(found.group(2).strip("[]")):
        return "the release feed must be fetched by https, or by http from this machine alone (updates.feed_url)"
    return None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
