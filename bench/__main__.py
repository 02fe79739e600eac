"""`make bench`: every measurement, or the ones named. `python -m bench decode --threads 1 --rounds 7`."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys

from bench import decode

ALONE = ("wire", "transport", "gossip", "exchange", "download", "resume", "users", "loss", "predict")
"""Programs of their own, with options of their own."""
WHAT = f"decode, {', '.join(ALONE)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["decode", "wire", "exchange", "download"], help=WHAT)
    parser.add_argument("--threads", type=int, action="append", help="of every worker; default 2 and 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--spin", help="GOMP_SPINCOUNT of the nodes' workers instead of the built-in choice")
    arguments = parser.parse_args()
    for what in arguments.what:
        if what == "decode":
            for threads in arguments.threads or (2, 1):
                asyncio.run(
                    decode.measure(
                        threads=threads, rounds=arguments.rounds, tokens=arguments.tokens, spin=arguments.spin
                    )
                )
        elif what in ALONE:
            subprocess.run([sys.executable, "-m", f"bench.{what}"], check=True)
        else:
            parser.error(f"there is no measurement {what!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
