"""Readings: progress, memory, round-trip times. The last write wins; nobody is notified; faces sample them.

A name is a dotted path, `shards.<model>.3.progress`. An owner that goes away removes its readings, else they would lie.
"""

from __future__ import annotations

Reading = float | int | str


class Gauges:
    """One per node."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}

    def set(self, name: str, value: Reading) -> None:
        self._readings[name] = value

    def add(self, name: str, amount: float = 1) -> None:
        """For counters: a reading that is not there counts as 0."""
        before = self._readings.get(name, 0)
        assert not isinstance(before, str), f"gauge {name} holds text"
        self._readings[name] = before + amount

    def get(self, name: str, default: Reading | None = None) -> Reading | None:
        return self._readings.get(name, default)

    def remove(self, prefix: str) -> None:
        """Forget the reading of this name and every reading below it."""
        gone = [name for name in self._readings if name == prefix or name.startswith(f"{prefix}.")]
        for name in gone:
            del self._readings[name]

    def snapshot(self, prefix: str = "") -> dict[str, Reading]:
        """A copy of every reading whose name starts with `prefix`, by name."""
        return {name: self._readings[name] for name in sorted(self._readings) if name.startswith(prefix)}
