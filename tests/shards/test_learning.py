"""Learning models from neighbours: what is taken and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import PeerIdentity
from swarmd.domain.refusals import BadFile, NotFound
from swarmd.domain.shards import Acquisition
from swarmd.models.catalog import MANIFEST_NAME, KnownModel
from swarmd.shards.learning import _collect
from swarmd.transport.loopback import LoopbackHub
from swarmd.transport.rpc import WithPayload
from swarmd.wire.exchange import AskManifest, ManifestPart
from tests.shards.test_desk import TINY, Folks, until, with_model
from tests.transport.nodes import nodes


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def test_an_unsigned_or_forged_manifest_is_refused_once_and_for_all(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    known = one.store.catalog.get(TINY)
    assert known is not None
    path = one.store.catalog.folder(TINY) / MANIFEST_NAME
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"name":"tiny"', b'"name":"evil"'))
    await two.connect(one)
    layout = known.manifest.layout
    await until(lambda: bool(two.desk._learner._refused))
    assert isinstance(await two.desk._learner.learn(one.id, TINY, layout), BadFile)
    assert two.desk._learner._unknown(one.id) == [] and two.store.catalog.all() == ()
    path.write_bytes(good)
    assert isinstance(await two.desk._learner.learn(one.id, ModelId("other"), layout), NotFound)
    assert isinstance(await two.desk._learner.learn(one.id, TINY, layout), KnownModel), "a person may ask again"


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(0, [1]), (101, [10]), (20, [0]), (20, [21]), (20, [10, 11])],
    ids=["nothing", "too much", "an empty part", "more than stated", "more in the end"],
)
async def test_parts_that_break_the_rules_are_refused(total: int, sizes: list[int]) -> None:
    left = list(sizes)

    async def answer(ask: AskManifest, payload: memoryview, peer: PeerIdentity) -> WithPayload:
        return WithPayload(ManifestPart(total_bytes=total), bytes(left.pop(0)))

    async with nodes("ab", hub=LoopbackHub()) as (server, client):
        server.dispatcher.answer(AskManifest, answer)
        link = await client.link_to(server)
        outcome = await _collect(
            link, lambda offset: AskManifest(model=TINY, layout="0" * 32, offset=offset), ManifestPart, 100
        )
        assert isinstance(outcome, BadFile)


async def test_a_model_that_was_cut_anew_is_learned_anew(folks: Folks, tiny: Path) -> None:
    """Its owner removed it and added it again in other shards; nodes that had only heard of it stayed with the old cut, of
    which there was nothing any more, for ever."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    old = two.store.catalog.get(TINY)
    assert old is not None
    assert isinstance(await one.desk.delete_model(TINY), int)
    assert await one.desk.add_file(tiny, 200_000) == TINY
    two.hear(one)
    await until(lambda: (known := two.store.catalog.get(TINY)) is not None and known.identity != old.identity)
    assert isinstance(await two.desk.acquire(TINY, None, "user"), Acquisition)
    await until(lambda: two.store.registry.held(TINY) == one.store.registry.held(TINY) != ())
    # What somebody wants here stays as it is cut.
    wanted = two.store.catalog.get(TINY)
    assert isinstance(await one.desk.delete_model(TINY), int)
    assert await one.desk.add_file(tiny, 100_000) == TINY
    two.hear(one)
    assert two.desk._learner._unknown(one.id) == [] and wanted is not None
    kept = two.store.catalog.get(TINY)
    assert kept is not None and kept.manifest.layout == wanted.manifest.layout
