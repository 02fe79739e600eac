"""All holders at once, whole and partial ones, and what happens when they go away or lie."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import blake3
import pytest

from swarmd.domain.events import ShardDownloadStarted, ShardRejected, ShardStored
from swarmd.domain.ids import NodeId, ShardRef
from swarmd.domain.peers import PeerRecord, PeerView
from swarmd.domain.refusals import Refusal
from swarmd.domain.shards import Acquisition, TransferState
from swarmd.identity.keys import Signed
from swarmd.models import seals
from swarmd.models.manifest import PayloadHasher
from swarmd.shards import fetching
from swarmd.shards.fetching import _nothing_comes
from swarmd.shards.holders import CHUNK_TIMEOUT_S
from swarmd.shards.holders import Holder as PeerSource
from swarmd.shards.landing import Landing
from swarmd.shards.model_fetch import ARRIVING, COMMITTING
from swarmd.shards.sources import Places
from swarmd.transport.rpc import Link
from swarmd.wire.exchange import AskSeal
from swarmd.wire.messages import CODES
from tests.fakes.around import FILE, REPO, Around, asked, known_by, over, started, whole_file
from tests.fakes.around import TINY as HUB_MODEL
from tests.fakes.holders import Holder, open_store, sealer_of
from tests.fakes.landings import adopted
from tests.fakes.storm import work_of
from tests.hub.faults import Cut, Denied, Rule, Slow
from tests.shards.test_desk import TINY, Folks, ended, until, with_model
from tests.shards.test_sources import Plain

WHOLE = 10_000_000  # bytes of a shard: the tiny model is one
REF = ShardRef(TINY, 0)
SLOW = 300_000  # bytes a second: the tiny model takes more than a second


@pytest.fixture
async def folks(tmp_path: Path) -> AsyncIterator[Folks]:
    made = Folks(tmp_path)
    yield made
    for seed in reversed(list(made.stacks)):
        await made.stop(seed)


async def test_several_shards_come_from_several_holders(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await two.connect(three)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        assert (await ended(two)).state == "complete"
    assert {fact.source for fact in spy.of(ShardDownloadStarted)} == {one.id, three.id}


async def test_the_line_is_not_idle_while_shards_are_committed(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third shard waited until the first one was synced."""
    one, two = await with_model(folks, tiny, 1), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    gate, rename_now = threading.Event(), two.store.disk.rename_now

    def slow(source: Path, target: Path) -> None:
        assert gate.wait(20)
        rename_now(source, target)

    monkeypatch.setattr(two.store.disk, "rename_now", slow)
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)

    def arrived() -> int:
        job = two.desk.acquisition(TINY)
        return 0 if job is None else sum(one.state is TransferState.VERIFYING for one in job.transfers)

    try:
        await until(lambda: arrived() == ARRIVING + COMMITTING)
    finally:
        gate.set()
    assert (await ended(two)).state == "complete"


async def stopped_while_named(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[Holder], Awaitable[Refusal | None]]
) -> tuple[Holder, list[ShardStored]]:
    """A job of one shard, which is stopped while this shard is given its final name; and what was told of it."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    gate, inside, real = threading.Event(), threading.Event(), two.store.disk.rename_now

    def rename(source: Path, target: Path) -> None:
        if target.name == "shard_000.gguf":
            inside.set()
            assert gate.wait(20)
        real(source, target)

    monkeypatch.setattr(two.store.disk, "rename_now", rename)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, (0,)), Acquisition)
        await until(inside.is_set)
        task = two.desk._tasks[TINY]
        stopping = asyncio.create_task(stop(two))
        await until(lambda: task.cancelling() > 0)
        gate.set()
        assert await stopping is None
        return two, spy.of(ShardStored)


async def test_a_shard_that_gets_its_name_while_its_job_is_paused_does_not_come_twice(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was held, the job did not know, and nobody was told: resumed, it was fetched in full once more."""
    two, told = await stopped_while_named(folks, tiny, monkeypatch, lambda holder: holder.desk.pause(TINY))
    assert two.store.registry.held(TINY) == (0,) and [fact.shard for fact in told] == [REF]
    with two.store.bus.spy() as spy:
        assert await two.desk.resume(TINY) is None
        assert (await ended(two)).state == "complete" and not spy.of(ShardDownloadStarted)


async def test_a_shard_that_gets_its_name_while_its_job_is_cancelled_is_told_of(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, told = await stopped_while_named(folks, tiny, monkeypatch, lambda holder: holder.desk.cancel(TINY))
    assert two.store.registry.held(TINY) == (0,) and [fact.shard for fact in told] == [REF]
    job = two.desk.acquisition(TINY)
    assert job is not None and (job.state, job.transfers[0].state) == ("cancelled", TransferState.COMPLETE)


async def test_a_shard_that_has_its_name_is_told_of_whatever_failed_after_it(
    folks: Folks, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync of its folder failed: it was held, its job had failed, and nobody was told."""
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    real = two.store.disk.rename_now

    def rename(source: Path, target: Path) -> None:
        real(source, target)
        if target.name == "shard_000.gguf":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(two.store.disk, "rename_now", rename)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, (0,)), Acquisition)
        assert (await ended(two)).state == "complete" and two.store.registry.held(TINY) == (0,)
        assert [fact.shard for fact in spy.of(ShardStored)] == [REF]


async def test_a_shard_that_somebody_put_there_meanwhile_is_not_fetched(folks: Folks, tiny: Path) -> None:
    one, two = await with_model(folks, tiny), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    folks.hub.change("node-1", "node-2", bytes_per_s=SLOW)
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    last = ShardRef(TINY, len(known_by(two, TINY).manifest.shards) - 1)
    two.store.storage.path(last).write_bytes(one.store.storage.path(last).read_bytes())
    with two.store.bus.spy() as spy:
        assert (await two.desk.rescan()).models == (TINY,)
        folks.hub.change("node-1", "node-2", bytes_per_s=WHOLE)
        assert (await ended(two)).state == "complete"
    assert last not in {fact.shard for fact in spy.of(ShardDownloadStarted)}


async def test_a_lost_holder_is_followed_by_the_next(folks: Folks, tiny: Path) -> None:
    one, three, two = await with_model(folks, tiny, 1), await with_model(folks, tiny, 3), await folks.start(2)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardDownloadStarted)
        two.store.wire.links[one.id].close("the cable is out")
        await two.connect(three)
        done = await ended(two)
    assert done.state == "complete", done
    assert await two.store.storage.verify(ShardRef(TINY, len(done.transfers) - 1))


async def with_one_shard(folks: Folks, tiny: Path, seed: int) -> Holder:
    holder = await folks.start(seed)
    assert await holder.desk.add_file(tiny, WHOLE) == TINY
    return holder


def throttle(folks: Folks, one: int, other: int, bytes_per_s: float) -> None:
    folks.hub.change(f"node-{one}", f"node-{other}", bytes_per_s=bytes_per_s)


async def half(holder: Holder, origin: Holder, *, first: bool) -> None:
    """One half of the chunks, as an earlier try would have left them."""
    landing: Landing = await holder.store.storage.open_landing(REF)
    numbers = landing.missing()
    middle = len(numbers) // 2
    for number in numbers[:middle] if first else numbers[middle:]:
        await landing.write_chunk(number, b"".join(await origin.store.storage.read_chunk(REF, number)))
    landing.give_up()


async def test_one_shard_comes_from_all_holders_at_once(folks: Folks, tiny: Path) -> None:
    holders = [await with_one_shard(folks, tiny, seed) for seed in (1, 3, 4)]
    two = await folks.start(2)
    for seed in (1, 3, 4):
        throttle(folks, 2, seed, 4 * SLOW)
    for holder in holders:
        await two.connect(holder)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    before = {holder.id: two.store.wire.links[holder.id].connection.bytes_in for holder in holders}
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
    done = await ended(two)
    assert done.state == "complete" and done.transfers[0].log, done
    came = {node: two.store.wire.links[node].connection.bytes_in - start for node, start in before.items()}
    size = done.transfers[0].total_bytes
    assert all(size / 6 < count < size / 1.5 for count in came.values()), "each has brought its part"
    assert sum(came.values()) < size * 1.25, "hardly anything came twice"


async def test_a_holder_that_comes_later_joins_in(folks: Folks, tiny: Path) -> None:
    one, three, two = (
        await with_one_shard(folks, tiny, 1), await with_one_shard(folks, tiny, 3), await folks.start(2)
    )  # fmt: skip
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    throttle(folks, 1, 2, 20_000)  # alone it would take 20 s
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        await spy.wait_for(ShardDownloadStarted)
        await two.connect(three)
        done = await ended(two)
        assert {fact.source for fact in spy.of(ShardDownloadStarted)} == {one.id, three.id}
    assert done.state == "complete", done
    assert await two.store.storage.verify(REF)


async def test_two_halves_become_two_wholes_when_the_original_holder_is_gone(folks: Folks, tiny: Path) -> None:
    one, two, three = await with_one_shard(folks, tiny, 1), await folks.start(2), await folks.start(3)
    for node, first in ((two, True), (three, False)):
        await node.connect(one)
        await until(lambda node=node: node.store.catalog.get(TINY) is not None)
        await half(node, one, first=first)
        assert node.store.registry.holdings() == (), "nothing arrives yet"
    throttle(folks, 1, 2, 100)
    throttle(folks, 1, 3, 100)
    for node in (two, three):
        assert isinstance(await node.desk.acquire(TINY, None), Acquisition)
        await until(lambda node=node: node.store.storage.arriving(TINY) == (0,))
        assert [holding.partial for holding in node.store.registry.holdings()] == [(0,)]
    for node in (two, three):
        node.store.wire.links[one.id].close("the original holder is gone")
    await folks.stop(1)
    await two.connect(three)
    for node in (two, three):
        done = await ended(node)
        assert done.state == "complete", done
        assert await node.store.storage.verify(REF)
        holdings = node.store.registry.holdings()
        assert [(holding.shards, holding.partial) for holding in holdings] == [((0,), ())]


async def test_a_liar_among_holders_is_left_out_and_the_others_finish(folks: Folks, tiny: Path) -> None:
    liar = await folks.start(1)
    assert await liar.desk.add_file(tiny, WHOLE) == TINY
    honest, two = await with_one_shard(folks, tiny, 3), await folks.start(2)
    liar.lie()
    throttle(folks, 2, 3, 2 * SLOW)  # the liar is the quicker one
    await two.connect(liar)
    await two.connect(honest)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    with two.store.bus.spy() as spy:
        assert isinstance(await two.desk.acquire(TINY, None), Acquisition)
        done = await ended(two)
        rejected = spy.of(ShardRejected)
        started = [fact.source for fact in spy.of(ShardDownloadStarted)]
    assert done.state == "complete" and done.transfers[0].source == honest.id, done
    assert [fact.source for fact in rejected] == [liar.id] and started.count(liar.id) == 1, "it is not asked again"
    assert await two.store.storage.verify(REF)


async def test_nobody_answers_and_what_came_stays(folks: Folks, tiny: Path) -> None:
    one, two = await with_one_shard(folks, tiny, 1), await folks.start(2, patience_s=0.5)
    await two.connect(one)
    await until(lambda: two.store.catalog.get(TINY) is not None)
    throttle(folks, 1, 2, SLOW)
    assert isinstance(await two.desk.acquire(TINY, None), Acquisition)

    def some_came() -> bool:
        job = two.desk.acquisition(TINY)
        return job is not None and job.transfers[0].done_bytes > 0

    await until(some_came)
    two.store.wire.links[one.id].close("gone for good")
    done = await ended(two)
    assert done.state == "failed" and done.reason is not None and "no node that holds it" in done.reason
    assert two.store.storage.arriving(TINY) == () and two.store.registry.holdings() == (), "nobody is told of it any more"
    landing = await two.store.storage.open_landing(REF)
    assert landing.done_bytes > 0


async def test_two_nodes_with_the_same_half_give_up(folks: Folks, tiny: Path) -> None:
    """Each waited for the other for ever: neither was gone, and neither had anything new."""
    one = await with_one_shard(folks, tiny, 1)
    two, three = await folks.start(2, patience_s=1.0), await folks.start(3, patience_s=1.0)
    throttle(folks, 1, 2, 20_000)
    throttle(folks, 1, 3, 20_000)
    for node in (two, three):
        await node.connect(one)
        await until(lambda node=node: node.store.catalog.get(TINY) is not None)
        await half(node, one, first=True)
    throttle(folks, 1, 2, 100)
    throttle(folks, 1, 3, 100)
    for node in (two, three):
        assert isinstance(await node.desk.acquire(TINY, None), Acquisition)
        await until(lambda node=node: node.store.storage.arriving(TINY) == (0,))
    for node in (two, three):
        node.store.wire.links[one.id].close("the original holder is gone")
    await folks.stop(1)
    await two.connect(three)
    reasons = [(await ended(node)).reason or "" for node in (two, three)]
    assert all("for 1 s" in reason for reason in reasons), reasons
    assert any("no missing chunk came" in reason for reason in reasons), "the first to give up had somebody to ask"


async def test_what_is_under_way_is_waited_for_and_not_for_ever(tmp_path: Path, tiny: Path) -> None:
    store = open_store(1, tmp_path)
    _, known = await adopted(store, tiny)
    landing = await store.storage.open_landing(ShardRef(known.manifest.model, 0))
    work = work_of(landing)
    link = cast("Link", None)  # never asked
    peer = PeerSource(node=NodeId("ab" * 8), link=link, partial=False, distance=1.0, places=Places())
    plain = Plain("the hub")
    for source in (peer, plain):
        work.join(source)
    assert not _nothing_comes(work, [], 60.0)
    work.progress_at -= 61.0
    assert _nothing_comes(work, [], 60.0) and _nothing_comes(work, [peer], 60.0)
    assert not _nothing_comes(work, [peer, plain], 60.0), "the hub has its own patience"
    assert work.claim(peer, 1)
    assert not _nothing_comes(work, [peer], 60.0), "it may still come"
    work.progress_at -= CHUNK_TIMEOUT_S
    assert _nothing_comes(work, [peer], 60.0), "it will not"


async def sealed_wrong(around: Around, *, in_parts: bool = True) -> Holder:
    """A node with the right bytes of the hub's file and wrong seals of them, which it has signed. `in_parts`: the hash of
    each chunk is wrong, else that of the whole alone."""
    liar = await around.start(2)
    await asked(liar)
    assert (await over(liar)).state == "complete"
    known = known_by(liar)
    for spec in known.manifest.shards:
        payload = await liar.store.storage.read_payload(ShardRef(HUB_MODEL, spec.index), 0, spec.size_bytes)
        hasher = PayloadHasher()
        hasher.feed(bytes(byte ^ 1 for byte in payload) if in_parts else payload)
        stated = hasher.finish() if in_parts else replace(hasher.finish(), blake3="0" * 64)
        seal = seals.make(
            known.manifest, spec.index, stated, signer=liar.id,
            sign=lambda data: liar.store.key.sign(Signed.MANIFEST, data),
        )  # fmt: skip
        liar.store.catalog.seal_path(HUB_MODEL, spec.index).write_bytes(seals.encode(seal))
    return liar


async def test_a_wrong_seal_does_not_block_a_shard_that_the_hub_has(around: Around, data: bytes) -> None:
    """It was kept for ever: the hub sent wrong bytes from then on, also when the liar was long gone."""
    liar = await sealed_wrong(around)
    node = await around.start(1, patience_s=1.0)
    await node.connect(liar)
    with node.store.bus.spy() as spy:
        await asked(node)
        done = await over(node)
        assert liar.id in {fact.source for fact in spy.of(ShardRejected)}
    assert done.state == "complete", done
    assert any("contradicts the hashes" in line for transfer in done.transfers for line in transfer.log), done
    assert await whole_file(node) == data


async def test_a_seal_that_is_wrong_as_a_whole_fails_no_job_and_names_its_signer(around: Around, data: bytes) -> None:
    """The shard was given up, nobody was named, and the signer was asked again for the next one."""
    liar = await sealed_wrong(around, in_parts=False)
    node = await around.start(1, patience_s=1.0)
    await node.connect(liar)
    with node.store.bus.spy() as spy:
        await asked(node)
        done = await over(node)
        assert {fact.source for fact in spy.of(ShardRejected)} == {liar.id}
        assert len(spy.of(ShardRejected)) <= ARRIVING + COMMITTING, "none that began after it was found out"
    assert done.state == "complete", done
    assert await whole_file(node) == data
    assert known_by(node).manifest.shards[0].blake3 == (await true_hash(node, ShardRef(HUB_MODEL, 0)))


async def test_a_wrong_seal_of_an_earlier_run_is_taken_back_as_well(around: Around, data: bytes) -> None:
    liar = await sealed_wrong(around)
    node, ref = await around.start(1, patience_s=1.0), ShardRef(HUB_MODEL, 0)
    await node.connect(liar)
    await until(lambda: node.store.catalog.get(HUB_MODEL) is not None)
    assert await sealer_of(node.store).learn(ref, within_s=5) == liar.id
    await around.stop(1)
    await around.stop(2)
    node = await around.start(1, patience_s=1.0)
    assert known_by(node).manifest.shards[0].sealed, "it is on the disk"
    await asked(node, shards=(0,))
    assert (await over(node)).state == "complete"
    assert known_by(node).manifest.shards[0].blake3 == (await true_hash(node, ref))


async def true_hash(node: Holder, ref: ShardRef) -> str:
    payload = await node.store.storage.read_payload(ref, 0, known_by(node).manifest.shards[ref.index].size_bytes)
    return blake3.blake3(payload).hexdigest()


async def test_a_hub_that_is_down_leaves_time_to_ask_slow_peers_for_their_seal(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SEAL_S", 0.2)
    holder = await around.start(2)
    await asked(holder)
    assert (await over(holder)).state == "complete"
    node = await around.start(1, patience_s=3.0)
    await node.connect(holder)
    await until(lambda: node.store.catalog.get(HUB_MODEL) is not None)
    assert node.hub_desk is not None
    around.hub.repo(REPO).say(gated="auto")  # it does not give the file any more
    answer = holder.dispatcher._answers[CODES[AskSeal]]

    async def slowly(*args: object) -> object:
        await asyncio.sleep(0.5)
        return await answer(*args)  # type: ignore[arg-type]

    holder.dispatcher._answers[CODES[AskSeal]] = slowly  # type: ignore[assignment]
    assert isinstance(await node.desk.acquire(HUB_MODEL, (0,), "user"), Acquisition)
    done = await over(node)
    assert done.state == "complete" and done.transfers[0].source == holder.id, done


def refuse(around: Around, *, times: int | None = None) -> Rule:
    """The hub does not give the file any more, nor does storage."""
    return around.hub.faults.add(Denied(), path=FILE, times=times)


def reason_of(node: Holder) -> str:
    job = node.desk.acquisition(HUB_MODEL)
    return "" if job is None or job.reason is None or job.state != "downloading" else job.reason


async def test_a_hub_that_refused_for_a_moment_is_asked_again(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One 403 in mid-download: it was never asked again, nothing was said, and minutes later the job failed."""
    monkeypatch.setattr(fetching, "REFUSED_FIRST_S", 0.3)
    node = await around.start(1, patience_s=5.0)
    around.hub.faults.add(Slow(200_000), path=FILE, origin="cdn")
    await asked(node, shards=(0, 1))
    await until(lambda: any(one.done_bytes for one in started(node, HUB_MODEL).transfers))
    around.hub.faults.clear()
    rule = refuse(around, times=6)
    around.hub.faults.add(Cut(), path=FILE, origin="cdn", times=4)
    await until(lambda: "behind terms" in reason_of(node) or started(node, HUB_MODEL).state != "downloading")
    done = await over(node)
    assert rule.hits and done.state == "complete" and done.reason is None, done
    assert any("behind terms" in line for line in done.log), done.log


async def test_a_persons_wish_asks_the_hub_at_once_that_refused(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered `started` and did nothing; only a pause and its end helped."""
    monkeypatch.setattr(fetching, "REFUSED_FIRST_S", 1000.0)
    monkeypatch.setattr(fetching, "REFUSED_LIMIT_S", 1000.0)
    node = await around.start(1, patience_s=1000.0)
    around.hub.faults.add(Slow(200_000), path=FILE, origin="cdn")
    await asked(node, shards=(0,))
    await until(lambda: any(one.done_bytes for one in started(node, HUB_MODEL).transfers))
    around.hub.faults.clear()
    around.hub.faults.add(Cut(), path=FILE, origin="cdn", times=4)
    refuse(around)
    await until(lambda: "behind terms" in reason_of(node))
    around.hub.faults.clear()
    assert isinstance(await asked(node, shards=(0,)), Acquisition)
    assert (await over(node)).state == "complete"


def near(node: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is linked with it is in the same house."""
    record = PeerRecord(node=NodeId("ab" * 8), endpoints=(), last_seen=None)  # whoever it is
    view = PeerView(record=record, connected=True, rtt_ms=0.5)
    monkeypatch.setattr(node.store.wire, "view", lambda _: view)


async def test_a_shard_that_began_at_the_hub_changes_to_a_near_node_that_has_it(
    around: Around, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came from a slow hub to its end, though a node beside it had come back that held all of it with its seal."""
    holder = await around.start(2)
    await asked(holder)
    assert (await over(holder)).state == "complete"
    node, ref = await around.start(1), ShardRef(HUB_MODEL, 0)
    near(node, monkeypatch)
    around.hub.faults.add(Slow(2000), path=FILE, origin="cdn", skip=1)
    await asked(node, shards=(0,))
    await until(lambda: any(one.done_bytes for one in started(node, HUB_MODEL).transfers))
    assert not known_by(node).manifest.shards[0].sealed
    await node.connect(holder)
    done = await over(node)
    assert done.state == "complete" and done.transfers[0].source == holder.id, done
    assert known_by(node).manifest.shards[0].blake3 == (await true_hash(node, ref))
