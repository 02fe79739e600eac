"""A node becomes another version and comes back from a bad one: real processes, a real feed, no package index."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd import __version__
from tests.fakes.nodes import free_port
from tests.fakes.releases import KEY, FeedFolder, as_version, feed_folder
from tests.meta.sources import ROOT
from tools.release import build, release_of

NEWER, BROKEN = "0.2.0", "0.3.0"
assert __version__ < NEWER
FAULT = """

async def run_node(loaded, **_):
    import pathlib, sqlite3
    with sqlite3.connect(pathlib.Path(loaded.settings.node.data_dir) / "state.sqlite") as database:
        database.execute("PRAGMA user_version = 4711")
    return 1
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FeedFolder]:
    with feed_folder(tmp_path / "feed") as folder:
        yield folder


class Process:
    """`swarmd run`, and its API."""

    def __init__(self, data: Path, feed: FeedFolder, **settings: str) -> None:
        self.data, self.port = data, free_port()
        environ = {name: text for name, text in os.environ.items() if not name.startswith("SWARMD_")}
        environ |= {
            "PYTHONPATH": str(ROOT), "SWARMD_UPDATES_FEED_URL": feed.url, "SWARMD_UPDATES_SIGNED_BY": KEY.node,
            "SWARMD_NETWORK_ENABLE_MDNS": "false", "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
            "SWARMD_UI_BUILTIN_MODEL": "false", **settings,
        }  # fmt: skip
        line = [sys.executable, "-m", "swarmd", "run", "--data-dir", str(data), "--port", str(self.port)]
        data.mkdir(exist_ok=True)
        self.log = data / "printed.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(line, env=environ, stdout=log, stderr=log, cwd=data)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        key = (self.data / "api_key").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())

    def until(self, what: Callable[[], Any], seconds: float = 40) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := what():
                    return found
            except (OSError, ValueError):
                pass
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def version(self) -> Any:
        return self.ask("GET", "/api/admin/version")

    def runs(self, version: str) -> Any:
        return self.until(lambda: (found := self.version())["current_version"] == version and found)

    def ready(self) -> bool:
        return bool(self.ask("GET", "/health/ready")["ready"])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@pytest.fixture
def start(tmp_path: Path, feed: FeedFolder) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def one(**settings: str) -> Process:
        made.append(Process(tmp_path / "data", feed, **settings))
        made[-1].until(made[-1].ready)
        return made[-1]

    yield one
    for process in made:
        if process.process.poll() is None:
            process.stop()


def test_a_node_becomes_the_newer_version_and_the_reply_that_runs_is_not_cut(
    tmp_path: Path, wheel: Path, feed: FeedFolder, start: Callable[..., Process]
) -> None:
    newer = as_version(wheel, NEWER, tmp_path)
    feed.publish(release_of(newer, changelog="Better in every way."), newer)
    node = start(SWARMD_UI_BUILTIN_MODEL="true")
    found = node.ask("POST", "/api/admin/update/check")
    assert (found["status"], found["info"]["latest_version"], found["info"]["downloaded"]) == (
        "update_available",
        NEWER,
        False,
    )
    key = (node.data / "api_key").read_text()
    question = {"model": "auto", "messages": [{"role": "user", "content": "What is a shard?"}], "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.port}/v1/chat/completions", data=json.dumps(question).encode(),
        headers={"authorization": f"Bearer {key.strip()}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.readline().startswith(b"data:")
        applied = node.ask("POST", "/api/admin/update/apply")
        assert (applied["status"], applied["version"]) == ("applied", NEWER), applied
        text = reply.read()
    assert b"[DONE]" in text and b'"error"' not in text
    after = node.runs(NEWER)
    assert (after["update_available"], after["last_error"]) == (False, None)
    assert node.process.poll() is None, "the process that systemd knows is still the same"
    assert (node.data / "api_key").read_text() == key
    node.until(lambda: (node.data / "versions" / "current").readlink() == Path(NEWER))
    chat = node.until(lambda: node.ask("POST", "/v1/chat/completions", question | {"stream": False, "max_tokens": 5}))
    assert chat["choices"][0]["message"]["content"], "the new version has workers of its own"
    assert node.stop() == 0


def test_a_version_that_does_not_become_ready_is_taken_back(
    tmp_path: Path, wheel: Path, feed: FeedFolder, start: Callable[..., Process]
) -> None:
    broken = as_version(wheel, BROKEN, tmp_path, more={"swarmd/app.py": FAULT})
    feed.publish(release_of(broken), broken)
    node = start(SWARMD_UPDATES_MODE="download")
    assert node.ask("POST", "/api/admin/update/check")["info"]["downloaded"] is True
    assert node.ask("POST", "/api/admin/update/apply")["status"] == "applied"
    node.until(lambda: "is rolled back" in node.log.read_text())
    after = node.runs(__version__)
    assert f"version {BROKEN} was rolled back: it ended with exit code 1 before it was ready" in after["last_error"]
    assert after["update_available"] is False
    with sqlite3.connect(node.data / "state.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() != (4711,), "the database is as it was before the trial"
    again = node.ask("POST", "/api/admin/update/apply")
    assert again["error"]["code"] == "invalid_value" and "was tried here and rolled back" in again["error"]["message"]
    assert node.version()["current_version"] == __version__
    assert node.stop() == 0
