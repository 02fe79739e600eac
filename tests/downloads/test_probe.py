from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.refusals import BadFile, HubFailed, HubForbidden, Invalid, NotFound
from swarmd.downloads import probe as probe_module
from swarmd.downloads.hub import Hub
from swarmd.downloads.probe import Probed, Prober
from swarmd.downloads.ranges import RangeClient
from swarmd.models.gguf import GgufHeader, parse_header
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.lines import impatient_world
from tests.fakes.split import write_split
from tests.hub.client import genuine
from tests.hub.faults import Cut, Failing, Short
from tests.hub.hub import LocalHub

REPO = "owner/model"


class Site:
    def __init__(self, hub: LocalHub) -> None:
        self.local, world = hub, impatient_world()
        self.client = RangeClient(
            world=world, hub=lambda: hub.endpoint, token=lambda: None, proxy=lambda: None, user_agent="test", stall_s=5.0
        )
        asked = Hub(endpoint=lambda: hub.endpoint, token=lambda: None, proxy=lambda: None, world=world, user_agent="test")
        self.prober = Prober(hub=asked, client=self.client, world=world)

    def put(self, path: Path, name: str = "") -> bytes:
        data = path.read_bytes()
        self.local.repo(REPO).file(name or path.name, data)
        return data


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with LocalHub() as hub:
        hub.repo(REPO)
        with genuine(hub.endpoint, tmp_path / "hf"):
            made = Site(hub)
            yield made
            await made.client.close()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "FIRST_STEP", 512)
    monkeypatch.setattr(probe_module, "LAST_STEP", 4096)


@pytest.mark.usefixtures("small_steps")
async def test_a_header_is_read_and_nothing_behind_it(site: Site, tmp_path: Path) -> None:
    data = site.put(write_model(tmp_path / "tiny.gguf", TinyModel(tokenizer=True)))
    header = parse_header(data, file_size_bytes=len(data))
    told: list[int] = []
    found = await site.prober.probe(REPO, "tiny.gguf", progress=lambda size, _: told.append(size))
    assert isinstance(found, Probed)
    assert found.header == header
    assert found.header_data == data[: header.data_offset]
    assert found.size_bytes == len(data)
    (part,) = found.source.parts
    assert (part.filename, part.size_bytes, part.data_offset, part.virtual_offset) == (
        "tiny.gguf", len(data), header.data_offset, header.data_offset,
    )  # fmt: skip
    assert found.source.commit == site.local.repo(REPO).head.sha
    assert told == sorted(told) and header.data_offset <= told[-1] <= header.data_offset + 4096
    assert len(site.local.counters.of(f"{REPO}/tiny.gguf", method="GET", origin="cdn")) > 3, "in steps"


@pytest.mark.usefixtures("small_steps")
async def test_what_breaks_in_between_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    data = site.put(write_model(tmp_path / "tiny.gguf", TinyModel(tokenizer=True)))
    site.local.faults.add(Cut(after=100), Short(by=50), Failing(status=503), origin="cdn", probability=0.4, seed=3)
    found = await site.prober.probe(REPO, "tiny.gguf")
    assert isinstance(found, Probed)
    assert found.header_data == data[: found.header.data_offset]


async def test_padding_that_does_not_come_is_asked_for_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: the last bytes of a header, its padding, were asked for once only."""
    data = site.put(write_model(tmp_path / "tiny.gguf", TinyModel()))
    offset = parse_header(data, file_size_bytes=len(data)).data_offset
    end = len(data[:offset].rstrip(b"\0"))
    assert offset - end >= 8, "this model has padding"
    monkeypatch.setattr(probe_module, "FIRST_STEP", offset - 4)
    site.local.faults.add(Failing(status=503), origin="cdn", nth=2)
    found = await site.prober.probe(REPO, "tiny.gguf")
    assert isinstance(found, Probed)
    assert found.header_data == data[:offset]


async def test_a_split_model_is_probed_as_one(site: Site, tmp_path: Path) -> None:
    whole, files = write_split(tmp_path, TinyModel(layers=3), tensors_each=8)
    for file in files:
        site.put(file)
    whole_header = parse_header(whole.read_bytes(), file_size_bytes=whole.stat().st_size)
    one = await site.prober.probe(REPO, files[0].name)
    two = await site.prober.probe(REPO, files[-1].name)
    assert isinstance(one, Probed) and one == two
    assert [tensor.name for tensor in one.header.tensors] == [tensor.name for tensor in whole_header.tensors]
    assert [part.filename for part in one.source.parts] == [file.name for file in files]
    for file, part in zip(files, one.source.parts, strict=True):
        header: GgufHeader = parse_header(file.read_bytes(), file_size_bytes=file.stat().st_size)
        assert (part.data_offset, part.size_bytes) == (header.data_offset, file.stat().st_size)
    tensor, part = one.header.tensors[-1], one.source.parts[-1]
    at = one.header.data_offset + tensor.offset_bytes - part.virtual_offset + part.data_offset
    start = whole_header.data_offset + whole_header.tensors[-1].offset_bytes
    assert files[-1].read_bytes()[at : at + tensor.size_bytes] == whole.read_bytes()[start : start + tensor.size_bytes]


async def test_a_part_that_fails_leaves_no_task_behind(site: Site, tmp_path: Path) -> None:
    """Seen: the other parts were read on, and told their progress to a probe that was over."""
    _, files = write_split(tmp_path, TinyModel(layers=3), tensors_each=8)
    for file in files[:-1]:
        site.put(file)
    site.local.repo(REPO).file(files[-1].name, b"no gguf at all" * 100)
    told: list[int] = []
    before = asyncio.all_tasks()
    refusal = await site.prober.probe(REPO, files[0].name, progress=lambda size, _: told.append(size))
    assert isinstance(refusal, BadFile)
    left = {task for task in asyncio.all_tasks() - before if "Server." not in repr(task.get_coro())}
    assert not left


async def test_the_headers_of_all_parts_have_one_limit_together(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: each of 999 parts could have a header of 64 MiB, and all of them were kept until they were merged."""
    _, files = write_split(tmp_path, TinyModel(layers=3), tensors_each=2)
    sizes = [parse_header(site.put(file), file_size_bytes=file.stat().st_size).data_offset for file in files]
    assert len(files) > 4, "more than are read at a time"
    monkeypatch.setattr(probe_module, "HEADER_LIMIT", sum(sizes) - 1)
    refusal = await site.prober.probe(REPO, files[0].name)
    assert isinstance(refusal, BadFile) and "together" in refusal.sentence
    monkeypatch.setattr(probe_module, "HEADER_LIMIT", sum(sizes))
    assert isinstance(await site.prober.probe(REPO, files[0].name), Probed), "what was read beyond the headers is not kept"


async def test_a_missing_part_is_named(site: Site, tmp_path: Path) -> None:
    _, files = write_split(tmp_path, TinyModel(layers=2), tensors_each=8)
    for file in files[1:]:
        site.put(file)
    refusal = await site.prober.probe(REPO, files[1].name)
    assert isinstance(refusal, NotFound) and files[0].name in refusal.sentence


async def test_probed_headers_are_remembered(site: Site, tmp_path: Path) -> None:
    site.put(write_model(tmp_path / "tiny.gguf", TinyModel()))
    one, two = await asyncio.gather(*(site.prober.probe(REPO, "tiny.gguf") for _ in range(2)))
    three = await site.prober.probe(REPO, "tiny.gguf")
    assert one is two is three
    assert len(site.local.counters.of(f"{REPO}/tiny.gguf", method="GET", origin="cdn")) == 1


@pytest.mark.parametrize("name", ["x.bin", "../x.gguf", "/x.gguf", "a//b.gguf", "", "a b.gguf"])
async def test_names_of_no_gguf_are_refused_unasked(site: Site, name: str) -> None:
    assert isinstance(await site.prober.probe(REPO, name), Invalid)
    assert not site.local.counters.kinds


async def test_what_is_no_gguf_says_so(site: Site) -> None:
    site.local.repo(REPO).file("text.gguf", b"hello " * 500).file("short.gguf", b"GGUF\x03\0\0\0" + b"\0" * 10)
    for name in ("text.gguf", "short.gguf"):
        refusal = await site.prober.probe(REPO, name)
        assert isinstance(refusal, BadFile) and name in refusal.sentence


async def test_a_hub_that_does_not_deliver_is_told_from_one_that_refuses(site: Site, tmp_path: Path) -> None:
    site.put(write_model(tmp_path / "tiny.gguf", TinyModel()))
    rule = site.local.faults.add(Failing(status=500), origin="cdn")
    refusal = await site.prober.probe(REPO, "tiny.gguf")
    assert isinstance(refusal, HubFailed) and "status 500" in refusal.sentence
    assert rule.hits == 4
    site.local.repo(REPO).say(private=True)
    assert isinstance(await site.prober.probe("owner/private", "tiny.gguf"), HubForbidden)
