"""A long prompt that begins as an earlier one did: how long until the first token, against the same prompt computed whole.

    python -m bench.prefix [--rounds 7] [--threads 1] [--fresh]

Three loopback nodes with a model of TinyLlama's shape; a prompt of 1,024 tokens of which nothing is known, then one with the
same first 960 and another end. Which prompts are new changes with each round.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from bench.decode import DATA
from bench.fleet import Node, fleet
from bench.random_model import TINY_LLAMA, write
from bench.results import Record, Round

FIRST_PORT = 17860
PROMPT, SAME = 1024, 960


def text(number: int, count: int) -> str:
    return "".join(chr(97 + (at * (number + 3) + number + at // 26) % 26) for at in range(count))


async def first_token(session: Any, node: Node, model: str, prompt: str) -> Round:
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    reply = await node.call(session, "POST", "/v1/completions", body)
    details = reply["usage"]["prompt_tokens_details"]
    tokens = reply["usage"]["prompt_tokens"]
    return {"ms": reply["swarm"]["prefill_ms"], "cached": details["cached_tokens"], "tokens": tokens}


async def measure(record: Record, *, rounds: int, threads: int) -> None:
    done = record.count(arm="new")
    if done >= rounds:
        return
    model = write(DATA / "tiny-llama-shape.gguf", TINY_LLAMA)
    async with fleet(
        DATA / "fleet-prefix", model, count=3, threads=threads, first_port=FIRST_PORT, environment={}
    ) as (session, nodes, name):
        await first_token(session, nodes[0], name, "a" * 64)  # loads
        for number in range(done + 1, rounds + 1):
            begins = text(number, SAME)
            found: list[Round] = []
            for arm, end in (("new", "y"), ("begins alike", "z")):
                one = await first_token(session, nodes[0], name, begins + end * (PROMPT - SAME))
                found.append({"arm": arm, "round": number, **one})
            record.add(*found)
            said = (f"{one['arm']} {one['ms']:.0f} ms, {one['cached']} of {one['tokens']} tokens reused" for one in found)
            print(f"round {number}: " + "; ".join(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.prefix", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="measure anew what an earlier run has measured")
    options = parser.parse_args()
    record = Record("prefix", {"threads": options.threads, "prompt": PROMPT, "same": SAME}, fresh=options.fresh)
    asyncio.run(measure(record, rounds=options.rounds, threads=options.threads))


if __name__ == "__main__":
    main()
