"""The genuine client works against the local hub as it does against the real one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import XetFileData
from huggingface_hub.utils._xet import refresh_xet_connection_info

from tests.hub.client import genuine
from tests.hub.contents import Pattern
from tests.hub.faults import Flip, RateLimited, RelativeRedirect, Short
from tests.hub.hub import LocalHub

REPO = "acme/tiny-GGUF"
WEIGHTS = "q4/tiny model-Q4.gguf"  # a folder and a space, as people have them
SIZE = 3_000_001


@contextlib.asynccontextmanager
async def hub_and_api(folder: Path, *, token: str | None = None) -> AsyncIterator[tuple[LocalHub, HfApi]]:
    async with LocalHub() as hub:
        hub.token("hf_alice", "alice")
        hub.token("hf_bob", "bob")
        hub.repo(REPO).file("config.json", '{"a": 1}').file(WEIGHTS, Pattern(SIZE)).say(downloads=7, tags=["license:mit"])
        with genuine(hub.endpoint, folder / "home", token=token) as api:
            yield hub, api


async def test_search_with_properties_and_pages(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        for number in range(5):
            hub.repo(f"other/model-{number}").file("a.safetensors", b"x").say(downloads=number, gguf={"total": number})
        names = await asyncio.to_thread(lambda: [one.id for one in api.list_models(sort="downloads", limit=4)])
        assert names == [REPO, "other/model-4", "other/model-3", "other/model-2"]
        found = await asyncio.to_thread(
            lambda: list(api.list_models(search="MODEL-3", filter="safetensors", expand=["siblings", "gguf", "downloads"]))
        )
        assert [(one.id, one.gguf, one.downloads) for one in found] == [("other/model-3", {"total": 3}, 3)]
        assert [one.rfilename for one in found[0].siblings or []] == ["a.safetensors"]
        assert await asyncio.to_thread(lambda: [one.id for one in api.list_models(filter="gguf")]) == [REPO]
        assert await asyncio.to_thread(lambda: [one.id for one in api.list_models(author="nobody")]) == []
        with pytest.raises(HfHubHTTPError, match="num_parameters"):
            await asyncio.to_thread(lambda: list(api.list_models(num_parameters="min:1B")))


async def test_a_search_of_more_than_a_page_is_followed_to_its_end(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        for number in range(1005):
            hub.repo(f"many/m{number}")
        assert len(await asyncio.to_thread(lambda: list(api.list_models(search="many/", expand=["author"])))) == 1005
        assert hub.counters.kinds["list"] == 2


async def test_what_is_said_of_a_model(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        info = await asyncio.to_thread(lambda: api.model_info(REPO, files_metadata=True))
        head = hub.repo(REPO).head
        assert (info.sha, info.private, info.gated, info.downloads) == (head.sha, False, False, 7)
        assert info.tags is not None and {"gguf", "license:mit"} <= set(info.tags)
        by_name = {one.rfilename: one for one in info.siblings or []}
        assert by_name["config.json"].lfs is None
        assert by_name["config.json"].blob_id == hashlib.sha1(b'blob 8\0{"a": 1}').hexdigest()
        weights = by_name[WEIGHTS]
        assert weights.lfs is not None and weights.size == SIZE
        assert weights.lfs.sha256 == hashlib.sha256(Pattern(SIZE).read(0, SIZE)).hexdigest()
        assert info.used_storage == SIZE + 8


async def test_the_tree_by_folder_and_whole(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (_hub, api):
        top = await asyncio.to_thread(lambda: list(api.list_repo_tree(REPO)))
        assert [(type(one), one.path) for one in top] == [(RepoFile, "config.json"), (RepoFolder, "q4")]
        below = await asyncio.to_thread(lambda: list(api.list_repo_tree(REPO, "q4", expand=True)))
        assert [one.path for one in below] == [WEIGHTS] and below[0].last_commit is not None
        paths = await asyncio.to_thread(lambda: api.list_repo_files(REPO))
        assert sorted(paths) == ["config.json", WEIGHTS]
        known = await asyncio.to_thread(lambda: api.get_paths_info(REPO, ["q4", "config.json", "none"]))
        assert sorted(one.path for one in known) == ["config.json", "q4"]
        with pytest.raises(RemoteEntryNotFoundError):
            await asyncio.to_thread(lambda: list(api.list_repo_tree(REPO, "nowhere")))


async def test_a_long_tree_has_pages(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        repository = hub.repo("acme/long")
        for number in range(1203):
            repository.file(f"part-{number:05}.txt", b"")
        paths = await asyncio.to_thread(lambda: [one.path for one in api.list_repo_tree("acme/long", recursive=True)])
        assert len(paths) == len(set(paths)) == 1203
        assert hub.counters.kinds["tree"] == 2


async def test_refs_commits_and_revisions(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        repository = hub.repo(REPO).tag("v1").branch("feature/x")
        old = repository.head.sha
        repository.file("config.json", '{"a": 2}')
        refs = await asyncio.to_thread(lambda: api.list_repo_refs(REPO))
        assert {one.name: one.target_commit for one in refs.branches} == {"main": repository.head.sha, "feature/x": old}
        assert [(one.ref, one.target_commit) for one in refs.tags] == [("refs/tags/v1", old)]
        commits = await asyncio.to_thread(lambda: api.list_repo_commits(REPO))
        assert [one.commit_id for one in commits] == [repository.head.sha, old]
        for revision, text in ((old, '{"a": 1}'), ("feature/x", '{"a": 1}'), ("main", '{"a": 2}')):
            path = await asyncio.to_thread(lambda at=revision: api.hf_hub_download(REPO, "config.json", revision=at))
            assert Path(path).read_text() == text
        with pytest.raises(RevisionNotFoundError):
            await asyncio.to_thread(lambda: api.model_info(REPO, revision="v9"))


async def test_metadata_of_plain_and_large_files(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, _api):
        head = hub.repo(REPO).head

        def metadata(path: str) -> HfFileMetadata:
            return get_hf_file_metadata(hf_hub_url(REPO, path, endpoint=hub.endpoint), endpoint=hub.endpoint, token=False)

        plain = await asyncio.to_thread(metadata, "config.json")
        assert (plain.commit_hash, plain.size, plain.etag) == (head.sha, 8, head.files["config.json"].oid)
        large = await asyncio.to_thread(metadata, WEIGHTS)
        assert (large.commit_hash, large.size, large.etag) == (head.sha, SIZE, head.files[WEIGHTS].sha256)
        assert large.location.startswith(hub.cdn + "/cdn/") and "%2A%3DUTF-8%27%27tiny" in large.location
        assert plain.xet_file_data is None and large.xet_file_data is None


async def test_xet_is_said_where_it_is_asked_for(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        blob = hub.repo("acme/xet").file("a.gguf", Pattern(10), xet=True).head.files["a.gguf"]
        url = hf_hub_url("acme/xet", "a.gguf", endpoint=hub.endpoint)
        said = await asyncio.to_thread(lambda: get_hf_file_metadata(url, endpoint=hub.endpoint, token=False).xet_file_data)
        assert isinstance(said, XetFileData) and said.file_hash == blob.xet_hash
        token = await asyncio.to_thread(lambda: refresh_xet_connection_info(file_data=said, headers={}))
        assert token.endpoint.startswith(hub.cdn)
        (entry,) = await asyncio.to_thread(lambda: list(api.list_repo_tree("acme/xet")))
        assert isinstance(entry, RepoFile) and entry.xet_hash == blob.xet_hash


async def test_a_snapshot_is_what_was_put_in(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        folder = Path(await asyncio.to_thread(lambda: api.snapshot_download(REPO)))
        assert (folder / "config.json").read_text() == '{"a": 1}'
        assert (folder / WEIGHTS).read_bytes() == Pattern(SIZE).read(0, SIZE)
        assert (folder / WEIGHTS).resolve().name == hub.repo(REPO).head.files[WEIGHTS].sha256
        assert folder.is_relative_to(tmp_path)
        verified = await asyncio.to_thread(lambda: api.verify_repo_checksums(REPO))
        assert verified.checked_count == 2 and not verified.mismatches
        assert hub.counters.ranges(f"{REPO}/{WEIGHTS}") == [(0, SIZE)]
        assert hub.counters.sent[f"{REPO}/{WEIGHTS}"] == SIZE


async def test_a_dataset(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        hub.repo("acme/words", "dataset").file("data/train.parquet", Pattern(5000))
        assert [one.id for one in await asyncio.to_thread(lambda: list(api.list_datasets(search="words")))] == ["acme/words"]
        info = await asyncio.to_thread(lambda: api.dataset_info("acme/words", files_metadata=True))
        assert [one.size for one in info.siblings or []] == [5000]
        path = await asyncio.to_thread(lambda: api.hf_hub_download("acme/words", "data/train.parquet", repo_type="dataset"))
        assert Path(path).read_bytes() == Pattern(5000).read(0, 5000)
        with pytest.raises(RepositoryNotFoundError):
            await asyncio.to_thread(lambda: api.model_info("acme/words"))


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path, token="hf_alice") as (hub, api):
        with pytest.raises(RepositoryNotFoundError) as missing:
            await asyncio.to_thread(lambda: api.model_info("acme/none"))
        assert missing.value.response.status_code == 404
        with pytest.raises(RepositoryNotFoundError) as unknown:
            await asyncio.to_thread(lambda: api.model_info("acme/none", token=False))
        assert unknown.value.response.status_code == 401
        with pytest.raises(RemoteEntryNotFoundError):
            await asyncio.to_thread(lambda: api.hf_hub_download(REPO, "none.json"))
        hub.repo("acme/gone").file("a", b"").say(disabled=True)
        with pytest.raises(DisabledRepoError):
            await asyncio.to_thread(lambda: api.model_info("acme/gone"))


async def test_private_and_gated_repositories(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        hub.repo("alice/own").file("a.txt", b"mine").say(private=True)
        hub.repo("acme/gated").file("a.txt", b"shut").say(gated="manual", readers=["alice"])

        def fetch(repo: str, token: str | bool) -> bytes:
            cache = tmp_path / f"cache-{token}"  # so that nobody gets what another one has fetched
            return Path(api.hf_hub_download(repo, "a.txt", token=token, cache_dir=cache)).read_bytes()

        with pytest.raises(RepositoryNotFoundError):
            await asyncio.to_thread(fetch, "alice/own", False)
        with pytest.raises(RepositoryNotFoundError):
            await asyncio.to_thread(fetch, "alice/own", "hf_bob")
        assert await asyncio.to_thread(fetch, "alice/own", "hf_alice") == b"mine"
        assert [one.id for one in await asyncio.to_thread(lambda: list(api.list_models(author="alice")))] == []

        assert (await asyncio.to_thread(lambda: api.model_info("acme/gated"))).gated == "manual"
        for token, status in ((False, 401), ("hf_bob", 403)):
            with pytest.raises(GatedRepoError) as shut:
                await asyncio.to_thread(fetch, "acme/gated", token)
            assert shut.value.response.status_code == status
            with pytest.raises(GatedRepoError):
                await asyncio.to_thread(lambda token=token: api.auth_check("acme/gated", token=token))
        assert await asyncio.to_thread(fetch, "acme/gated", "hf_alice") == b"shut"
        await asyncio.to_thread(lambda: api.auth_check("acme/gated", token="hf_alice"))


async def test_who_one_is(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path, token="hf_alice") as (hub, api):
        assert (await asyncio.to_thread(api.whoami))["name"] == "alice"
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            await asyncio.to_thread(lambda: api.whoami(token="hf_stranger"))
        assert hub.counters.users["hub"] == {"alice": 1, "unknown": 1}


async def test_the_token_stays_with_the_hub(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path, token="hf_alice") as (hub, api):
        await asyncio.to_thread(lambda: api.hf_hub_download(REPO, WEIGHTS))
        assert hub.counters.users["hub"]["alice"] > 0
        assert not hub.counters.users["cdn"]
        assert hub.counters.kinds["storage-get"] == 1


async def test_a_repository_that_moved(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        hub.move(REPO, "acme/new-name")
        assert (await asyncio.to_thread(lambda: api.model_info(REPO))).id == "acme/new-name"
        assert Path(await asyncio.to_thread(lambda: api.hf_hub_download(REPO, WEIGHTS))).stat().st_size == SIZE


async def test_plain_files_behind_a_relative_redirect(tmp_path: Path) -> None:
    async with LocalHub(resolve_cache=True) as hub:
        hub.repo(REPO).file("sub/a b.json", "{}")
        with genuine(hub.endpoint, tmp_path) as api:
            assert Path(await asyncio.to_thread(lambda: api.hf_hub_download(REPO, "sub/a b.json"))).read_text() == "{}"
        hub.faults.add(RelativeRedirect(), method="HEAD")
        with genuine(hub.endpoint, tmp_path / "again") as api:
            assert Path(await asyncio.to_thread(lambda: api.hf_hub_download(REPO, "sub/a b.json"))).read_text() == "{}"


async def test_the_client_meets_faults(tmp_path: Path) -> None:
    async with hub_and_api(tmp_path) as (hub, api):
        hub.faults.add(RateLimited(seconds=0), path="/api/models$", times=1)
        assert len(await asyncio.to_thread(lambda: list(api.list_models()))) == 1
        size, kept = 11 << 20, 10 << 20  # the client keeps whole pieces of 10 MiB of what it got
        hub.repo("acme/big").file("a.gguf", Pattern(size))
        hub.faults.add(Short(by=size - kept - 1000), path="a.gguf", origin="cdn", times=1)
        hub.faults.add(Flip(at=5), path="a.gguf", origin="cdn")
        path = Path(await asyncio.to_thread(lambda: api.hf_hub_download("acme/big", "a.gguf")))
        # It goes on where the connection ended, and does not see the flipped byte.
        assert hub.counters.ranges("acme/big/a.gguf") == [(0, kept + 1000), (kept, size)]
        true = bytearray(Pattern(size).read(0, size))
        true[5] ^= 0xFF
        assert path.read_bytes() == bytes(true)
        assert hub.counters.faults == {"RateLimited": 1, "Short": 1, "Flip": 1}


async def test_the_client_is_given_back_as_it_was(tmp_path: Path) -> None:
    from huggingface_hub import constants

    before = (constants.ENDPOINT, constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET)
    async with hub_and_api(tmp_path):
        assert constants.ENDPOINT.startswith("http://127.0.0.1:")
        assert Path(constants.HF_HUB_CACHE).is_relative_to(tmp_path)
    assert before == (constants.ENDPOINT, constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET)
