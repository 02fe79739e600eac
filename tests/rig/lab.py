"""Networks of our own: two home LANs behind NAT routers, one member on the open network between them.

Everything is in network namespaces that are made here and removed at the end, named after this process, so nothing of the
machine's own network is touched. Both homes use the same private addresses, as homes do: an address that is passed on
without thought leads to the wrong machine.

    a1, a2, a3 (192.168.1.11 to .13) - home a - NAT (198.18.0.2) -+                +- c (198.18.0.10), the common member
                                                            +- open network -+
    b1, b2, b3 (192.168.1.11 to .13) - home b - NAT (198.18.0.3) -+                +- x (198.18.0.66), a stranger
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

OPEN_NET, HOME_NET = "198.18.0", "192.168.1"  # RFC 2544's range for tests; what every home router hands out
TOOLS = ("ip", "iptables")


class Unavailable(Exception):
    """Namespaces cannot be made here; the text says what is missing."""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Lab:
    """The namespaces by name: `a1` to `a3`, `b1` to `b3`, `c`, `x`; routers `na`, `nb`; switches `ha`, `hb`, `open`."""

    prefix: str
    made: list[str] = field(default_factory=list)

    def name(self, place: str) -> str:
        return f"{self.prefix}-{place}"

    def ip(self, place: str, *words: str) -> str:
        return run("ip", "-n", self.name(place), *words)

    def make(self, place: str) -> None:
        run("ip", "netns", "add", self.name(place))
        self.made.append(place)
        self.ip(place, "link", "set", "lo", "up")

    def switch(self, place: str) -> None:
        self.make(place)
        self.ip(place, "link", "add", "br0", "type", "bridge")
        self.ip(place, "link", "set", "br0", "up")

    def plug(self, place: str, device: str, switch: str, address: str) -> None:
        """A cable from `device` of a place to a switch."""
        port = f"{place}-{device}"
        run("ip", "link", "add", device, "netns", self.name(place), "type", "veth", "peer", "name", port, "netns",
            self.name(switch))  # fmt: skip
        self.ip(switch, "link", "set", port, "master", "br0", "up")
        self.ip(place, "address", "add", f"{address}/24", "dev", device)
        self.ip(place, "link", "set", device, "up")

    def route(self, place: str, gateway: str) -> None:
        self.ip(place, "route", "replace", "default", "via", gateway)

    def cable(self, place: str, *, device: str = "eth0", up: bool) -> None:
        """Pulls a cable, or puts it back with its route."""
        self.ip(place, "link", "set", device, "up" if up else "down")
        if up and place[0] in "ab":
            self.route(place, f"{HOME_NET}.1")

    def pace(self, place: str, megabits: int | None) -> None:
        """What leaves the place, by its cable; None: as fast as it goes. Raises RuntimeError where the kernel cannot."""
        inside = ("ip", "netns", "exec", self.name(place), "tc", "qdisc")
        if megabits is None:
            run(*inside, "del", "dev", "eth0", "root")
        else:
            shape = ("tbf", "rate", f"{megabits}mbit", "burst", "256k", "latency", "50ms")
            run(*inside, "replace", "dev", "eth0", "root", *shape)

    def readdress(self, place: str, old: str, new: str) -> None:
        """As after a new lease."""
        self.ip(place, "address", "del", f"{old}/24", "dev", "eth0")
        self.ip(place, "address", "add", f"{new}/24", "dev", "eth0")
        self.route(place, f"{HOME_NET}.1")

    def move(self, address: str, old: str | None, new: str | None) -> None:
        """An address of the open network, from one place to another; everybody forgets where it was."""
        if old is not None:
            self.ip(old, "address", "del", f"{address}/24", "dev", "eth0")
        if new is not None:
            self.ip(new, "address", "add", f"{address}/24", "dev", "eth0")
        for place in ("na", "nb", "c", "x"):
            self.ip(place, "neigh", "flush", "all")

    def nat(self, router: str, switch: str, outside: str) -> None:
        """A home router: what leaves gets its address, what comes in by itself is dropped."""
        self.make(router)
        self.plug(router, "wan0", "open", outside)
        self.plug(router, "lan0", switch, f"{HOME_NET}.1")
        inside = ("ip", "netns", "exec", self.name(router))
        run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        run(*inside, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")
        run(*inside, "iptables", "-P", "FORWARD", "DROP")
        run(*inside, "iptables", "-A", "FORWARD", "-i", "lan0", "-o", "wan0", "-j", "ACCEPT")
        run(*inside, "iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")

    def remove(self) -> None:
        for place in reversed(self.made):
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                run("ip", "netns", "del", self.name(place))


@contextlib.contextmanager
def two_homes() -> Iterator[Lab]:
    """The picture above. Raises Unavailable."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        raise Unavailable(f"needs root{' and ' + ', '.join(missing) if missing else ''}")
    lab = Lab(f"sw{os.getpid()}")
    try:
        try:
            lab.switch("open")
        except RuntimeError as error:
            raise Unavailable(str(error)) from error
        for home, outside in (("a", f"{OPEN_NET}.2"), ("b", f"{OPEN_NET}.3")):
            lab.switch(f"h{home}")
            lab.nat(f"n{home}", f"h{home}", outside)
            for number in (1, 2, 3):
                lab.make(f"{home}{number}")
                lab.plug(f"{home}{number}", "eth0", f"h{home}", f"{HOME_NET}.{10 + number}")
                lab.route(f"{home}{number}", f"{HOME_NET}.1")
        for place, address in (("c", f"{OPEN_NET}.10"), ("x", f"{OPEN_NET}.66")):
            lab.make(place)
            lab.plug(place, "eth0", "open", address)
            lab.route(place, f"{OPEN_NET}.1")
        yield lab
    finally:
        lab.remove()
