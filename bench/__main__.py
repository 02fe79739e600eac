"""`make bench`: every measurement and the report, or what is named. `python -m bench loss --rounds 3`.

Options behind a name go to its program. A measurement that an earlier run has finished on this machine is not repeated,
unless `--fresh` says so; one that was interrupted goes on.
"""

from __future__ import annotations

import subprocess
import sys

REPORTED = ("decode", "users", "prefix", "wan", "loss", "predict", "soak", "api")
"""Their rounds go to bench/results, and into docs/benchmarks.md."""
PRINTED = ("wire", "transport", "gossip", "exchange", "download", "resume")
"""They print what docs/performance.md tells of."""
BESIDE = ("rpc_build", "report")


def main(words: list[str]) -> int:
    known = (*REPORTED, *PRINTED, *BESIDE)
    names = [word for word in words if not word.startswith("-")]
    if not names:
        if any(word in ("-h", "--help") for word in words):
            print(__doc__, f"\nMeasurements: {', '.join(known)}", sep="\n")
            return 0
        # Without llama.cpp's programs one column is missing, which is no reason to measure nothing.
        _run("rpc_build", [])
        failed = [name for name in (*REPORTED, "report") if _run(name, words if name != "report" else [])]
        print(*(f"bench: {name} failed" for name in failed), sep="\n", file=sys.stderr)
        return bool(failed)
    name, options = names[0], words[words.index(names[0]) + 1 :]
    if name not in known:
        print(f"bench: there is no measurement {name!r}: {', '.join(known)}", file=sys.stderr)
        return 2
    return _run(name, options)


def _run(name: str, options: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
