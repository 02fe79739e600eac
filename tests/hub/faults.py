"""What goes wrong, as it is seen from outside: on request, at a chosen place and time, or by lot with a seed.

    hub.faults.add(Flip(at=1000), path=r"model\\.gguf$", times=3)
    hub.faults.add(Cut(after=4096), Stall(seconds=5), RateLimited(), origin="cdn", probability=0.1, seed=7)

A rule is looked at for every request it matches. Of several faults in one rule one is drawn by lot for each request.
All rules that match are applied, in the order they were added. A fault that does not fit (a flipped byte outside the
range that is asked for) counts as if the rule had not matched.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate

from tests.hub.contents import Altered, Content, Pattern
from tests.hub.messages import Exchange, Origin, Pace, Reply, Resource, refuses, says

MOST_RULES = 1_000


class Fault:
    """One thing that may go wrong. Each kind overrides the step it changes."""

    def answer(self, exchange: Exchange) -> Reply | None:
        """A reply in place of the true one."""
        return None

    def fits_file(self, exchange: Exchange, resource: Resource) -> bool:
        return False

    def change(self, resource: Resource) -> None:
        """Another file in place of the true one, before ranges and conditions are looked at."""

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return False

    def bend(self, reply: Reply) -> None:
        """The true reply, sent otherwise."""


def _has_body(exchange: Exchange, reply: Reply) -> bool:
    return exchange.method != "HEAD" and reply.size > 0


# --- in place of an answer ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RateLimited(Fault):
    """429. `as_date`: Retry-After as a date; `retry_after=False`: without one. `ratelimit`: with RateLimit headers."""

    seconds: int = 1
    as_date: bool = False
    retry_after: bool = True
    ratelimit: bool = True

    def answer(self, exchange: Exchange) -> Reply:
        headers: dict[str, str] = {}
        if self.retry_after:
            until = formatdate(time.time() + self.seconds, usegmt=True)
            headers["Retry_After"] = until if self.as_date else str(self.seconds)
        if self.ratelimit:
            headers["RateLimit"] = f'"api";r=0;t={self.seconds}'
            headers["RateLimit_Policy"] = '"fixed window";"api";q=500;w=300'
        return refuses(429, "Too many requests: wait, then ask again", **headers)


@dataclass(frozen=True, slots=True)
class Failing(Fault):
    """A status of the server's own, 5xx as a rule; with Retry-After where `retry_after` (seconds) is given."""

    status: int = 503
    retry_after: int | None = None

    def answer(self, exchange: Exchange) -> Reply:
        headers = {} if self.retry_after is None else {"Retry_After": str(self.retry_after)}
        return refuses(self.status, "The server is not well", **headers)


@dataclass(frozen=True, slots=True)
class Denied(Fault):
    """What storage answers to a link that has run out (403), or 401."""

    status: int = 403

    def answer(self, exchange: Exchange) -> Reply:
        said = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        return says(self.status, said, "application/xml")


@dataclass(frozen=True, slots=True)
class RedirectLoop(Fault):
    """A redirect to where one is already."""

    status: int = 302

    def answer(self, exchange: Exchange) -> Reply:
        return says(self.status, "Found\n", Location=exchange.target)


@dataclass(frozen=True, slots=True)
class RelativeRedirect(Fault):
    """One redirect on the same host, with a Location that has no host in it; what it leads to is answered truly."""

    status: int = 307

    def answer(self, exchange: Exchange) -> Reply | None:
        if "redirected=1" in exchange.target:
            return None
        mark = "&" if "?" in exchange.target else "?"
        return says(self.status, "Temporary Redirect\n", Location=f"{exchange.target}{mark}redirected=1")


@dataclass(frozen=True, slots=True)
class Elsewhere(Fault):
    """A redirect to another host: `to` is its beginning (`http://127.0.0.1:1234`); path and query stay."""

    to: str
    status: int = 302

    def answer(self, exchange: Exchange) -> Reply:
        return says(self.status, "Found\n", Location=self.to.rstrip("/") + exchange.target)


# --- another file in its place -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChangedETag(Fault):
    """The same bytes under another name, on the hub (X-Linked-Etag) and in storage."""

    etag: str = "0" * 64

    def fits_file(self, exchange: Exchange, resource: Resource) -> bool:
        return True

    def change(self, resource: Resource) -> None:
        resource.etag = self.etag
        if resource.linked_etag is not None:
            resource.linked_etag = self.etag


@dataclass(frozen=True, slots=True)
class ChangedContent(Fault):
    """Other bytes: of the same size where `size` is left open. `etag`: the name changes with them."""

    seed: int = 1
    size: int | None = None
    etag: bool = True

    def fits_file(self, exchange: Exchange, resource: Resource) -> bool:
        return True

    def change(self, resource: Resource) -> None:
        size = resource.content.size if self.size is None else self.size
        resource.content = Pattern(size, seed=1_000_000 + self.seed)
        if self.etag:
            ChangedETag(f"{self.seed:064x}").change(resource)


@dataclass(frozen=True, slots=True)
class Whole(Fault):
    """200 and the whole file for a request with a range."""

    def fits_file(self, exchange: Exchange, resource: Resource) -> bool:
        return "range" in exchange.headers and exchange.method == "GET"

    def change(self, resource: Resource) -> None:
        resource.ranges = False


# --- sent otherwise ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Nothing for some seconds, then the reply."""

    seconds: float

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return True

    def bend(self, reply: Reply) -> None:
        reply.delay += self.seconds


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """So many bytes a second for each reply, or `shared` for all replies of this fault together."""

    rate: float
    shared: bool = False
    _line: list[Pace] = field(default_factory=list, init=False, repr=False, compare=False)

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return _has_body(exchange, reply)

    def bend(self, reply: Reply) -> None:
        if not self.shared:
            reply.pace = Pace(self.rate)
            return
        if not self._line:
            self._line.append(Pace(self.rate))
        reply.pace = self._line[0]


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """After so many bytes of the body nothing for some seconds, then the rest."""

    seconds: float
    after: int = 0

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return _has_body(exchange, reply) and self.after < reply.size

    def bend(self, reply: Reply) -> None:
        reply.stall_at, reply.stall_for = self.after, self.seconds


@dataclass(frozen=True, slots=True)
class Short(Fault):
    """The connection ends in good order, `by` bytes before the end that Content-Length promised."""

    by: int = 1

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return _has_body(exchange, reply)

    def bend(self, reply: Reply) -> None:
        reply.end_at = max(0, reply.size - self.by)


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """The connection is reset after so many bytes of the body; in its middle where `after` is left open.

    A reset drops what is still on its way: the other side may see fewer bytes than were sent. `Short` ends in order.
    """

    after: int | None = None

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return _has_body(exchange, reply) and (self.after or 0) < reply.size

    def bend(self, reply: Reply) -> None:
        reply.end_at = reply.size // 2 if self.after is None else self.after
        reply.reset = True


@dataclass(frozen=True, slots=True)
class WrongLength(Fault):
    """Content-Length says `by` bytes more than there are, or fewer; the connection ends after the body."""

    by: int = 1

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return _has_body(exchange, reply)

    def bend(self, reply: Reply) -> None:
        reply.length = max(0, reply.size + self.by)
        reply.end_at = reply.size


@dataclass(frozen=True, slots=True)
class Flip(Fault):
    """One byte of the file inverted, its length right: the one at `at`, or the middle one of what is sent."""

    at: int | None = None

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return reply.bulk and _has_body(exchange, reply) and (self.at is None or reply.start <= self.at < reply.stop)

    def bend(self, reply: Reply) -> None:
        at = (reply.start + reply.stop) // 2 if self.at is None else self.at
        reply.content = Altered(reply.content, (at,))


@dataclass(frozen=True, slots=True)
class LyingRange(Fault):
    """Content-Range is off: its places by `by` bytes, its total by `total_by`. The bytes are those that were asked for."""

    by: int = 1
    total_by: int = 0

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return reply.status == 206

    def bend(self, reply: Reply) -> None:
        start, stop, total = reply.start + self.by, reply.stop + self.by, reply.content.size + self.total_by
        reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"


@dataclass(frozen=True, slots=True)
class Misplaced(Fault):
    """The head is right, the bytes are those from `by` bytes further on, round the end of the file."""

    by: int = 1

    def fits_reply(self, exchange: Exchange, reply: Reply) -> bool:
        return reply.bulk and _has_body(exchange, reply)

    def bend(self, reply: Reply) -> None:
        reply.content = _Turned(reply.content, self.by)


class _Turned:
    path = None

    def __init__(self, content: Content, by: int) -> None:
        self._content, self._by = content, by
        self.size = content.size
        self.identity = f"{content.identity}+{by}"

    def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        start = (offset + self._by) % self.size
        data = self._content.read(start, count)
        return data + self._content.read(0, count - len(data))


KINDS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        RateLimited, Failing, Denied, RedirectLoop, RelativeRedirect, Elsewhere, ChangedETag, ChangedContent, Whole,
        Delay, Slow, Stall, Short, Cut, WrongLength, Flip, LyingRange, Misplaced,
    )
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Rule:
    """When faults happen, and how often they did."""

    faults: tuple[Fault, ...]
    path: re.Pattern[str]
    method: str | None
    origin: Origin | None
    skip: int
    times: int | None
    probability: float
    lots: random.Random
    seen: int = 0  # requests it matched and a fault of it fitted
    hits: int = 0  # faults that happened

    def matches(self, exchange: Exchange) -> bool:
        return (
            self.method in (None, exchange.method)
            and self.origin in (None, exchange.origin)
            and any(self.path.search(name) for name in (exchange.path, exchange.label) if name is not None)
        )

    def take(self) -> bool:
        """Whether it happens this time."""
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        if self.probability < 1 and self.lots.random() >= self.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules of one hub."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(
        self,
        *faults: Fault,
        path: str = "",
        method: str | None = None,
        origin: Origin | None = None,
        nth: int | None = None,
        skip: int = 0,
        times: int | None = None,
        probability: float = 1,
        seed: int = 0,
    ) -> Rule:
        """Let one of these faults happen to requests of this method and origin (`hub`, `cdn`) whose path, or file
        (`owner/name/path`), the expression `path` is found in.

        `nth`: to that one of them alone, counted from 1. Else: after `skip` of them, `times` times at most, each time
        with this probability, drawn from a generator with this seed.

        Raises ValueError where that makes no sense, or there are too many rules.
        """
        if not faults:
            raise ValueError("a rule without a fault: name at least one")
        if len(self._rules) >= MOST_RULES:
            raise ValueError(f"{MOST_RULES} rules of faults: clear() them first")
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability of {probability}: it must be between 0 and 1")
        if nth is not None:
            if nth < 1 or skip or times is not None:
                raise ValueError("nth counts from 1, and goes without skip and times")
            skip, times = nth - 1, 1
        try:
            expression = re.compile(path)
        except re.error as error:
            raise ValueError(f"path={path!r} is no regular expression: {error}") from error
        rule = Rule(
            faults=faults, path=expression, method=method, origin=origin, skip=skip, times=times,
            probability=probability, lots=random.Random(seed),
        )  # fmt: skip
        self._rules.append(rule)
        return rule

    def add_named(self, said: object) -> Rule:
        """A rule written as JSON: `{"faults": [{"fault": "Flip", "at": 5}], "path": "...", "times": 1}`.

        Raises ValueError where it is not understood.
        """
        if not isinstance(said, dict) or not isinstance(said.get("faults"), list):
            raise ValueError('write {"faults": [{"fault": "Flip", "at": 5}], "path": "gguf$", "times": 1}')
        rest = {name: value for name, value in said.items() if name != "faults"}
        try:
            return self.add(*(_named(one) for one in said["faults"]), **rest)
        except TypeError as error:
            raise ValueError(f"a rule that is not understood: {error}") from error

    def remove(self, rule: Rule) -> None:
        """Raises ValueError where it is not there."""
        self._rules.remove(rule)

    def clear(self) -> None:
        self._rules.clear()

    def meet(self, exchange: Exchange) -> Misfortune:
        """What may happen to this request."""
        drawn = [
            (rule, rule.faults[0] if len(rule.faults) == 1 else rule.lots.choice(rule.faults))
            for rule in self._rules
            if rule.matches(exchange)
        ]
        return Misfortune(exchange, drawn)


class Misfortune:
    """The faults drawn for one request, applied as it is answered."""

    def __init__(self, exchange: Exchange, drawn: Sequence[tuple[Rule, Fault]]) -> None:
        self._exchange = exchange
        self._drawn = drawn

    def answer(self) -> Reply | None:
        for rule, fault in self._drawn:
            reply = fault.answer(self._exchange)
            if reply is not None and self._happens(rule, fault):
                return reply
        return None

    def change(self, resource: Resource) -> None:
        for rule, fault in self._drawn:
            if fault.fits_file(self._exchange, resource) and self._happens(rule, fault):
                fault.change(resource)

    def bend(self, reply: Reply) -> None:
        for rule, fault in self._drawn:
            if fault.fits_reply(self._exchange, reply) and self._happens(rule, fault):
                fault.bend(reply)

    def _happens(self, rule: Rule, fault: Fault) -> bool:
        if not rule.take():
            return False
        self._exchange.faults.append(type(fault).__name__)
        return True


def _named(said: object) -> Fault:
    if not isinstance(said, dict) or said.get("fault") not in KINDS:
        raise ValueError(f"{said!r} is no fault: use one of {', '.join(KINDS)}")
    arguments = {name: value for name, value in said.items() if name != "fault"}
    try:
        return KINDS[said["fault"]](**arguments)
    except TypeError as error:
        raise ValueError(f"{said['fault']} is not understood: {error}") from error
