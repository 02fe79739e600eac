"""What TAB asks: names of models, adapters and so on, from the node, quickly or not at all.

The shells start this at each TAB, so it imports neither the commands nor aiohttp, waits half a second at most, and says
nothing when something is wrong: nobody wants a sentence in the middle of a line.
"""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

from swarmd.cli.failure import Failure
from swarmd.cli.place import Chosen, find
from swarmd.cli.terminal import printable

WORD: Final = "_names"  # `swarmd _names models ...`: the line so far follows
WITHIN_S: Final = 0.5  # a person waits for TAB; the node is on this machine or in the next room
SIZE_LIMIT: Final = 4 * 1024 * 1024  # bytes of an answer
MOST: Final = 200  # names: more than anybody reads through

SOURCES: Final = {
    "models": ("/api/admin/models", "id"),
    "downloads": ("/api/admin/downloads", "model_id"),
    "adapters": ("/api/admin/adapters", "id"),
    "members": ("/api/admin/members", "node_id"),
    "invites": ("/api/admin/invites", "id"),
    "responses": ("/api/admin/responses", "id"),
    "providers": ("/api/admin/providers", "name"),
}
_OPTIONS: Final = {"--url": "url", "--data-dir": "data_dir", "--config": "config", "--api-key-file": "key_file"}


def main(arguments: Sequence[str]) -> None:
    """`arguments`: what is wanted, and the words of the line. One name a line."""
    if not arguments or arguments[0] not in SOURCES:
        return
    path, field = SOURCES[arguments[0]]
    with contextlib.suppress(Failure, OSError, ValueError, RecursionError):
        found = _ask(chosen_of(arguments[1:]), path)
        for name in list(_names(found, field))[:MOST]:
            sys.stdout.write(f"{name}\n")


def chosen_of(words: Sequence[str]) -> Chosen:
    """The options of the line that say which node is meant."""
    found: dict[str, str] = {}
    for at, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in _OPTIONS:
            given = value if equals else words[at + 1] if at + 1 < len(words) else ""
            if given:
                found[_OPTIONS[option]] = given
    paths = {name: Path(found[name]) for name in ("data_dir", "config", "key_file") if name in found}
    return Chosen(url=found.get("url"), **paths)


def _ask(chosen: Chosen, path: str) -> Any:
    place = find(chosen)
    request = urllib.request.Request(place.url + path, headers={"authorization": f"Bearer {place.key}"} if place.key else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    with opener.open(request, timeout=WITHIN_S) as response:
        return json.loads(response.read(SIZE_LIMIT))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to the node and nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def _names(found: Any, field: str) -> Iterator[str]:
    """Of a list of rows, or of an object that has such a list."""
    lists: list[Any] = [*cast("dict[str, Any]", found).values()] if isinstance(found, dict) else [found]
    rows = [cast("list[Any]", one) for one in lists if isinstance(one, list)]
    for row in rows[0] if rows else ():
        name = cast("dict[str, Any]", row).get(field) if isinstance(row, dict) else None
        # A name with blanks or quotes would be taken apart by the shell, or worse.
        if isinstance(name, str) and name == printable(name) and not set(name) & set(" \t\n\"'`$\\;|&<>(){}*?!#~"):
            yield name
