"""A download that is killed again and again, in small; in full: `python -m bench.resume`."""

from __future__ import annotations

from pathlib import Path

from bench.resume import killed


def test_a_download_killed_at_any_moment_goes_on_and_ends_right(tmp_path: Path) -> None:
    found = killed(tmp_path, size=48 << 20, kills=12, seed=2, life_s=0.2)
    assert found.kills >= 8
    assert max(found.sent, found.received) <= found.allowed
    assert found.sent <= 1.5 * found.size, "a block for each connection, not a chunk"
