"""`swarmd run`: this process becomes a node."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from swarmd import __version__
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import FAILED, USAGE, Failure
from swarmd.cli.place import Chosen, Config, DataFolder, find, flags_of, settings_of
from swarmd.cli.terminal import complain, say
from swarmd.config.loading import Loaded
from swarmd.config.settings import Value
from swarmd.discovery.short_text import looks_short
from swarmd.domain.ids import short
from swarmd.domain.peers import parse_endpoint
from swarmd.domain.updates import parse_version
from swarmd.kit import logs
from swarmd.kit.notify import LAUNCHER_FD, Notifier, notifier
from swarmd.kit.service import Fatal, NotReady, Supervisor
from swarmd.kit.world import World, real_world
from swarmd.updates import launcher
from swarmd.updates.versions import Versions

if TYPE_CHECKING:
    from swarmd.app import Node  # imported in `_node`: the other commands start without the whole node

SCHEME: Final = "swarm://"
M_ARENA_MAX: Final = -8  # malloc.h of glibc


def run(
    *,
    data_dir: DataFolder = None,
    config: Config = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", help="Port of the API; peers come in on this number plus 10.")
    ] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="Address of the API; 0.0.0.0 for other machines.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", help="Code, multiaddr or host:port to join; may be repeated.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
) -> None:
    """Run a node until Ctrl-C or SIGTERM."""
    flags = flags_of(data_dir, node__listen_port=port, node__listen_address=listen, logging__level=log_level)
    try:
        codes = [join_text(text) for text in peer or ()]
        loaded = settings_of(flags, config=config)
        folder = Path(loaded.settings.node.data_dir)
        by_launcher = LAUNCHER_FD in os.environ
        if not by_launcher and Versions(folder).next(parse_version(__version__)) is not None:
            _become_launcher(folder)
        above = notifier(os.environ)
        exit_code = with_fast_loop(_node(loaded, flags, codes, real_world(), above))
        if exit_code == launcher.EXIT_AGAIN and not by_launcher:
            _become_launcher(folder, above)
    except Failure as failure:
        complain(str(failure))
        exit_code = failure.exit_code
    except Fatal as fatal:
        complain(str(fatal))
        exit_code = fatal.exit_code
    except (NotReady, OSError) as error:  # a port that is taken, a disk that is full: nothing a restart would mend
        complain(f"the node cannot start: {error}")
        exit_code = FAILED
    except KeyboardInterrupt:  # so early that the node did not yet listen to signals
        exit_code = 0
    raise typer.Exit(exit_code)


def _become_launcher(folder: Path, above: Notifier | None = None) -> NoReturn:
    """The same process goes on as the small one that starts another version, and this one again if that fails."""
    line = launcher.command(data=folder, installed=__version__, arguments=sys.argv[1:])
    os.execve(line[0], line, {**os.environ, **(above.environ() if above is not None else {})})


async def _node(loaded: Loaded, flags: dict[str, Value | None], codes: list[str], world: World, above: Notifier) -> int:
    from swarmd.app import run_node

    settings = loaded.settings
    redactor = logs.setup(settings.logging.level, format=settings.logging.format)
    async with Supervisor("command", world=world) as supervisor:

        def on_ready(node: Node) -> None:
            say(f"swarmd node {short(node.node)} is ready: {node.url}")
            if codes:
                supervisor.spawn(_join_all(node, codes), name="join the peers of the command line")

        return await run_node(
            loaded, world=world, environ=os.environ, flags=flags, on_ready=on_ready, redactor=redactor, above=above
        )


async def _join_all(node: Node, codes: list[str]) -> None:
    """Through the node's own API, as anybody else. What fails is said; the node goes on without."""
    for code in codes:
        try:
            place = find(Chosen(url=node.url, data_dir=node.api_key_path.parent))
            async with NodeClient(place) as client:
                say((await client.join(code)).message)
        except Failure as failure:
            complain(f"could not join with --peer: {failure}")


def join_text(peer: str) -> str:
    """What `join-network` takes. Raises Failure when `peer` is none of the four forms."""
    text = peer.strip()
    if text.startswith((SCHEME, "/")):
        return text
    try:
        return parse_endpoint(text).multiaddr()
    except ValueError:
        if looks_short(text):
            return text
        sentence = f"--peer {text[:80]!r} is no invite code, short code, multiaddr or host:port"
        raise Failure(sentence, exit_code=USAGE) from None


def with_fast_loop(work: Coroutine[Any, Any, int]) -> int:
    """uvloop where there is one: half the cost of a small frame on a socket."""
    _one_heap()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _one_heap() -> None:
    """glibc gives each thread a heap of its own, and each keeps what its largest moment took: some 10 MB after a few GiB of
    shards. Our threads allocate in turns, with the lock of the interpreter in their hands."""
    if "CS_GNU_LIBC_VERSION" in os.confstr_names and os.confstr("CS_GNU_LIBC_VERSION"):  # neither macOS nor musl
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # not on Windows, and nothing depends on it
    except ImportError:
        return None
    return uvloop.new_event_loop
