"""One to several users at once over three loopback nodes: tokens of all of them a second, and first tokens.

    python -m bench.users [--users 8] [--threads 1] [--rounds 5] [--tokens 64] [--fresh]

Each user streams a completion of its own prompt (64 tokens of a byte-level vocabulary) at temperature 0; one alone, two,
four and so on take turns, round by round. Nothing is guessed, and nothing kept of prompts.
A user's fair share of the beginning is as many times one user's first token as there are users.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

from bench.decode import DATA
from bench.fleet import Node, fleet
from bench.random_model import TINY_LLAMA, write
from bench.results import Record, Round

FIRST_PORT = 17600
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def prompt(user: int) -> str:
    return "".join(LETTERS[(user * 7 + at * (user + 3)) % 26] for at in range(64))


async def stream(session: Any, node: Node, model: str, user: int, tokens: int) -> tuple[float, int]:
    """Seconds to the first token, and how many came."""
    body = {
        "model": model, "prompt": prompt(user), "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    began, first, came = time.perf_counter(), 0.0, 0
    headers = {"authorization": f"Bearer {node.key}"}
    async with session.post(f"{node.url}/v1/completions", json=body, headers=headers) as reply:
        if reply.status != 200:
            raise RuntimeError(f"user {user}: {reply.status} {await reply.text()}")
        async for line in reply.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if not first and chunk["choices"]:
                first = time.perf_counter() - began
            if chunk.get("usage"):
                came = chunk["usage"]["completion_tokens"]
    return first, came


async def together(session: Any, node: Node, model: str, users: range, tokens: int) -> tuple[float, list[float]]:
    """Tokens of all a second, and each one's first."""
    began = time.perf_counter()
    found = await asyncio.gather(*(stream(session, node, model, user, tokens) for user in users))
    spent = time.perf_counter() - began
    return sum(came for _, came in found) / spent, [first for first, _ in found]


def counts(users: int) -> list[int]:
    """1, 2, 4 and so on, and all: what a batch of each size brings."""
    return [*(1 << at for at in range((users - 1).bit_length())), users] if users > 1 else [1]


async def measure(record: Record, *, users: int, threads: int, rounds: int, tokens: int) -> None:
    done = record.count(users=users)
    if done >= rounds:
        return
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    environment = {
        "SWARMD_INFERENCE_MAX_BATCH_SIZE": str(users), "SWARMD_INFERENCE_CONTEXT_TOKENS": "512",
        "SWARMD_INFERENCE_SPECULATION": "false", "SWARMD_INFERENCE_PREFIX_CACHE_MB": "0",
    }  # fmt: skip
    async with fleet(
        DATA / "fleet-users", model, count=3, threads=threads, first_port=FIRST_PORT, environment=environment
    ) as (session, nodes, name):
        for number in [0, *range(done + 1, rounds + 1)]:
            found: list[Round] = []
            for count in counts(users):
                speed, firsts = await together(session, nodes[0], name, range(count), tokens)
                found.append({"users": count, "round": number, "tokens_per_s": speed, "first_s": firsts})
            if number:  # the first round loads and warms
                record.add(*found)
                said = (f"{one['users']} user(s) {one['tokens_per_s']:.1f} tokens/s" for one in found)
                print(f"round {number}: " + ", ".join(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.users", description=__doc__)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    said = {"users": options.users, "threads": options.threads, "tokens": options.tokens}
    record = Record("users", said, fresh=options.fresh)
    asyncio.run(
        measure(record, users=options.users, threads=options.threads, rounds=options.rounds, tokens=options.tokens)
    )


if __name__ == "__main__":
    main()
