"""Damaged revocations: each is read exactly or refused, and none that was changed holds."""

from __future__ import annotations

import random
from itertools import islice

from tests.fuzz.fuzz_revocations import cases, exercise, seeds

COUNT = 5_000


def test_five_thousand_damaged_revocations() -> None:
    records = seeds()
    assert all(exercise(data, records) for data in records)
    accepted = sum(exercise(data, records) is not None for data in islice(cases(records, random.Random(1)), COUNT))
    assert COUNT // 20 < accepted < COUNT, "mutations that hit nothing or everything test nothing"
