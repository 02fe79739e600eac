"""Calls of tools in what a model says: which form a model was trained on, and a parser that streams them. Pure.

Text is read character by character, so how it was cut changes nothing. A call is announced when its name is one of the
tools offered and its arguments have begun; from then on they are passed on as they come. What turns out to be no call
before that is content, word for word. What goes wrong after it ends the call where it stands, and the rest is content:
nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Final

from swarmd.domain.structure import CallForm, CallPiece

MARKERS: Final = {
    CallForm.HERMES: "<tool_call>",
    CallForm.LLAMA: "<|python_tag|>",
    CallForm.MISTRAL: "[TOOL_CALLS]",
    CallForm.MISTRAL_ARGS: "[TOOL_CALLS]",
}
SPOKEN: Final = frozenset(
    ("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
)
"""Control tokens that the parser has to see; all others stay without text."""
HELD_LIMIT: Final = 64 * 1024  # characters that may turn out to be a call; longer ones are content

_ATOM: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null")
_BLANK: Final = " \t\n\r"
_NESTING: Final = 128  # of arguments
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def form_of(template: str) -> CallForm | None:
    """How the model behind a chat template writes its calls; None: not at all, or in no form that is known here."""
    if "tools" not in template or "<function=" in template:
        return None
    if "[TOOL_CALLS]" in template:
        return CallForm.MISTRAL_ARGS if "[ARGS]" in template else CallForm.MISTRAL
    if "<tool_call>" in template:
        return CallForm.HERMES
    if "<|python_tag|>" in template or ("<|start_header_id|>" in template and '"parameters"' in template):
        return CallForm.LLAMA
    return None


class _Took(Enum):
    MORE = 1
    WHOLE = 2
    """With this character."""
    BEFORE = 3
    """It was whole already; the character was not taken."""
    NEVER = 4
    """This is no JSON."""


class _Value:
    """Reads one JSON value."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._wants = "value"
        """value, value or ], key or }, key, colon, comma, string, escape, hex."""
        self._atom = ""
        self._is_key = False
        self._hex = 0

    def feed(self, ch: str) -> _Took:
        if self._atom:
            if ch not in _BLANK and ch not in ",]}":
                self._atom += ch
                return _Took.MORE if len(self._atom) <= 64 else _Took.NEVER
            if _ATOM.fullmatch(self._atom) is None:
                return _Took.NEVER
            self._atom = ""
            if not self._open:
                return _Took.BEFORE
            self._wants = "comma"
        if self._wants in ("string", "escape", "hex"):
            return self._text(ch)
        if ch in _BLANK:
            return _Took.MORE
        match self._wants, ch:
            case ("key" | "key or }"), '"':
                self._is_key, self._wants = True, "string"
            case "colon", ":":
                self._wants = "value"
            case "comma", ",":
                self._wants = "key" if self._open[-1] == "{" else "value"
            case ("comma" | "value or ]"), "]" if self._open[-1] == "[":
                return self._closed()
            case ("comma" | "key or }"), "}" if self._open[-1] == "{":
                return self._closed()
            case ("value" | "value or ]"), _:
                return self._begin(ch)
            case _:
                return _Took.NEVER
        return _Took.MORE

    def _begin(self, ch: str) -> _Took:
        if ch == '"':
            self._is_key, self._wants = False, "string"
        elif ch in "{[":
            if len(self._open) >= _NESTING:
                return _Took.NEVER
            self._open.append(ch)
            self._wants = "key or }" if ch == "{" else "value or ]"
        elif ch.isascii() and (ch.isalnum() or ch == "-"):
            self._atom = ch
        else:
            return _Took.NEVER
        return _Took.MORE

    def _closed(self) -> _Took:
        self._open.pop()
        self._wants = "comma"
        return _Took.MORE if self._open else _Took.WHOLE

    def _text(self, ch: str) -> _Took:
        if self._wants == "hex":
            self._hex -= 1
            self._wants = "hex" if self._hex else "string"
            return _Took.MORE if ch in "0123456789abcdefABCDEF" else _Took.NEVER
        if self._wants == "escape":
            self._hex = 4
            self._wants = "hex" if ch == "u" else "string"
            return _Took.MORE if ch in '"\\/bfnrtu' else _Took.NEVER
        if ch == "\\":
            self._wants = "escape"
        elif ch == '"':
            self._wants = "colon" if self._is_key else "comma"
            if not self._open:
                return _Took.WHOLE
        elif ch < " ":
            return _Took.NEVER
        return _Took.MORE


class _Call:
    """Reads one call as a JSON object with its name and arguments, in either order."""

    def __init__(
        self, names: Collection[str], announce: Callable[[str], None], more: Callable[[str], None], bare: bool
    ) -> None:
        """`bare`: nothing but its shape says that it is a call, so it must have arguments."""
        self._names, self._announce, self._more, self._bare = names, announce, more, bare
        self._wants = "{"
        self._value = _Value()
        self._raw = ""
        self._key = ""
        self._seen: set[str] = set()
        self._name: str | None = None
        self._early: str | None = None
        """Arguments that came before the name."""
        self.announced = False
        self._given = False

    @property
    def cut(self) -> bool:
        """Announced, and its arguments are not whole."""
        return self.announced and not self._given

    def feed(self, ch: str) -> _Took:
        match self._wants:
            case "key" | "value":
                return self._inside(ch)
            case _ if ch in _BLANK:
                return _Took.MORE
            case "{" if ch == "{":
                self._wants = "first"
            case ("first" | "next") if ch == '"':
                self._wants, self._value, self._raw = "key", _Value(), ""
                return self._inside(ch)
            case ":" if ch == ":":
                self._wants, self._value, self._raw = "value", _Value(), ""
            case "," if ch == ",":
                self._wants = "next"
            case ("first" | ",") if ch == "}":
                return self._close()
            case _:
                return _Took.NEVER
        return _Took.MORE

    def _inside(self, ch: str) -> _Took:
        took = self._value.feed(ch)
        if took is _Took.NEVER:
            return took
        if took is not _Took.BEFORE:
            if not self._raw and ch in _BLANK:
                return took
            if not self._take(ch):
                return _Took.NEVER
        if took is _Took.MORE:
            return took
        if self._wants == "key":
            self._key, self._wants = json.loads(self._raw), ":"
            key = "arguments" if self._key == "parameters" else self._key
            if key in self._seen:
                return _Took.NEVER
            self._seen.add(key)
            self._key = key
            return _Took.MORE
        if not self._whole():
            return _Took.NEVER
        self._wants = ","
        return self.feed(ch) if took is _Took.BEFORE else _Took.MORE

    def _take(self, ch: str) -> bool:
        """A character of a key or a value."""
        if self._wants == "value" and self._key == "arguments" and (self._raw[:1] or ch) == "{":
            if self._name is None:
                self._raw += ch
                return len(self._raw) <= HELD_LIMIT
            if not self._raw:
                self._raw = ch
                self._begin()
            self._more(ch)
            return True
        self._raw += ch
        return len(self._raw) <= HELD_LIMIT

    def _whole(self) -> bool:
        """A value is complete. False: then this is no call."""
        if self._key == "name":
            name: Any = json.loads(self._raw)
            if not isinstance(name, str) or name not in self._names:
                return False
            self._name = name
            if self._early is not None:
                self._begin()
                self._more(self._early)
                self._given = True
        elif self._key == "arguments" and self.announced:
            self._given = True
        elif self._key == "arguments":
            text = self._raw
            if text.startswith('"'):  # some write the object as a text
                text = str(json.loads(text))
                if not _is_object(text) or not _is_unicode(text):
                    return False
            elif text == "null":
                text = "{}"
            elif not text.startswith("{"):
                return False
            if self._name is None:
                self._early = text
            else:
                self._begin()
                self._more(text)
                self._given = True
        return True

    def _begin(self) -> None:
        assert self._name is not None, "announced with its name"
        self.announced = True
        self._announce(self._name)

    def _close(self) -> _Took:
        if self._name is None:
            return _Took.NEVER
        if not self.announced:
            if self._bare:
                return _Took.NEVER
            self._begin()
            self._more("{}")
        return _Took.WHOLE


class ToolCallParser:
    """One reply: text in, content and pieces of calls out."""

    def __init__(
        self, *, form: CallForm, names: Collection[str], make_id: Callable[[int], str], several: bool = True
    ) -> None:
        """`make_id`: the id of the call with this index. `several`: else the reply is over with the first call."""
        self._form, self._names, self._make_id, self._several = form, frozenset(names), make_id, several
        self._marker = MARKERS[form]
        self._mode: Callable[[str], None] = self._beginning if form is CallForm.LLAMA else self._in_text
        self._held = ""
        """Text that may become a part of a call, and is content if not."""
        self._call: _Call | None = None
        self._head = ""
        """Between the marker and the arguments: name and id in the newer Mistral form."""
        self._arguments: _Value | None = None
        self._text: list[str] = []
        self._pieces: list[CallPiece] = []
        self.calls = 0
        self.over = False
        """The one call that may come is whole."""

    @property
    def cut(self) -> bool:
        """A call that the client knows of lacks a part of its arguments."""
        return self._arguments is not None or (self._call is not None and self._call.cut)

    def feed(self, text: str) -> tuple[str, tuple[CallPiece, ...]]:
        """What became certain with this text: content, and pieces of calls behind it."""
        for ch in text:
            if self.over:
                break
            self._mode(ch)
        return self._taken()

    def finish(self) -> tuple[str, tuple[CallPiece, ...]]:
        """What was held back, when no more text comes."""
        closing = self._mode == self._closing and "</tool_call>".startswith(self._held.strip(_BLANK))
        if not closing and not (self.calls and not self._held.strip(_BLANK)):
            self._text.append(self._held)  # empty within a call that the client knows of
        self._held = ""
        return self._taken()

    def _taken(self) -> tuple[str, tuple[CallPiece, ...]]:
        text, pieces = "".join(self._text), tuple(_joined(self._pieces))
        self._text, self._pieces = [], []
        return text, pieces

    # -- outside of calls

    def _in_text(self, ch: str) -> None:
        """Blanks are held back: before a call they are dropped."""
        self._held += ch
        while self._held:
            rest = self._held.lstrip(_BLANK)
            if rest == self._marker:
                self._mode = self._behind_marker
                return
            if self._marker.startswith(rest) and (rest or len(self._held) < HELD_LIMIT):
                return
            blanks = len(self._held) - len(rest)
            self._text.append(self._held[: blanks + 1])
            self._held = self._held[blanks + 1 :]

    def _beginning(self, ch: str) -> None:
        """Of a reply that is a call when it begins like one; also behind such a call."""
        if ch in _BLANK or (self.calls and ch == ";"):
            self._held += ch
        elif ch == "{":
            self._start_call(ch, bare=True)
        else:
            self._mode = self._in_text
            if self.calls and not self._marker.startswith(ch):
                self._text.append(self._held)
                self._held = ""
            self._in_text(ch)

    def _behind_marker(self, ch: str) -> None:
        self._head = ""
        if ch in _BLANK:
            self._held += ch
        elif ch == "{":
            self._start_call(ch, bare=False)
        elif self._form in (CallForm.MISTRAL, CallForm.MISTRAL_ARGS) and ch == "[":
            self._held += ch
            self._mode = self._in_list
        elif self._form in (CallForm.MISTRAL, CallForm.MISTRAL_ARGS):
            self._mode = self._in_head
            self._in_head(ch)
        else:
            self._no_call(ch)

    # -- calls as objects

    def _start_call(self, ch: str, *, bare: bool) -> None:
        self._call = _Call(self._names, self._announce, self._more, bare)
        self._mode = self._in_call
        self._in_call(ch)

    def _in_call(self, ch: str) -> None:
        call = self._call
        assert call is not None, "a call has begun"
        took = call.feed(ch)
        if took is _Took.NEVER or (not call.announced and len(self._held) > HELD_LIMIT):
            self._no_call(ch, lost=call.announced)
            return
        if not call.announced:
            self._held += ch
        if took is _Took.WHOLE:
            self._end_call()

    def _end_call(self) -> None:
        self._call, self._arguments, self._held = None, None, ""
        self.over = not self._several
        match self._form:
            case CallForm.HERMES:
                self._mode = self._closing
            case CallForm.LLAMA:
                self._mode = self._beginning
            case CallForm.MISTRAL | CallForm.MISTRAL_ARGS if not self._head:
                self._mode = self._in_list
            case _:
                self._mode = self._in_text

    def _closing(self, ch: str) -> None:
        """The end marker, which is no content."""
        self._held += ch
        rest = self._held.lstrip(_BLANK)
        end = "</tool_call>"
        if rest == end:
            self._held, self._mode = "", self._in_text
        elif not end.startswith(rest):
            held, self._held, self._mode = self._held, "", self._in_text
            for again in held:
                self._mode(again)

    def _in_list(self, ch: str) -> None:
        """Between the calls of the older Mistral form."""
        if ch == "{":
            self._start_call(ch, bare=False)
        elif ch in _BLANK or (ch == "," and self.calls):
            self._held += ch
        elif ch == "]" and self.calls:
            self._held, self._mode = "", self._in_text
        else:
            self._no_call(ch)

    # -- the newer Mistral form

    def _in_head(self, ch: str) -> None:
        self._held += ch
        if ch == "{":
            name = self._head.removesuffix("[ARGS]").split("[CALL_ID]", 1)[0].strip()
            if _NAME.fullmatch(name) is None or name not in self._names:
                self._no_call("")
                return
            self._announce(name)
            self._held, self._arguments, self._mode = "", _Value(), self._in_arguments
            self._in_arguments(ch)
            return
        self._head += ch
        if len(self._head) > 256 or (ch in "\n<}"):  # a name and an id are shorter, and contain none of these
            self._no_call("")

    def _in_arguments(self, ch: str) -> None:
        assert self._arguments is not None, "arguments have begun"
        took = self._arguments.feed(ch)
        if took is _Took.NEVER:
            self._no_call(ch, lost=True)
            return
        self._more(ch)
        if took is _Took.WHOLE:
            self._end_call()

    # -- both

    def _announce(self, name: str) -> None:
        self._held = ""
        self._pieces.append(CallPiece(index=self.calls, id=self._make_id(self.calls), name=name))
        self.calls += 1

    def _more(self, text: str) -> None:
        self._pieces.append(CallPiece(index=self.calls - 1, arguments=text))

    def _no_call(self, ch: str, *, lost: bool = False) -> None:
        """`lost`: the client knows of the call already; what it got of it stays."""
        text = ch if lost else self._held + ch
        self._held, self._call, self._arguments = "", None, None
        self._text.append(text)
        self._mode = self._in_text


def _joined(pieces: list[CallPiece]) -> list[CallPiece]:
    """Pieces of one call in a row as one."""
    found: list[CallPiece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is not None and last.index == piece.index:
            found[-1] = CallPiece(
                index=last.index, id=last.id, name=last.name, arguments=last.arguments + piece.arguments
            )
        else:
            found.append(piece)
    return found


def _is_unicode(text: str) -> bool:
    """Half of a surrogate pair, which a JSON text may escape, has no bytes: nobody could be sent it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
