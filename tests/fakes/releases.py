"""Releases of swarmd that differ from this tree in a number, or in a fault; and a feed of them on a local port."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from swarmd.identity.keys import NodeKey
from swarmd.updates.feed import Feed, Release
from tools.release import publish

KEY = NodeKey(bytes([7]) * 32)


def as_version(wheel: Path, version: str, folder: Path, *, more: Mapping[str, str] | None = None) -> Path:
    """The same wheel under another number; `more`: text that is appended to files of it."""
    before = wheel.name.split("-")[1]
    path = folder / wheel.name.replace(f"-{before}-", f"-{version}-")
    record: list[str] = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            data, renamed = source.read(name), name.replace(f"swarmd-{before}.dist-info/", f"swarmd-{version}.dist-info/")
            if name == "swarmd/__init__.py" or name.endswith(".dist-info/METADATA"):
                assert before.encode() in data
                data = data.replace(f'"{before}"'.encode(), f'"{version}"'.encode())
                data = data.replace(f"\nVersion: {before}\n".encode(), f"\nVersion: {version}\n".encode())
            data += (more or {}).get(name, "").encode()
            if renamed.endswith(".dist-info/RECORD"):
                data = "".join(f"{line}\n" for line in [*record, f"{renamed},,"]).encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{renamed},sha256={digest},{len(data)}")
            target.writestr(renamed, data)
    return path


class FeedFolder:
    """A folder with a feed, served on 127.0.0.1."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, f"{url}/feed.json"

    def publish(self, release: Release, *files: Path, key: NodeKey = KEY) -> Feed:
        return publish(release, files, feed=self.folder / "feed.json", keys=[key])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def feed_folder(folder: Path) -> Iterator[FeedFolder]:
    folder.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield FeedFolder(folder, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
