"""What a hub has seen and sent. Tokens are counted by whose they are; none is kept."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass

from tests.hub.messages import Origin

MOST_REQUESTS = 10_000  # kept one by one; the oldest go first, the sums stay
MOST_NAMES = 10_000  # files or paths counted apart; what comes later is counted under OTHERS
OTHERS = "(others)"


@dataclass(slots=True, kw_only=True)
class Request:
    """One request and what was sent for it; `sent` grows while it goes out."""

    origin: Origin
    kind: str
    method: str
    path: str
    label: str | None  # `owner/name/path` of the file
    range: str | None  # the header as it came
    user: str | None
    status: int = 0  # 0 until it is answered
    start: int = 0  # where in the file the body begins
    sent: int = 0  # bytes of the body given to the socket
    bulk: bool = False  # the body is bytes of the file, not a redirect or an error
    faults: tuple[str, ...] = ()
    ended: bool = False

class Counters:
    """Sums since the start or the last `reset`, and the last requests one by one."""

    def __init__(self) -> None:
        self.open: Counter[Origin] = Counter()  # connections now
        self.reset()

    def reset(self) -> None:
        """Begin anew; open connections stay counted."""
        self.requests: deque[Request] = deque(maxlen=MOST_REQUESTS)
        self.kinds: Counter[str] = Counter()  # requests by what they ask for
        self.statuses: Counter[int] = Counter()
        self.sent: Counter[str] = Counter()  # bytes of bodies by file, or by path where it is no file
        self.faults: Counter[str] = Counter()
        self.users: dict[Origin, Counter[str]] = {"hub": Counter(), "cdn": Counter()}  # requests with a token, by whose
        self.connections: Counter[Origin] = Counter()  # made since
        self.most_open: Counter[Origin] = Counter(self.open)

    def connected(self, origin: Origin) -> None:
        self.open[origin] += 1
        self.connections[origin] += 1
        self.most_open[origin] = max(self.most_open[origin], self.open[origin])

    def disconnected(self, origin: Origin) -> None:
        self.open[origin] -= 1

    def began(self, request: Request) -> None:
        self.requests.append(request)
        self.kinds[request.kind] += 1
        if request.user is not None:
            self.users[request.origin][request.user] += 1

    def answered(self, request: Request, status: int, faults: list[str]) -> None:
        request.status = status
        request.faults = tuple(faults)
        self.statuses[status] += 1
        self.faults.update(faults)

    def gave(self, request: Request, count: int) -> None:
        request.sent += count
        name = (request.label if request.bulk else None) or request.path
        self.sent[name if name in self.sent or len(self.sent) < MOST_NAMES else OTHERS] += count

    def of(self, name: str, *, method: str | None = None, origin: Origin | None = None) -> list[Request]:
        """The kept requests for a file (`owner/name/path`) or a path, oldest first."""
        return [
            one
            for one in self.requests
            if name in (one.label, one.path) and method in (None, one.method) and origin in (None, one.origin)
        ]

    def ranges(self, name: str) -> list[tuple[int, int]]:
        """First byte and byte after the last of what was sent of a file, sorted; a range sent twice is there twice."""
        return sorted((one.start, one.start + one.sent) for one in self.of(name) if one.bulk and one.sent)

    def as_json(self) -> dict[str, object]:
        return {
            "kinds": dict(self.kinds),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "sent": dict(self.sent),
            "sent_in_all": self.sent.total(),
            "faults": dict(self.faults),
            "users": {origin: dict(users) for origin, users in self.users.items()},
            "connections": dict(self.connections),
            "open": dict(self.open),
            "most_open": dict(self.most_open),
            "requests": [asdict(one) for one in self.requests],
        }
