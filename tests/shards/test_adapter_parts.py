"""Parts on the disk: what is kept, what makes room, and what a damaged or half-written one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.domain.refusals import BadFile, NoSpace, NotFound
from swarmd.models import lora
from swarmd.shards.adapter_parts import AdapterParts
from tests.fakes.adapters import random_adapter, safetensors_bytes
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import HastyDisk
from tests.fakes.shards import cut_model
from tests.models.test_lora_runs import converted, write_slice

SHAPE = TinyModel(layers=3)


class Made:
    """An adapter in memory."""

    def __init__(self, folder: Path, seed: int = 5) -> None:
        model = cut_model(write_model(folder / "base.gguf", SHAPE).read_bytes())
        self.index, self.contents = converted(safetensors_bytes(random_adapter(SHAPE, seed=seed)), model)
        self.encoded = lora.encode_index(self.index)
        self.digest = lora.digest_of(self.encoded)

    async def into(self, parts: AdapterParts, layers: tuple[int, ...] = (0, 1, 2)) -> None:
        assert isinstance(await parts.keep_index(self.digest, self.encoded), lora.Index)
        for layer in layers:
            assert await parts.keep_part(self.digest, layer, self.contents[layer]) is None


def opened(folder: Path, *registered: bytes, budget: int = 1 << 30) -> AdapterParts:
    parts = AdapterParts(root=folder / "parts", disk=HastyDisk(), registered=lambda: registered, budget_bytes=budget)
    parts.load_now()
    return parts


async def test_a_slice_is_made_of_parts_and_survives_a_restart(tmp_path: Path) -> None:
    made, parts = Made(tmp_path), opened(tmp_path)
    await made.into(parts)
    for _ in range(2):
        found = await parts.slice(made.digest, 1, 3)
        assert isinstance(found, tuple)
        expected = write_slice(tmp_path / "expected.gguf", made.index, made.contents, 1, 3)
        assert expected is not None and found[0].read_bytes() == expected.read_bytes()
        assert found[1] == expected.stat().st_size
        parts = opened(tmp_path)
        assert parts.index(made.digest) == made.index and not parts.missing(made.digest, 0, 3)
        assert not found[0].exists(), "slices are made again"


async def test_only_what_its_digest_says_is_kept(tmp_path: Path) -> None:
    made, parts = Made(tmp_path), opened(tmp_path)
    assert isinstance(await parts.keep_part(made.digest, 0, made.contents[0]), NotFound), "the index comes first"
    assert isinstance(await parts.keep_index(bytes(32), made.encoded), BadFile)
    junk = b"\x93\xa1x"
    assert isinstance(await parts.keep_index(lora.digest_of(junk), junk), BadFile)
    await made.into(parts, ())
    wrong = bytearray(made.contents[0])
    wrong[7] ^= 1
    for layer, data in ((0, wrong), (0, made.contents[0][:-4]), (1, made.contents[0]), (7, made.contents[0])):
        assert isinstance(await parts.keep_part(made.digest, layer, bytes(data)), BadFile)
    assert [part.layer for part in parts.missing(made.digest, 0, 3)] == [0, 1, 2]
    assert parts.path(made.digest, 0) is None and parts.path(made.digest, None) is not None


async def test_a_part_that_rotted_on_the_disk_is_not_applied(tmp_path: Path) -> None:
    made, parts = Made(tmp_path), opened(tmp_path)
    await made.into(parts)
    path = parts.path(made.digest, 1)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    assert isinstance(await parts.slice(made.digest, 0, 2), NotFound)
    assert [part.layer for part in parts.missing(made.digest, 0, 3)] == [1], "it is asked for again"
    await made.into(parts, (1,))
    assert isinstance(await parts.slice(made.digest, 0, 2), tuple)
    assert not list((tmp_path / "parts").rglob("*.tmp"))


async def test_foreign_adapters_make_room_and_registered_ones_stay(tmp_path: Path) -> None:
    one, two, three = (Made(tmp_path, seed) for seed in (1, 2, 3))
    parts = opened(tmp_path, one.digest, budget=2 * one.index.size_bytes)
    for made in (one, two, three):
        await made.into(parts)
    assert parts.index(one.digest) is not None and parts.index(three.digest) is not None
    assert parts.index(two.digest) is None and not (tmp_path / "parts" / two.digest.hex()).exists()
    await parts.forget(one.digest)
    assert parts.index(one.digest) is not None, "somebody registered it"
    await parts.forget(three.digest)
    assert parts.index(three.digest) is None
    small = opened(tmp_path, budget=one.index.size_bytes // 3)
    assert isinstance(await small.keep_part(one.digest, 0, one.contents[0]), NoSpace)


async def test_what_a_kill_leaves_is_no_adapter(tmp_path: Path) -> None:
    made, parts = Made(tmp_path), opened(tmp_path)
    await made.into(parts)
    folder = tmp_path / "parts" / made.digest.hex()
    (folder / "layer_001").write_bytes(b"half")
    (folder / ".layer_002.abc.tmp").write_bytes(b"x")
    (tmp_path / "parts" / ("0" * 64)).mkdir()
    (tmp_path / "parts" / "strange").mkdir()
    parts = opened(tmp_path)
    assert [part.layer for part in parts.missing(made.digest, 0, 3)] == [1]
    assert sorted(path.name for path in folder.iterdir()) == ["index", "layer_000", "layer_002"]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [folder.name]
    (folder / "index").write_bytes(made.encoded[:-1])
    assert opened(tmp_path).index(made.digest) is None


async def test_many_small_foreign_adapters_are_bounded_in_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.shards.adapter_parts.FOREIGN_COUNT", 2)
    parts = opened(tmp_path)
    made = [Made(tmp_path, seed) for seed in (1, 2, 3)]
    for one in made:
        await one.into(parts, ())
    assert [parts.index(one.digest) is not None for one in made] == [False, True, True]
