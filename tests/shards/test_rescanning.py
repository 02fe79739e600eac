"""A look at the disk: what was put there by hand, what was taken away, what is not any more what it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from swarmd.domain.events import ShardRejected, ShardStored
from swarmd.domain.ids import ShardRef
from swarmd.domain.models import ShardState
from swarmd.domain.shards import FoundFile
from tests.fakes.around import REPO, TINY, Around, asked, known_by, over, until, whole_file
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Holder
from tests.shards.test_job_endings import knows

REF = ShardRef(TINY, 1)


async def complete(around: Around, seed: int) -> Holder:
    holder = await around.start(seed)
    await asked(holder)
    assert (await over(holder)).state == "complete"
    return holder


def problems(files: tuple[FoundFile, ...]) -> dict[str, str]:
    return {Path(one.path).name: one.problem or "" for one in files}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)


async def test_a_shard_of_a_hub_model_put_there_by_hand_is_taken_up_by_the_seal_beside_it(
    around: Around, data: bytes
) -> None:
    """A log line, "nobody knows its hash", was all that came of it."""
    other, node = await complete(around, 2), await around.start(1)
    await knows(node)
    theirs, ours = other.store, node.store
    shutil.copy(theirs.storage.path(REF), ours.storage.path(REF))
    shutil.copy(theirs.catalog.seal_path(TINY, 1), ours.catalog.seal_path(TINY, 1))
    with ours.bus.spy() as spy:
        assert (await node.desk.rescan()).models == (TINY,)
        assert [fact.shard for fact in spy.of(ShardStored)] == [REF]
    assert ours.registry.held(TINY) == (1,) and await ours.storage.verify(REF)


async def test_it_is_taken_up_by_the_seal_of_a_member_and_kept_aside_until_there_is_one(
    around: Around, data: bytes
) -> None:
    other, node = await complete(around, 2), await around.start(1)
    await knows(node)
    path = node.store.storage.path(REF)
    shutil.copy(other.store.storage.path(REF), path)
    found = await node.desk.rescan()
    assert found.models == () and "nobody" in problems(found.files)["shard_001.gguf.unverified"]
    assert node.store.registry.held(TINY) == () and not path.exists(), "the next start would call it held"
    await node.connect(other)
    await until(lambda: bool(node.store.registry.remote(TINY, known_by(node).manifest.layout)))
    found = await node.desk.rescan()
    assert found.models == (TINY,) and found.files == () and node.store.registry.held(TINY) == (1,)


async def test_a_wrong_shard_put_there_by_hand_is_set_aside_and_named(around: Around, data: bytes) -> None:
    other, node = await complete(around, 2), await around.start(1)
    await knows(node)
    path = node.store.storage.path(REF)
    shutil.copy(other.store.storage.path(REF), path)
    shutil.copy(other.store.catalog.seal_path(TINY, 1), node.store.catalog.seal_path(TINY, 1))
    flip(path)
    found = await node.desk.rescan()
    assert found.models == () and "not the bytes" in problems(found.files)["shard_001.gguf.quarantine"]
    assert node.store.storage.state(REF) is ShardState.QUARANTINED


async def test_a_damaged_shard_is_noticed_and_fetched_anew(around: Around, data: bytes) -> None:
    """One byte of a held shard was wrong on the disk: no rescan and no restart said so."""
    node = await complete(around, 1)
    flip(node.store.storage.path(REF))
    with node.store.bus.spy() as spy:
        found = await node.desk.rescan()
        assert [(fact.shard, fact.source) for fact in spy.of(ShardRejected)] == [(REF, None)]
    assert found.models == (TINY,) and "damaged" in problems(found.files)["shard_001.gguf.quarantine"]
    assert (await over(node)).state == "complete" and node.store.registry.held(TINY) == tuple(
        range(len(known_by(node).files))
    )
    assert await whole_file(node) == data
    assert (await node.desk.rescan()).models == ()


async def test_what_is_served_is_looked_at_and_a_damaged_shard_is_not_told_of_any_more(
    around: Around, data: bytes
) -> None:
    """It stayed announced also when a peer had refused its chunk."""
    holder, node = await complete(around, 2), await around.start(1)
    flip(holder.store.storage.path(REF))
    await node.connect(holder)
    await until(lambda: node.store.catalog.get(TINY) is not None)
    with holder.store.bus.spy() as here, node.store.bus.spy() as there:
        await asked(node, shards=(1,))
        assert (await over(node)).state == "complete"
        assert not [fact for fact in there.of(ShardRejected) if fact.source is not None], "nobody was sent a wrong byte"
        await until(lambda: bool(here.of(ShardStored)))
        assert [fact.shard for fact in here.of(ShardRejected)] == [REF]
    assert await whole_file(holder) == data


def encoder(folder: Path) -> bytes:
    return write_model(folder / "eyes.gguf", TinyModel(seed=7)).read_bytes()


async def test_a_vision_encoder_put_there_by_hand_is_taken_up_where_it_is_the_one_of_the_hub(
    around: Around, data: bytes, tmp_path: Path
) -> None:
    eyes = encoder(tmp_path)
    around.hub.repo(REPO).file("mmproj-tiny-F16.gguf", eyes)
    node = await around.start(1)
    known = await knows(node)
    assert known.manifest.source is not None and known.manifest.source.vision is not None
    assert known.manifest.source.vision.sha256 == hashlib.sha256(eyes).hexdigest()
    path = node.store.storage.vision_path(TINY)
    for wrong, why in ((b"x" * 2004, "GGUF"), (encoder(tmp_path)[:-1] + b"\xff", "another file")):
        path.write_bytes(wrong)
        found = await node.desk.rescan()
        assert found.models == () and why in problems(found.files)["mmproj.gguf"]
        assert not node.store.storage.has_vision(TINY)
    path.write_bytes(eyes)
    assert (await node.desk.rescan()).models == (TINY,) and node.store.storage.has_vision(TINY)
    path.unlink()
    assert (await node.desk.rescan()).models == (TINY,) and not node.store.storage.has_vision(TINY)
