"""What measurements write and `bench.report` reads: every round as it came, with the machine and the options, as JSON.

One file for each measurement, written anew after every round, so that an interrupted run goes on where it was. Folder:
`bench/results`, or what BENCH_RESULTS names.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.fleet import ROOT

Round = dict[str, Any]
"""One round of one arm: `arm`, and whatever was measured; numbers, texts, lists of them."""


def folder() -> Path:
    return Path(os.environ.get("BENCH_RESULTS") or ROOT / "bench" / "results")


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> dict[str, Any]:
    """Without names and addresses: what somebody who compares figures has to know."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


@dataclass(slots=True, kw_only=True)
class Result:
    """One measurement, finished or not."""

    name: str
    made: str
    """The day on which it was begun."""
    machine: dict[str, Any]
    options: dict[str, Any]
    rounds: list[Round] = field(default_factory=list[Round])
    loads: list[float] = field(default_factory=list[float])
    """The system's load over a minute, before each sitting: the measurement's own is not in it."""

    def of(self, **wanted: object) -> list[Round]:
        """The rounds with these values."""
        return [one for one in self.rounds if all(one.get(key) == value for key, value in wanted.items())]

    def values(self, key: str, **wanted: object) -> list[float]:
        return [float(one[key]) for one in self.of(**wanted) if one.get(key) is not None]

    def as_json(self) -> str:
        """A line for each round, so that a difference is readable."""
        head = {"name": self.name, "made": self.made, "machine": self.machine, "options": self.options, "loads": self.loads}
        lines = json.dumps(head, indent=1)[:-2] + ',\n "rounds": [\n'
        return lines + ",\n".join("  " + json.dumps(one) for one in self.rounds) + "\n ]\n}\n"


def read(path: Path) -> Result | None:
    """None where there is none."""
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return Result(
        name=data["name"], made=data["made"], machine=data["machine"], options=data["options"], rounds=data["rounds"],
        loads=data["loads"],
    )  # fmt: skip


def everything() -> dict[str, Result]:
    """By name."""
    found = (read(path) for path in sorted(folder().glob("*.json")))
    return {one.name: one for one in found if one is not None}


class Record:
    """A measurement in progress."""

    def __init__(self, name: str, options: dict[str, Any], *, fresh: bool) -> None:
        """Goes on with what an earlier run on a machine like this one left, if its options were these and not `fresh`."""
        self._path = folder() / f"{name}.json"
        found = None if fresh else read(self._path)
        if found is None or found.options != options or found.machine != machine():
            today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
            found = Result(name=name, made=today, machine=machine(), options=options)
        self.result = found
        self.result.loads.append(round(os.getloadavg()[0], 2))

    def count(self, **wanted: object) -> int:
        return len(self.result.of(**wanted))

    def add(self, *rounds: Round) -> None:
        """Together, or not at all."""
        self.result.rounds += [{key: _short(value) for key, value in one.items()} for one in rounds]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(self.result.as_json())
        partial.rename(self._path)

    def drop(self, unwanted: Callable[[Round], bool]) -> None:
        """Rounds of a turn that was not finished."""
        self.result.rounds = [one for one in self.result.rounds if not unwanted(one)]


def _short(value: Any) -> Any:
    """Six digits say all that a measurement knows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_short(one) for one in value]
    return value
