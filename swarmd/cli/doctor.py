"""`swarmd doctor`: is this machine fit to be a node, and how fast is it? Needs no running node and changes nothing."""

from __future__ import annotations

import asyncio
import platform
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import typer
from msgspec import Struct

from swarmd import __version__
from swarmd.api import whereabouts
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import FAILED, Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, find, flags_of, settings_of, url_of
from swarmd.cli.terminal import complain, finish, megabytes, say, say_json, show_table
from swarmd.config.settings import PEER_PORT_OFFSET, Settings
from swarmd.kit.disk import Disk
from swarmd.kit.service import Supervisor
from swarmd.kit.world import World, real_world

MIN_RAM_BYTES: Final = 1_000_000_000  # a node, a worker and one shard of 512 MB
MIN_DISK_BYTES: Final = 2_000_000_000  # a few shards; the setting resources.max_disk_mb is a wish, this is a need
OURS_S: Final = 3.0  # a node of this machine answers within milliseconds; another program may never say a word
COPY_ARRAYS: Final = 3  # two arrays and some air
NODE: Final = "node"
NO_NODE: Final = "none runs on this folder"


class Line(Struct, frozen=True, kw_only=True):
    """One line of the report."""

    what: str
    found: str
    problem: str | None = None
    """One sentence with the remedy, when this is not fine."""


def doctor(*, as_json: AsJson = False, data_dir: DataFolder = None, config: Config = None) -> None:
    """Check this machine and measure it with the built-in model."""
    lines = finish(_examine(Chosen(data_dir=data_dir, config=config), real_world()))
    problems = [line.problem for line in lines if line.problem is not None]
    if as_json:
        say_json(lines)
    else:
        rows = [("ok" if line.problem is None else "NO", line.what, line.found) for line in lines]
        show_table(("", "what", "found"), rows)
        if not problems:
            runs = any(line.what == NODE and line.found != NO_NODE for line in lines)
            say("everything is fine" if runs else "everything is fine: start a node with `swarmd run`")
    for problem in problems:
        complain(problem)
    raise typer.Exit(FAILED if problems else 0)


async def _examine(chosen: Chosen, world: World) -> list[Line]:
    settings = settings_of(flags_of(chosen.data_dir), config=chosen.config).settings
    folder = Path(settings.node.data_dir)
    lines = [
        Line(what="swarmd", found=__version__),
        python_line(),
        Line(what="machine", found=f"{platform.system()} {platform.machine()}, {cores_text()}"),
        memory_line(psutil.virtual_memory().total, psutil.virtual_memory().available),
        await _disk_line(folder, Disk()),
        node_line(folder),
        *await _port_lines(settings, chosen),
        await _copy_line(world),
    ]
    async with Supervisor("doctor", world=world) as supervisor:
        return [*lines, *await _engine_lines(supervisor, settings, world)]


def python_line() -> Line:
    found = f"{platform.python_version()} ({platform.python_implementation()})"
    problem = None if sys.version_info >= (3, 11) else f"Python {found} is too old: swarmd needs 3.11 or newer"
    return Line(what="Python", found=found, problem=problem)


def cores_text() -> str:
    physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
    return f"{physical or logical or 1} cores, {logical or 1} threads"


def memory_line(total: int, free: int) -> Line:
    found = f"{megabytes(free)} free of {megabytes(total)}"
    if free >= MIN_RAM_BYTES:
        return Line(what="memory", found=found)
    wanted = megabytes(MIN_RAM_BYTES)
    problem = f"only {megabytes(free)} of memory are free, and a node with a shard wants {wanted}: close something"
    return Line(what="memory", found=found, problem=problem)


def disk_line(folder: Path, free: int) -> Line:
    found = f"{megabytes(free)} free for {folder}"
    if free >= MIN_DISK_BYTES:
        return Line(what="disk", found=found)
    problem = f"only {megabytes(free)} are free at {folder}: make room, or choose another folder with --data-dir"
    return Line(what="disk", found=found, problem=problem)


async def _disk_line(folder: Path, disk: Disk) -> Line:
    """Of the nearest folder that exists: the data folder is made at the first start."""
    existing = folder
    while not await disk.exists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        return disk_line(folder, await disk.free_bytes(existing))
    except OSError as error:
        return Line(what="disk", found=str(folder), problem=f"the data folder {folder} cannot be looked at: {error}")


def node_line(folder: Path) -> Line:
    """Whether a node runs on the folder: it may have been started with another port than the settings say."""
    return Line(what=NODE, found=whereabouts.read_now(folder, disk=Disk()) or NO_NODE)


async def _port_lines(settings: Settings, chosen: Chosen) -> list[Line]:
    """Both ports; taken by a running node of ours is fine."""
    port = settings.node.listen_port
    running = await _runs_here(replace(chosen, url=url_of(settings)))  # one that runs on another port has not this one
    return [
        port_line("API port", settings.node.listen_address, port, running=running),
        port_line("peer port", settings.network.listen_address, port + PEER_PORT_OFFSET, running=running),
    ]


def port_line(what: str, address: str, port: int, *, running: bool) -> Line:
    found = f"{address}:{port}"
    if is_free(address, port):
        return Line(what=what, found=f"{found} is free")
    if running:
        return Line(what=what, found=f"{found} is used by the node that runs here")
    problem = f"{found} cannot be listened on: another program has it; choose another with --port or node.listen_port"
    return Line(what=what, found=f"{found} is taken", problem=problem)


def is_free(address: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the node itself: leftovers do not count
            tried.bind(place)
    except OSError:
        return False
    return True


async def _runs_here(chosen: Chosen) -> bool:
    try:
        async with asyncio.timeout(OURS_S), NodeClient(find(chosen)) as node:
            await node.readiness()
    except (Failure, TimeoutError):
        return False
    return True


async def _copy_line(world: World) -> Line:
    from swarmd.cli import speed  # here and below: the other commands start without numpy and the engine

    if psutil.virtual_memory().available < COPY_ARRAYS * speed.COPIED_BYTES:
        return Line(what="memory bandwidth", found="not measured: too little memory is free")
    gbps = await asyncio.to_thread(speed.copy_bandwidth_gbps, world.clock)
    return Line(what="memory bandwidth", found=f"{gbps:.1f} GB/s copied by one thread (reads and writes)")


async def _engine_lines(supervisor: Supervisor, settings: Settings, world: World) -> list[Line]:
    """The engine in a worker process: its layout check, then the built-in model."""
    from swarmd.cli import speed
    from swarmd.inference.worker_process import CommandFailed, WorkerGone, start_worker
    from swarmd.inference.workers import threads_for

    threads = threads_for(settings)
    try:
        worker = await start_worker(spawn=supervisor.spawn, name="doctor's worker", threads=threads)
    except WorkerGone as gone:
        return [Line(what="engine", found="does not run", problem=f"the engine's worker process {gone}")]
    lines = [
        Line(what="engine", found=worker.description),
        Line(what="engine layout", found=f"{worker.compared} struct fields compared, all as expected"),
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="swarmd-doctor-") as folder:
            model = await speed.write_builtin(Path(folder), Disk())
            measured = await speed.measure(worker, model, world.clock, threads=threads)
    except (WorkerGone, CommandFailed, OSError) as error:
        problem = f"the built-in model could not be run: {error}"
        return [*lines, Line(what="built-in model", found="does not run", problem=problem)]
    finally:
        await worker.stop()
    threads_text = "1 thread" if threads == 1 else f"{threads} threads"
    return [
        *lines,
        Line(what="prompt speed", found=f"{measured.prompt:.0f} tokens/s (built-in model, {threads_text})"),
        Line(what="reply speed", found=f"{measured.decode:.0f} tokens/s (built-in model, {threads_text})"),
    ]
