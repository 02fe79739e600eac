"""Order, readiness, restart, Fatal and stop, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest

from swarmd.kit.service import Fatal, NotReady, Ready, Supervisor
from swarmd.kit.world import World

pytestmark = pytest.mark.looptime

Body = Callable[[Ready], Awaitable[None]]


class Made:
    """A service out of a name and a coroutine function."""

    def __init__(self, name: str, body: Body) -> None:
        self.name = name
        self.run = body


def forever(name: str, log: list[str], *, slow_s: float = 0.0) -> Made:
    async def body(ready: Ready) -> None:
        await asyncio.sleep(slow_s)
        log.append(f"{name} ready")
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f"{name} stopped")

    return Made(name, body)


def failing(name: str, log: list[float], *, error: Exception, after_s: float = 0.0) -> Made:
    async def body(ready: Ready) -> None:
        log.append(asyncio.get_running_loop().time())
        ready()
        await asyncio.sleep(after_s)
        raise error

    return Made(name, body)


async def test_starts_in_order_waiting_for_ready_and_stops_in_reverse(world: World) -> None:
    log: list[str] = []
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(forever("first", log, slow_s=3))
        await supervisor.start(forever("second", log))
        assert log == ["first ready", "second ready"]
        assert asyncio.get_running_loop().time() == 3
    assert log[2:] == ["second stopped", "first stopped"]


async def test_start_raises_what_the_service_raised_before_it_was_ready(world: World) -> None:
    async def body(ready: Ready) -> None:
        raise OSError("port taken")

    async with Supervisor("node", world=world) as supervisor:
        with pytest.raises(OSError, match="port taken"):
            await supervisor.start(Made("doors", body))


async def test_start_gives_up_at_the_deadline_and_cancels(world: World) -> None:
    log: list[str] = []
    async with Supervisor("node", world=world, ready_timeout_s=10) as supervisor:
        with pytest.raises(NotReady, match="service slow was not ready within 10 s"):
            await supervisor.start(forever("slow", log, slow_s=11))
        assert asyncio.get_running_loop().time() == 10
    assert log == []


async def test_a_service_that_returns_is_done(world: World) -> None:
    async def body(ready: Ready) -> None:
        return

    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(Made("once", body))
        await asyncio.sleep(100)


async def test_a_failed_service_is_restarted_with_growing_delays(world: World) -> None:
    starts: list[float] = []
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(failing("shaky", starts, error=OSError("gone")))
        await asyncio.sleep(300)
    gaps = [late - early for early, late in itertools.pairwise(starts)]
    assert 0.5 <= gaps[0] <= 1.0
    assert 1.0 <= gaps[1] <= 2.0
    assert all(15 <= gap <= 30 for gap in gaps[6:]) and len(gaps) > 8


async def test_the_delay_is_short_again_after_a_quiet_minute(world: World) -> None:
    starts: list[float] = []
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(failing("shaky", starts, error=OSError("gone"), after_s=60))
        await asyncio.sleep(600)
    assert all(60.5 <= late - early <= 61 for early, late in itertools.pairwise(starts))


async def test_the_same_failure_is_a_warning_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "swarmd.kit.service")
    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(failing("shaky", [], error=OSError("gone")))
        await asyncio.sleep(20)
    levels = [record.levelno for record in caplog.records if "failed" in record.message]
    assert levels[0] == logging.WARNING and set(levels[1:]) == {logging.DEBUG}
    assert caplog.records[1].exc_info is not None


async def test_fatal_from_a_service_ends_the_block_as_itself(world: World) -> None:
    log: list[str] = []
    with pytest.raises(Fatal, match="schema is newer") as caught:
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(forever("first", log))
            await supervisor.start(failing("store", [], error=Fatal(1, "schema is newer"), after_s=5))
            await asyncio.Event().wait()
    assert caught.value.exit_code == 1
    assert asyncio.get_running_loop().time() == 5
    assert log == ["first ready", "first stopped"]
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_fatal_from_a_spawned_task_and_out_of_a_group(world: World) -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(boom())

    async def boom() -> None:
        raise Fatal(3, "restart wanted")

    with pytest.raises(Fatal, match="restart wanted"):
        async with Supervisor("node", world=world) as supervisor:
            supervisor.spawn(work(), name="work")
            await asyncio.Event().wait()


async def test_fatal_passes_through_nested_supervisors(world: World) -> None:
    async def body(ready: Ready) -> None:
        async with Supervisor("inner", world=world) as inner:
            await inner.start(failing("deep", [], error=Fatal(4, "update staged"), after_s=1))
            ready()
            await asyncio.Event().wait()

    with pytest.raises(Fatal, match="update staged"):
        async with Supervisor("outer", world=world) as outer:
            await outer.start(Made("middle", body))
            await asyncio.Event().wait()


async def test_fatal_in_the_turn_in_which_the_block_ends_by_itself(world: World) -> None:
    log: list[str] = []
    with pytest.raises(Fatal):
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(forever("first", log))
            event = asyncio.Event()

            async def boom() -> None:
                event.set()
                raise Fatal(1, "now")

            supervisor.spawn(boom(), name="boom")
            await event.wait()
    assert log == ["first ready", "first stopped"]


async def test_an_outer_cancellation_wins_over_fatal(world: World) -> None:
    async def node() -> None:
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(failing("store", [], error=Fatal(1, "late"), after_s=1))
            await asyncio.Event().wait()

    task = asyncio.create_task(node())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_block_stops_everything_in_order(world: World) -> None:
    log: list[str] = []

    async def node() -> None:
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(forever("first", log))
            await supervisor.start(forever("second", log))
            await asyncio.Event().wait()

    task = asyncio.create_task(node())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log[2:] == ["second stopped", "first stopped"]


async def test_an_error_in_the_block_stops_everything_and_passes(world: World) -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="mine"):
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(forever("first", log))
            raise ValueError("mine")
    assert log == ["first ready", "first stopped"]


async def test_a_stuck_service_is_named_and_does_not_hold_up_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    release = asyncio.Event()

    async def body(ready: Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with Supervisor("node", world=world, stop_timeout_s=5) as supervisor:
        await supervisor.start(forever("first", log))
        await supervisor.start(Made("stubborn", body))
    assert asyncio.get_running_loop().time() == 5
    assert log == ["first ready", "first stopped"]
    assert "stubborn did not stop within 5 s; it stands at" in caplog.text
    release.set()
    await asyncio.sleep(0.1)


async def test_a_cancellation_from_inside_is_a_failure_not_an_end(world: World) -> None:
    starts: list[int] = []

    async def body(ready: Ready) -> None:
        starts.append(1)
        ready()
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    async with Supervisor("node", world=world) as supervisor:
        await supervisor.start(Made("waiter", body))
        await asyncio.sleep(1)
    assert len(starts) == 2


async def test_spawned_tasks_are_counted_logged_and_cancelled(world: World, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            ended.append("long")

    async def boom() -> None:
        raise ValueError("spilled")

    async def fine() -> int:
        return 3

    async with Supervisor("node", world=world) as supervisor:
        supervisor.spawn(long(), name="long")
        supervisor.spawn(boom(), name="boom")
        assert await supervisor.spawn(fine(), name="fine") == 3
        assert supervisor.spawned_count == 1
        assert supervisor.failed_count == 1
        assert "task boom failed" in caplog.text and "spilled" in caplog.text
    assert ended == ["long"]
    assert supervisor.spawned_count == 0


async def test_awaiting_a_spawned_task_raises_its_exception(world: World) -> None:
    async def boom() -> None:
        raise ValueError("spilled")

    async with Supervisor("node", world=world) as supervisor:
        with pytest.raises(ValueError, match="spilled"):
            await supervisor.spawn(boom(), name="boom")


async def test_what_a_stopping_service_spawns_is_stopped_too(world: World) -> None:
    log: list[str] = []

    async with Supervisor("node", world=world) as supervisor:

        async def farewell() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                log.append("farewell ended")

        async def body(ready: Ready) -> None:
            ready()
            try:
                await asyncio.Event().wait()
            finally:
                supervisor.spawn(farewell(), name="farewell")
                await asyncio.sleep(1)

        await supervisor.start(Made("polite", body))
    assert log == ["farewell ended"]
    coro = farewell()
    with pytest.raises(RuntimeError, match="after node stopped"):
        supervisor.spawn(coro, name="late")


async def test_a_task_may_not_stop_its_own_supervisor(world: World) -> None:
    async with Supervisor("node", world=world) as supervisor:
        with pytest.raises(AssertionError, match="wait for itself"):
            await supervisor.spawn(supervisor.stop(), name="suicide")


async def test_a_second_cancellation_cuts_the_orderly_stop_short(world: World) -> None:
    async def body(ready: Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)

    async def node() -> None:
        async with Supervisor("node", world=world) as supervisor:
            await supervisor.start(Made("slow", body))
            await asyncio.Event().wait()

    task = asyncio.create_task(node())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() == 2
    await asyncio.sleep(1)


async def test_a_stop_while_another_task_starts_a_service(world: World) -> None:
    log: list[str] = []
    async with Supervisor("node", world=world) as supervisor:
        starting = asyncio.create_task(supervisor.start(forever("slow", log, slow_s=10)))
        await asyncio.sleep(1)
        await supervisor.stop()
        with pytest.raises(NotReady, match="stopped before it was ready"):
            await starting
    assert log == []


async def test_a_cancelled_start_leaves_no_service_behind(world: World) -> None:
    log: list[str] = []
    async with Supervisor("node", world=world) as supervisor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await supervisor.start(forever("slow", log, slow_s=10))
        await asyncio.sleep(20)
    assert log == []


async def test_outside_its_block_a_supervisor_starts_nothing(world: World) -> None:
    with pytest.raises(AssertionError, match="outside its"):
        await Supervisor("node", world=world).start(forever("first", []))
