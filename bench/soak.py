"""Ten minutes of everything at once over four nodes that are killed, stopped and cut off from each other again and again.

    python -m bench.soak [--minutes 10] [--clients 8] [--seed 1] [--fresh]

The nodes share the built-in model so that each layer is on two of them: A has shards 0 to 2, B 3 to 5, C the rest, D all.
Clients at A and at D ask without a pause: chats and completions, whole and streamed, at temperature 0; long prompts; some
hang up within the reply, some ask for nonsense, and now and then the model is unloaded from a node. Meanwhile, one after
the other and always until all are linked again: B or D gets `kill -9`, some node is stopped for some seconds, some line is
reset or silent for some seconds. A and C are never killed: their memory is what is judged.

A reply is right when it has the text of an undisturbed one, or ends with an error that says so; one that just ends while its
node lives is lost, one that takes longer than its deadline is stuck. Another text is wrong where each token of the right one
is ahead of the next best by more than rounding can make of it; where one is not, it is counted as a near tie. At the end
nothing may be left: no stream on any link, no active request, and every node unloads the model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from bench import fleet as fleets
from bench.decode import DATA
from bench.delay import Cut, Network, allowed_or_exit, run
from bench.fleet import READY_S, Node, until
from bench.results import Record, Round

FIRST_PORT = 17940
STUCK_S = 90.0  # of a request: 30 s without a plan, three times, are the most that a node waits for others
SAMPLE_S = 5.0
REST_S = 20.0  # between the last request and the look at what is left; a silent peer is noticed within 10
CLEAR = 0.25
"""Nats. Where several share a cache, a long prompt may have other last bits, and with them a pick that is close
(docs/architecture.md, Bits); 0.07 were seen to turn. What is ahead by more is not turned by rounding."""
NAMES = "ABCD"
PARTS = (range(3), range(3, 6), range(6, 8), range(8))
KILLED = (1, 3)
HEADS = (0, 0, 3)  # two of three clients ask A
QUESTIONS = (
    "What is swarmd?", "What is a shard?", "How do nodes join?", "What is an invite code?", "How are links encrypted?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Demand:
    """A request at temperature 0."""

    kind: str
    path: str
    body: dict[str, Any]


def demands(model: str) -> list[Demand]:
    chats = [
        Demand("chat", "/v1/chat/completions", {
            "model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": tokens,
        })
        for question in QUESTIONS for tokens in (8, 64)
    ]  # fmt: skip
    completions = [
        Demand("completion", "/v1/completions", {
            "model": model, "prompt": f"<|user|>\n{question}<|end|>\n<|assistant|>\n", "temperature": 0,
            "max_tokens": tokens,
        })
        for question in QUESTIONS for tokens in (32, 128)
    ]  # fmt: skip
    story = " ".join(QUESTIONS * 12)
    long = [
        Demand("long prompt", "/v1/completions", {
            "model": model, "prompt": story[:length], "temperature": 0, "max_tokens": 16,
        })
        for length in (600, 1100)
    ]  # fmt: skip
    return chats + completions + long


def nonsense(model: str, chance: random.Random) -> tuple[str, Any]:
    """Requests that must be refused with a status from 400 to 499."""
    return chance.choice((
        ("/v1/chat/completions", {"model": "no-such-model", "messages": [{"role": "user", "content": "?"}]}),
        ("/v1/chat/completions", {"model": model, "messages": "?"}),
        ("/v1/completions", {"model": model, "prompt": "?", "max_tokens": "many"}),
        ("/v1/completions", {"model": model, "prompt": "?" * 60_000}),
        ("/v1/completions", {"model": model, "prompt": "?", "temperature": "hot"}),
    ))  # fmt: skip


async def margin(session: Any, node: Node, demand: Demand) -> float:
    """By how much (nats) the picked token was ahead of the next one, where that was least, in a reply without others."""
    chat = demand.kind == "chat"
    body = demand.body | ({"logprobs": True, "top_logprobs": 2} if chat else {"logprobs": 2})
    reply = await node.call(session, "POST", demand.path, body)
    told = reply["choices"][0]["logprobs"]
    if chat:
        tops = [[top["logprob"] for top in one["top_logprobs"]] for one in told["content"]]
    else:
        tops = [list(top.values()) for top in told["top_logprobs"]]
    ahead = [sorted(top)[-1] - sorted(top)[-2] for top in tops if len(top) > 1]
    return min(ahead, default=0.0)


def text_of(chunk: dict[str, Any]) -> str:
    if not chunk["choices"]:
        return ""
    choice = chunk["choices"][0]
    if "text" in choice:
        return choice["text"]
    said = choice.get("delta") or choice.get("message") or {}
    return said.get("content") or ""


@dataclass(slots=True, kw_only=True)
class Soak:
    session: Any
    nodes: list[Node]
    network: Network
    model: str
    record: Record
    until_s: float
    chance: random.Random
    began: float = field(default_factory=time.monotonic)
    right: dict[int, str] = field(default_factory=dict[int, str])
    ahead: list[float] = field(default_factory=list[float])
    """Of each demand: `margin`."""
    ended: Counter[str] = field(default_factory=Counter[str])
    tokens: int = 0
    died: dict[int, float] = field(default_factory=dict[int, float])
    """When nodes that were killed were last not back: a broken connection to them is an error that says so."""

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began

    def bad(self, what: str, **more: Any) -> None:
        self.ended[what] += 1
        print(f"{self.now_s:6.1f} s: {what} {more}", flush=True)
        self.record.add({"what": "violation", "kind": what, "at_s": self.now_s, **more})

    # -- clients

    async def ask(self, head: int, demand: Demand, *, stream: bool, hang_up_after: int | None = None) -> str | None:
        """The whole text; None when it ended with an error that says so, or was hung up. Raises Unended."""
        node = self.nodes[head]
        headers = {"authorization": f"Bearer {node.key}"}
        body = demand.body | ({"stream": True} if stream else {})
        async with self.session.post(node.url + demand.path, json=body, headers=headers) as reply:
            if reply.status != 200:
                said = await reply.text()
                self.ended["refused" if reply.status in (429, 503) else "error"] += 1
                if reply.status < 500 and reply.status != 429:
                    self.bad("refused a good request", status=reply.status, said=said[:300], demand=demand.kind)
                return None
            if not stream:
                return text_of(await reply.json())
            text, pieces, ended = "", 0, False
            async for line in reply.content:
                ended = ended or line.startswith(b"data: [DONE]")
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.ended["error"] += 1
                    return None
                piece = text_of(chunk)
                text, pieces = text + piece, pieces + bool(piece)
                if hang_up_after is not None and pieces >= hang_up_after:
                    self.ended["hung up"] += 1
                    return None
            if not ended:
                raise EOFError
            return text

    async def client(self, number: int, wanted: list[Demand]) -> None:
        chance = random.Random(number)
        while self.now_s < self.until_s:
            head = chance.choice(HEADS)
            began, die = self.now_s, chance.random()
            place = chance.randrange(len(wanted))
            demand = wanted[place]
            try:
                async with asyncio.timeout(STUCK_S):
                    if die < 0.06:
                        await self.refused(head, *nonsense(self.model, chance))
                        continue
                    hang_up = chance.randrange(1, 20) if die < 0.2 else None
                    stream = chance.random() < 0.7 or hang_up is not None
                    text = await self.ask(head, demand, stream=stream, hang_up_after=hang_up)
            except TimeoutError:
                self.bad("stuck", demand=demand.kind, head=NAMES[head], since_s=began)
            except EOFError:
                self.bad("lost", demand=demand.kind, head=NAMES[head], since_s=began)
            except (aiohttp.ClientError, ConnectionError) as error:
                if self.died.get(head, -1.0) >= began:
                    self.ended["head killed"] += 1
                    await asyncio.sleep(0.5)
                else:
                    self.bad("connection broken", demand=demand.kind, head=NAMES[head], said=type(error).__name__)
            else:
                if text is None:
                    await asyncio.sleep(0.1)
                elif text == self.right[place]:
                    self.ended["right"] += 1
                    self.tokens += len(text)
                elif self.ahead[place] < CLEAR:
                    self.ended[f"near tie, {demand.kind}"] += 1
                else:
                    self.bad("wrong text", demand=demand.kind, got=text[:200], right=self.right[place][:200])

    async def refused(self, head: int, path: str, body: Any) -> None:
        node = self.nodes[head]
        headers = {"authorization": f"Bearer {node.key}"}
        async with self.session.post(node.url + path, json=body, headers=headers) as reply:
            await reply.read()
            if 400 <= reply.status < 500:
                self.ended["nonsense refused"] += 1
            elif reply.status == 503:
                self.ended["refused"] += 1
            else:
                self.bad("nonsense not refused", status=reply.status, body=str(body)[:100])

    # -- trouble

    async def trouble(self) -> None:
        while self.now_s < self.until_s - 10:
            await asyncio.sleep(self.chance.uniform(1, 4))
            what = self.chance.choice(("kill", "stop", "reset", "silent", "unload"))
            started = self.now_s
            where = await self.one_trouble(what)
            try:
                await until(lambda: fleets.linked(self.session, self.nodes), READY_S, "linked again")
            except RuntimeError as error:
                self.bad("not linked again", said=str(error), after=what)
            one: Round = {"what": "trouble", "kind": what, "where": where, "at_s": started, "took_s": self.now_s - started}
            self.record.add(one)
            print(f"{started:6.1f} s: {what} {where}; so far {dict(self.ended)}", flush=True)

    async def one_trouble(self, what: str) -> str:
        seconds = self.chance.uniform(1, 5)
        if what == "kill":
            number = self.chance.choice(KILLED)
            self.died[number] = float("inf")
            self.nodes[number].process.kill()
            await asyncio.sleep(seconds / 2)
            await fleets.restart(self.session, self.nodes[number])
            self.died[number] = self.now_s
            return NAMES[number]
        if what == "stop":
            number = self.chance.randrange(len(self.nodes))
            self.nodes[number].process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.nodes[number].process.send_signal(signal.SIGCONT)
            return NAMES[number]
        if what == "unload":
            number = self.chance.randrange(len(self.nodes))
            with contextlib.suppress(RuntimeError):  # it says that it is in use
                await self.nodes[number].call(self.session, "POST", f"/api/admin/models/{self.model}/unload")
            return NAMES[number]
        ends = self.chance.sample(range(len(self.nodes)), 2)
        line = self.network.line(*ends)
        line.break_(Cut(what))
        try:
            await asyncio.sleep(seconds)
        finally:
            line.mend()
        return "".join(sorted(NAMES[end] for end in ends))

    # -- what is seen

    async def watch(self) -> None:
        while True:
            memory = [memory_of(node) for node in self.nodes]
            one: Round = {
                "what": "sample", "at_s": self.now_s, "right": self.ended["right"], "characters": self.tokens,
                "node_mb": [node for node, _ in memory], "workers_mb": [workers for _, workers in memory],
            }  # fmt: skip
            self.record.add(one)
            await asyncio.sleep(SAMPLE_S)

    async def left(self) -> Round:
        """What the nodes still have when nobody asks for anything."""
        streams, active, unloaded = 0, 0, 0
        for node in self.nodes:
            rows = await node.call(self.session, "GET", "/api/admin/links")
            streams += sum(row["streams"] for row in rows if row["purpose"] == "control")
            active += (await node.call(self.session, "GET", "/api/admin/stats"))["active_requests"]
        for node in self.nodes:
            with contextlib.suppress(RuntimeError):
                await node.call(self.session, "POST", f"/api/admin/models/{self.model}/unload")
                unloaded += 1
        await asyncio.sleep(2)
        workers = sum(1 for node in self.nodes for _ in workers_of(node))
        return {
            "what": "left", "streams": streams, "active": active, "unloaded": unloaded, "workers": workers,
            "nodes": len(self.nodes),
        }  # fmt: skip


def workers_of(node: Node) -> list[psutil.Process]:
    children = psutil.Process(node.process.pid).children(recursive=True)
    return [one for one in children if "swarmd.inference.worker" in one.cmdline()]


def memory_of(node: Node) -> tuple[float | None, float | None]:
    """Resident MB of the node and of its workers; None while it is dead."""
    try:
        process = psutil.Process(node.process.pid)
        return process.memory_info().rss / 1e6, sum(one.memory_info().rss for one in workers_of(node)) / 1e6
    except psutil.Error:
        return None, None


async def share_out(session: Any, nodes: list[Node]) -> str:
    """PARTS of the built-in model to each node, and no more."""
    row = await fleets.model_row(session, nodes[0])
    assert row is not None and row["shard_count"] == 8, row
    model = row["id"]
    for node, part in zip(nodes[1:], PARTS[1:], strict=True):
        await until(lambda node=node: fleets.knows(session, node), READY_S, "the manifest")
        for index in part:
            await node.call(session, "POST", f"/api/admin/models/{model}/shards/{index}/download")
    for node, part in zip(nodes, PARTS, strict=True):
        await until(lambda node=node, part=part: fleets.holds(session, node, part), READY_S, "the shards")
    for index in range(PARTS[0].stop, 8):
        given = range(index, index + 1)
        await until(lambda given=given: fleets.spread_seen(session, nodes[0], given), READY_S, "a second holder")
        await nodes[0].call(session, "DELETE", f"/api/admin/models/{model}/shards/{index}")
    return str(model)


async def measure(record: Record, *, minutes: float, clients: int, seed: int) -> None:
    def own(number: int) -> dict[str, str]:
        return {"SWARMD_UI_BUILTIN_MODEL": "true"} if number == 0 else {}

    environment = {"SWARMD_INFERENCE_CONTEXT_TOKENS": "1024"}
    async with Network(4, first_port=FIRST_PORT) as network, fleets.swarm(
        DATA / "fleet-soak", count=4, threads=1, first_port=FIRST_PORT, megabytes=64, environment=environment,
        network=network, own=own,
    ) as (session, nodes):  # fmt: skip
        model = await share_out(session, nodes)
        soak = Soak(
            session=session, nodes=nodes, network=network, model=model, record=record, until_s=minutes * 60,
            chance=random.Random(seed),
        )  # fmt: skip
        wanted = demands(model)
        soak.ahead = [await margin(session, nodes[0], demand) for demand in wanted]
        clear = sum(ahead >= CLEAR for ahead in soak.ahead)
        print(f"{clear} of {len(wanted)} requests have a reply without a close pick", flush=True)
        for place, demand in enumerate(wanted):
            for _ in range(2):
                text = await soak.ask(0, demand, stream=True)
                assert text is not None, demand
                if soak.right.setdefault(place, text) != text:
                    soak.bad("undisturbed texts differ", demand=demand.kind)
        soak.began = time.monotonic()
        watching = asyncio.create_task(soak.watch())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(clients):
                    group.create_task(soak.client(number, wanted))
                group.create_task(soak.trouble())
        finally:
            watching.cancel()
        await asyncio.sleep(REST_S)
        record.add({"what": "ended", **soak.ended}, await soak.left())
        print(dict(soak.ended), record.result.of(what="left"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="run again, where an earlier run was finished")
    options = parser.parse_args()
    allowed_or_exit(parser)
    said = {"minutes": options.minutes, "clients": options.clients, "seed": options.seed}
    record = Record("soak", said, fresh=options.fresh)
    if record.count(what="ended"):
        return
    record.drop(lambda one: True)  # half a soak is none
    run(measure(record, minutes=options.minutes, clients=options.clients, seed=options.seed))


if __name__ == "__main__":
    main()
