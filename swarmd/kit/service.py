"""The one supervisor and the one creator of tasks.

A service is one coroutine, `run(ready)`: subscribe, call `ready()`, loop for ever; stopping is cancellation, cleaning
is `finally`. A supervisor starts services in order, restarts those that fail, and stops them in reverse order, which
a `TaskGroup` cannot do (it cancels everything at once).

    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(doors)
        await supervisor.start(links)
        await until_asked_to_stop.wait()

`Fatal`, raised by any service or spawned task of the tree, ends the block: the code inside `async with` is cancelled,
everything is stopped, and the block raises that `Fatal` itself, not wrapped in a group. This file holds the only
`except Exception` of the node (the plugin border has the other one).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

from swarmd.kit.flow import Backoff
from swarmd.kit.world import World

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ready = Callable[[], None]

READY_TIMEOUT_S = 30.0  # opening a database after a crash or importing the engine takes seconds on a slow disk
STOP_TIMEOUT_S = 5.0  # systemd kills after 90 s; some ten services in a row must fit well inside
FIRST_RESTART_S = 0.5
LIMIT_RESTART_S = 30.0
QUIET_S = 60.0  # a service that ran this long is well again: the next failure starts from the short delay


class Service(Protocol):
    @property
    def name(self) -> str:
        """For logs: short, lower case, unique under its supervisor."""
        ...

    async def run(self, ready: Ready) -> None:
        """Run until cancelled. Call `ready` once it can do its work; returning means there is nothing left to do."""
        ...


class Spawn(Protocol):
    """`Supervisor.spawn`, as handed to those who create tasks but own no supervisor."""

    def __call__(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]: ...


class Fatal(Exception):
    """The node cannot go on. `exit_code` is the process's exit status, `str()` the sentence for the user."""

    def __init__(self, exit_code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class NotReady(TimeoutError):
    """A service did not become ready within its deadline; it has been cancelled."""


class _Kept:
    """One supervised service."""

    def __init__(self, service: Service, ready: asyncio.Future[None]) -> None:
        self.service = service
        self.ready = ready
        """Done at the first `ready()`, or when the service ended or failed before it."""
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """See the module. Supervisors nest: one inside a service's `run` passes its `Fatal` on to the outer one."""

    def __init__(
        self,
        name: str,
        *,
        world: World,
        ready_timeout_s: float = READY_TIMEOUT_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self.name = name
        self._world = world
        self._ready_timeout_s = ready_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._kept: list[_Kept] = []
        self._spawned: set[asyncio.Task[Any]] = set()
        self._failed_count = 0
        self._owner: asyncio.Task[Any] | None = None
        self._cancelled_owner = False
        self._leaving = False
        self._stopping = False
        self._stopped = False
        self._fatal: Fatal | None = None

    @property
    def spawned_count(self) -> int:
        """Spawned tasks that are still running."""
        return len(self._spawned)

    @property
    def failed_count(self) -> int:
        """Spawned tasks that ended with an exception, since the beginning."""
        return self._failed_count

    async def __aenter__(self) -> Self:
        assert self._owner is None, f"supervisor {self.name} is entered twice"
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True  # from here on a Fatal is kept for the end of this function
        ours = False
        if self._cancelled_owner:
            assert self._owner is not None
            if not isinstance(error, asyncio.CancelledError):
                # The block ended by itself in the very turn in which we cancelled it: take delivery here, or the
                # cancellation would hit the first await below and cut the orderly stop short.
                with contextlib.suppress(asyncio.CancelledError):  # cancellation-exempt: our own, undone just below
                    await asyncio.sleep(0)
            ours = self._owner.uncancel() == 0  # else somebody else cancelled the owner too, and that wins
        await self.stop()
        cancelled = isinstance(error, asyncio.CancelledError) and not ours
        if self._fatal is not None and self._fatal is not error and not cancelled:
            raise self._fatal from (error if isinstance(error, Exception) else None)

    async def start(self, service: Service) -> None:
        """Start it and wait until it is ready.

        Raises what the service raised when it fails before it is ready (no restart then: the caller decides), and
        NotReady after `ready_timeout_s`. A service that returns before it calls `ready` is done, and that is fine.
        """
        assert self._owner is not None, f"supervisor {self.name} is used outside its `async with`"
        assert not self._stopping, f"{service.name} is started while {self.name} stops"
        kept = _Kept(service, asyncio.get_running_loop().create_future())
        kept.task = asyncio.create_task(self._keep(kept), name=service.name)
        kept.task.add_done_callback(lambda _: kept.ready.done() or kept.ready.set_result(None))
        self._kept.append(kept)
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                await asyncio.shield(kept.ready)
        except TimeoutError:
            await self._end(kept)
            raise NotReady(f"service {service.name} was not ready within {self._ready_timeout_s:g} s") from None
        except asyncio.CancelledError:
            kept.task.cancel()  # stop() awaits it
            raise
        if kept.task.cancelled():
            raise NotReady(f"service {service.name} was stopped before it was ready")
        if kept.task.done():
            self._forget(kept)
            kept.task.result()

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """A short-lived task. An exception is logged at once and counted; awaiting the task raises it as well."""
        if self._stopped:
            coro.close()
            raise RuntimeError(f"{name} is spawned after {self.name} stopped")
        task = asyncio.create_task(coro, name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    async def stop(self) -> None:
        """Cancel and await spawned tasks, then services in reverse order, each within the deadline.

        A second call does nothing. Not to be called by one of the tasks it would stop: that one should tell whoever
        holds the `async with`.
        """
        current = asyncio.current_task()
        assert current not in self._spawned and all(kept.task is not current for kept in self._kept), (
            f"{current} stops its own supervisor {self.name}: it would wait for itself"
        )
        self._stopping = True
        try:
            await self._end_spawned()
            while self._kept:
                await self._end(self._kept[-1])
            await self._end_spawned()  # what services spawned while they were stopping
        except asyncio.CancelledError:
            # Asked twice: no more order, no more waiting.
            for task in (*self._spawned, *(kept.task for kept in self._kept if kept.task is not None)):
                task.cancel()
            raise
        finally:
            self._stopped = True

    async def _keep(self, kept: _Kept) -> None:
        """The life of one service: run, and after a failure run again."""
        name = kept.service.name
        clock = self._world.clock
        backoff = Backoff(FIRST_RESTART_S, 2.0, LIMIT_RESTART_S, entropy=self._world.entropy)
        last_failure: str | None = None
        while True:
            began_at = clock.monotonic()
            failure = await self._run(kept)
            if failure is None:
                logger.debug("service %s is done", name)
                return
            if not kept.ready.done():
                raise _fatal_in(failure) or failure  # start() is waiting and passes it on
            if (fatal := _fatal_in(failure)) is not None:
                self._end_with(fatal)
                return
            if self._stopping:
                logger.warning("service %s failed while stopping", name, exc_info=failure)
                return
            if clock.monotonic() - began_at >= QUIET_S:
                backoff.reset()
                last_failure = None
            delay_s = backoff.delay()
            summary = f"{type(failure).__name__}: {failure}"
            if summary != last_failure:
                logger.warning("service %s failed, restart in %.1f s", name, delay_s, exc_info=failure)
            else:
                logger.debug("service %s failed again in the same way, restart in %.1f s", name, delay_s)
            last_failure = summary
            await asyncio.sleep(delay_s)

    async def _run(self, kept: _Kept) -> BaseException | None:
        """One run of the service: its failure, or None when it returned."""

        def ready() -> None:
            if not kept.ready.done():
                logger.debug("service %s is ready", kept.service.name)
                kept.ready.set_result(None)

        try:
            await kept.service.run(ready)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._stopping or (task is not None and task.cancelling() > 0):
                raise
            # Nobody cancelled this service: it awaited something that was. That is a failure like any other.
            return error
        except Exception as error:  # noqa: BLE001  the one place that may: here failures become restarts
            return error
        return None

    async def _end(self, kept: _Kept) -> None:
        assert kept.task is not None
        await self._cancel({kept.task})
        self._forget(kept)
        if kept.task.done() and not kept.task.cancelled():
            kept.task.exception()  # read, so that it is not reported again when the task is collected

    def _forget(self, kept: _Kept) -> None:
        if kept in self._kept:  # start() and stop() may both have waited for it
            self._kept.remove(kept)

    async def _end_spawned(self) -> None:
        if self._spawned:
            await self._cancel(set(self._spawned))

    async def _cancel(self, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=self._stop_timeout_s)
        for task in stuck:
            frames = task.get_stack(limit=1)
            where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "an unknown line"
            logger.error("%s did not stop within %g s; it stands at %s", task.get_name(), self._stop_timeout_s, where)

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failed_count += 1
        if (fatal := _fatal_in(error)) is not None:
            self._end_with(fatal)
        else:
            logger.error("task %s failed", task.get_name(), exc_info=error)

    def _end_with(self, fatal: Fatal) -> None:
        logger.debug("%s ends with status %d: %s", self.name, fatal.exit_code, fatal)
        if self._fatal is not None:
            return
        self._fatal = fatal
        if not self._leaving and self._owner is not None:
            self._cancelled_owner = True
            self._owner.cancel()


def _fatal_in(error: BaseException) -> Fatal | None:
    """The Fatal that `error` is, or holds when it is the group of a TaskGroup."""
    if isinstance(error, Fatal):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    group = cast("BaseExceptionGroup[BaseException]", error)
    return next((fatal for inner in group.exceptions if (fatal := _fatal_in(inner)) is not None), None)
