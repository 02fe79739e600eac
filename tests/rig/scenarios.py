"""What happens to a swarm, in the order in which it happens. Each scenario leaves everybody up and linked."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.rig.lab import HOME_NET, OPEN_NET, Lab
from tests.rig.nodes import PEER_PORT, Node, until

MEMBERS = ("a1", "a2", "b1", "b2", "c")
MODEL, QUESTION = "swarmd-builtin", "What is a shard?"
BACK_S = 40.0  # the longest pause between two dials is 30 s
LAN_S = 5.0  # in which members in one network find each other
PATIENCE_S = 12.0  # longer than the longest pause between two dials to somebody who was here lately
STRANGERS = 10_000  # connections of one stranger; each is a handshake that leads nowhere


@dataclass
class Swarm:
    nodes: dict[str, Node]
    lab: Lab
    answer: str = ""
    """To QUESTION; it may never change."""

    def __getitem__(self, place: str) -> Node:
        return self.nodes[place]

    @property
    def members(self) -> list[Node]:
        return [self.nodes[place] for place in MEMBERS]

    def homely(self) -> list[tuple[Node, Node]]:
        """Pairs that can reach each other: within a home, and everybody with the common member."""
        c = self["c"]
        return [(self["a1"], self["a2"]), (self["b1"], self["b2"]), *((node, c) for node in self.members if node is not c)]

    def all_linked(self) -> bool:
        return all(one.sees(other) and other.sees(one) for one, other in self.homely())


def joining_by_code_from_behind_nat(swarm: Swarm) -> str:
    swarm["c"].start()
    slowest = 0.0
    for node in swarm.members[:-1]:
        node.start()
        code = swarm["c"].call("GET", "/api/admin/network-code")["code"]
        started = time.monotonic()
        node.call("POST", "/api/admin/join-network", {"code": code})
        until(lambda node=node: node.sees(swarm["c"]) and swarm["c"].sees(node), BACK_S, f"{node.place} and c are linked")
        slowest = max(slowest, time.monotonic() - started)
    return f"four nodes, each in {slowest:.2f} s at most"


def neighbours_at_home_find_each_other(swarm: Swarm) -> str:
    seconds = until(swarm.all_linked, LAN_S, "a1 with a2 and b1 with b2 are linked")
    return f"{seconds:.2f} s after the last one joined"


def addresses_of_a_home_do_not_lead_into_another_one(swarm: Swarm) -> str:
    """Both homes use the same addresses: a1 dialling b1's would reach a node of its own home, or itself."""
    for one in (swarm["a1"], swarm["a2"]):
        for other in (swarm["b1"], swarm["b2"]):
            assert not one.sees(other), f"{one.place} claims a link to {other.place}, which nothing can carry yet"
    return "nobody claims a link that cannot be"


def a_chat_over_a_home_and_the_open_network(swarm: Swarm) -> str:
    """Layers on a1 (which asks), a2 beside it and c outside; b1 and b2 take no part."""
    a1, parts = swarm["a1"], {"a1": range(3), "a2": range(3, 6), "c": range(6, 8)}
    for place in ("a2", "c"):
        node = swarm[place]
        until(lambda node=node: any(row["id"] == MODEL for row in _models(node)), 30, f"{place} hears of the model")
        for index in parts[place]:
            node.call("POST", f"/api/admin/models/{MODEL}/shards/{index}/download")
        until(lambda node=node, part=parts[place]: _held(node) >= set(part), 60, f"{place} has its shards")
    until(lambda: _seen(a1) >= {3, 4, 5, 6, 7}, 30, "a1 hears of the holders")
    for index in range(3, 8):
        a1.call("DELETE", f"/api/admin/models/{MODEL}/shards/{index}")
    return _answer(swarm)


def _answer(swarm: Swarm) -> str:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 60, "messages": [{"role": "user", "content": QUESTION}]}
    reply = swarm["a1"].call("POST", "/v1/chat/completions", body)
    stages, text = reply["swarm"]["stages"], reply["choices"][0]["message"]["content"]
    assert len({stage["node"] for stage in stages}) == 3, f"the stages were {stages}"
    assert text == swarm.answer or not swarm.answer, f"another answer than before: {text!r}"
    swarm.answer = text
    return f"{reply['swarm']['tokens_per_second']:.0f} tokens/s over {len(stages)} nodes"


def _models(node: Node) -> list[dict[str, Any]]:
    return [row for row in node.call("GET", "/api/admin/models") if row["shards"]]


def _held(node: Node) -> set[int]:
    return {shard["index"] for row in _models(node) for shard in row["shards"] if shard["local"]}


def _seen(node: Node) -> set[int]:
    return {shard["index"] for row in _models(node) for shard in row["shards"] if shard["holder_ids"]}


def kill_9_of_the_common_member(swarm: Swarm) -> str:
    c = swarm["c"]
    c.signal(signal.SIGKILL)
    gone = until(lambda: not any(node.sees(c) for node in swarm.members if node is not c), 15, "everybody notices")
    c.start()
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    _answer(swarm)
    return f"noticed in {gone:.2f} s, linked again {back:.2f} s after it was ready"


def a_member_that_stands_still_is_noticed_and_comes_back(swarm: Swarm) -> str:
    c = swarm["c"]
    c.signal(signal.SIGSTOP)
    try:
        gone = until(lambda: not any(n.sees(c) for n in swarm.members if n is not c), 14, "a stopped node is noticed")
    finally:
        c.signal(signal.SIGCONT)
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    _answer(swarm)
    return f"noticed in {gone:.1f} s, linked again {back:.2f} s after SIGCONT"


def a_pulled_cable(swarm: Swarm) -> str:
    a1 = swarm["a1"]
    swarm.lab.cable("a1", up=False)
    gone = until(lambda: not swarm["c"].sees(a1), 14, "c notices")
    swarm.lab.cable("a1", up=True)
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    _answer(swarm)
    return f"noticed in {gone:.1f} s, linked again {back:.2f} s after the cable was back"


def another_address(swarm: Swarm) -> str:
    a2 = swarm["a2"]
    before = a2.log.stat().st_size
    swarm.lab.readdress("a2", f"{HOME_NET}.12", f"{HOME_NET}.77")
    # The old links look well until somebody notices that they stand on an address that is gone; the log says when.
    gone = until(lambda: a2.log.read_bytes()[before:].count(b"address has changed") >= 2, BACK_S, "a2 gives them up")
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    _answer(swarm)
    return f"old links given up in {gone:.2f} s, linked again {back:.2f} s later"


def a_home_cut_off_and_back(swarm: Swarm) -> str:
    swarm.lab.cable("na", device="wan0", up=False)
    c, a1, a2 = swarm["c"], swarm["a1"], swarm["a2"]
    gone = until(lambda: not c.sees(a1) and not c.sees(a2), 14, "c notices")
    assert a1.sees(a2), "the neighbours at home lost each other with the rest"
    swarm.lab.cable("na", device="wan0", up=True)
    back = until(swarm.all_linked, BACK_S, "everybody is linked again")
    _answer(swarm)
    return f"noticed in {gone:.1f} s, the home stayed linked, healed in {back:.2f} s"


def a_stranger_gets_silence(swarm: Swarm) -> str:
    c, x = swarm["c"], swarm["x"]
    before = c.log.stat().st_size

    def knock() -> int:
        heard = 0
        for number in range(STRANGERS):
            with socket.create_connection((f"{OPEN_NET}.10", PEER_PORT), 5) as link:
                link.settimeout(5)
                link.sendall(bytes([number % 256]) * 200)
                try:
                    heard += len(link.recv(1000))
                except OSError:
                    continue
        return heard

    heard = x.inside(knock)
    grown = c.log.stat().st_size - before
    assert heard == 0, f"{heard} bytes were answered to a stranger"
    assert grown < 5000, f"the log grew by {grown} bytes"
    assert swarm.all_linked(), "the members lost their links"
    return f"{STRANGERS} connections, 0 bytes back, the log grew by {grown} bytes"


def a_revoked_member_is_cut_off_everywhere_and_can_be_invited_again(swarm: Swarm) -> str:
    b1, b2, c = swarm["b1"], swarm["b2"], swarm["c"]
    c.call("POST", f"/api/admin/members/{b2.id}/revoke")
    gone = until(lambda: not any(node.sees(b2) for node in (b1, c)), 10, "b1 and c have cut b2 off")
    before = c.log.stat().st_size
    time.sleep(PATIENCE_S)  # b2 dials on; nobody lets it in, and nobody writes that down again and again
    assert not b1.sees(b2) and not c.sees(b2), "a revoked member is back"
    grown = c.log.stat().st_size - before
    assert grown < 1000, f"the log grew by {grown} bytes in {PATIENCE_S:.0f} s"
    b2.call("POST", "/api/admin/join-network", {"code": c.call("POST", "/api/admin/invites", {})["code"]})
    back = until(swarm.all_linked, BACK_S, "b2 is back with a new certificate")
    return f"cut off in {gone:.2f} s and kept out, the log grew by {grown} bytes; back {back:.2f} s after a new invite"


SCENARIOS: list[Callable[[Swarm], str]] = [
    joining_by_code_from_behind_nat,
    neighbours_at_home_find_each_other,
    addresses_of_a_home_do_not_lead_into_another_one,
    a_chat_over_a_home_and_the_open_network,
    kill_9_of_the_common_member,
    a_member_that_stands_still_is_noticed_and_comes_back,
    a_pulled_cable,
    another_address,
    a_home_cut_off_and_back,
    a_stranger_gets_silence,
    a_revoked_member_is_cut_off_everywhere_and_can_be_invited_again,
]
