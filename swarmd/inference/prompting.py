"""From token ids to text: UTF-8 that is cut anywhere, and stop strings that may span tokens. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from types import MappingProxyType


class TextStream:
    """Feeds on tokens, gives text that is safe to show: never half a character, never a part of a stop string."""

    def __init__(
        self, *, pieces: Sequence[bytes], stops: Sequence[str], spoken: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """`spoken`: control tokens that have to show, and the text they show as."""
        self._spoken = {token: text.encode() for token, text in spoken.items()}
        self._pieces, self._stops = pieces, tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that was found; nothing more will come."""

    @property
    def stopped(self) -> bool:
        return self.stopped_by is not None

    def feed(self, token: int) -> str:
        """The text that became certain with this token, often empty while a character or a stop string is unfinished."""
        if self.stopped or not 0 <= token < len(self._pieces):
            return ""
        return self._release(self._decoder.decode(self._spoken.get(token) or self._pieces[token]))

    def finish(self) -> str:
        """What was held back, when no further token comes. Bytes that never became a character show as U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _release(self, new: str) -> str:
        text = self._held + new
        if not self._stops:
            return text
        # Of two at one place the shorter one, which was whole first.
        found = [(at, len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.stopped_by = min(found)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
