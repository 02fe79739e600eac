"""Nodes far from each other: what a token costs over the delay of the lines, and what guessing saves there.

    python -m bench.wan [--delays 5 25 50 100] [--nodes 3 2] [--rounds 5] [--tokens 64] [--fresh]

The only way between the nodes is a proxy that makes each direction of a line late by half the stated round trip
(`bench.delay`). A step goes from each node to the next and back to the first, so a token takes `nodes` one-way delays.
Asked for, with guessing off and on in turns, at each delay:

- new text: a random model of TinyLlama's shape at temperature 1 with a seed of its own for each round; its draws are keyed
  by position, so the text is the same in all arms, and it never repeats itself;
- repetitive text: the same model at temperature 0, which falls into a loop;
- quoted text: the built-in model is asked again what it has already answered in the same chat.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from typing import Any

from bench import fleet as fleets
from bench.decode import DATA, Asked
from bench.delay import Cut, Network, options_of, run
from bench.fleet import READY_S, Node, until
from bench.random_model import TINY_LLAMA, write
from bench.results import Record, Round

FIRST_PORT = 17900
SETTLE_S = 20.0  # a link that was reset is dialled again after 0.2 s, and a handshake takes some round trips
REPLY_S = 300.0
NEW, REPEATS, QUOTES = "new text", "repetitive text", "quoted text"
QUESTIONS = ("What is swarmd?", "How do nodes join?", "What is an invite code?", "How are links encrypted?")
PROMPT = "abcdefghijklmnop"


class Far:
    """A fleet behind the proxy, and its lateness."""

    def __init__(self, session: Any, nodes: list[Node], model: str, network: Network) -> None:
        self.session, self.nodes, self.model, self.network = session, nodes, model, network

    async def move(self, round_trip_ms: float) -> None:
        """All links are made anew, so that nothing remembers another delay."""
        self.network.delay(round_trip_ms / 2e3)
        for line in self.network.lines.values():
            line.break_(Cut.RESET)
        await asyncio.sleep(0.1)
        for line in self.network.lines.values():
            line.mend()
            line.late_s = 0.0
            line.carried_bytes = 0
        await asyncio.sleep(0.5)
        await until(lambda: fleets.linked(self.session, self.nodes), READY_S, "linked")

    async def round_trip_ms(self) -> float:
        """Of the head's quickest control link, as it measures it: less than the delay would be a way past the proxy."""
        rows = await self.nodes[0].call(self.session, "GET", "/api/admin/links")
        return min(row["min_rtt_ms"] for row in rows if row["purpose"] == "control" and row["min_rtt_ms"] is not None)

    async def guess(self, on: bool) -> None:
        """For all nodes; a live setting."""
        for node in self.nodes:
            (node.recipe.folder / "config.toml").write_text(f"[inference]\nspeculation = {str(on).lower()}\n")
            await node.call(self.session, "POST", "/api/admin/config/reload")

    async def ask(self, body: dict[str, Any], path: str = "/v1/completions") -> Asked:
        async with asyncio.timeout(REPLY_S):
            reply = await self.nodes[0].call(self.session, "POST", path, {"model": self.model, **body})
        choice = reply["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        return Asked(text=text, tokens=reply["usage"]["completion_tokens"], swarm=reply["swarm"])


def told(asked: Asked, **what: Any) -> Round:
    swarm = asked.swarm
    return {
        **what, "ms": 1e3 / swarm["tokens_per_second"], "tokens": asked.tokens,
        "engines_ms": sum(stage["compute_ms"] for stage in swarm["stages"]), "stages": len(swarm["stages"]),
        "proposed": swarm["proposed_tokens"], "accepted": swarm["accepted_tokens"],
        "text": hashlib.sha256(asked.text.encode()).hexdigest()[:16],
    }  # fmt: skip


async def chat_before(far: Far) -> list[dict[str, str]]:
    """Questions with the answers that the model gave."""
    messages: list[dict[str, str]] = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        answer = await far.ask({"messages": messages, "temperature": 0, "max_tokens": 128}, "/v1/chat/completions")
        messages.append({"role": "assistant", "content": answer.text})
    return messages


async def one_turn(far: Far, record: Record, bodies: dict[str, tuple[str, dict[str, Any]]], turn: Round) -> None:
    """Every text with guessing off and on; the first to be asked changes from round to round."""
    rounds: list[Round] = []
    for guess in (False, True) if turn["round"] % 2 else (True, False):
        await far.guess(guess)
        for arm, (path, body) in bodies.items():
            asked = await far.ask(body, path)
            rounds.append(told(asked, arm=arm, guess=guess, **turn))
    line_ms = await far.round_trip_ms()
    late_ms = max(line.late_s for line in far.network.lines.values()) * 1e3
    carried = sum(line.carried_bytes for line in far.network.lines.values())
    for one in rounds:
        one |= {"link_rtt_ms": line_ms, "proxy_late_ms": late_ms, "proxy_bytes": carried}
    record.add(*rounds)
    told_ms = ", ".join(f"{one['arm']}{' guessed' if one['guess'] else ''} {one['ms']:.1f}" for one in rounds)
    print(f"{turn['nodes']} nodes, {turn['delay_ms']:g} ms, round {turn['round']}: {told_ms} ms a token", flush=True)


async def measure(record: Record, *, count: int, delays: list[float], rounds: int, tokens: int, threads: int) -> None:
    wanted = [(delay, number) for delay in delays for number in range(1, rounds + 1)]

    def missing(arm: str) -> list[tuple[float, int]]:
        return [one for one in wanted if not record.count(nodes=count, arm=arm, delay_ms=one[0], round=one[1])]

    base = {"SWARMD_INFERENCE_PREFIX_CACHE_MB": "0"}
    for arms, builtin in (((NEW, REPEATS), False), ((QUOTES,), True)):
        if not (left := missing(arms[0])):
            continue
        async with Network(count, first_port=FIRST_PORT) as network:
            folder = DATA / f"fleet-wan-{count}"
            if builtin:
                fleet = fleets.builtin_fleet(
                    folder, count=count, threads=threads, first_port=FIRST_PORT, environment=base, network=network
                )
            else:
                model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
                fleet = fleets.fleet(
                    folder, model, count=count, threads=threads, first_port=FIRST_PORT, environment=base, network=network,
                )  # fmt: skip
            async with fleet as (session, nodes, name):
                far = Far(session, nodes, name, network)
                bodies: dict[str, tuple[str, dict[str, Any]]] = {}
                if builtin:
                    messages = await chat_before(far)
                    again = [*messages, {"role": "user", "content": QUESTIONS[0]}]
                    body = {"messages": again, "temperature": 0, "max_tokens": tokens}
                    bodies[QUOTES] = ("/v1/chat/completions", body)
                    await far.ask(body, "/v1/chat/completions")
                else:
                    await far.ask({"prompt": PROMPT, "max_tokens": tokens, "temperature": 0})  # loads and warms
                at: float | None = None
                for delay, number in left:
                    if delay != at:
                        await far.move(delay)
                        at = delay
                    if not builtin:
                        base_body = {"prompt": PROMPT, "max_tokens": tokens}
                        bodies = {
                            NEW: ("/v1/completions", {**base_body, "temperature": 1, "seed": number}),
                            REPEATS: ("/v1/completions", {**base_body, "temperature": 0}),
                        }
                    await one_turn(far, record, bodies, {"nodes": count, "delay_ms": delay, "round": number})


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.wan", description=__doc__)
    parser.add_argument("--delays", type=float, nargs="+", default=[5.0, 25.0, 50.0, 100.0], help="round trips in ms")
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 2])
    parser.add_argument("--threads", type=int, default=1)
    options = options_of(parser, rounds=5, tokens=64)
    said = {"tokens": options.tokens, "threads": options.threads}
    record = Record("wan", said, fresh=options.fresh)
    for count in options.nodes:
        run(
            measure(
                record, count=count, delays=options.delays, rounds=options.rounds, tokens=options.tokens,
                threads=options.threads,
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
