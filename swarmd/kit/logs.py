"""Logging: one line per record on one stream, in two formats, with secrets struck out.

Modules write `logger = logging.getLogger(__name__)` and lower-case sentences with values as arguments. No token, key or
prompt is ever an argument; the redaction here is the second wall, not the first.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final, TextIO

from swarmd.kit.world import Clock

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("pretty", "json")
HIDDEN = "[hidden]"

MIN_SECRET = 8  # striking out a shorter text would punch holes into ordinary words

_KNOWN_FORMS = re.compile(
    r"(swarm://)[A-Za-z0-9_\-]+"  # invite codes
    r"|(?<![\w.-])([0-9]{1,3}-)[a-z]{4,10}-[a-z]{4,10}(?![\w-])"  # short codes
    r"|(?i:(bearer\s+))[A-Za-z0-9._~+/=\-]+"  # authorization headers
    r"|\b(hf_|sk-)[A-Za-z0-9_\-]{8,}"  # keys of hubs and providers
    r"|(?i:((?:x-api-key|api_key|apikey|password|secret|token)[\"']?\s*[=:]\s*[\"']?))[^\s\"',;&}]{4,}"
)


class Redactor:
    """Strikes known forms of secrets, and the secrets it was told, out of a text."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, secret: str) -> None:
        """From now on this very text appears in no log line. Raises ValueError for one that is shorter than MIN_SECRET."""
        if len(secret) < MIN_SECRET:
            raise ValueError(f"a secret of fewer than {MIN_SECRET} characters cannot be hidden without hiding other text")
        self._secrets.add(secret)

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _KNOWN_FORMS.sub(lambda match: "".join(part for part in match.groups() if part) + HIDDEN, text)


class Seldom:
    """For what others can make us say without end: the same text is due once, then once an hour."""

    EVERY_S: Final = 3600.0  # a log of a week then shows it 168 times: seen, and in nobody's way
    REMEMBERED: Final = 256  # texts; the one said longest ago is forgotten first

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._said: OrderedDict[str, float] = OrderedDict()

    def due(self, text: str) -> bool:
        """Whether to say it now. The caller does: a text that is due is taken for said."""
        now, said = self._clock.monotonic(), self._said.get(text)
        if said is not None and now - said < self.EVERY_S:
            return False
        self._said.pop(text, None)
        self._said[text] = now
        if len(self._said) > self.REMEMBERED:
            self._said.popitem(last=False)
        return True


class _Pretty(logging.Formatter):
    """`12:31:07.123 warning peers.links: message`, tracebacks below."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s", "%H:%M:%S")
        self._redactor = redactor

    def formatMessage(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("swarmd.")
        return f"{record.asctime}.{int(record.msecs):03d} {record.levelname.lower():7} {name}: {record.message}"

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.clean(super().format(record))


class _Json(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, traceback when there is one."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redactor.clean(record.getMessage()),
        }
        if record.exc_info:
            row["traceback"] = self._redactor.clean(self.formatException(record.exc_info))
        return json.dumps(row, ensure_ascii=False)


def setup(level: str = "info", *, format: str = "pretty", stream: TextIO | None = None) -> Redactor:
    """Send everything of `level` and above to `stream` (standard error), replacing earlier handlers.

    Returns the redactor, to be told the node's own secrets. Raises ValueError for an unknown level or format.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"level is one of {', '.join(LEVELS)} and format one of {', '.join(FORMATS)}")
    redactor = Redactor()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(redactor) if format == "json" else _Pretty(redactor))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)
    return redactor


def set_level(level: str) -> None:
    """Change the level while running. Libraries stay at warning unless we debug: theirs are not our facts."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number if level == "debug" else max(number, logging.WARNING))
    logging.getLogger("swarmd").setLevel(number)
    logging.getLogger("plugins").setLevel(number)
