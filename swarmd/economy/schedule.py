"""Hours in which the machine gives less: what the schedule does to contribution and pressure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from swarmd.domain.autopilot import Aggressiveness, Contribution, Schedule

PRESSURE: Final[Mapping[Aggressiveness, float]] = {"aggressive": 0.3, "normal": 0.15, "conservative": 0.0}
"""Added in reduced hours: contract, swarmllm.md 4.11."""

_ORDER: Final[Mapping[Contribution, int]] = {"minimal": 0, "moderate": 1, "maximum": 2}


def local_hour(unix_s: float) -> int:
    """By this machine's time zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().hour


def is_reduced(schedule: Schedule, hour: int) -> bool:
    """From the start to the end, which is not included; over midnight where the end comes first."""
    if not schedule.enabled:
        return False
    return (hour - schedule.reduced_hours_start) % 24 < (schedule.reduced_hours_end - schedule.reduced_hours_start) % 24


def contribution_at(schedule: Schedule, contribution: Contribution, hour: int) -> Contribution:
    """What the machine gives at that hour: the schedule takes away and never adds."""
    if not is_reduced(schedule, hour):
        return contribution
    return min(contribution, schedule.reduced_contribution, key=_ORDER.__getitem__)


def pressure_at(schedule: Schedule, hour: int) -> float:
    """What the hour adds to the pressure to drop shards."""
    return PRESSURE[schedule.prune_aggressiveness] if is_reduced(schedule, hour) else 0.0


def most_pressure(schedule: Schedule) -> float:
    """The most that any hour of the day adds."""
    return max(pressure_at(schedule, hour) for hour in range(24))
