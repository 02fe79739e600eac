"""How many requests an address may make: one token bucket per client and class of path.

The table is bounded: the address that was not heard of for the longest goes first, and starts afresh should it come back.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

from swarmd.kit.flow import TokenBucket
from swarmd.kit.world import Clock

CLIENTS_LIMIT: Final = 50_000  # contract: swarmllm.md 2.0; some 10 MB when full


class RateLimit:
    """One class of paths. `rate_limit_*` settings are live, so the rate comes with each question."""

    def __init__(self, *, clock: Clock, clients_limit: int = CLIENTS_LIMIT) -> None:
        self._clock, self._clients_limit = clock, clients_limit
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._per_minute = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, address: str, *, per_minute: int) -> float | None:
        """None: the request may pass and is counted. Else the seconds until one may. `per_minute` 0: no limit."""
        if per_minute != self._per_minute:
            self._buckets.clear()  # a new limit is a new start for everybody; it changes by hand, rarely
            self._per_minute = per_minute
        if per_minute == 0:
            return None
        client = client_of(address)
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = TokenBucket(per_minute / 60, per_minute, clock=self._clock)  # a minute's worth may come at once
            self._buckets[client] = bucket
            if len(self._buckets) > self._clients_limit:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return None if bucket.try_take() else bucket.retry_after_s()


def client_of(address: str) -> str:
    """One household of IPv6 has a whole /64 of addresses: it is one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
