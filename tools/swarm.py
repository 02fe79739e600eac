"""`make swarm`: three nodes on this machine that share the built-in model, and a first question to them.

Each node is a `swarmd run` of its own with a data folder under `.swarm/`. The tool does through their admin API what
three people would do on three machines: one invites, two join, each fetches its third of the model, and the first one
drops what the others have, so that no node could answer alone. Then it asks, shows who computed what, and keeps the swarm
up. A node that is killed is started again, whenever it happens: every step can be repeated. Ctrl-C stops all three.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rich.console import Console

from swarmd.api.shapes import ModelRow
from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.conversation import Wishes, stream_answer
from swarmd.cli.doctor import is_free
from swarmd.cli.failure import Failure
from swarmd.cli.hops import hop_line, stage_lines
from swarmd.cli.models import until_held
from swarmd.cli.place import Chosen, find
from swarmd.cli.terminal import printable
from swarmd.config.settings import PEER_PORT_OFFSET
from swarmd.domain.ids import SHORT_NODE_DIGITS

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / ".swarm"
PORTS: Final = (8800, 8820, 8840)  # 20 apart: links from peers come in on the number plus 10
HERE: Final = "127.0.0.1"
PORTS_FILE: Final = "ports.json"
QUESTION: Final = "What is a shard?"

READY_S: Final = 60.0  # Python, the state, and on node 1 cutting the built-in model, on a slow disk
LINK_S: Final = 30.0  # the longest pause between two dials of a node
REJOIN_S: Final = 8.0  # a member whose peers have other ports now is told anew after this
KNOWN_S: Final = 20.0  # until an announcement has reached everybody
FETCH_S: Final = 60.0  # 7 MB
ANSWER_S: Final = 120.0  # loading the shards on three nodes, and the reply
STOP_S: Final = 10.0
LOOK_S: Final = 0.2
FIRST_RESTART_S, LIMIT_RESTART_S = 1.0, 30.0
KILLS_LIMIT: Final = 6  # before the swarm is up; more are no accident
MOVES_LIMIT: Final = 12  # to other ports, before the swarm is up: each node four times
QUIET_S: Final = 60.0  # a node that lived this long is well: the next pause is short again


# -- pure parts


def thirds(count: int, nodes: int = 3) -> tuple[range, ...]:
    """Contiguous parts of shards 0..count-1, one for each node, as equal as can be; later ones may be empty."""
    assert count >= 0 and nodes > 0
    bounds = [-(-count * number // nodes) for number in range(nodes + 1)]
    return tuple(range(start, end) for start, end in pairwise(bounds))


def choose_ports(wanted: Sequence[int], free: Callable[[int], bool]) -> list[int]:
    """The wanted ones, or the next above that are free together with their peer ports. Raises Failure when none is."""
    taken: set[int] = set()
    chosen: list[int] = []
    for first in wanted:
        for port in range(first, 65536 - PEER_PORT_OFFSET):
            pair = {port, port + PEER_PORT_OFFSET}
            if not pair & taken and all(free(one) for one in pair):
                chosen.append(port)
                taken |= pair
                break
        else:
            raise Failure(f"no port from {first} on is free together with the one {PEER_PORT_OFFSET} above it")
    return chosen


def _can_listen(port: int) -> bool:
    return is_free(HERE, port) and is_free(HERE, port + PEER_PORT_OFFSET)


def droppable(row: ModelRow, own: range, holders: dict[int, str]) -> list[int]:
    """Shards that the first node may delete: not of its own part, and seen at the node (short id) that should have them."""
    return [
        shard.index
        for shard in row.shards
        if shard.local and shard.index not in own and holders.get(shard.index) in shard.holder_ids
    ]


def span_text(part: range) -> str:
    """`shards 0-2`, `shard 3`, `no shard`."""
    if not part:
        return "no shard"
    return f"shard {part[0]}" if len(part) == 1 else f"shards {part[0]}-{part[-1]}"


def ending_text(code: int) -> str:
    """How a process ended, for people."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


# -- what is shown


class Screen:
    """Steps with their durations: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.live = console.is_terminal

    def say(self, text: str = "", style: str | None = None, end: str = "\n") -> None:
        """Prints; a reader that went away is no reason to leave the nodes running."""
        with contextlib.suppress(BrokenPipeError, SystemExit):  # rich ends the program on a broken pipe
            self._console.print(printable(text), style=style, end=end, markup=False, highlight=False, soft_wrap=True)
            self._console.file.flush()

    @contextlib.contextmanager
    def step(self, text: str) -> Generator[Callable[[str], None]]:
        """Yields a function that shows how far it is, on a terminal only."""
        started = time.monotonic()
        if not self.live:
            self.say(f"{text} ...")
            yield lambda detail: None
        else:
            with self._console.status(text) as status:
                yield lambda detail: status.update(f"{text}: {detail}")
        self.say(f"  ok  {text} ({time.monotonic() - started:.1f} s)", style="green" if self.live else None)


@contextlib.asynccontextmanager
async def within(seconds: float, sentence: str) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Failure(f"{sentence} within {seconds:.0f} s") from None


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again: what changes is in another process."""
    while not await check():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


async def _knows(client: NodeClient, model: str) -> bool:
    return any(row.id == model for row in await client.models())


# -- nodes


@dataclass(slots=True)
class Member:
    """One of the three nodes."""

    number: int
    port: int
    folder: Path
    process: asyncio.subprocess.Process | None = None
    node: str = ""
    """Short id, once it answered."""
    restarts: int = field(default=0)

    @property
    def name(self) -> str:
        return f"node {self.number}"

    @property
    def url(self) -> str:
        return f"http://{HERE}:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "swarmd", "run", "--data-dir", str(self.folder), "--port", str(self.port)]

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's settings: three nodes that are alike but for the built-in model."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARMD_")}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "SWARMD_NETWORK_LISTEN_ADDRESS": HERE,
            "SWARMD_AUTO_MANAGE_ENABLED": "false",  # the parts stay as they are shared out here
            "SWARMD_UI_BUILTIN_MODEL": "true" if self.number == 1 else "false",
        }

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=ROOT, env=self.environment(), stdin=asyncio.subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,  # Ctrl-C comes to us alone, and we stop them in order
            )  # fmt: skip

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-8:])

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncGenerator[NodeClient]:
        async with NodeClient(find(Chosen(url=self.url, key_file=self.folder / "api_key"))) as client:
            yield client


class Swarm:
    def __init__(self, members: list[Member], screen: Screen, *, question: str) -> None:
        self._members, self._screen, self._question = members, screen, question
        self._settled = False
        """The swarm is up: from then on a node is started again however it ends, and as often as need be."""
        self._killed = self._forgiven = 0
        """Nodes killed or moved before that; and how many of them had come back when all were last seen ready."""
        self._moved = 0

    async def keep(self, member: Member) -> None:
        """The life of one node's process. Raises Failure when it ends by itself before the swarm is up: it has a reason."""
        delay_s = FIRST_RESTART_S
        while True:
            started = time.monotonic()
            await member.start()
            assert member.process is not None
            if member.restarts:
                self._screen.say(f"{member.name} runs again as process {member.process.pid}")
            code = await member.process.wait()
            how = ending_text(code)
            self._killed += not self._settled
            if not self._settled and code > 0 and self._moved < MOVES_LIMIT and not _can_listen(member.port):
                self._move(member)
                continue
            if not self._settled and (code >= 0 or self._killed - self._moved > KILLS_LIMIT):
                raise Failure(f"{member.name} {how}; its log, {member.log}, ends with\n{member.last_words()}")
            if time.monotonic() - started >= QUIET_S:
                delay_s = FIRST_RESTART_S
            self._screen.say(f"{member.name} {how}: it is started again in {delay_s:.0f} s (log: {member.log})")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LIMIT_RESTART_S)
            member.restarts += 1

    def _move(self, member: Member) -> None:
        """To the next free port: another program, maybe another swarm, took its own after we had looked."""
        taken = {one.port + more for one in self._members if one is not member for more in (0, PEER_PORT_OFFSET)}
        was, self._moved = member.port, self._moved + 1
        (member.port,) = choose_ports([was], lambda port: port not in taken and is_free(HERE, port))
        write_ports(member.folder.parent, [one.port for one in self._members])
        which = f"{was} or {was + PEER_PORT_OFFSET}"
        self._screen.say(f"port {which} was taken meanwhile: {member.name} is started on {member.port}")

    async def show(self, *, stay: bool) -> None:
        """Everything from three processes to an answer. Raises Failure."""
        screen = self._screen
        with screen.step("starting three nodes"):
            await self._all_ready()
        with screen.step("node 1 invites, nodes 2 and 3 join"):
            await self._whoever_is_killed(self._join_all)
        with screen.step("linking everybody with everybody"):
            async with within(LINK_S, "the nodes did not all link to each other"):
                await self._whoever_is_killed(lambda: until(self._all_linked))
        with screen.step("node 1 has the built-in model"):
            row = await self._whoever_is_killed(self._model)
        parts = thirds(row.shard_count, len(self._members))
        with screen.step(f"sharing {row.id} out: a third for each node") as detail:
            await self._whoever_is_killed(lambda: self._spread(row.id, parts, detail))
        screen.say()
        for member, part in zip(self._members, parts, strict=True):
            screen.say(f"  {member.name}  {member.node}  {span_text(part):<11} of {row.id}")
        await self._whoever_is_killed(lambda: self._ask(row.id))
        self._settled = True
        if stay:
            self._explain(row.id)
            await asyncio.get_running_loop().create_future()  # until Ctrl-C

    async def _whoever_is_killed(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeats a step that failed because a node was killed in it, once that node is back. Raises Failure."""
        while True:
            try:
                return await step()
            except Failure:
                await asyncio.sleep(LOOK_S)  # its end may be news only now
                if self._killed == self._forgiven:
                    raise
            await self._all_ready()

    async def _all_ready(self) -> None:
        killed = self._killed
        await asyncio.gather(*(self._ready(member) for member in self._members))
        self._forgiven = killed

    async def _ready(self, member: Member) -> None:
        async with within(READY_S, f"{member.name} was not ready (log: {member.log})"):
            while True:
                with contextlib.suppress(Failure):  # it does not listen yet
                    async with member.client() as client:
                        if (await client.readiness()).ready:
                            member.node = (await client.stats()).node_id[:SHORT_NODE_DIGITS]
                            return
                await asyncio.sleep(LOOK_S)

    async def _join_all(self) -> None:
        for member in self._members[1:]:
            await self._join(member)

    async def _join(self, member: Member) -> None:
        """Unless it is a member from an earlier run and finds its peers again by itself."""
        async with member.client() as client:
            if await client.peers():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REJOIN_S):
                        await until(lambda: self._linked(member, self._members[:1]))
                        return
            async with self._members[0].client() as first:
                code = (await first.invite()).code
            await client.join(code)

    async def _linked(self, member: Member, others: Sequence[Member]) -> bool:
        async with member.client() as client:
            linked = {peer.node_id for peer in await client.peers() if peer.connected}
        return {other.node for other in others if other is not member} <= linked

    async def _all_linked(self) -> bool:
        return all([await self._linked(member, self._members) for member in self._members])

    async def _model(self) -> ModelRow:
        """The first model with a manifest that node 1 knows: the built-in one, unless somebody added another."""
        async with within(KNOWN_S, "node 1 has no model: run again with --fresh, or add one with `swarmd model add`"):
            while True:
                async with self._members[0].client() as client:
                    rows = [row for row in await client.models() if row.has_manifest and row.shards]
                if rows:
                    return next((row for row in rows if "builtin" in row.id), rows[0])
                await asyncio.sleep(LOOK_S)

    async def _spread(self, model: str, parts: tuple[range, ...], detail: Callable[[str], None]) -> None:
        for member, part in zip(self._members[1:], parts[1:], strict=True):
            await self._fetch(member, model, part, detail)
        # Node 1 may lack some of its own part after a run with other parts; then the others have it.
        await self._fetch(self._members[0], model, parts[0], detail)
        for member, part in zip(self._members, parts, strict=True):
            await self._drop_others(member, model, part, parts)

    async def _fetch(self, member: Member, model: str, part: range, detail: Callable[[str], None]) -> None:
        async with member.client() as client:
            async with within(KNOWN_S, f"{member.name} did not hear of {model}"):
                await until(lambda: _knows(client, model))
            for index in part:
                await client.fetch_shard(model, index)
            async with within(FETCH_S, f"{member.name} did not get {span_text(part)} of {model}"):
                if part:
                    await until_held(
                        client, model, tuple(part),
                        lambda done, total: detail(f"{member.name} {done / 1e6:.1f} of {total / 1e6:.1f} MB"),
                    )  # fmt: skip

    async def _drop_others(self, member: Member, model: str, own: range, parts: tuple[range, ...]) -> None:
        """Deletes what is not of its part, once it sees that the node it belongs to has it."""
        holders = {index: other.node for other, part in zip(self._members, parts, strict=True) for index in part}
        sentence = f"{member.name} did not hear that the others hold their parts of {model}"
        async with within(KNOWN_S, sentence), member.client() as client:
            while True:
                row = next(row for row in await client.models() if row.id == model)
                for index in droppable(row, own, holders):
                    await client.delete_shard(model, index)
                row = next(row for row in await client.models() if row.id == model)
                if [shard.index for shard in row.shards if shard.local] == [*own]:
                    return
                await asyncio.sleep(LOOK_S)

    async def _ask(self, model: str) -> None:
        names = {member.node: member.name for member in self._members}
        head, screen = self._members[0], self._screen
        screen.say(f"\n> {self._question}", style="bold")
        async with within(ANSWER_S, "the swarm did not answer"), head.client() as client:
            turns = [Turn(role="user", content=self._question)]
            wishes = Wishes(temperature=0.0)
            swarm = (await stream_answer(client, model, turns, lambda text: screen.say(text, end=""), wishes)).swarm
        screen.say()
        screen.say()
        if swarm is not None:
            for line in stage_lines(swarm, names):
                screen.say(f"  {line}")
            screen.say(f"  {hop_line(swarm, head.node, names)}")

    def _explain(self, model: str) -> None:
        head, say = self._members[0], self._screen.say
        say(f"\nDashboard: {head.url}/")
        say(f"API:       {head.url}/v1, key in {head.folder / 'api_key'}")
        say("\n    from pathlib import Path\n    from openai import OpenAI")
        say(f'    key = Path("{head.folder / "api_key"}").read_text().strip()')
        say(f'    swarm = OpenAI(base_url="{head.url}/v1", api_key=key)')
        say(f'    print(swarm.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hi"}}]))')
        say(f"\nOr: {Path(sys.executable).parent / 'swarmd'} chat --url {head.url} --data-dir {head.folder}")

    async def stop(self) -> None:
        """SIGTERM to all; whoever is still there after STOP_S is killed, and that is said."""
        running = [member for member in self._members if member.process and member.process.returncode is None]
        for member in running:
            assert member.process is not None
            member.process.send_signal(signal.SIGTERM)
        for member, ended in zip(running, await asyncio.gather(*map(_ends, running)), strict=True):
            if not ended:
                assert member.process is not None
                self._screen.say(f"{member.name} did not stop within {STOP_S:.0f} s and was killed", style="red")
                member.process.kill()
                await member.process.wait()


async def _ends(member: Member) -> bool:
    assert member.process is not None
    try:
        async with asyncio.timeout(STOP_S):
            await member.process.wait()
    except TimeoutError:
        return False
    return True


# -- the command


def write_ports(folder: Path, ports: Sequence[int]) -> None:
    """For the next run: peers remember each other's addresses."""
    (folder / PORTS_FILE).write_bytes(msgspec.json.encode(ports))


def members_in(folder: Path, *, fresh: bool) -> list[Member]:
    """The three, with the ports of the last run where those are free."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / PORTS_FILE
    wanted: Sequence[int] = PORTS
    if kept.exists():
        with contextlib.suppress(msgspec.DecodeError):
            found = msgspec.json.decode(kept.read_bytes(), type=list[int])
            wanted = found if len(found) == len(PORTS) else PORTS
    ports = choose_ports(wanted, lambda port: is_free(HERE, port))
    write_ports(folder, ports)
    return [Member(number=n, port=port, folder=folder / f"node-{n}") for n, port in enumerate(ports, 1)]


async def run(swarm: Swarm, members: list[Member], screen: Screen, *, once: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(swarm.keep(member), name=member.name) for member in members]
    shown = asyncio.create_task(swarm.show(stay=not once), name="show")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    everything: list[asyncio.Task[Any]] = [*tasks, shown, stopped]
    try:
        done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        failures = [error for task in done if (error := task.exception()) is not None]
        for error in failures:
            if not isinstance(error, Failure):
                raise error
            screen.say(f"swarm: {error}", style="red")
        return 1 if failures else 0
    finally:
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        screen.say("stopping the nodes")
        await swarm.stop()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make swarm", description="Three nodes on this machine, and a question to them.")
    parser.add_argument("--once", action="store_true", help="ask, print the answer, stop")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs left under the folder")
    parser.add_argument("--question", default=QUESTION, help="what to ask (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the nodes keep their data (default: .swarm)")
    options = parser.parse_args(arguments)
    screen = Screen(Console(width=None if sys.stdout.isatty() else 160))
    try:
        members = members_in(options.folder.absolute(), fresh=options.fresh)
        swarm = Swarm(members, screen, question=options.question)
        return asyncio.run(run(swarm, members, screen, once=options.once))
    except Failure as failure:
        screen.say(f"swarm: {failure}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
