"""What is proposed, and when it is worth sending."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from swarmd.inference.drafting import FIRST_PLAIN, LONGEST, MOST, SHORTEST, Drafter, Lookup, Payoff


def test_what_followed_the_last_tokens_before_is_proposed() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 9, 9, 2, 3])
    assert lookup.propose(3) == [4, 5, 6]
    lookup.extend([4, 7, 3])
    assert lookup.propose(3) == [], "a pair that never stood before"
    assert Lookup([]).propose(4) == Lookup([1]).propose(4) == []


def test_the_longest_that_stood_before_decides_and_then_the_latest() -> None:
    lookup = Lookup([1, 2, 3, 50, 7, 2, 3, 60, 1, 2, 3])
    assert lookup.propose(1) == [50], "three tokens alike, though two stood later"
    lookup = Lookup([2, 3, 50, 8, 2, 3, 60, 9, 2, 3])
    assert lookup.propose(1) == [60]


def test_a_text_that_repeats_itself_is_proposed_beyond_its_end() -> None:
    assert Lookup([1, 2, 3, 1, 2, 3, 1]).propose(7) == [2, 3, 1, 2, 3, 1, 2]
    assert Lookup([5, 5, 5]).propose(4) == [5, 5, 5, 5]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 10))
def test_a_proposal_stood_behind_what_stands_last(tokens: list[int], most: int) -> None:
    """As a slow search finds it."""
    whole, cut = Lookup(tokens), Lookup(tokens[: len(tokens) // 2])
    cut.extend(tokens[len(tokens) // 2 :])
    found = whole.propose(most)
    assert found == cut.propose(most) and len(found) in (0, most)
    for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == tokens[-length:]:
                expected = tokens[end:]
                while len(expected) < most:
                    expected = expected + expected[: most - len(expected)]
                assert found == expected[:most]
                return
    assert found == []


def paid(*, hits: float, row: float, steps: int = 200) -> Payoff:
    """After so many proposals that come true with this chance for each token."""
    payoff, lots = Payoff(), random.Random(1)
    for _ in range(FIRST_PLAIN):
        payoff.took(1, 1.0)
    for _ in range(steps):
        right = 0
        while right < MOST and lots.random() < hits:
            right += 1
        payoff.observed(right, right < MOST)
        if length := payoff.length():
            payoff.took(length + 1, 1 + row * length)
    return payoff


def test_nothing_is_sent_before_it_is_known_what_a_step_costs_and_that_proposals_come_true() -> None:
    payoff = Payoff()
    payoff.observed(10, wrong=False)
    assert payoff.length() == 0
    for _ in range(FIRST_PLAIN):
        payoff.took(1, 1.0)
    assert payoff.length() > 0
    assert paid(hits=0.1, row=0.02).length() == 0


def test_the_more_come_true_and_the_less_rows_cost_the_more_are_sent() -> None:
    lengths = [paid(hits=hits, row=0.05).length() for hits in (0.3, 0.6, 0.8, 0.95)]
    assert lengths == sorted(lengths) and lengths[-1] > lengths[1] > 0
    costs = [paid(hits=0.9, row=row).length() for row in (0.01, 0.1, 0.4, 1.0)]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 0


def test_new_text_costs_nothing_and_a_quotation_is_noticed() -> None:
    lots = random.Random(2)
    drafter = Drafter([lots.randrange(50) for _ in range(300)])
    for _ in range(300):
        assert drafter.draft(20) == [] or drafter.proposed < 20
        drafter.came([lots.randrange(50)], sent=0, seconds=1.0)
    quoted = [lots.randrange(5000) for _ in range(200)]
    drafter = Drafter([*quoted, 1, 2, 3])
    at = came = steps = 0
    while at < len(quoted):
        sent = drafter.draft(20)
        right = 0
        while right < len(sent) and at + right < len(quoted) and sent[right] == quoted[at + right]:
            right += 1
        tokens = quoted[at : at + right + 1]
        drafter.came(tokens, sent=len(sent), seconds=1 + 0.05 * len(sent))
        at, came, steps = at + len(tokens), came + len(tokens), steps + 1
    assert came == len(quoted) and steps < len(quoted) / 4
    assert drafter.accepted > len(quoted) / 2 and drafter.accepted <= drafter.proposed


def test_no_more_is_sent_than_there_is_room_for() -> None:
    drafter = Drafter([1, 2, 3, 4] * 20)
    for _ in range(30):
        sent = drafter.draft(3)
        assert len(sent) <= 3
        drafter.came([*sent, (sent or [0])[-1] % 4 + 1], sent=len(sent), seconds=1.0)
    assert drafter.draft(0) == []
