"""A node lost in the middle of a reply: whether the reply is the same, and how long the pause was.

    python -m bench.loss [--rounds 5] [--tokens 200] [--at 50]

Three loopback nodes have a third of a model each, a fourth has the second and the last third and stands by. Each round asks
for the same reply at temperature 0; when its token `--at` has come, a node beside the head is killed with -9, or stopped
with SIGSTOP. The text is compared with the undisturbed one; told is the longest time between two pieces of it, in which the
loss is noticed, other stages are opened, and the history is computed anew. Then the lost node comes back, and the next round
begins when all of them are linked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import fleet as fleets
from bench.decode import DATA
from bench.fleet import READY_S, Node, until
from bench.random_model import Shape, write

SHAPE = Shape(layers=12, width=1024, heads=16, kv_heads=4, feed_forward=2816, vocabulary=8000)
"""130 million numbers: a step is short beside what is measured here."""
PROMPT = "the quick brown fox jumps over the lazy dog, and then again: "
FIRST_PORT = 19700


@dataclass(slots=True)
class Reply:
    text: str = ""
    tokens: int = 0
    pause_s: float = 0.0
    resumes: int = 0
    nodes: list[str] = field(default_factory=list)


async def ask(session: Any, node: Node, model: str, tokens: int, at: int, strike: Any = None) -> Reply:
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    reply, last, pieces = Reply(), 0.0, 0
    headers = {"authorization": f"Bearer {node.key}"}
    async with session.post(f"{node.url}/v1/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status} {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            now = time.perf_counter()
            if chunk["choices"] and chunk["choices"][0]["text"]:
                if last:
                    reply.pause_s = max(reply.pause_s, now - last)
                last, pieces = now, pieces + 1
                reply.text += chunk["choices"][0]["text"]
                if pieces == at and strike is not None:
                    strike()
            if chunk.get("usage"):
                reply.tokens = chunk["usage"]["completion_tokens"]
            if chunk.get("swarm"):
                reply.resumes = chunk["swarm"]["resumes"]
                reply.nodes = [stage["node"] for stage in chunk["swarm"]["stages"]]
    return reply


async def hold(session: Any, node: Node, model: str, shards: range) -> None:
    await until(lambda: fleets.knows(session, node), READY_S, "the manifest")
    for index in shards:
        await node.call(session, "POST", f"/api/admin/models/{model}/shards/{index}/download")
    await until(lambda: fleets.holds(session, node, shards), 120, "the standby's shards")


async def measure(*, rounds: int, tokens: int, at: int) -> None:
    path = write(DATA / "loss.gguf", SHAPE)
    environment = {
        "SWARMD_INFERENCE_SPECULATION": "false", "SWARMD_AUTO_MANAGE_ENABLED": "false",  # a random model repeats itself
    }  # fmt: skip
    folder = DATA / "fleet-loss"
    async with fleets.swarm(
        folder, count=4, threads=1, first_port=FIRST_PORT, megabytes=64, environment=environment
    ) as (session, nodes):
        await nodes[0].call(session, "POST", "/api/admin/models", {"path": str(path)})
        model = await fleets.spread(session, nodes[:3])
        row = await fleets.model_row(session, nodes[0])
        assert row is not None
        shards = range(round(row["shard_count"] / 3), row["shard_count"])
        await hold(session, nodes[3], model, shards)
        await ask(session, nodes[0], model, tokens, at)  # loads
        plain = await ask(session, nodes[0], model, tokens, at)
        swarm = Swarm(session, nodes, model, folder, environment, plain.text)
        for how in (signal.SIGKILL, signal.SIGSTOP):
            same, pauses, failures = 0, list[float](), list[str]()
            for _ in range(rounds):
                try:
                    reply = await swarm.struck(how, tokens, at)
                    same += reply.text == plain.text and reply.resumes > 0
                    pauses.append(reply.pause_s)
                except RuntimeError as error:
                    failures.append(str(error))
                await until(lambda: fleets.linked(session, nodes), READY_S, "linked")
            shown = ", ".join(f"{pause:.2f}" for pause in sorted(pauses))
            print(f"{how.name}: {same} of {rounds} replies the same; pauses {shown} s", *failures, sep="\n  ")
            if pauses:
                print(f"  median {statistics.median(pauses):.2f} s; undisturbed, the longest was {plain.pause_s:.2f} s")


@dataclass(slots=True)
class Swarm:
    session: Any
    nodes: list[Node]
    model: str
    folder: Path
    environment: dict[str, str]
    plain: str

    async def struck(self, how: signal.Signals, tokens: int, at: int) -> Reply:
        """A reply in which a node beside the head is lost, which is there again afterwards."""
        head = self.nodes[0]
        used = await ask(self.session, head, self.model, 8, at)
        names = [(await node.call(self.session, "GET", "/api/admin/stats"))["node_id"][:16] for node in self.nodes]
        number = next(names.index(node) for node in used.nodes if node != names[0])
        victim = self.nodes[number]
        try:
            return await ask(self.session, head, self.model, tokens, at, lambda: victim.process.send_signal(how))
        finally:
            if how is signal.SIGSTOP:
                victim.process.send_signal(signal.SIGCONT)
            else:
                await victim.process.wait()
                home, port = self.folder / f"node-{number + 1}", FIRST_PORT + 20 * number
                again = self.nodes[number] = await fleets.start(home, port, 1, 64, self.environment, again=True)
                again.key = victim.key
                await until(lambda: fleets.ready(self.session, again), READY_S, "ready")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--at", type=int, default=50)
    options = parser.parse_args()
    asyncio.run(measure(rounds=options.rounds, tokens=options.tokens, at=options.at))


if __name__ == "__main__":
    main()
