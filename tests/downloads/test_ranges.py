from __future__ import annotations

import asyncio
import email.utils
import ssl
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from swarmd.downloads.ranges import (
    WAIT_LIMIT_S,
    RangeClient,
    RangesIgnored,
    RemoteFile,
    SourceRefused,
    SourceTrouble,
    _next,
    _reason,
    proxy_of,
    refused_sentence,
    retry_after_s,
)
from tests.downloads.conftest import DATA, LABEL, NAME, REPO, SIZE, Setup
from tests.fakes.proxy import Proxy
from tests.hub.contents import Pattern
from tests.hub.faults import (
    ChangedContent,
    ChangedETag,
    Cut,
    Denied,
    Elsewhere,
    Failing,
    Fault,
    LyingRange,
    RateLimited,
    RedirectLoop,
    RelativeRedirect,
    Short,
    Stall,
    Whole,
    WrongLength,
)
from tests.hub.hub import LocalHub

NOW = 1_700_000_000.0
NOWHERE = (
    f"http://{'a' * 64}.example", "http://a..b", "http://xn--", "http://.example", "http://host:99999", "http://127.0.0.1:-1",
)  # fmt: skip


async def got(client: RangeClient, file: RemoteFile, start: int = 0, end: int | None = None) -> bytes:
    async with client.open(file, start, file.size_bytes if end is None else end) as body:
        return b"".join([data async for data in body])


# --- what comes ---------------------------------------------------------------------------------------------------------


async def test_ranges_come_as_they_were_asked_for(at: Setup) -> None:
    client, file = at.client(), at.remote()
    for start, end in ((0, 1), (SIZE - 1, SIZE), (0, SIZE), (1_000_000, 3_000_001)):
        assert await got(client, file, start, end) == DATA[start:end]
    assert len(at.hub.counters.of(LABEL, method="HEAD")) == 1, "where the file lies is asked once"


async def test_many_at_once_look_up_once(at: Setup) -> None:
    client, file = at.client(), at.remote()
    found = await asyncio.gather(*(got(client, file, at * 1000, at * 1000 + 999) for at in range(30)))
    assert found == [DATA[at * 1000 : at * 1000 + 999] for at in range(30)]
    assert len(at.hub.counters.of(LABEL, method="HEAD")) == 1


async def test_a_plain_file_comes_from_the_hub_itself(at: Setup) -> None:
    assert await got(at.client(), at.remote("config.json")) == b'{"a": 1}\n'


async def test_relative_redirects_within_the_hub_are_followed(make: object) -> None:
    async with LocalHub(resolve_cache=True) as hub:
        hub.repo(REPO).file("config.json", b"{}").say(private=True, readers={"me"})
        hub.token("secret", "me")
        at = make(hub)  # type: ignore[operator]
        at.token = "secret"
        assert await got(at.client(), at.remote("config.json")) == b"{}"


async def test_the_token_goes_to_the_hub_alone(at: Setup) -> None:
    at.hub.repo(REPO).say(private=True, readers={"me"})
    at.hub.token("secret", "me")
    at.token = "secret"
    assert await got(at.client(), at.remote()) == DATA
    assert at.hub.counters.users["hub"]["me"] > 0
    assert not at.hub.counters.users["cdn"]


async def test_what_netrc_says_goes_to_nobody(at: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: aiohttp's `trust_env` sends a `default` entry to wherever the hub redirects; storage answers 400 to it."""
    (tmp_path / "netrc").write_text("default login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert await got(at.client(), at.remote()) == DATA
    assert not at.hub.counters.users["cdn"]
    assert not at.hub.counters.users["hub"]


async def test_a_redirect_to_elsewhere_carries_no_token(at: Setup) -> None:
    """Storage that sends on, to another origin with the same path."""
    async with LocalHub() as other:
        at.hub.token("secret", "me")
        at.token = "secret"
        at.hub.faults.add(Elsewhere(to=other.cdn), origin="cdn")
        with pytest.raises(SourceTrouble, match="refuses the address"):
            await got(at.client(), at.remote())
        assert other.counters.connections["cdn"] == 1
        assert not other.counters.users["cdn"]


async def test_signatures_are_used_byte_for_byte(at: Setup) -> None:
    """The signed link has %27, %2F, quoted quotes and a space; storage refuses any other spelling."""
    name = "a model's (1) name.gguf"
    at.hub.repo(REPO).file(name, Pattern(1000))
    file = at.remote(name)
    quoted = RemoteFile(url=file.url.replace(name, "a%20model%27s%20%281%29%20name.gguf"), size_bytes=1000, name=name)
    assert await got(at.client(), quoted) == Pattern(1000).read(0, 1000)


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Short(by=100), "connection broke"),
        (Cut(after=200_000), "connection broke"),
        (WrongLength(by=7), "announces 2000007 bytes where 2000000"),
        (WrongLength(by=-7), "announces 1999993 bytes where 2000000"),
        (Stall(seconds=60, after=1000), "sent nothing for too long"),
        (Failing(status=500), r"it fails \(status 500\)"),
        (Failing(status=503), r"it fails \(status 503\)"),
        (Denied(), r"refuses the address .* \(status 403\)"),
        (Denied(status=401), r"refuses the address .* \(status 401\)"),
        (LyingRange(by=1), "another range"),
        (LyingRange(by=0, total_by=1), "another range"),
        (RedirectLoop(), "redirects without end"),
        (ChangedContent(size=5_000_000), "another range"),
        (ChangedContent(size=500), "ends before byte 1000"),
    ],
)
async def test_troubles_of_storage(at: Setup, fault: Fault, what: str) -> None:
    at.stall_s = 0.5 if isinstance(fault, Stall) else 5.0
    at.hub.faults.add(fault, origin="cdn", times=8)
    client, file = at.client(), at.remote()
    with pytest.raises(SourceTrouble, match=what):
        await got(client, file, 1000, 2_001_000)
    at.hub.faults.clear()
    assert await got(client, file, 1000, 2_001_000) == DATA[1000:2_001_000], "the next try works"


async def test_a_whole_file_where_a_part_was_asked_for(at: Setup) -> None:
    at.hub.faults.add(Whole(), origin="cdn")
    client, file = at.client(), at.remote()
    with pytest.raises(RangesIgnored):
        await got(client, file, 0, 1000)
    assert at.sent < SIZE
    assert await got(client, file) == DATA, "all of it is all of it, whatever the status"


async def test_an_expired_link_is_looked_up_again(at: Setup) -> None:
    client, file = at.client(), at.remote()
    assert await got(client, file, 0, 100) == DATA[:100]
    at.hub.expire_links()
    with pytest.raises(SourceTrouble, match="status 403"):
        await got(client, file, 0, 100)
    assert await got(client, file, 0, 100) == DATA[:100]
    assert len(at.hub.counters.of(LABEL, method="HEAD")) == 2


@pytest.mark.parametrize("origin", ["hub", "cdn"])
async def test_too_many_requests_say_how_long_to_wait(at: Setup, origin: str) -> None:
    client, file = at.client(), at.remote()
    for fault, wait in (
        (RateLimited(seconds=17), 17.0),
        (RateLimited(seconds=33, retry_after=False), 33.0),
        (RateLimited(retry_after=False, ratelimit=False), 5.0),
        (Failing(status=503, retry_after=9), 9.0),
    ):
        rule = at.hub.faults.add(fault, origin=origin)  # type: ignore[arg-type]
        with pytest.raises(SourceTrouble) as caught:
            await got(client, file)
        assert caught.value.retry_after_s == wait
        at.hub.faults.remove(rule)


@pytest.mark.parametrize("status", [404, 403, 401])
async def test_what_is_not_there_or_not_for_us_is_refused(at: Setup, status: int) -> None:
    file = at.remote()
    match status:
        case 404:
            at.hub.repo(REPO).without(NAME)
            file = RemoteFile(url=file.url.replace(NAME, "other.gguf"), size_bytes=5, name="owner/name/other.gguf")
        case 403:
            at.hub.repo(REPO).say(gated="manual")
            at.hub.token("secret", "stranger")
            at.token = "secret"
        case _:
            at.hub.repo(REPO).say(private=True)
    sentence = {404: "check repository and file name", 403: "accept them on the model's page", 401: "is private or does not"}
    with pytest.raises(SourceRefused, match=sentence[status]):
        await got(at.client(), file, 0, 5)


@pytest.mark.parametrize(
    ("fault", "what"), [(ChangedETag(), "another file at the hub now"), (ChangedContent(size=77), "has 77 bytes at the hub")]
)
async def test_a_file_that_is_another_one_now_is_refused(at: Setup, fault: Fault, what: str) -> None:
    at.hub.faults.add(fault, origin="hub")
    with pytest.raises(SourceRefused, match=what):
        await got(at.client(), at.remote())


async def test_redirects_of_the_hub_without_end_are_not_followed(at: Setup) -> None:
    at.hub.faults.add(RedirectLoop(), origin="hub")
    with pytest.raises(SourceTrouble, match="the hub redirects without end"):
        await got(at.client(), at.remote())
    assert at.hub.counters.kinds["resolve-head"] <= 8


async def test_one_relative_redirect_is_followed(at: Setup) -> None:
    at.hub.faults.add(RelativeRedirect(), origin="hub")
    assert await got(at.client(), at.remote()) == DATA


@pytest.mark.parametrize("origin", ["hub", "cdn"])
async def test_a_redirect_to_no_host_is_trouble_of_the_server_alone(at: Setup, origin: str) -> None:
    """Seen: storage that sent on to `http://a..b` ended the job as an error nobody thought of, good peers and all."""
    client, file = at.client(), at.remote()
    for place in NOWHERE:
        rule = at.hub.faults.add(Elsewhere(to=place), origin=origin)  # type: ignore[arg-type]
        with pytest.raises(SourceTrouble, match="what is no address"):
            await got(client, file, 0, 100)
        at.hub.faults.remove(rule)
    assert await got(client, file, 0, 100) == DATA[:100]


async def test_a_hub_or_a_proxy_at_no_address_is_trouble(at: Setup) -> None:
    for place in ("http://a..b", "http://127.0.0.1:99999"):
        with pytest.raises(SourceTrouble, match="address"):
            await got(at.client(), RemoteFile(url=f"{place}/{REPO}/resolve/main/x", size_bytes=5, name="x"))
        at.proxy = place
        with pytest.raises(SourceTrouble, match="address"):
            await got(at.client(), at.remote())
        at.proxy = None


async def test_a_hub_that_is_not_there(at: Setup) -> None:
    file = RemoteFile(url=f"http://127.0.0.1:1/{REPO}/resolve/main/x", size_bytes=5, name="x")
    with pytest.raises(SourceTrouble, match="cannot be reached"):
        await got(at.client(), file)


async def test_a_body_that_was_broken_off_ends_at_once(at: Setup) -> None:
    at.hub.faults.add(Stall(seconds=60, after=1000), origin="cdn")
    async with at.client().open(at.remote(), 0, SIZE) as body:
        pieces = aiter(body)
        await anext(pieces)
        waiting = asyncio.create_task(anext(pieces))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        body.abort()
        with pytest.raises(SourceTrouble, match="connection broke"):
            await waiting


# --- proxies ------------------------------------------------------------------------------------------------------------


async def test_everything_goes_through_the_proxy_of_the_settings(at: Setup) -> None:
    async with Proxy() as proxy:
        at.proxy = proxy.url
        assert await got(at.client(), at.remote(), 5, 500_000) == DATA[5:500_000]
        assert [line.split(" ")[0] for line in proxy.seen] == ["HEAD", "GET"]
        assert at.hub.endpoint in proxy.seen[0]
        assert at.hub.cdn in proxy.seen[1]


async def test_https_goes_through_the_proxy_as_a_tunnel(at: Setup) -> None:
    async with Proxy() as proxy:
        at.proxy, proxy.closed = proxy.url, True
        file = RemoteFile(url=at.hub.endpoint.replace("http:", "https:") + "/x", size_bytes=5, name="x")
        with pytest.raises(SourceTrouble, match=r"the proxy does not let it through \(status 403\)"):
            await got(at.client(), file)
        assert proxy.seen[0].startswith("CONNECT 127.0.0.1:")


async def test_the_proxy_of_the_environment_is_used(at: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://name:word@"))
        assert await got(at.client(), at.remote(), 0, 10) == DATA[:10]
        assert len(proxy.seen) == 2
        assert b"Proxy-Authorization: Basic " in proxy.heads[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await got(at.client(), at.remote(), 0, 10) == DATA[:10]
        assert len(proxy.seen) == 2


async def test_a_proxy_that_dies_is_trouble_that_says_so(at: Setup) -> None:
    async with Proxy() as proxy:
        at.proxy, proxy.dead = proxy.url, True
        with pytest.raises(SourceTrouble, match="connection broke"):
            await got(at.client(), at.remote())
    with pytest.raises(SourceTrouble, match="the proxy cannot be reached"):
        await got(at.client(), at.remote())


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceRefused, match="'socks5' cannot be used: name one that begins with http://"):
        proxy_of(URL("http://hub/x"), "socks5://127.0.0.1:1080")
    assert proxy_of(URL("http://hub/x"), "proxy:3128") == "http://proxy:3128"
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    assert proxy_of(URL("http://hub/x"), None) is None
    assert proxy_of(URL("https://hub/x"), None) == "http://proxy:1"
    assert proxy_of(URL("https://hub/x"), "http://mine:2") == "http://mine:2"


# --- pure ---------------------------------------------------------------------------------------------------------------


class Redirect:
    def __init__(self, url: str, location: str) -> None:
        self.url, self.headers = URL(url, encoded=True), {"Location": location}


def after(url: str, location: str) -> str:
    return str(_next(Redirect(url, location)))  # type: ignore[arg-type]


def test_where_redirects_lead() -> None:
    assert after("https://hub/a/b", "/c?d=%27%2F") == "https://hub/c?d=%27%2F"
    assert after("https://hub/a/b", "https://cdn/x?q=a%20b+c&s=%E2%82%AC") == "https://cdn/x?q=a%20b+c&s=%E2%82%AC"
    assert after("http://hub/a", "https://cdn/x") == "https://cdn/x"
    assert after("http://hub/a", "http://xn--bcher-kva.example/x") == "http://xn--bcher-kva.example/x"
    assert after("http://hub/a", "http://[::1]:8/x") == "http://[::1]:8/x"
    for bad in (*NOWHERE, "http://\u00e9/x", "http://\udcff/x", "http://xn--\u00e9/x"):
        with pytest.raises(SourceTrouble, match="no address"):
            after("http://hub/a", bad)
    for bad in ("http://cdn/x", "ftp://cdn/x", "file:///etc/passwd"):
        with pytest.raises((SourceRefused, SourceTrouble), match=r"not followed|no address"):
            after("https://hub/a", bad)


@given(st.text(max_size=200))
def test_a_redirect_leads_to_http_or_is_an_error(location: str) -> None:
    try:
        found = URL(after("https://hub/a/b?c", location), encoded=True)
    except (SourceRefused, SourceTrouble):
        return
    assert found.scheme == "https"


@given(st.dictionaries(st.sampled_from(["Retry-After", "RateLimit"]), st.text(max_size=60)))
def test_any_retry_after_is_a_bounded_wait(headers: dict[str, str]) -> None:
    wait = retry_after_s(headers, now=NOW)
    assert wait is None or 0.0 <= wait <= WAIT_LIMIT_S


@given(st.integers(0, 100_000))
def test_seconds_and_dates_mean_the_same(seconds: int) -> None:
    limited = min(float(seconds), WAIT_LIMIT_S)
    date = email.utils.formatdate(NOW + seconds, usegmt=True)
    for headers in (
        {"Retry-After": str(seconds)}, {"Retry-After": date}, {"RateLimit": f'"api";r=0;t={seconds}'},
        {"Retry-After": "soon", "RateLimit": f'"api";r=0;t={seconds}'},
    ):  # fmt: skip
        assert retry_after_s(headers, now=NOW) == limited
    assert retry_after_s({"Retry-After": email.utils.formatdate(NOW - seconds, usegmt=True)}, now=NOW) == 0.0


def test_sentences_say_what_to_do() -> None:
    assert "accept them" in refused_sentence("a/b", 401, "GatedRepo")
    assert "HF_TOKEN" in refused_sentence("a/b", 401, "RepoNotFound")
    assert "revision" in refused_sentence("a/b", 404, "RevisionNotFound")
    assert "check repository and file name" in refused_sentence("a/b", 404, "EntryNotFound")


def test_reasons_tell_the_certificate_from_the_cable() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("hub", 443, True, True, None, None, None)
    assert "certificate" in _reason(aiohttp.ClientConnectorCertificateError(key, ssl.CertificateError("x")))
    assert _reason(aiohttp.ClientConnectorError(key, OSError(111, "Connection refused"))).endswith("(Connection refused)")
