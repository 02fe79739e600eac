"""Who tries to get in and may not. Each scenario leaves the members as they were, and says what it cost them."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from swarmd.wire.handshake import Handshake
from tests.rig.capture import Recorder
from tests.rig.lab import OPEN_NET
from tests.rig.nodes import PEER_PORT, Node, until
from tests.rig.scenarios import BACK_S, PATIENCE_S, Swarm

MANY = 10_000  # attempts of one stranger
DOOR = (f"{OPEN_NET}.10", PEER_PORT)  # of c
LINES = 5000  # bytes of log that 10,000 attempts may cost at most: a few dozen lines
REPLAYS = 20
LISTENS_AGAIN_S = 10.0  # until the doors hear 40 calls of one address in a row again (`transport.doors.DoorLimits`)
_FIRST_FLIGHT = 18 + 2 + 32  # preamble, message 1
_MESSAGE_2 = 2 + 32 + 48 + 16


def _heard(link: socket.socket, limit: int = 4096) -> bytes:
    """All that comes until the other side hangs up."""
    data = b""
    try:
        while len(data) < limit and (more := link.recv(limit)):
            data += more
    except OSError:
        pass
    return data


def _attempts(swarm: Swarm, what: Callable[[int], bytes]) -> tuple[int, int]:
    """Bytes that came back, bytes by which the log grew."""
    time.sleep(LISTENS_AGAIN_S)
    before = swarm["c"].log.stat().st_size

    def knock() -> int:
        heard = 0
        for number in range(MANY):
            with socket.create_connection(DOOR, 5) as link:
                link.settimeout(6)
                try:
                    link.sendall(what(number))
                except OSError:
                    continue
                heard += len(_heard(link))
        return heard

    heard = swarm["x"].inside(knock)
    grown = swarm["c"].grown(before)
    assert heard == 0, f"{heard} bytes were answered to a stranger"
    assert grown < LINES, f"the log grew by {grown} bytes"
    assert swarm.all_linked(), "the members lost their links"
    return heard, grown


def a_stranger_gets_silence(swarm: Swarm) -> str:
    _, grown = _attempts(swarm, lambda number: bytes([number % 256]) * 200)
    return f"{MANY} connections, 0 bytes back, the log grew by {grown} bytes"


def ten_thousand_wrong_codes_get_silence(swarm: Swarm) -> str:
    """Well-made handshakes, each with a code that nobody gave."""

    def first_flight(number: int) -> bytes:
        tag, psk = number.to_bytes(16, "big"), bytes(32)
        dial = Handshake.dial(
            static_private=b"\x11" * 32, ephemeral_private=b"\x22" * 32, hello=b"", invite=(b"w" + tag[1:], psk)
        )
        return dial.outgoing()

    live = len(swarm["c"].call("GET", "/api/admin/invites"))
    _, grown = _attempts(swarm, first_flight)
    assert len(swarm["c"].call("GET", "/api/admin/invites")) == live
    return f"{MANY} codes, 0 bytes back, the log grew by {grown} bytes"


def a_replayed_handshake_leads_nowhere(swarm: Swarm) -> str:
    """Somebody on the line records how b2 links to c, and sends the same bytes again."""
    b2, c = swarm["b2"], swarm["c"]
    recorder = Recorder(c, PEER_PORT)
    try:
        b2.restart()
        until(swarm.all_linked, BACK_S, "b2 is back")
    finally:
        streams = recorder.stop()
    outside = socket.inet_aton(f"{OPEN_NET}.3")
    taken = [data for caller in recorder.streams if caller[0] == outside and len(data := recorder.whole(caller)) > 500]
    assert taken, f"no handshake was recorded, only {[len(one) for one in streams]} bytes"
    time.sleep(2.0)  # so that a link that was made anew would be a younger one
    before, standing = c.log.stat().st_size, _since(c, b2)

    def replay() -> list[int]:
        heard: list[int] = []
        for number in range(REPLAYS):
            with socket.create_connection(DOOR, 5) as link:
                link.settimeout(8)
                data = taken[number % len(taken)]
                link.sendall(data[:_FIRST_FLIGHT])
                answer = link.recv(4096)
                link.sendall(data[_FIRST_FLIGHT:])
                heard.append(len(answer + _heard(link)))
        return heard

    heard = swarm["x"].inside(replay)
    # Message 2 answers whoever begins well, and has no secret in it. Message 3 was made for another ephemeral key.
    assert set(heard) <= {0, _MESSAGE_2}, f"answered were {heard} bytes"
    assert max(heard) == _MESSAGE_2, "not one replay came as far as message 2"
    assert _since(c, b2) >= standing >= 1, "b2's link did not outlive the replays"
    text = c.log.read_text()[before:]
    assert text.count(f"{OPEN_NET}.66") == 1 and "is no peer" in text, f"the log says {text!r}"
    return f"{REPLAYS} replays of {len(taken[0])} recorded bytes: no frame accepted, refused once in the log with its reason"


def _since(node: Node, other: Node) -> int:
    rows = node.call("GET", "/api/admin/links")
    return min(row["up_seconds"] for row in rows if row["node_id"][:16] == other.id[:16])


def a_copied_identity_is_kept_out_and_reported_on_both(swarm: Swarm) -> str:
    """The whole data folder of b2, key and certificate, started at x while b2 runs."""
    b2, c, x = swarm["b2"], swarm["c"], swarm["x"]
    x.folder.mkdir(parents=True, exist_ok=True)
    for name in ("identity.key", "api_key"):
        shutil.copy2(b2.folder / name, x.folder / name)
    _copy_database(b2.folder / "state.sqlite", x.folder / "state.sqlite")
    sizes = {node.place: node.log.stat().st_size for node in (b2, c)}
    standing = _since(c, b2)
    x.start()
    assert x.id == b2.id, "the copy has another identity"
    seconds = until(lambda: "has met another machine" in x.log.read_text(), 15, "the copy is told")
    time.sleep(PATIENCE_S)
    assert x.linked() == set(), f"the copy is linked with {x.linked()}"
    assert _since(c, b2) > standing + PATIENCE_S - 2, "b2's link to c did not outlive it"
    said = {node.place: node.log.read_text()[sizes[node.place]:].count("machine") for node in (b2, c)}
    said["x"] = x.log.read_text().count("has met another machine")
    assert said == {"b2": 1, "c": 1, "x": 1}, f"lines about it: {said}"
    x.end()
    shutil.rmtree(x.folder)
    until(swarm.all_linked, BACK_S, "everybody is linked")
    return f"told on both after {seconds:.1f} s, one line each; no link in {PATIENCE_S:.0f} s, b2's own undisturbed"


def _copy_database(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)


def a_stolen_address_is_not_a_member(swarm: Swarm) -> str:
    """c is off, and a stranger's node listens at its address, where everybody dials it."""
    c, x, address = swarm["c"], swarm["x"], f"{OPEN_NET}.10"
    c.end()
    until(lambda: not any(node.sees(c) for node in swarm.members if node is not c), 15, "everybody notices")
    sizes = {node.place: node.log.stat().st_size for node in swarm.members if node is not c}
    swarm.lab.move(address, "c", "x")
    try:
        x.start()
        x.call("GET", "/api/admin/network-code")  # it founds a network of its own
        time.sleep(PATIENCE_S)
        knocked = x.log.read_text()
        assert "turned away" in knocked or "is no peer" in knocked, "nobody dialled the address"
        assert x.linked() == set(), f"the stranger is linked with {x.linked()}"
        for node in swarm.members:
            if node is not c:
                assert not node.sees(c) and not node.sees(x), f"{node.place} takes the stranger for c"
                grown = node.grown(sizes[node.place])
                assert grown < 2000, f"the log of {node.place} grew by {grown} bytes"
        x.end()
    finally:
        swarm.lab.move(address, "x", "c")
    c.start()
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    return f"nobody took it for c in {PATIENCE_S:.0f} s; linked again {back:.1f} s after c was back"


STRANGERS: list[Callable[[Swarm], str]] = [
    a_replayed_handshake_leads_nowhere,
    a_copied_identity_is_kept_out_and_reported_on_both,
    a_stolen_address_is_not_a_member,
    ten_thousand_wrong_codes_get_silence,
    a_stranger_gets_silence,
]
