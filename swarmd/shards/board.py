"""Which chunk of one shard is asked of which source. Pure: claims in, chunk numbers out; times are arguments.

Rare chunks go first, those that the fewest connected sources can give: so nodes that fetch the same shard at once bring
different parts of it near each other, and one that leaves takes little along that nobody else has. Among equals the order
begins at a place that each node draws for itself.

The end. A source that is much slower than others is not given the last chunks, since the others would have brought them
before it has brought one. And when nothing is unclaimed, a chunk that is late at one source may be claimed at one more: the
first copy wins. At most END_GAME chunks are doubled at a time, and each is asked of two sources at most; so what is brought
in vain is less than the chunks that are on their way at the end, and usually nothing. A chunk whose sources are all stuck,
each longer than it ever needed, does not count, and may be claimed at one more: whoever never answers keeps nobody waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Final

END_GAME: Final = 4  # 32 MiB that may come twice at a time
MUCH: Final = 2.0  # times slower: measured times of one source scatter by less than that
LATE_S: Final = 10.0  # a source that was never measured doubles what another has owed for so long


@dataclass(slots=True, kw_only=True, eq=False)
class _Source:
    distance: float
    chunks: frozenset[int] | None
    seconds: float | None = None
    claims: dict[int, float] = field(default_factory=dict)  # chunk: when it was claimed

    def gives(self, number: int) -> bool:
        return self.chunks is None or number in self.chunks

    def wait_s(self, now: float) -> float:
        """From a claim to its chunk, as far as is known; one that owes a chunk for longer is slower than it was."""
        if self.seconds is None:
            return inf
        return max(self.seconds, max((now - since for since in self.claims.values()), default=0.0))


class Board:
    """The missing chunks of one shard, and who is at which. Sources are known by a name each. Times in seconds."""

    def __init__(self, missing: Iterable[int], *, count: int, start: int = 0) -> None:
        """`count`: chunks of the shard. `start`: the chunk at which the order of equals begins."""
        self._missing = set(missing)
        self._free = set(self._missing)
        self._sources: dict[str, _Source] = {}
        self._at: dict[int, list[str]] = {}  # by whom a chunk is claimed: one source, or two
        self._partial: dict[int, int] = {}  # how many of those that do not have all have it
        self._count, self._start = count, start

    @property
    def missing(self) -> frozenset[int]:
        """Not here yet, claimed or not."""
        return frozenset(self._missing)

    @property
    def free(self) -> int:
        """How many are missing and claimed by nobody."""
        return len(self._free)

    def wants(self, number: int) -> bool:
        return number in self._missing

    def claims(self, source: str) -> tuple[int, ...]:
        """Sorted."""
        found = self._sources.get(source)
        return () if found is None else tuple(sorted(found.claims))

    def ages(self, source: str, *, now: float) -> tuple[tuple[int, float], ...]:
        """(chunk, seconds since its claim) for each that the source owes."""
        found = self._sources.get(source)
        return () if found is None else tuple((number, now - since) for number, since in found.claims.items())

    def join(self, source: str, *, distance: float, chunks: Iterable[int] | None = None) -> None:
        """A source that can give these chunks (None: all), or now can. `distance`: any number, near is less."""
        known = self._sources.get(source)
        having = None if chunks is None else frozenset(chunks)
        if known is None:
            self._sources[source] = _Source(distance=distance, chunks=having)
        else:
            self._tally(known, -1)
            known.distance, known.chunks = distance, having
        self._tally(self._sources[source], 1)

    def leave(self, source: str) -> None:
        """What it had claimed is free again. Nothing happens when it has not joined."""
        known = self._sources.get(source)
        if known is not None:
            for number in tuple(known.claims):
                self.release(source, number)
            self._tally(known, -1)
            del self._sources[source]

    def measured(self, source: str, seconds: float) -> None:
        """How long its chunks take, from the claim on; smoothed by the caller."""
        if (known := self._sources.get(source)) is not None:
            known.seconds = seconds

    def claim(self, source: str, count: int, *, now: float, consecutive: bool = False) -> tuple[int, ...]:
        """Up to `count` chunks that this source is to bring; none when there is nothing for it now. `consecutive`: each the
        next of the one before."""
        asker = self._sources[source]
        able = [number for number in self._free if asker.gives(number)]
        if not able:
            late = self._late(asker, now)
            return () if late is None or count < 1 else self._give(source, (late,), now)
        if self._too_far(asker, able, now):
            return ()
        if not consecutive:
            return self._give(source, sorted(able, key=self._order)[:count], now)
        number = min(able, key=self._order)
        chosen = [number]
        while len(chosen) < count and number + 1 in self._free and asker.gives(number + 1):
            number += 1
            chosen.append(number)
        return self._give(source, chosen[:count], now)

    def release(self, source: str, number: int) -> None:
        """It does not bring this chunk. Nothing happens when it is not asked to."""
        known = self._sources.get(source)
        if known is None or known.claims.pop(number, None) is None:
            return
        left = self._at[number]
        left.remove(source)
        if not left:
            del self._at[number]
            self._free.add(number)

    def finish(self, source: str, number: int) -> tuple[str, ...]:
        """The chunk is here. Returns the other sources that were asked for it: they need not bring it any more."""
        self._missing.discard(number)
        self._free.discard(number)
        owing = self._at.pop(number, [])
        for name in owing:
            del self._sources[name].claims[number]
        return tuple(name for name in owing if name != source)

    def elsewhere(self, source: str, number: int) -> bool:
        """Whether another source could give this chunk."""
        return any(other.gives(number) for name, other in self._sources.items() if name != source)

    # ---- inside

    def _tally(self, source: _Source, step: int) -> None:
        for number in source.chunks or ():
            self._partial[number] = self._partial.get(number, 0) + step

    def _order(self, number: int) -> tuple[int, int]:
        return self._partial.get(number, 0), (number - self._start) % max(1, self._count)

    def _give(self, source: str, numbers: Iterable[int], now: float) -> tuple[int, ...]:
        given = tuple(numbers)
        for number in given:
            self._free.discard(number)
            self._at.setdefault(number, []).append(source)
            self._sources[source].claims[number] = now
        return given

    def _too_far(self, asker: _Source, able: list[int], now: float) -> bool:
        """Others that are at work bring all of these before this source would bring one."""
        at_work = [
            other
            for other in self._sources.values()
            if other is not asker and other.claims and all(other.gives(number) for number in able)
        ]
        if asker.seconds is None:  # one try is worth it, but not with the last ones
            known = [other for other in at_work if other.seconds is not None and other.distance <= asker.distance]
            return len(able) <= END_GAME and bool(known)
        mine = asker.wait_s(now)
        quick = [(other.wait_s(now), len(other.claims)) for other in at_work if other.wait_s(now) * MUCH < mine]
        if not quick:
            return False
        a_second = sum(count / max(seconds, 1e-6) for seconds, count in quick)  # chunks
        return mine > MUCH * (len(able) / a_second + min(seconds for seconds, _ in quick))

    def _late(self, asker: _Source, now: float) -> int | None:
        """A chunk that another source owes for much longer than this one would need."""
        doubled = sum(1 for number, names in self._at.items() if len(names) > 1 and not self._is_stuck(number, now))
        if doubled >= END_GAME:
            return None
        worst, found = 0.0, None
        for number, names in self._at.items():
            if number in asker.claims or not asker.gives(number):
                continue
            if len(names) > 1 and not self._is_stuck(number, now):
                continue
            other = self._sources[names[0]]
            age = now - other.claims[number]
            # One that is overdue may take as long again; of one never measured nothing else is known either.
            left = age if other.seconds is None else max(other.seconds - age, age - other.seconds)
            if left > (LATE_S if asker.seconds is None else MUCH * asker.seconds) and left > worst:
                worst, found = left, number
        return found

    def _is_stuck(self, number: int, now: float) -> bool:
        """All who were asked for it have owed it for longer than LATE_S, and than they ever needed."""
        owing = [self._sources[name] for name in self._at[number]]
        return all(now - one.claims[number] > max(LATE_S, MUCH * (one.seconds or 0.0)) for one in owing)
