"""Reduced hours."""

from __future__ import annotations

import pytest

from swarmd.domain.autopilot import Schedule
from swarmd.economy.schedule import contribution_at, is_reduced, local_hour, most_pressure, pressure_at

NIGHT = Schedule(enabled=True, reduced_hours_start=22, reduced_hours_end=8)


@pytest.mark.parametrize(("hour", "reduced"), [(21, False), (22, True), (23, True), (0, True), (7, True), (8, False)])
def test_over_midnight(hour: int, reduced: bool) -> None:
    assert is_reduced(NIGHT, hour) is reduced


def test_within_a_day_and_not_at_all() -> None:
    noon = Schedule(enabled=True, reduced_hours_start=12, reduced_hours_end=14)
    assert [hour for hour in range(24) if is_reduced(noon, hour)] == [12, 13]
    assert not any(is_reduced(Schedule(enabled=True, reduced_hours_start=5, reduced_hours_end=5), h) for h in range(24))
    assert not any(is_reduced(Schedule(enabled=False), hour) for hour in range(24))


def test_it_takes_away_and_never_adds() -> None:
    assert contribution_at(NIGHT, "maximum", 23) == "minimal" and contribution_at(NIGHT, "maximum", 12) == "maximum"
    generous = Schedule(enabled=True, reduced_contribution="maximum")
    assert contribution_at(generous, "moderate", 23) == "moderate"


@pytest.mark.parametrize(("how", "added"), [("aggressive", 0.3), ("normal", 0.15), ("conservative", 0.0)])
def test_pressure_of_the_hours(how, added: float) -> None:
    schedule = Schedule(enabled=True, prune_aggressiveness=how)
    assert pressure_at(schedule, 23) == added and pressure_at(schedule, 12) == 0.0
    assert most_pressure(schedule) == added and most_pressure(Schedule(prune_aggressiveness=how)) == 0.0


def test_hours_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert local_hour(1_700_000_000.0) == 3  # 22:13 UTC, and 5 h 45 min
    finally:
        monkeypatch.undo()
        time.tzset()
