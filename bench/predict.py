"""What the planner says before a request, against what comes: tokens per second, and memory of the workers.

One, two and three loopback nodes hold a 1.1B-shaped model; each answers once to be measured, then the plan is asked for and
the request made, round by round. Memory is that of all worker processes after the request.

    python -m bench.predict [--rounds 7] [--tokens 48] [--threads 1] [--fresh]
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import psutil

from bench.decode import DATA, ask
from bench.fleet import Node, fleet, until
from bench.random_model import TINY_LLAMA, write
from bench.results import Record
from swarmd.inference.memory import WORKER_BYTES

FIRST_PORT = 17640
PREDICTED_S = 150.0
LONG = "abcdefghijklmnop" * 24  # three prefill chunks: buffers are used as they are in earnest


def worker_bytes(nodes: list[Node]) -> int:
    return sum(
        worker.memory_info().rss
        for node in nodes
        for worker in psutil.Process(node.process.pid).children()
        if "swarmd.inference.worker" in worker.cmdline()
    )


async def measure(record: Record, *, rounds: int, tokens: int, threads: int) -> None:
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    # A prediction is of steps of one token, whatever the text; the prefix cache has a budget of its own.
    settings = {"SWARMD_INFERENCE_PREFIX_CACHE_MB": "0", "SWARMD_INFERENCE_SPECULATION": "false"}
    for count in (1, 2, 3):
        done = record.count(nodes=count)
        if done >= rounds:
            continue
        folder, port = DATA / f"predict-{count}", FIRST_PORT + 60 * count
        async with fleet(
            folder, model, count=count, threads=threads, first_port=port, environment=settings
        ) as (session, nodes, name):
            long: dict[str, Any] = {"model": name, "prompt": LONG, "max_tokens": 1, "temperature": 0}
            await nodes[0].call(session, "POST", "/v1/completions", long)
            await ask(session, nodes[0], name, tokens)
            path = f"/api/admin/models/{name}/pipeline-plan"

            async def predicted(head: Node = nodes[0], path: str = path) -> bool:
                """Others tell their speeds once a minute."""
                return (await head.call(session, "GET", path))["predicted_tokens_per_second"] is not None

            await until(predicted, PREDICTED_S, "a prediction")
            for number in range(done + 1, rounds + 1):
                plan = await nodes[0].call(session, "GET", path)
                asked = await ask(session, nodes[0], name, tokens)
                forecast = sum(stage["memory_mb"] for stage in plan["stages"]) + count * WORKER_BYTES / 1e6
                one = {
                    "nodes": count, "round": number, "predicted": plan["predicted_tokens_per_second"],
                    "measured": asked.swarm["tokens_per_second"], "forecast_mb": forecast,
                    "rss_mb": worker_bytes(nodes) / 1e6,
                }  # fmt: skip
                record.add(one)
                said = f"{one['predicted']:.1f} tokens/s predicted, {one['measured']:.1f} measured"
                print(f"{count} nodes, round {number}: {said}; {forecast:.0f} MB forecast, {one['rss_mb']:.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.predict", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    record = Record("predict", {"threads": options.threads, "tokens": options.tokens}, fresh=options.fresh)
    asyncio.run(measure(record, rounds=options.rounds, tokens=options.tokens, threads=options.threads))


if __name__ == "__main__":
    main()
