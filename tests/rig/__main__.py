"""`make rig`: real nodes in two homes behind NAT and one on the open network; what happens to them, and how long it takes.

Each scenario prints the time it measured. A scenario that fails is printed with what was not met, and the rig ends with 1.
Where namespaces cannot be made it says so and ends with 0, unless `--required`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.rig.lab import Unavailable, two_homes
from tests.rig.nodes import Node, Unmet
from tests.rig.scenarios import PLACES, SCENARIOS, Swarm
from tests.rig.strangers import STRANGERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="rig", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where namespaces cannot be made")
    parser.add_argument("--keep", type=Path, help="keep the nodes' data folders and logs here")
    parser.add_argument("only", nargs="*", help="a scenario; the ones before it run too, for they build on each other")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        try:
            with two_homes() as lab:
                nodes = {place: Node(lab, place, folder) for place in PLACES}
                nodes["a1"].settings["SWARMD_UI_BUILTIN_MODEL"] = "true"  # it is alone when it starts, and gets the model
                swarm = Swarm(nodes, lab)
                try:
                    for scenario in (*SCENARIOS, *STRANGERS):
                        failed += not _play(scenario.__name__, scenario, swarm)
                        if options.only and scenario.__name__ == options.only[-1]:
                            break
                finally:
                    for node in swarm.nodes.values():
                        node.stop()
        except Unavailable as error:
            print(f"rig: network namespaces are not available: {error}")
            return int(options.required)
    return int(failed > 0)


def _play(name: str, scenario: Callable[[Swarm], str], swarm: Swarm) -> bool:
    title = name.replace("_", " ")
    started = time.monotonic()
    try:
        found = scenario(swarm)
    except (Unmet, OSError, RuntimeError, AssertionError) as error:
        print(f"FAILED  {title}: {error or 'see below'}", flush=True)
        if isinstance(error, AssertionError):
            traceback.print_exc()
        return False
    print(f"ok      {title}: {found} ({time.monotonic() - started:.1f} s in all)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
