"""`python -m tools.schemathesis`: random requests to every operation of a live node, one operation after the other.

Starts a node in a folder of its own, without a hub and alone, and lets schemathesis send 2,000 examples to each operation of
its OpenAPI document: right ones, wrong ones, other methods, no key. Found is every 5xx that `schemathesis.toml` does not
expect, a call that takes longer than 30 s, a status, a media type or a body that the document does not have, what is taken
although the document forbids it, and what is refused although it allows it. What an operation removed is there again for
the next.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from swarmd.config.settings import KEYS

ROOT: Final = Path(__file__).resolve().parents[1]
BUILTIN: Final = ROOT / "swarmd" / "builtin" / "swarmd-builtin.gguf"
CLIENT: Final = Path(sys.executable).with_name("schemathesis")
EXAMPLES: Final = 2000
SEED: Final = 1
READY_S: Final = 60.0
STOP_S: Final = 20.0
OPERATION_S: Final = 3600.0
"""For all examples of one operation."""
PEER_PORT_OFFSET: Final = 10
CLOSED: Final = "http://127.0.0.1:1"
"""A hub and providers that refuse at once: random names and keys must not become requests to the real ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveNode:
    """A node that runs, and how to ask it."""

    url: str
    key: str
    process: subprocess.Popen[bytes] | None = None
    at_start: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def ended(self, *, within_s: float) -> int:
        """The exit code of the process. Raises subprocess.TimeoutExpired where it goes on."""
        assert self.process is not None, "this node was not started here"
        return self.process.wait(within_s)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON; raises OSError where nobody answers."""
        headers = {"x-api-key": self.key, "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def settings(self) -> dict[str, Any]:
        """Values of what `PUT /api/admin/config` may change, by path."""
        _, body = self.ask("GET", "/api/admin/config/schema")
        return {row["key"]: row["value"] for row in body["settings"] if row["writable"] and not row["secret"]}

    def restored(self) -> None:
        """The built-in model is whole, and what can be set is as at the start."""
        now = self.settings()
        changed = {key: value for key, value in self.at_start.items() if now[key] != value}
        status, body = self.ask("PUT", "/api/admin/config", changed)
        assert status == 200, body
        status, body = self.ask("POST", "/api/admin/models", {"path": str(BUILTIN)})
        assert status == 200, body

    def operations(self) -> list[tuple[str, str]]:
        """(`GET /path`, operation id) of the document, in its order."""
        _, document = self.ask("GET", "/api/openapi.json")
        return [
            (f"{method.upper()} {path}", operation["operationId"])
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]


@contextlib.contextmanager
def live_node(folder: Path, *, port: int | None = None) -> Iterator[LiveNode]:
    """A `swarmd run` on loopback with the built-in model. Raises RuntimeError, with its log, where it does not get ready."""
    port = port or free_port()
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SWARMD_NETWORK_ENABLE_MDNS": "false",
        "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
        "SWARMD_RESOURCES_MAX_CPU_THREADS": "1",
        "SWARMD_INFERENCE_CONTEXT_TOKENS": "512",
        "SWARMD_DOWNLOADS_HUB_ENDPOINT": CLOSED,
        "SWARMD_AUTO_MANAGE_ENABLED": "false",  # nothing but the requests changes what is there
        "SWARMD_API_RATE_LIMIT_RPM": "0",  # for when one of them switches api.trust_loopback off
        "SWARMD_API_RATE_LIMIT_ADMIN_RPM": "0",
    }
    elsewhere = [key for path, key in KEYS.items() if path.startswith("providers.") and path.endswith("_url")]
    environ |= {key.environment: CLOSED for key in elsewhere}
    if elsewhere:
        environ["SWARMD_PROVIDERS_PRIVATE_ADDRESSES"] = "true"
    log = folder / "node.log"
    command = [sys.executable, "-m", "swarmd", "run", "--data-dir", str(folder / "data"), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environ)
    try:
        node = LiveNode(url=f"http://127.0.0.1:{port}", key="")
        until = time.monotonic() + READY_S
        while not _is_ready(node):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the node does not get ready: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        node = LiveNode(url=node.url, key=(folder / "data" / "api_key").read_text().strip(), process=process)
        yield replace(node, at_start=node.settings())
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port for the API whose peer port is free as well."""
    while True:
        with socket.socket() as api, socket.socket() as peers:
            api.bind(("127.0.0.1", 0))
            port = api.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                peers.bind(("127.0.0.1", port + PEER_PORT_OFFSET))
                return port


def _is_ready(node: LiveNode) -> bool:
    try:
        status, _ = node.ask("GET", "/health/ready")
        models = node.ask("GET", "/api/admin/models")[1] if status == 200 else []
    except OSError:
        return False
    return bool(models) and all(shard["local"] for shard in models[0]["shards"])


def command_line(node: LiveNode, *, examples: int, seed: int, more: tuple[str, ...] = ()) -> list[str]:
    """How schemathesis is called, as a person would call it."""
    return [
        str(CLIENT), "--config-file", str(ROOT / "schemathesis.toml"), "run", f"{node.url}/api/openapi.json",
        "-H", f"Authorization: Bearer {node.key}", "--max-examples", str(examples), "--seed", str(seed),
        "--generation-database", "none", "--no-color", *more,
    ]  # fmt: skip


def run(arguments: list[str], *, timeout_s: float = OPERATION_S) -> tuple[int, str]:
    """Exit code and what was printed."""
    done = subprocess.run(
        arguments, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.schemathesis", description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="per operation")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", default="", help="a regular expression over 'METHOD /path'")
    parser.add_argument("--port", type=int, default=None, help="of the node; the next but nine is taken as well")
    given = parser.parse_args()
    bad: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="swarmd-schemathesis-") as folder,
        live_node(Path(folder), port=given.port) as node,
    ):
        for label, operation in node.operations():
            if not re.search(given.only, label):
                continue
            node.restored()
            more = ("--include-operation-id", operation, "--phases", "examples,coverage,fuzzing")
            began = time.monotonic()
            code, text = run(command_line(node, examples=given.examples, seed=given.seed, more=more))
            took_s = time.monotonic() - began
            cases = re.search(r"(\d+) generated", text)
            print(f"{label}: {verdict(code, text)}, {cases.group(1) if cases else 0} requests in {took_s:.0f} s", flush=True)
            if code != 0 and "No operations" not in text and "All test phases were skipped" not in text:
                bad.append(label)
                print(text, flush=True)
    print(f"{len(bad)} operations with findings" + "".join(f"\n  {label}" for label in bad))
    return 1 if bad else 0


def verdict(code: int, text: str) -> str:
    if code == 0:
        return "nothing found"
    found = re.search(r"(\d+) found (\d+) unique failure", text)
    return f"{found.group(2)} findings" if found else "not run"


if __name__ == "__main__":
    sys.exit(main())
