"""A few thousand mutated records, as `tests.fuzz.fuzz_gossip` makes them for as long as one likes."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

from swarmd.peers.fact_table import Verdict
from tests.fuzz.fuzz_gossip import cases, exercise, exercise_messages, seeds


def test_mutated_records_get_a_verdict() -> None:
    verdicts = Counter(exercise(data) for data in islice(cases(seeds(), random.Random(7)), 1500))
    assert {Verdict.NEWS, Verdict.FORGED, Verdict.REFUSED, Verdict.UNSOUND} <= set(verdicts), verdicts


def test_packed_parts_of_whole_lengths() -> None:
    chance = random.Random(8)
    for count in range(40):
        exercise_messages(chance.randbytes(40 * count))
