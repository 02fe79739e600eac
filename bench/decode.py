"""Decoding a 1.1B-shaped model whole in one process, and split over 2 and 3 loopback nodes, encrypted; and long prompts.

    python -m bench.decode [--threads 2 1] [--rounds 11] [--tokens 64] [--fresh]

No tokens are guessed: a random model repeats itself, and guessing would make the split run faster than it is.

All of them run at the same time and take turns, round by round, so that a noisy machine disturbs all alike; the ratio is of
the medians over the rounds. Every worker has as many threads as the single process, since stages take turns. A prompt does
not take turns: its chunks are on several stages at once, so with one thread it is also read by two nodes that are bound to
a processor each, as machines of their own would be. Where `bench.rpc_build` has built llama.cpp's programs, or
LLAMA_CPP_BIN names them, its RPC decodes the same file beside ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import rpc
from bench.fleet import ROOT, Node, fleet
from bench.random_model import TINY_LLAMA, write
from bench.results import Record, Round

DATA = ROOT / "bench" / "data"
FIRST_PORT = 17200
LONG = 512  # tokens of a long prompt
ONE, TWO, THREE = "one process", "2 nodes", "3 nodes"
OWN_CORES = "2 nodes, a processor each"
RPC_WHOLE, RPC = "llama-bench, whole", "llama.cpp RPC, 3 servers"
Fleet = tuple[Any, list[Node], str]
PROMPT = "abcdefghijklmnop"  # 16 tokens of the byte-level vocabulary


class Single:
    """The process to compare with."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def decode(self, count: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"decode {count}\n".encode())
        return float(await self._process.stdout.readline())

    async def prefill(self, count: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"prefill {count}\n".encode())
        return float(await self._process.stdout.readline())


async def start_single(stack: AsyncExitStack, model: Path, threads: int, spin: str | None) -> Single:
    environment = {**os.environ, **({"GOMP_SPINCOUNT": spin} if spin else {})}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.single", str(model), "--threads", str(threads), cwd=ROOT, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    stack.push_async_callback(end)
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() == b"ready"
    return Single(process)


@dataclass(slots=True)
class Asked:
    """A reply."""

    text: str
    tokens: int
    swarm: dict[str, Any]
    """Where the time went."""


async def ask(session: Any, node: Node, model: str, count: int) -> Asked:
    """The reply to a short prompt, at temperature 0."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": count + 1, "temperature": 0}
    reply = await node.call(session, "POST", "/v1/completions", body)
    if reply["usage"]["completion_tokens"] != count + 1:
        raise RuntimeError("the random model ended its reply early: write it with another seed")
    return Asked(reply["choices"][0]["text"], count + 1, reply["swarm"])


async def read(session: Any, node: Node, model: str, number: int) -> float:
    """Milliseconds until the first token of a prompt of LONG tokens, another one for each `number`."""
    prompt = "".join(chr(97 + (at * (number + 3) + number) % 26) for at in range(LONG))
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    reply = await node.call(session, "POST", "/v1/completions", body)
    if reply["usage"]["prompt_tokens"] != LONG or reply["usage"]["prompt_tokens_details"]["cached_tokens"]:
        raise RuntimeError(f"not a fresh prompt of {LONG} tokens: {reply['usage']}")
    return reply["swarm"]["prefill_ms"]


def arms_of(threads: int) -> tuple[str, ...]:
    return (ONE, TWO, THREE, *((OWN_CORES,) if threads == 1 and (os.cpu_count() or 1) > 1 else ()))


async def one_round(
    number: int, *, single: Single, fleets: dict[str, Fleet], model: Path, programs: Path | None, threads: int, tokens: int
) -> list[Round]:
    """All arms in turns: first replies, then prompts, then llama.cpp's own programs."""
    rounds = {ONE: {"arm": ONE, "round": number, "ms": await single.decode(tokens)}}
    for arm, (session, nodes, name) in fleets.items():
        rounds[arm] = {"arm": arm, "round": number}
        if arm != OWN_CORES:
            asked = await ask(session, nodes[0], name, tokens)
            engines = sum(stage["compute_ms"] for stage in asked.swarm["stages"])
            beside = sum(stage["node_ms"] for stage in asked.swarm["stages"]) - engines
            rounds[arm] |= {
                "ms": 1e3 / asked.swarm["tokens_per_second"], "engines_ms": engines, "beside_ms": beside,
                "links_ms": asked.swarm["link_ms"],
            }  # fmt: skip
    rounds[ONE]["prefill_ms"] = await single.prefill(LONG)
    for arm, (session, nodes, name) in fleets.items():
        rounds[arm]["prefill_ms"] = await read(session, nodes[0], name, number)
    if programs and number:
        for arm, servers in ((RPC_WHOLE, 0), (RPC, rpc.SERVERS)):
            spent = await rpc.milliseconds(programs, model, threads=threads, tokens=tokens, servers=servers)
            rounds[arm] = {"arm": arm, "round": number, "ms": spent}
    return list(rounds.values())


async def measure(record: Record, *, threads: int, rounds: int, tokens: int, spin: str | None = None) -> None:
    programs = rpc.folder()
    if programs is None:
        print("without llama.cpp's RPC beside it: python -m bench.rpc_build builds that")
    done = record.count(arm=ONE)
    if done >= rounds:
        return
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    environment = {"SWARMD_INFERENCE_SPECULATION": "false", **({"GOMP_SPINCOUNT": spin} if spin else {})}
    async with AsyncExitStack() as stack:
        single = await start_single(stack, model, threads, None)
        fleets: dict[str, Fleet] = {}
        for place, arm in enumerate(arms_of(threads)[1:]):
            fleets[arm] = await stack.enter_async_context(
                fleet(
                    DATA / f"fleet-{place}", model, count=3 if arm == THREE else 2, threads=threads,
                    first_port=FIRST_PORT + 100 * place, environment=environment,
                    cores=(0, 1) if arm == OWN_CORES else None,
                )
            )  # fmt: skip
        for number in [0, *range(done + 1, rounds + 1)]:
            found = await one_round(
                number, single=single, fleets=fleets, model=model, programs=programs, threads=threads, tokens=tokens
            )
            if number:  # the first round loads and warms
                record.add(*found)
                said = (f"{one['arm']} {one['ms']:.2f}" for one in found if "ms" in one)
                print(f"{threads} thread(s), round {number}: " + ", ".join(said) + " ms a token", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.decode", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="of every worker")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--spin", help="GOMP_SPINCOUNT of the nodes' workers instead of the built-in choice")
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    for threads in options.threads:
        said = {"tokens": options.tokens, "threads": threads, "prompt": LONG, "spin": options.spin}
        record = Record(f"decode-{threads}", said, fresh=options.fresh)
        asyncio.run(
            measure(record, threads=threads, rounds=options.rounds, tokens=options.tokens, spin=options.spin)
        )


if __name__ == "__main__":
    main()
