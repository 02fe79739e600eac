"""One model being brought here, as it stands: what people see of it. No I/O; the clock's readings are arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.shards import Acquisition, Transfer, TransferState

LOG_LINES: Final = 50
SHARD_LOG_LINES: Final = 10  # of each shard: a model has hundreds
RATE_WINDOW_S: Final = 5.0  # long enough to smooth chunks of 8 MiB on a slow line, short enough to see a stall
RATE_SAMPLES: Final = 256  # more chunks than that in the window mean a rate nobody needs to the last digit


@dataclass(slots=True, kw_only=True)
class _Progress:
    total_bytes: int
    done_bytes: int = 0
    state: TransferState = TransferState.PENDING
    source: NodeId | None = None
    hub: bool = False
    log: deque[str] = field(default_factory=lambda: deque(maxlen=SHARD_LOG_LINES))
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLES))


class Job:
    """Changed by whoever does the work, read by `snapshot`."""

    def __init__(self, model: ModelId, *, trigger: str, started_at: float, local: bool = False) -> None:
        """`started_at`: unix seconds. `local`: from a file of this node."""
        self.model, self.trigger, self.started_at, self.local = model, trigger, started_at, local
        self.state = "awaiting_manifest"
        self.waiting: str | None = None
        """`queued` or `paused`: it is not being worked on, whatever its state."""
        self.name = ""
        """Of the model, for people; empty as long as it is not known."""
        self.settled = False
        """Everything asked for is done and forgotten: who asks for more now begins another job."""
        self.trouble: str | None = None
        """Why the first of the shards that were given up was."""
        self.hub = False
        """The hub is asked for what no near peer holds."""
        self.asked: tuple[int, ...] | None = ()
        """What was asked for before the shards were known, sorted; None: all, or this node's share."""
        self.reason: str | None = None
        self.hindrance: str | None = None
        """What a source said that gives nothing at the moment; None when something comes."""
        self.urged = 0
        """How often a person has asked for more, or for the same again: who waits to ask again asks now."""
        self.identity = ""
        """`KnownModel.identity` of the cut that the shards are of; empty as long as none is chosen, and for a local file."""
        self.liars: set[NodeId] = set()
        """Sent bytes that were not what they should be; not asked again in this job."""
        self._shards: dict[int, _Progress] = {}
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)

    @property
    def over(self) -> bool:
        return self.state in ("complete", "failed", "cancelled")

    @property
    def wanted(self) -> tuple[int, ...]:
        """Sorted; empty as long as the shards are not chosen."""
        return tuple(sorted(self._shards))

    @property
    def open(self) -> tuple[int, ...]:
        """Shards that are neither here nor given up; sorted."""
        ended = (TransferState.COMPLETE, TransferState.FAILED)
        return tuple(index for index in self.wanted if self._shards[index].state not in ended)

    @property
    def given_up(self) -> tuple[int, ...]:
        """Sorted."""
        return tuple(index for index in self.wanted if self._shards[index].state is TransferState.FAILED)

    def ask(self, indices: tuple[int, ...] | None) -> None:
        """These too, as long as the shards are not known."""
        self.asked = None if indices is None or self.asked is None else tuple(sorted({*self.asked, *indices}))

    def want(self, sizes: Iterable[tuple[int, int]]) -> None:
        """These shards too: (index, bytes) each. One that was given up, or has come and gone again, begins anew."""
        pending = self.open
        for index, size in sizes:
            if index not in pending:
                self._shards[index] = _Progress(total_bytes=size)
        self.state = "downloading"

    def say(self, line: str, *, index: int | None = None) -> None:
        """`index`: the shard that it is about."""
        self._log.append(line)
        if index is not None:
            self._shards[index].log.append(line)

    def begin(self, index: int, *, done_bytes: int, source: NodeId | None) -> None:
        shard = self._shards[index]
        shard.state, shard.done_bytes, shard.source = TransferState.DOWNLOADING, done_bytes, source

    def kept(self, index: int, done_bytes: int) -> None:
        """So much of it lies here from before."""
        self._shards[index].done_bytes = done_bytes

    def stand_still(self) -> None:
        """Nothing comes from here on, until it goes on: what came before says nothing of the speed then."""
        self._samples.clear()
        for shard in self._shards.values():
            shard.samples.clear()

    def gained(
        self,
        index: int,
        size: int,
        *,
        at: float,
        done_bytes: int | None = None,
        source: NodeId | None = None,
        hub: bool = False,
    ) -> None:
        """`at`: monotonic seconds. `source` or `hub`: who sent these bytes. `done_bytes`: of the shard now, where that is
        known better: what turned out wrong does not count."""
        shard = self._shards[index]
        shard.done_bytes = shard.done_bytes + size if done_bytes is None else done_bytes
        shard.hub = hub
        self.hindrance = None
        if source is not None:
            shard.source = source
        shard.samples.append((at, size))
        self._samples.append((at, size))

    def mark(self, index: int, state: TransferState) -> None:
        shard = self._shards[index]
        shard.state = state
        if state is TransferState.COMPLETE:
            shard.done_bytes = shard.total_bytes

    def fail(self, reason: str) -> None:
        """Everything that is not here is given up. The first reason stays."""
        if self.over:
            return
        for index in self.open:
            self._shards[index].state = TransferState.FAILED
        self.state, self.reason = "failed", reason
        self.say(reason)

    def cancelled(self) -> None:
        """Somebody does not want it any more: everything that is not here is given up."""
        for index in self.open:
            self._shards[index].state = TransferState.FAILED
        self.state, self.waiting = "cancelled", None
        self.say("cancelled")

    @property
    def percent(self) -> int:
        """Of all bytes that are wanted, 0 to 100; 0 as long as the shards are not chosen."""
        total = sum(shard.total_bytes for shard in self._shards.values())
        return sum(shard.done_bytes for shard in self._shards.values()) * 100 // total if total else 0

    def complete(self) -> None:
        self.state = "complete"
        self.say(f"all {len(self._shards)} shards are here")

    def source(self, index: int) -> NodeId | None:
        """Who sent the latest bytes of a shard; None: nobody, it was complete when the job began, or it is a local file."""
        return self._shards[index].source

    def from_hub(self, index: int) -> bool:
        """The latest bytes of a shard came from the hub."""
        return self._shards[index].hub

    def progress(self, index: int) -> float:
        """Of one shard, 0 to 1."""
        shard = self._shards[index]
        return shard.done_bytes / shard.total_bytes

    def snapshot(self, *, at: float, place: int = 0) -> Acquisition:
        """`at`: monotonic seconds."""
        return Acquisition(
            model=self.model,
            state=self.state if self.over else self.waiting or self.state,
            reason=self.reason if self.over or self.waiting else self.reason or self.hindrance,
            transfers=tuple(
                Transfer(
                    index=index,
                    state=shard.state,
                    done_bytes=shard.done_bytes,
                    total_bytes=shard.total_bytes,
                    source=shard.source,
                    hub=shard.hub,
                    bytes_per_second=_rate(shard.samples, at) if shard.state is TransferState.DOWNLOADING else 0.0,
                    log=tuple(shard.log),
                )
                for index, shard in sorted(self._shards.items())
            ),
            bytes_per_second=0.0 if self.over else _rate(self._samples, at),
            started_at=self.started_at,
            log=tuple(self._log),
            trigger=self.trigger,
            name=self.name,
            place=place,
        )


def _rate(samples: Iterable[tuple[float, int]], at: float) -> float:
    """Bytes a second within RATE_WINDOW_S before `at`."""
    recent = [(when, size) for when, size in samples if at - when <= RATE_WINDOW_S]
    return sum(size for _, size in recent) / max(at - recent[0][0], 1.0) if recent else 0.0
