"""Who is asked for which chunk: properties of any order of claims, losses and arrivals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmd.shards.board import END_GAME, LATE_S, Board

COUNT = 12
NAMES = ("a", "b", "c", "d")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("join", "part", "leave", "claim", "run", "finish", "release", "measure")),
        st.sampled_from(NAMES),
        st.integers(0, COUNT - 1),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, COUNT - 1))
def test_whatever_happens_every_chunk_is_free_claimed_or_here(steps: list[tuple[str, str, int]], start: int) -> None:
    board, here, joined, now = Board(range(COUNT), count=COUNT, start=start), set[int](), dict[str, set[int]](), 0.0
    for what, name, number in steps:
        now += 1.0
        if what == "join":
            board.join(name, distance=number)
            joined[name] = set(range(COUNT))
        elif what == "part":
            board.join(name, distance=number, chunks=range(number))
            joined[name] = set(range(number)) | set(board.claims(name))
        elif what == "leave":
            board.leave(name)
            joined.pop(name, None)
            assert board.claims(name) == ()
        elif what in ("claim", "run") and name in joined:
            owed = {chunk for other in joined for chunk in board.claims(other)}
            given_now = board.claim(name, 3, now=now, consecutive=what == "run")
            assert len(set(given_now)) == len(given_now) <= 3
            assert set(given_now) <= joined[name] - here
            if what == "run":
                assert list(given_now) == list(range(given_now[0], given_now[0] + len(given_now))) if given_now else True
            doubled = set(given_now) & owed
            assert not doubled or (len(given_now) == 1 and owed >= joined[name] & set(board.missing) - doubled)
        elif what == "finish" and number in board.claims(name):
            losers = board.finish(name, number)
            here.add(number)
            assert name not in losers and not any(number in board.claims(other) for other in joined)
        elif what == "release":
            board.release(name, number)
            assert number not in board.claims(name)
        elif what == "measure":
            board.measured(name, 0.1 + number)
        claims = [chunk for other in joined for chunk in board.claims(other)]
        assert board.missing == frozenset(range(COUNT)) - here and set(claims) <= board.missing
        assert all(claims.count(chunk) <= 2 for chunk in claims)
        assert sum(1 for chunk in set(claims) if claims.count(chunk) == 2) <= END_GAME


@given(st.lists(st.frozensets(st.integers(0, COUNT - 1)), min_size=1, max_size=4), st.integers(0, COUNT - 1))
def test_what_the_sources_have_together_comes_whole(parts: list[frozenset[int]], start: int) -> None:
    """Sources that bring what they claim, one after another: nothing that anybody has stays away."""
    board, now = Board(range(COUNT), count=COUNT, start=start), 0.0
    for number, part in enumerate(parts):
        board.join(str(number), distance=number, chunks=part)
    moved = True
    while moved:
        moved = False
        for number in range(len(parts)):
            now += 1.0
            for chunk in board.claim(str(number), 2, now=now):
                board.finish(str(number), chunk)
                board.measured(str(number), 1.0)
                moved = True
    assert board.missing == frozenset(range(COUNT)).difference(*parts)


def test_rare_chunks_go_first_and_equals_from_a_place_of_ones_own() -> None:
    board = Board(range(6), count=6, start=4)
    board.join("whole", distance=1.0)
    assert board.claim("whole", 2, now=0.0) == (4, 5)
    board.join("part", distance=2.0, chunks=(0, 1, 4))
    assert board.claim("whole", 2, now=0.0) == (2, 3), "nobody else has them"
    assert board.claim("part", 3, now=0.0) == (0, 1)


def test_a_run_is_consecutive_and_ends_at_what_somebody_has() -> None:
    board = Board(range(8), count=8)
    board.join("hub", distance=100.0)
    board.join("peer", distance=1.0)
    assert board.claim("peer", 1, now=0.0) == (0,)
    board.finish("peer", 0)
    assert board.claim("hub", 4, now=0.0, consecutive=True) == (1, 2, 3, 4)
    board.leave("hub")
    assert board.claim("peer", 8, now=0.0) == (1, 2, 3, 4, 5, 6, 7), "what it had claimed is free again"


def test_the_last_chunks_are_not_for_a_source_that_is_far() -> None:
    board = Board(range(5), count=5)
    board.join("near", distance=1.0)
    board.join("far", distance=200.0)
    board.measured("near", 0.1)
    board.measured("far", 30.0)
    assert board.claim("near", 1, now=0.0) == (0,)
    assert board.claim("far", 1, now=0.0) == (), "the near one brings all of them within a second"
    assert board.claim("far", 1, now=20.0) == (1,), "the near one has brought nothing for long"
    board.leave("near")
    assert board.claim("far", 1, now=20.0) == (0,)
    many = Board(range(1000), count=1000)
    many.join("near", distance=1.0)
    many.join("far", distance=200.0)
    many.measured("near", 0.1)
    many.measured("far", 30.0)
    assert many.claim("near", 1, now=0.0) and many.claim("far", 1, now=0.0), "far from the end everybody helps"


def test_an_unmeasured_far_source_is_tried_but_not_with_the_last_ones() -> None:
    for count, given_to_far in ((END_GAME + 2, 1), (END_GAME, 0)):
        board = Board(range(count), count=count)
        board.join("near", distance=1.0)
        board.join("far", distance=200.0)
        board.measured("near", 5.0)
        board.claim("near", 1, now=0.0)
        assert len(board.claim("far", 1, now=0.0)) == given_to_far


def test_late_chunks_are_doubled_and_the_first_copy_wins() -> None:
    board = Board(range(6), count=6)
    board.join("slow", distance=1.0)
    board.join("quick", distance=2.0)
    board.measured("slow", 10.0)
    board.measured("quick", 0.5)
    assert len(board.claim("slow", 6, now=0.0)) == 6
    doubled = [chunk for _ in range(6) for chunk in board.claim("quick", 1, now=1.0)]
    assert len(doubled) == END_GAME == len(set(doubled))
    assert board.finish("quick", doubled[0]) == ("slow",)
    assert board.finish("slow", doubled[1]) == ("quick",)
    assert len(board.claim("quick", 1, now=1.0)) == 1, "one more may be late at a time again"


def test_one_that_was_never_measured_doubles_what_is_very_late() -> None:
    board = Board(range(1), count=1)
    board.join("silent", distance=1.0)
    board.join("other", distance=2.0)
    assert board.claim("silent", 1, now=0.0) == (0,)
    assert board.claim("other", 1, now=LATE_S) == ()
    assert board.claim("other", 1, now=LATE_S + 1) == (0,)
    assert board.elsewhere("silent", 0) and board.ages("silent", now=5.0) == ((0, 5.0),)


def test_two_that_never_answer_do_not_keep_a_chunk_from_the_third() -> None:
    """Seen: it waited for their calls to time out, five minutes."""
    board = Board(range(1), count=1)
    for name in ("silent", "dumb", "good"):
        board.join(name, distance=1.0)
    assert board.claim("silent", 1, now=0.0) == (0,)
    assert board.claim("dumb", 1, now=LATE_S + 1) == (0,)
    assert board.claim("good", 1, now=2 * LATE_S) == (), "it was asked of the second not long ago"
    assert board.claim("good", 1, now=2 * LATE_S + 2) == (0,)
    assert set(board.finish("good", 0)) == {"silent", "dumb"}


def test_stuck_chunks_leave_the_end_to_others() -> None:
    board = Board(range(END_GAME + 1), count=END_GAME + 1)
    for name in ("silent", "dumb", "good"):
        board.join(name, distance=1.0)
    assert len(board.claim("silent", END_GAME + 1, now=0.0)) == END_GAME + 1
    assert len([chunk for _ in range(9) for chunk in board.claim("dumb", 1, now=LATE_S + 1)]) == END_GAME
    later = [chunk for _ in range(9) for chunk in board.claim("good", 1, now=3 * LATE_S)]
    assert len(later) == len(set(later)) >= END_GAME, "and no more than that at a time are doubled among the living"
