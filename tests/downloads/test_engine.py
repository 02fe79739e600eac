from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.downloads.engine import (
    ASKED_LIMIT_S,
    GAP_BYTES,
    IGNORED,
    PATIENCE_S,
    SETTLED_TICKS,
    Engine,
    NoRanges,
    Pace,
    Piece,
    SourceFailed,
    WrongBytes,
    _Lane,
    cut_out,
    gravest,
    requests_of,
    runs_of,
)
from swarmd.downloads.ranges import RangesIgnored, RemoteFile, SourceRefused, SourceTrouble
from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import SeededClock, SeededEntropy, World, seeded_world
from tests.fakes.lines import STEP, Blocks, Lines

MB = 1 << 20
DATA = random.Random(5).randbytes(40 * MB + 12_345)

FILES = [RemoteFile(url=f"http://hub/{number}", size_bytes=1 << 30, name=str(number)) for number in range(2)]
PIECES = st.lists(
    st.tuples(st.sampled_from(FILES), st.integers(0, GAP_BYTES + 5), st.integers(1, 100)), max_size=12
)


def engine(lines: Lines, *, connections: int = 8, limit: float | None = None, world: World | None = None) -> Engine:
    return Engine(
        client=lines,  # type: ignore[arg-type]
        world=world or seeded_world(1),
        connections=lambda: connections,
        bytes_per_s=lambda: limit,
    )


def now() -> float:
    return asyncio.get_running_loop().time()


# --- pure ---------------------------------------------------------------------------------------------------------------


@given(st.integers(-1, 40), st.lists(st.one_of(st.none(), st.floats(0, 1e10)), max_size=80))
def test_the_number_of_connections_stays_in_its_bounds(limit: int, rates: list[float | None]) -> None:
    pace = Pace(limit)
    for rate in rates:
        before = pace.wanted
        if rate is None:
            pace.slower()
            assert pace.wanted == max(1, before // 2)
        else:
            assert abs(pace.tick(rate) - before) <= 2
        assert 1 <= pace.wanted <= max(1, limit)


@given(st.floats(1, 1e9), st.integers(1, 400))
def test_connections_that_bring_nothing_are_given_up_again(rate: float, ticks: int) -> None:
    pace = Pace(32)
    assert {pace.tick(rate) for _ in range(ticks)} <= {4, 6}
    while pace.settled != SETTLED_TICKS:
        pace.tick(rate)
    assert pace.wanted == 4


def test_connections_grow_while_they_bring_more() -> None:
    pace = Pace(16)
    for _ in range(20):
        pace.tick(pace.wanted * 1e8)
    assert pace.wanted == 16


def test_no_step_is_judged_before_anything_came() -> None:
    pace = Pace(16)
    assert [pace.tick(0.0) for _ in range(50)] == [4] * 50


@given(st.sets(st.integers(0, 60)))
def test_runs_are_the_numbers(numbers: set[int]) -> None:
    runs = list(runs_of(sorted(numbers)))
    assert {number for first, last in runs for number in range(first, last + 1)} == numbers
    assert all(one[1] + 1 < other[0] for one, other in pairwise(runs))


def placed(rows: list[tuple[RemoteFile, int, int]]) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for file, gap, size in rows:
        pieces.append(Piece(file=file, offset=at + gap, size=size))
        at += gap + size
    return pieces


@given(PIECES)
def test_requests_bring_every_piece_in_order(rows: list[tuple[RemoteFile, int, int]]) -> None:
    pieces = placed(rows)
    requests = list(requests_of(pieces))
    assert [piece for request in requests for piece in request] == pieces
    for request in requests:
        assert len({piece.file for piece in request}) == 1
        for one, other in pairwise(request):
            assert 0 <= other.offset - one.offset - one.size <= GAP_BYTES
    for one, other in pairwise(requests):
        gap = other[0].offset - one[-1].offset - one[-1].size
        assert one[-1].file != other[0].file or gap > GAP_BYTES


@given(PIECES, st.lists(st.integers(1, GAP_BYTES), max_size=20))
def test_what_is_cut_out_of_a_request_are_its_pieces(rows: list[tuple[RemoteFile, int, int]], steps: list[int]) -> None:
    body = bytes(random.Random(1).randbytes(1024)) * (GAP_BYTES * 12 // 1024 + 4)
    for request in requests_of(placed(rows)):
        start, end = request[0].offset, request[-1].offset + request[-1].size
        position, found = start, b""
        for step in [*steps, end]:
            data = body[position : min(position + step, end)]
            found += b"".join(cut_out(request, position, memoryview(data)))
            position += len(data)
        assert found == b"".join(body[piece.offset : piece.offset + piece.size] for piece in request)


def test_a_full_disk_counts_for_more_than_lost_patience() -> None:
    full, slow = OSError("full"), SourceFailed("slow")
    assert gravest(BaseExceptionGroup("all", [slow, BaseExceptionGroup("some", [slow, full])])) is full
    assert gravest(slow) is slow


# --- in virtual time ----------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_all_of_it_comes_once() -> None:
    lines, work, seen = Lines(DATA), Blocks(len(DATA)), [0]
    await engine(lines).run(work, received=lambda size: seen.append(size))
    assert work.data == DATA
    assert sum(seen) == lines.sent == len(DATA)
    assert set(work.times.values()) == {1}


@pytest.mark.looptime
async def test_more_connections_are_opened_where_each_is_slow_and_few_where_the_line_is() -> None:
    alone, shared = Lines(DATA), Lines(DATA, shared=1e6)
    await engine(alone, connections=12).run(Blocks(len(DATA)))
    await engine(shared, connections=12).run(Blocks(len(DATA)))
    assert alone.most_open >= 8
    assert shared.most_open <= 6


@pytest.mark.looptime
async def test_a_cut_costs_the_block_in_hand_and_no_more() -> None:
    lines, work = Lines(DATA, cut=lambda number: 5 * MB // 2 if number == 1 else None), Blocks(len(DATA))
    await engine(lines).run(work)
    assert work.data == DATA
    assert lines.sent <= len(DATA) + MB
    assert set(work.times.values()) == {1}


@pytest.mark.looptime
async def test_patience_ends_when_nothing_comes() -> None:
    started = now()
    with pytest.raises(SourceFailed, match="nothing came for 120 s: the wire is out"):
        await engine(Lines(DATA, trouble=lambda _: SourceTrouble("the wire is out"))).run(Blocks(len(DATA)))
    assert PATIENCE_S <= now() - started < PATIENCE_S + 20


@pytest.mark.looptime
async def test_a_line_that_is_down_for_a_while_is_waited_for() -> None:
    lines = Lines(DATA, trouble=lambda _: SourceTrouble("down") if 5 < now() < 100 else None)
    work = Blocks(len(DATA))
    await engine(lines).run(work)
    assert work.data == DATA


class Jumping(SeededClock):
    jump = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.jump


@pytest.mark.looptime
async def test_a_machine_that_slept_tries_again_before_it_gives_up() -> None:
    clock = Jumping()

    def trouble(number: int) -> SourceTrouble | None:
        if number != 2:
            return None
        clock.jump += 8 * 3600.0
        return SourceTrouble("the connection broke in its sleep")

    work = Blocks(len(DATA))
    await engine(Lines(DATA, trouble=trouble), world=World(clock=clock, entropy=SeededEntropy(1))).run(work)
    assert work.data == DATA


@pytest.mark.looptime
async def test_a_refusal_ends_it_at_once() -> None:
    lines = Lines(DATA, trouble=lambda number: SourceRefused("gone") if number == 3 else None)
    with pytest.raises(SourceRefused, match="gone"):
        await engine(lines).run(Blocks(len(DATA)))
    assert now() < 2


@pytest.mark.looptime
async def test_nobody_asks_while_the_server_wants_to_be_left_alone_and_then_fewer_do() -> None:
    lines = Lines(
        DATA, trouble=lambda number: SourceTrouble("too often", retry_after_s=30.0) if number < 4 else None
    )
    work = Blocks(len(DATA))
    await engine(lines).run(work)
    assert work.data == DATA
    times = [at for at, _, _ in lines.requests]
    assert all(at < 1 or at >= 30 for at in times)
    assert sum(30 <= at < 31 for at in times) <= 2, "four connections were told at once, and that counts once"


@pytest.mark.looptime
async def test_a_server_that_only_asks_to_wait_is_left_after_an_hour() -> None:
    lines = Lines(DATA, trouble=lambda _: SourceTrouble("too often", retry_after_s=60.0))
    with pytest.raises(SourceFailed, match="asked to wait for 60 minutes"):
        await engine(lines, connections=1).run(Blocks(len(DATA)))
    assert ASKED_LIMIT_S * 0.9 < now() < ASKED_LIMIT_S * 1.1
    assert len(lines.requests) < 200


@pytest.mark.looptime
async def test_minutes_of_refused_calls_do_not_end_it() -> None:
    lines = Lines(DATA, trouble=lambda _: SourceTrouble("too often", retry_after_s=60.0) if now() < 900 else None)
    work = Blocks(len(DATA))
    await engine(lines).run(work)
    assert work.data == DATA


@pytest.mark.looptime
async def test_a_connection_that_waits_to_try_again_does_not_hold_up_the_end() -> None:
    """Seen: all was there, and a connection that had failed 15 s of backoff ago still slept."""
    work, lines = Blocks(8 * MB), Lines(DATA[: 8 * MB], trouble=lambda number: SourceTrouble("x") if number == 1 else None)
    entropy = SeededEntropy(1)
    entropy.uniform = lambda low, high: 200.0 if low else 0.0  # type: ignore[method-assign]
    await engine(lines, world=World(clock=SeededClock(), entropy=entropy)).run(work)
    assert work.data == DATA[: 8 * MB]
    assert now() < 100


async def test_a_waiting_connection_may_be_told_twice_that_it_is_not_needed() -> None:
    """Once because it is far behind, once because the work is over, both before it has its turn."""
    lane = _Lane()
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    async def wait() -> None:
        async with asyncio.timeout(None) as lane.waiting:
            told.set()
            await asyncio.Event().wait()

    waiting, second = asyncio.create_task(wait()), loop.create_future()
    await told.wait()
    lane.break_off("far behind")
    loop.call_soon(lambda: second.set_result(lane.break_off("the work is over")))
    with pytest.raises(TimeoutError):
        await waiting
    assert second.done() and lane.broken == "the work is over"


@pytest.mark.looptime
async def test_idle_connections_share_what_a_slow_one_has_left() -> None:
    lines = Lines(DATA, rate=lambda number: 2e5 if number == 0 else 5e6)  # alone with its span, 25 s
    work = Blocks(len(DATA))
    await engine(lines, connections=4).run(work)
    assert work.data == DATA
    assert now() < 12
    assert lines.sent <= len(DATA) + 2 * MB


@pytest.mark.looptime
async def test_spans_are_shared_at_the_grain_of_the_work() -> None:
    data = DATA[: 32 * MB]
    lines, work = Lines(data, rate=lambda number: 3e5 if number == 0 else 5e6), Blocks(len(data), grain=8)
    await engine(lines, connections=3).run(work)
    assert work.data == data
    assert all(start % (8 * MB) == 0 or start in {first * MB for first in range(32)} for _, start, _ in lines.requests)


@pytest.mark.looptime
async def test_a_connection_far_behind_the_others_is_opened_anew() -> None:
    lines = Lines(DATA * 4, rate=lambda number: 1e4 if number == 2 else 1e6)
    work = Blocks(len(DATA) * 4)
    await engine(lines, connections=4).run(work)
    assert work.data == DATA * 4
    assert now() < 60


@pytest.mark.looptime
async def test_the_last_connection_is_compared_with_what_the_others_were() -> None:
    data = DATA[: 6 * MB]
    lines = Lines(data, rate=lambda number: 2e3 if number == 1 else 2e5)  # one block: 500 s
    work = Blocks(len(data), block_bytes=MB)
    await engine(lines, connections=3).run(work)
    assert work.data == data
    assert now() < 60


@pytest.mark.looptime
async def test_a_slow_disk_is_no_reason_to_break_a_connection_off() -> None:
    """Seen: the connection that waited for the disk lagged behind, was cancelled within its write, and the shard's landing
    with it."""
    work = Blocks(len(DATA), write_s=lambda number: 60.0 if number == 0 else 0.0)
    await engine(Lines(DATA, rate=lambda _: 3e5), connections=4).run(work)
    assert work.data == DATA
    assert work.interrupted == 0
    assert work.times[0] == 1


@pytest.mark.looptime
async def test_a_source_that_fails_interrupts_no_write() -> None:
    """Seen: a hub that failed ended the fetch from peers too, since a cancelled write closes the shard's landing."""
    lines = Lines(DATA, trouble=lambda _: SourceRefused("gone") if now() > 8 else None)
    work = Blocks(len(DATA), write_s=lambda _: 3.0)
    with pytest.raises(SourceRefused):
        await engine(lines).run(work)
    assert work.interrupted == 0
    assert len(work.held) >= 4


@pytest.mark.looptime
async def test_what_waits_for_the_disk_is_bounded() -> None:
    work, most, came = Blocks(len(DATA), write_s=lambda _: 2.0), 0, 0

    def received(size: int) -> None:
        nonlocal most, came
        came += size
        most = max(most, came - sum(map(len, work.held.values())))

    await engine(Lines(DATA, rate=lambda _: 1e9), connections=4).run(work, received=received)
    assert work.data == DATA
    assert most <= 6 * (MB + STEP)


@pytest.mark.looptime
async def test_a_full_disk_ends_it() -> None:
    work = Blocks(len(DATA))
    work.refuse = lambda number, _: OSError(28, "No space left on device") if number > 5 else None
    with pytest.raises(OSError, match="No space left"):
        await engine(Lines(DATA)).run(work)


@pytest.mark.looptime
async def test_wrong_bytes_are_fetched_again_and_not_for_ever() -> None:
    work, again = Blocks(len(DATA)), Blocks(len(DATA))
    work.refuse = lambda number, _: WrongBytes(3, "block 3") if number == 3 and work.times[3] < 3 else None
    again.refuse = lambda number, _: WrongBytes(3, "block 3 is wrong") if number == 3 else None
    await engine(Lines(DATA)).run(work)
    assert work.data == DATA
    with pytest.raises(SourceFailed, match="wrong bytes 3 times: block 3 is wrong"):
        await engine(Lines(DATA)).run(again)
    assert again.times[3] == 3


@pytest.mark.looptime
async def test_a_server_without_ranges_is_told_from_one_that_slips() -> None:
    work = Blocks(len(DATA))
    slips = Lines(DATA, trouble=lambda number: RangesIgnored("all of it") if number in (0, 2, 3) else None)
    await engine(slips).run(work)
    assert work.data == DATA
    never = Lines(DATA, trouble=lambda _: RangesIgnored("all of it"))
    with pytest.raises(NoRanges, match="again and again"):
        await engine(never).run(Blocks(len(DATA)))
    assert IGNORED <= len(never.requests) < IGNORED + 8


@pytest.mark.looptime
async def test_bytes_that_never_make_a_block_are_no_progress() -> None:
    lines = Lines(DATA, cut=lambda _: 700_000)
    with pytest.raises(SourceFailed, match="nothing came for 120 s: cut"):
        await engine(lines).run(Blocks(len(DATA)))
    assert now() < 1000


@pytest.mark.looptime
async def test_the_limit_of_the_node_holds_for_all_its_work_together() -> None:
    shared = engine(Lines(DATA, rate=lambda _: 1e9), limit=2e6)
    one, two = Blocks(10 * MB), Blocks(10 * MB)
    async with asyncio.TaskGroup() as group:
        group.create_task(shared.run(one))
        group.create_task(shared.run(two))
    assert one.data == two.data == DATA[: 10 * MB]
    assert 8.0 <= now() <= 14.0  # 20 MiB, the first second's worth at once


@pytest.mark.looptime
async def test_the_limit_of_one_piece_of_work_is_its_own() -> None:
    shared = engine(Lines(DATA, rate=lambda _: 1e9))
    slow = TokenBucket(1e6, 1e6, clock=seeded_world(1).clock)
    await shared.run(Blocks(10 * MB), limit=slow)
    assert 8.0 <= now() <= 12.0
    started = now()
    await shared.run(Blocks(10 * MB))
    assert now() - started < 1


@pytest.mark.looptime
async def test_a_changed_limit_holds_from_then_on() -> None:
    limit: list[float | None] = [1e6]
    lines, work = Lines(DATA, rate=lambda _: 1e9), Blocks(len(DATA))
    running = Engine(
        client=lines, world=seeded_world(1), connections=lambda: 4, bytes_per_s=lambda: limit[0]  # type: ignore[arg-type]
    )
    task = asyncio.create_task(running.run(work))
    await asyncio.sleep(5)
    limit[0] = None
    await task
    assert work.data == DATA
    assert now() < 10


@pytest.mark.looptime
async def test_cancelled_it_leaves_no_task_behind() -> None:
    lines, work = Lines(DATA), Blocks(len(DATA))
    task = asyncio.create_task(engine(lines).run(work))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lines.open_now == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    held = len(work.held)
    await asyncio.sleep(60)
    assert len(work.held) == held
    assert work.left() == work.count - held, "claims are given back"


@pytest.mark.looptime
async def test_nothing_to_do_is_done_at_once() -> None:
    work = Blocks(MB)
    work.held[0], work.free = DATA[:MB], set()
    lines = Lines(DATA)
    await engine(lines).run(work)
    assert lines.requests == []
