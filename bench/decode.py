"""Decoding a 1.1B-shaped model whole in one process, and split over 2 and 3 loopback nodes, encrypted; and long prompts.

No tokens are guessed: a random model repeats itself, and guessing would make the split run faster than it is.

All of them run at the same time and take turns, round by round, so that a noisy machine disturbs all alike; the ratio is of
the medians over the rounds. Every worker has as many threads as the single process, since stages take turns.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import rpc
from bench.fleet import ROOT, Node, fleet
from bench.random_model import TINY_LLAMA, write

DATA = ROOT / "bench" / "data"
LONG = 512  # tokens of a long prompt
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


async def ask(session: Any, node: Node, model: str, count: int) -> tuple[float, dict[str, Any]]:
    """Milliseconds per token of the decode phase, and where they went."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": count + 1, "temperature": 0}
    reply = await node.call(session, "POST", "/v1/completions", body)
    if reply["usage"]["completion_tokens"] != count + 1:
        raise RuntimeError("the random model ended its reply early: write it with another seed")
    return 1e3 / reply["swarm"]["tokens_per_second"], reply["swarm"]


async def read(session: Any, node: Node, model: str, number: int) -> float:
    """Milliseconds until the first token of a prompt of LONG tokens, another one for each `number`."""
    prompt = "".join(chr(97 + (at * (number + 3) + number) % 26) for at in range(LONG))
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    reply = await node.call(session, "POST", "/v1/completions", body)
    if reply["usage"]["prompt_tokens"] != LONG or reply["usage"]["prompt_tokens_details"]["cached_tokens"]:
        raise RuntimeError(f"not a fresh prompt of {LONG} tokens: {reply['usage']}")
    return reply["swarm"]["prefill_ms"]


async def measure(*, threads: int, rounds: int, tokens: int, spin: str | None = None) -> None:
    console = Console(width=110)
    programs = rpc.folder()
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    environment = {"SWARMD_INFERENCE_SPECULATION": "false", **({"GOMP_SPINCOUNT": spin} if spin else {})}
    async with AsyncExitStack() as stack:
        single = await start_single(stack, model, threads, None)
        fleets = {
            count: await stack.enter_async_context(
                fleet(DATA / f"fleet-{count}", model, count=count, threads=threads, first_port=18800 + 100 * count,
                      environment=environment)
            )
            for count in (2, 3)
        }  # fmt: skip
        spent: dict[str, list[float]] = {"one process": [], "2 nodes": [], "3 nodes": []}
        prefills: dict[str, list[float]] = {"one process": [], "2 nodes": [], "3 nodes": []}
        parts: dict[int, list[dict[str, Any]]] = {2: [], 3: []}
        for number in range(rounds + 1):
            found = {"one process": await single.decode(tokens)}
            for count, (session, nodes, name) in fleets.items():
                found[f"{count} nodes"], swarm = await ask(session, nodes[0], name, tokens)
                if number:
                    parts[count].append(swarm)
            read_ms = {"one process": await single.prefill(LONG)}
            for count, (session, nodes, name) in fleets.items():
                read_ms[f"{count} nodes"] = await read(session, nodes[0], name, number)
            if programs and number:
                found["llama-bench"] = await rpc.milliseconds(programs, model, threads=threads, tokens=tokens, servers=0)
                found["llama.cpp RPC, 3 servers"] = await rpc.milliseconds(programs, model, threads=threads, tokens=tokens)
            if number:  # the first round loads and warms
                for who, value in found.items():
                    spent.setdefault(who, []).append(value)
                for who, value in read_ms.items():
                    prefills[who].append(value)
                console.print(f"round {number}: " + ", ".join(f"{who} {value:.2f} ms" for who, value in found.items()))
    table = Table(title=f"{threads} thread(s), median of {rounds} rounds of {tokens} tokens, encryption on")
    for column in ("", "ms per token", "ratio", "added per stage", "in engines", "in nodes beside", "links"):
        table.add_column(column, justify="right")
    base = statistics.median(spent["one process"])
    table.add_row("one process", f"{base:.2f}", "1", "", "", "", "")
    for count in (2, 3):
        middle = statistics.median(spent[f"{count} nodes"])
        engines = statistics.median(sum(s["compute_ms"] for s in part["stages"]) for part in parts[count])
        nodes_ms = statistics.median(sum(s["node_ms"] for s in part["stages"]) for part in parts[count])
        links = statistics.median(part["link_ms"] for part in parts[count])
        table.add_row(
            f"{count} nodes", f"{middle:.2f}", f"{base / middle:.3f}", f"{(middle - base) / count:.2f} ms",
            f"{engines:.2f}", f"{nodes_ms - engines:.2f}", f"{links:.2f}",
        )  # fmt: skip
    for who in ("llama-bench", "llama.cpp RPC, 3 servers"):
        if who in spent:
            middle = statistics.median(spent[who])
            table.add_row(who, f"{middle:.2f}", f"{base / middle:.3f}", "", "", "", "")
    console.print(table)
    table = Table(title=f"a prompt of {LONG} tokens, {threads} thread(s), median of {rounds} rounds")
    for column in ("", "ms", "ratio"):
        table.add_column(column, justify="right")
    base = statistics.median(prefills["one process"])
    for who, values in prefills.items():
        table.add_row(who, f"{statistics.median(values):.0f}", f"{base / statistics.median(values):.3f}")
    console.print(table)
