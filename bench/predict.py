"""What the planner says before a request, against what comes: tokens per second, and memory of the workers.

One, two and three loopback nodes hold a 1.1B-shaped model; each answers once to be measured, then the plan is asked for and
the request made, round by round. Memory is that of all worker processes after the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.decode import DATA, ask
from bench.fleet import Node, fleet
from bench.random_model import TINY_LLAMA, write
from swarmd.inference.memory import WORKER_BYTES

LONG = "abcdefghijklmnop" * 24  # three prefill chunks: buffers are used as they are in earnest


def worker_bytes(nodes: list[Node]) -> int:
    return sum(
        worker.memory_info().rss
        for node in nodes
        for worker in psutil.Process(node.process.pid).children()
        if "swarmd.inference.worker" in worker.cmdline()
    )


async def measure(*, rounds: int, tokens: int, threads: int) -> None:
    console = Console(width=110)
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    table = Table(title=f"predicted before, measured after; median of {rounds} rounds of {tokens} tokens, {threads} threads")
    for column in ("nodes", "tokens/s predicted", "measured", "ratio (spread)", "memory forecast", "measured", "ratio"):
        table.add_column(column, justify="right")
    for count in (1, 2, 3):
        # A prediction is of steps of one token, whatever the text; the prefix cache has a budget of its own.
        settings = {"SWARMD_INFERENCE_PREFIX_CACHE_MB": "0", "SWARMD_INFERENCE_SPECULATION": "false"}
        folder, port = DATA / f"predict-{count}", 19600 + 100 * count
        async with fleet(
            folder, model, count=count, threads=threads, first_port=port, environment=settings
        ) as (session, nodes, name):
            long: dict[str, Any] = {"model": name, "prompt": LONG, "max_tokens": 1, "temperature": 0}
            await nodes[0].call(session, "POST", "/v1/completions", long)
            await ask(session, nodes[0], name, tokens)
            path = f"/api/admin/models/{name}/pipeline-plan"
            while (plan := await nodes[0].call(session, "GET", path))["predicted_tokens_per_second"] is None:
                await asyncio.sleep(1)  # others tell their speeds once a minute
            predicted: list[float] = []
            measured: list[float] = []
            for _ in range(rounds):
                plan = await nodes[0].call(session, "GET", path)
                predicted.append(plan["predicted_tokens_per_second"])
                measured.append(1e3 / (await ask(session, nodes[0], name, tokens))[0])
            ratios = sorted(one / other for one, other in zip(predicted, measured, strict=True))
            forecast = sum(stage["memory_mb"] for stage in plan["stages"]) + count * WORKER_BYTES / 1e6
            rss = worker_bytes(nodes) / 1e6
            table.add_row(
                str(count), f"{statistics.median(predicted):.1f}", f"{statistics.median(measured):.1f}",
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                f"{forecast:.0f} MB", f"{rss:.0f} MB", f"{forecast / rss:.2f}",
            )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.predict", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(measure(rounds=arguments.rounds, tokens=arguments.tokens, threads=arguments.threads))


if __name__ == "__main__":
    main()
