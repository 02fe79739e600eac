"""A node or a line lost in the middle of a reply: whether the reply is the same, and how long the pause was.

    python -m bench.loss [--how kill stop reset silent head] [--rounds 100] [--tokens 200] [--at 50] [--fresh]

Three nodes have a third of a model each, two more stand by with the second and with the last third; between them is a proxy
(`bench.delay`, no delay). Each round asks for the same reply at temperature 0; when its token `--at` has come,

- kill: a node beside the head gets `kill -9`; it is started again for the next round,
- stop: it gets SIGSTOP, and goes on after the reply,
- reset: a line is cut, so that its connections are reset and new ones, too, until the reply goes on; in odd rounds the one
  between the head and the next stage, in even rounds the one between the other two,
- silent: the same, but nothing arrives any more and nobody is told,
- head: the head gets `kill -9`: its client must see that the reply is not whole, and gets it by asking again.

The text is compared with the undisturbed one; told is the longest time between two pieces of it, in which the loss is
noticed, other stages are opened (and load, unless they were used before), and the history is computed anew. What that
last part takes alone is measured at the beginning. A round that takes longer than a minute is a hang.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench import fleet as fleets
from bench.decode import DATA
from bench.delay import Cut, Network, options_of, run
from bench.fleet import READY_S, Node, until
from bench.random_model import Shape, write
from bench.results import Record, Round

SHAPE = Shape(layers=24, width=1024, heads=16, kv_heads=4, feed_forward=2816, vocabulary=8000)
"""290 million numbers in three shards of the smallest size: a step is short beside what is measured here."""
HOW = ("kill", "stop", Cut.RESET.value, Cut.SILENT.value, "head")
SITTINGS = 5  # with fresh nodes, where some did not find each other again
GOES_ON = 10  # pieces: more than are on their way when a line is cut
HANG_S = 60.0  # a reply takes three seconds, and a node gives a lost stage up after 30 s without a plan
PROMPT = "the quick brown fox jumps over the lazy dog, and then again: "
FIRST_PORT = 17920


@dataclass(slots=True)
class Reply:
    text: str = ""
    tokens: int = 0
    pause_s: float = 0.0
    resumes: int = 0


async def ask(
    session: Any, node: Node, model: str, tokens: int, strikes: Mapping[int, Callable[[], None]] | None = None
) -> Reply:
    """`strikes`: what to do when so many pieces have come."""
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    reply, last, pieces, ended = Reply(), 0.0, 0, False
    headers = {"authorization": f"Bearer {node.key}"}
    async with session.post(f"{node.url}/v1/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status} {await response.text()}")
        async for line in response.content:
            ended = ended or line.startswith(b"data: [DONE]")
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
                if strikes and pieces in strikes:
                    strikes[pieces]()
            if chunk.get("usage"):
                reply.tokens = chunk["usage"]["completion_tokens"]
            if chunk.get("swarm"):
                reply.resumes = chunk["swarm"]["resumes"]
    if not ended:
        raise Unended
    return reply


class Unended(Exception):
    """The stream ended, and nothing in it said that this was the end of the reply."""


async def hold(session: Any, node: Node, model: str, shards: range) -> None:
    await until(lambda: fleets.knows(session, node), READY_S, "the manifest")
    for index in shards:
        await node.call(session, "POST", f"/api/admin/models/{model}/shards/{index}/download")
    await until(lambda: fleets.holds(session, node, shards), 120, "the standby's shards")


@dataclass(slots=True, kw_only=True)
class Lossy:
    """The five nodes, and what an undisturbed reply is."""

    session: Any
    nodes: list[Node]
    ids: list[str]
    model: str
    network: Network
    plain: Reply
    again_s: float
    """Seconds for the prompt and the tokens before the loss, computed anew by loaded stages."""

    async def round(self, how: str, number: int, tokens: int, at: int) -> Round:
        """One, and everything as it was afterwards."""
        one: Round = {
            "how": how, "round": number, "plain_pause_s": self.plain.pause_s, "again_s": self.again_s, "outcome": "hang"
        }  # fmt: skip
        used = await self._stages()
        victim = self.nodes[0] if how == "head" else self.nodes[used[1 + number % (len(used) - 1)]]
        struck = False

        def strike() -> None:
            nonlocal struck
            struck = True
            victim.process.send_signal(signal.SIGSTOP if how == "stop" else signal.SIGKILL)

        try:
            async with asyncio.timeout(HANG_S):
                if how in (Cut.RESET.value, Cut.SILENT.value):
                    ends = (0, used[1]) if number % 2 else (used[1], used[2])
                    one["between"] = "head and stage" if 0 in ends else "two stages"
                    line = self.network.line(*ends)
                    try:
                        # Mended when the reply goes on, so that the nodes find each other soon.
                        reply = await self._ask(tokens, {at: lambda: line.break_(Cut(how)), at + GOES_ON: line.mend})
                    finally:
                        line.mend()
                else:
                    try:
                        reply = await self._ask(tokens, {at: strike})
                    finally:
                        if struck and how == "stop":
                            victim.process.send_signal(signal.SIGCONT)
            one |= {"pause_s": reply.pause_s, "resumes": reply.resumes}
            if how == "head":
                one["outcome"] = "not noticed"
            elif not reply.resumes:
                one["outcome"] = "not struck"
            else:
                one["outcome"] = "same" if reply.text == self.plain.text else "different"
        except TimeoutError:
            pass
        except (RuntimeError, Unended, aiohttp.ClientError, ConnectionError) as error:
            one |= {"outcome": "error", "said": str(error)[:200] or type(error).__name__}
        try:
            await self._recover(how, victim, struck=struck)
            if how == "head":
                await until(lambda: fleets.knows(self.session, victim), READY_S, "all shards")
                reply = await self._ask(tokens)
                one["again"] = "same" if reply.text == self.plain.text else "different"
        except (RuntimeError, Unended, aiohttp.ClientError) as error:
            one["recovery"] = str(error)[:200]
        return one

    async def _recover(self, how: str, victim: Node, *, struck: bool) -> None:
        if how in ("kill", "head"):
            if not struck:
                victim.process.kill()
            await fleets.restart(self.session, victim)
        await until(lambda: fleets.linked(self.session, self.nodes, direct=True), READY_S, "linked")

    async def _stages(self) -> list[int]:
        """Numbers of the nodes of the next plan, in their order; those whose restart is not known yet are waited for."""
        path = f"/api/admin/models/{self.model}/pipeline-plan"
        found: list[int] = []

        async def planned() -> bool:
            try:
                plan = await self.nodes[0].call(self.session, "GET", path)
            except RuntimeError:
                return False
            found[:] = [self.ids.index(stage["node"]) for stage in plan["stages"]]
            return len(found) == 3

        await until(planned, READY_S, "a plan")
        return found

    async def _ask(self, tokens: int, strikes: Mapping[int, Callable[[], None]] | None = None) -> Reply:
        return await ask(self.session, self.nodes[0], self.model, tokens, strikes)


async def measure(records: dict[str, Record], *, rounds: int, tokens: int, at: int) -> None:
    path = write(DATA / "loss-24.gguf", SHAPE)
    environment = {
        "SWARMD_INFERENCE_SPECULATION": "false", "SWARMD_INFERENCE_PREFIX_CACHE_MB": "0",
    }  # fmt: skip
    async with Network(5, first_port=FIRST_PORT) as network, fleets.swarm(
        DATA / "fleet-loss", count=5, threads=1, first_port=FIRST_PORT, megabytes=64, environment=environment,
        network=network,
    ) as (session, nodes):  # fmt: skip
        await nodes[0].call(session, "POST", "/api/admin/models", {"path": str(path)})
        model = await fleets.spread(session, nodes[:3])
        row = await fleets.model_row(session, nodes[0])
        assert row is not None and row["shard_count"] == 3, row
        for index in (1, 2):  # two nodes, since one with both parts would be preferred to two
            await hold(session, nodes[2 + index], model, range(index, index + 1))
        await ask(session, nodes[0], model, tokens)  # loads
        plain = await ask(session, nodes[0], model, tokens)
        body = {"model": model, "prompt": PROMPT + plain.text[:at], "max_tokens": 1, "temperature": 0}
        again = await nodes[0].call(session, "POST", "/v1/completions", body)
        ids = [(await node.call(session, "GET", "/api/admin/stats"))["node_id"][:16] for node in nodes]
        lossy = Lossy(
            session=session, nodes=nodes, ids=ids, model=model, network=network, plain=plain,
            again_s=again["swarm"]["prefill_ms"] / 1e3,
        )  # fmt: skip
        for how, record in records.items():
            for number in range(record.count() + 1, rounds + 1):
                one = await lossy.round(how, number, tokens, at)
                record.add(one)
                said = f"pause {one['pause_s']:.2f} s" if "pause_s" in one else one.get("said", "")
                print(f"{how}, round {number}: {one['outcome']} {said} {one.get('recovery', '')}", flush=True)
                if "recovery" in one:
                    return  # with these nodes it makes no sense to go on


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.loss", description=__doc__)
    parser.add_argument("--how", nargs="+", choices=HOW, default=list(HOW))
    parser.add_argument("--at", type=int, default=50)
    options = options_of(parser, rounds=100, tokens=200)
    said = {"tokens": options.tokens, "at": options.at}
    records = {how: Record(f"loss-{how}", said, fresh=options.fresh) for how in options.how}
    for _ in range(SITTINGS):
        if all(record.count() >= options.rounds for record in records.values()):
            return
        run(measure(records, rounds=options.rounds, tokens=options.tokens, at=options.at))


if __name__ == "__main__":
    main()
