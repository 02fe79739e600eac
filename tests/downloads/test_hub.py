from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from swarmd.domain.refusals import HubFailed, HubForbidden, Invalid, NotFound
from swarmd.downloads import hub as hub_module
from swarmd.downloads.hub import Hub, RepoFiles
from swarmd.kit.world import World
from tests.fakes.proxy import Proxy
from tests.hub.client import genuine
from tests.hub.faults import Delay, Failing, RateLimited
from tests.hub.hub import LocalHub


class Site:
    def __init__(self, hub: LocalHub, world: World) -> None:
        self.local, self.token, self.proxy = hub, None, None
        self.hub = Hub(
            endpoint=lambda: hub.endpoint, token=lambda: self.token, proxy=lambda: self.proxy, world=world, user_agent="test"
        )

    token: str | None
    proxy: str | None


@pytest.fixture
async def site(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with LocalHub() as hub:
        hub.repo("owner/model-GGUF").file("m-Q4_K_M.gguf", b"a" * 400).file("m-Q8_0.gguf", b"b" * 800).file(
            "mmproj-F16.gguf", b"c" * 100
        ).file("README.md", "hello").say(downloads=77, likes=5, tags=["gguf", "text-generation"], gated=None)
        with genuine(hub.endpoint, tmp_path / "hf"):
            made = Site(hub, world)
            yield made
            made.hub.close()


async def test_the_files_of_a_repository(site: Site) -> None:
    found = await site.hub.repo("owner/model-GGUF")
    assert isinstance(found, RepoFiles)
    head = site.local.repo("owner/model-GGUF").head
    assert (found.commit, found.downloads, found.likes, found.gated) == (head.sha, 77, 5, False)
    assert {name: file.size_bytes for name, file in found.files.items()} == {
        name: blob.size for name, blob in head.files.items()
    }
    assert found.files["m-Q8_0.gguf"].sha256 == head.files["m-Q8_0.gguf"].sha256
    assert (found.files["README.md"].sha256, found.files["README.md"].git_sha1) == (None, head.files["README.md"].oid)
    assert [(one.filename, one.quant, one.parts) for one in found.variants()] == [
        ("m-Q4_K_M.gguf", "Q4_K_M", 1), ("m-Q8_0.gguf", "Q8_0", 1),
    ]  # fmt: skip
    remote = site.hub.remote(found, found.files["m-Q8_0.gguf"])
    assert remote.url == f"{site.local.endpoint}/owner/model-GGUF/resolve/{head.sha}/m-Q8_0.gguf"
    assert (remote.size_bytes, remote.name) == (800, "owner/model-GGUF/m-Q8_0.gguf")


async def test_a_split_model_is_one_variant_when_it_is_whole(site: Site) -> None:
    repository = site.local.repo("owner/split")
    for number in range(1, 4):
        repository.file(f"big-Q4_0-{number:05d}-of-00003.gguf", b"x" * number)
    repository.file("half-Q4_0-00001-of-00002.gguf", b"x")
    found = await site.hub.repo("owner/split")
    assert isinstance(found, RepoFiles)
    (one,) = found.variants()
    assert (one.filename, one.size_bytes, one.parts) == ("big-Q4_0-00001-of-00003.gguf", 6, 3)


async def test_a_repository_is_asked_for_once_in_a_while(site: Site) -> None:
    one, two = await asyncio.gather(site.hub.repo("owner/model-GGUF"), site.hub.repo("owner/model-GGUF"))
    assert isinstance(one, RepoFiles)
    assert one is two and await site.hub.repo("owner/model-GGUF") is one
    assert site.local.counters.kinds["info"] == 1
    site.local.repo("owner/model-GGUF").file("new.gguf", b"x")
    old = await site.hub.repo("owner/model-GGUF", one.commit)
    assert isinstance(old, RepoFiles) and "new.gguf" not in old.files and old.commit == one.commit


async def test_search_shows_repositories_with_their_models(site: Site) -> None:
    site.local.repo("owner/closed-model").file("x-Q4_0.gguf", b"x").say(tags=["gguf"], gated="manual", downloads=5)
    site.local.repo("owner/other").file("x.safetensors", b"x").say(downloads=99)
    found = await site.hub.search("model")
    assert isinstance(found, tuple)
    assert [(one.repo_id, one.downloads) for one in found] == [("owner/model-GGUF", 77), ("owner/closed-model", 5)]
    assert [one.quant for one in found[0].variants] == ["Q4_K_M", "Q8_0"]
    assert (found[0].gated, found[1].gated) == (False, True)
    assert await site.hub.search("nothing of this name") == ()


@pytest.mark.parametrize("name", ["", "model", "a/b/c", "../x/y", "a/..", "a b/c", "x" * 200 + "/y"])
async def test_names_of_no_repository_are_refused_unasked(site: Site, name: str) -> None:
    assert isinstance(await site.hub.repo(name), Invalid)
    assert not site.local.counters.kinds


async def test_refusals_say_what_to_do(site: Site) -> None:
    site.local.repo("owner/private").file("x.gguf", b"x").say(private=True, readers={"me"})
    site.local.token("secret", "me")
    site.local.token("other", "stranger")
    for name in ("owner/private", "owner/nowhere"):
        refusal = await site.hub.repo(name)
        assert isinstance(refusal, HubForbidden) and "HF_TOKEN" in refusal.sentence and not refusal.has_token
    site.token = "other"
    refusal = await site.hub.repo("owner/private")
    assert isinstance(refusal, HubForbidden) and refusal.has_token and "secret" not in refusal.sentence
    site.token = "secret"
    assert isinstance(await site.hub.repo("owner/private"), RepoFiles)
    assert site.local.counters.users["hub"]["me"] == 1
    assert isinstance(await site.hub.repo("owner/model-GGUF", "0" * 40), NotFound)


async def test_a_token_that_nobody_knows_is_told(site: Site) -> None:
    site.token = "forgotten"
    refusal = await site.hub.repo("owner/model-GGUF")
    assert isinstance(refusal, HubForbidden) and refusal.has_token


async def test_a_hub_that_is_asked_too_often_says_how_long_to_wait(site: Site) -> None:
    site.local.faults.add(RateLimited(seconds=42))
    refusal = await site.hub.repo("owner/model-GGUF")
    assert isinstance(refusal, HubFailed)
    assert refusal.retry_after_s == 42.0 and "try again in 42 s" in refusal.sentence


async def test_a_hub_that_fails_or_is_not_there(site: Site, world: World) -> None:
    site.local.faults.add(Failing(status=500))
    refusal = await site.hub.repo("owner/model-GGUF")
    assert isinstance(refusal, HubFailed) and "status 500" in refusal.sentence
    nobody = Hub(
        endpoint=lambda: "http://127.0.0.1:1", token=lambda: None, proxy=lambda: None, world=world, user_agent="test"
    )
    refusal = await nobody.repo("owner/model-GGUF")
    assert isinstance(refusal, HubFailed) and "is this machine online?" in refusal.sentence
    assert isinstance(await nobody.search("x"), HubFailed)


async def test_a_hub_that_does_not_answer_holds_no_thread_of_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: its calls sat in the threads that write to the disk, and the library's own client waits without end."""
    monkeypatch.setattr(hub_module, "REQUEST_S", 0.05)
    site.local.faults.add(Delay(seconds=0.5))
    calls = [asyncio.create_task(site.hub.search(f"{number}")) for number in range(40)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(0.2):
        assert await asyncio.to_thread(lambda: 5) == 5
    found = await asyncio.gather(*calls)
    assert all(isinstance(one, HubFailed) for one in found)


async def test_a_place_is_free_when_its_thread_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is given up goes on in its thread: the next one waited behind it, and its time ran."""
    gate, begun = threading.Event(), list[str]()

    def hang(self: object, repo_id: str, **_: object) -> None:
        begun.append(repo_id)
        assert gate.wait(10)
        raise OSError("too late")

    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "model_info", hang)
        patch.setattr(hub_module, "REQUEST_S", 0.05)
        for number in (0, 100):
            names = [f"owner/m{number + one}" for one in range(2 * hub_module.CALLS_AT_ONCE)]
            found = await asyncio.gather(*(site.hub.repo(name) for name in names))
            assert all(isinstance(one, HubFailed) and "did not answer" in one.sentence for one in found)
            assert site.hub._turns.locked(), "all threads hang, so no place is free"
        assert sorted(begun) == sorted(f"owner/m{one}" for one in range(hub_module.CALLS_AT_ONCE)), "no others wait inside"
    gate.set()
    assert isinstance(await site.hub.repo("owner/model-GGUF"), RepoFiles)


async def test_closed_it_waits_for_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: gate.wait(10))
    call = asyncio.create_task(site.hub.repo("owner/model-GGUF"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    site.hub.close()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()


async def test_a_second_node_of_the_process_does_not_close_the_client_that_the_first_one_asks_with(
    site: Site, world: World
) -> None:
    """Seen: sockets left open where two nodes began to ask at once."""
    from huggingface_hub import get_session

    await site.hub.repo("owner/model-GGUF")
    client = get_session()
    second = Site(site.local, world)
    try:
        await second.hub.repo("owner/model-GGUF")
        assert get_session() is client
        assert not client.is_closed
    finally:
        second.hub.close()


async def test_the_proxy_of_the_settings_is_used_and_left_again(site: Site) -> None:
    async with Proxy() as proxy:
        site.proxy = proxy.url
        assert isinstance(await site.hub.repo("owner/model-GGUF"), RepoFiles)
        assert proxy.seen and site.local.endpoint in proxy.seen[0]
        site.proxy = None
        seen = len(proxy.seen)
        assert await site.hub.search("model")
        assert len(proxy.seen) == seen


async def test_staying_away_from_the_hub_is_a_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refusal = await site.hub.repo("owner/model-GGUF")
    assert isinstance(refusal, HubFailed) and "HF_HUB_OFFLINE is set" in refusal.sentence
    assert not site.local.counters.kinds
