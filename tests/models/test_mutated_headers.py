"""10,000 damaged headers: each is read or refused, quickly, and in proportion to its size."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
from itertools import islice

from swarmd.models.gguf import BadGguf, GgufLimits, parse_header
from tests.fakes.gguf import rich_header
from tests.fuzz.fuzz_gguf import cases, exercise, seeds

COUNT = 10_000


def test_ten_thousand_damaged_headers() -> None:
    headers = seeds()
    accepted, slowest = 0, 0.0
    for data in islice(cases(headers, random.Random(1)), COUNT):
        start = time.process_time()
        accepted += exercise(data) is not None
        slowest = max(slowest, time.process_time() - start)
    assert 0 < accepted < COUNT // 2, "mutations that hit nothing or everything test nothing"
    assert slowest < 1, "a length made it loop"


def test_memory_follows_the_bytes_that_are_there_not_those_that_are_promised() -> None:
    headers = seeds()
    allowed = 20 * max(map(len, headers))  # a 40-byte row of the tensor table is 600 bytes as objects
    tracemalloc.start()
    try:
        for data in islice(cases(headers, random.Random(2)), COUNT // 10):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with contextlib.suppress(BadGguf):
                parse_header(data)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < allowed, f"{len(data)} bytes cost {peak - before}"
    finally:
        tracemalloc.stop()


def test_a_full_header_costs_at_most_three_times_its_cap() -> None:
    limits = GgufLimits(max_header_bytes=1 << 20)
    key = rich_header().index(b"test.words") + len(b"test.words") + 8  # the number of words
    flood = rich_header()[:key] + (1 << 17).to_bytes(8, "little") + bytes(2 << 20)
    tracemalloc.start()
    try:
        with contextlib.suppress(BadGguf):
            parse_header(flood, limits=limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limits.max_header_bytes
