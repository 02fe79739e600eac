"""`python -m tests.hub --root DIR`: serve a folder of repositories as a hub, until SIGTERM or Ctrl-C.

Prints one line of JSON when it listens: `{"endpoint": "...", "cdn": "...", "pid": 1, "repositories": ["owner/name"]}`.
The folder holds `owner/name/<files>`, and `datasets/owner/name/<files>`; see `tests/hub/repositories.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.hub.contents import Pattern
from tests.hub.hub import LINK_SECONDS, LocalHub

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--root", type=Path, help="the folder of repositories")
    parser.add_argument("--host", default="127.0.0.1", help="an address of the loopback")
    parser.add_argument("--port", type=int, default=0, help="of the hub; 0 takes a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="of storage; 0 takes a free one")
    several = {"action": "append", "default": []}
    parser.add_argument("--made", metavar="OWNER/NAME/FILE=SIZE", help="a made-up file, e.g. a/b/c.gguf=1G", **several)
    parser.add_argument("--token", metavar="TOKEN=USER", help="a token the hub knows, and whose it is", **several)
    parser.add_argument("--xet", action="store_true", help="say that large files are in Xet storage")
    parser.add_argument("--resolve-cache", action="store_true", help="answer plain files after a relative redirect")
    parser.add_argument("--link-seconds", type=int, default=LINK_SECONDS, help="how long a signed link is good")
    parser.add_argument("--stats", type=Path, help="write the counters here, as JSON, when it ends")
    options = parser.parse_args()
    if options.root is None and not options.made:
        parser.error("nothing to serve: name a folder with --root, or a file with --made")
    try:
        return asyncio.run(_serve(options))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"local hub: {error}\n")
        return 1


async def _serve(options: argparse.Namespace) -> int:
    hub = LocalHub(host=options.host, port=options.port, cdn_port=options.cdn_port, resolve_cache=options.resolve_cache)
    hub.link_seconds = options.link_seconds
    if options.root is not None:
        hub.load(options.root, xet=options.xet)
    for said in options.made:
        owner, name, path, size = _made(said)
        hub.repo(f"{owner}/{name}").file(path, Pattern(size), xet=options.xet)
    for said in options.token:
        token, equals, user = said.partition("=")
        if not token or not equals or not user:
            raise ValueError("--token takes TOKEN=USER")
        hub.token(token, user)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with hub:
        names = [one.id for one in hub.repositories]
        line = {"endpoint": hub.endpoint, "cdn": hub.cdn, "pid": os.getpid(), "repositories": names}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await ended.wait()
    if options.stats is not None:
        part = options.stats.with_name(options.stats.name + ".part")
        part.write_text(json.dumps(hub.counters.as_json(), indent=1))
        part.replace(options.stats)
    return 0


def _made(said: str) -> tuple[str, str, str, int]:
    where, equals, size = said.rpartition("=")
    parts = where.split("/", 2)
    number = size.rstrip("KMG")
    if not equals or len(parts) != 3 or not number.isdigit() or len(size) - len(number) > 1:
        raise ValueError(f"--made {said}: write OWNER/NAME/FILE=SIZE, the size in bytes or with K, M or G")
    return parts[0], parts[1], parts[2], int(number) * UNITS.get(size[len(number) :], 1)


if __name__ == "__main__":
    sys.exit(main())
