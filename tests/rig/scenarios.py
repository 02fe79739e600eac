"""What happens to a swarm, in the order in which it happens. Each scenario leaves everybody up and linked."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import random_model
from tests.rig.lab import HOME_NET, OPEN_NET, Lab
from tests.rig.nodes import Node, until

MEMBERS = ("a1", "a2", "b1", "b2", "c")
GUESTS = ("a3", "b3")  # join by short codes, and leave
PLACES = (*MEMBERS, *GUESTS, "x")
MODEL, QUESTION = "swarmd-builtin", "What is a shard?"
BACK_S = 40.0  # the longest pause between two dials is 30 s
LAN_S = 5.0  # in which members in one network find each other
EXCHANGED = random_model.Shape(layers=20, width=1024, heads=16, kv_heads=4, feed_forward=4096, vocabulary=8000)  # 180 MB
PACED_MBITS = 200  # 180 MB take 7 s, so that there is a midst
PATIENCE_S = 12.0  # longer than the longest pause between two dials to somebody who was here lately


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

    def across(self) -> list[tuple[Node, Node]]:
        """Pairs that cannot reach each other: one in each home."""
        return [(self[one], self[other]) for one in ("a1", "a2") for other in ("b1", "b2")]

    def all_linked(self) -> bool:
        return all(one.sees(other) and other.sees(one) for one, other in self.homely())


def joining_by_code_from_behind_nat(swarm: Swarm) -> str:
    """a1 is let in as an inviter."""
    swarm["c"].start()
    slowest = 0.0
    for node in swarm.members[:-1]:
        node.start()
        terms = {"role": "inviter"} if node.place == "a1" else {}
        code = swarm["c"].call("POST", "/api/admin/invites", terms)["code"]
        started = time.monotonic()
        node.call("POST", "/api/admin/join-network", {"code": code})
        until(lambda node=node: node.sees(swarm["c"]) and swarm["c"].sees(node), BACK_S, f"{node.place} and c are linked")
        slowest = max(slowest, time.monotonic() - started)
    return f"four nodes, each in {slowest:.2f} s at most"


def joining_by_short_code_in_the_room(swarm: Swarm) -> str:
    """a3 finds a1 by zeroconf."""
    return _by_short_code(swarm, "a3", "")


def joining_by_short_code_through_the_common_member(swarm: Swarm) -> str:
    """b3 can reach neither a1, which made the code, nor be reached by it; both can reach c."""
    return _by_short_code(swarm, "b3", f"@{OPEN_NET}.10")


def _by_short_code(swarm: Swarm, place: str, at: str) -> str:
    a1, guest = swarm["a1"], swarm[place]
    guest.start()
    code = a1.call("POST", "/api/admin/invites", {"short": True})["code"]
    if at:
        time.sleep(1.0)  # a person has to type it; meanwhile c hears the number
    started = time.monotonic()
    guest.call("POST", "/api/admin/join-network", {"code": code + at})
    joined = time.monotonic() - started
    linked = until(lambda: guest.sees(a1) and a1.sees(guest), BACK_S, f"{place} and a1 are linked")
    path = guest.path(a1)
    assert path == ("relay" if at else "direct"), f"{place} and a1 are linked by {path}"
    guest.stop()
    until(lambda: not any(node.sees(guest) for node in swarm.members), 15, f"{place} has left")
    return f"{code} let it in within {joined:.2f} s, linked to the inviter ({path}) {linked:.2f} s later"


def neighbours_at_home_find_each_other(swarm: Swarm) -> str:
    seconds = until(swarm.all_linked, LAN_S, "a1 with a2 and b1 with b2 are linked")
    return f"{seconds:.2f} s after the last one joined"


def two_homes_are_linked_through_the_common_member(swarm: Swarm) -> str:
    """Both homes use the same addresses: a1 dialling b1's would reach a node of its own home, or itself. c relays."""
    pairs = swarm.across()
    seconds = until(lambda: all(one.path(other) == "relay" for one, other in pairs), BACK_S, "the homes are linked")
    time.sleep(5.0)
    paths = {one.path(other) for one, other in pairs} | {other.path(one) for one, other in pairs}
    assert paths == {"relay"}, f"links between the homes are {paths}, and only a relay can carry them"
    rows = swarm["a1"].call("GET", "/api/admin/links")
    via = {row["via"][:16] for row in rows if row["path"] == "relay"}
    assert via == {swarm["c"].id[:16]}, f"relayed by {via}"
    rtt = max(row["rtt_ms"] for row in rows if row["path"] == "relay" and row["rtt_ms"] is not None)
    return f"{len(pairs)} pairs, {seconds:.2f} s after the last one joined; round trip {rtt:.1f} ms at most"


def a_chat_over_two_homes_through_the_relay(swarm: Swarm) -> str:
    """Layers on a1, which asks, and on b1 in the other home; c passes on what it cannot read."""
    a1, b1, c = swarm["a1"], swarm["b1"], swarm["c"]
    _hold(b1, range(3, 8))
    _only(a1, range(3))
    before = _bytes(a1, b1)
    found = _answer(swarm, nodes=2)
    assert _bytes(a1, b1) > before, "nothing went over the relayed link"
    assert not _models(c) or not _held(c), "c holds layers itself"
    assert a1.path(b1) == "relay"
    return found


def _bytes(one: Node, other: Node) -> int:
    rows = one.call("GET", "/api/admin/links")
    return sum(row["bytes_in"] + row["bytes_out"] for row in rows if row["node_id"][:16] == other.id[:16])


def _hold(node: Node, shards: range) -> None:
    until(lambda: any(row["id"] == MODEL for row in _models(node)), 30, f"{node.place} hears of the model")
    for index in shards:
        node.call("POST", f"/api/admin/models/{MODEL}/shards/{index}/download")
    until(lambda: _held(node) >= set(shards), 60, f"{node.place} has its shards")


def _only(node: Node, shards: range) -> None:
    """The node drops the others, once it knows who holds them."""
    until(lambda: _elsewhere(node) >= _held(node) - set(shards), 30, f"{node.place} hears of other holders")
    for index in sorted(_held(node) - set(shards)):
        node.call("DELETE", f"/api/admin/models/{MODEL}/shards/{index}")


def a_chat_over_a_home_and_the_open_network(swarm: Swarm) -> str:
    """Layers on a1 (which asks), a2 beside it and c outside; b1 and b2 take no part."""
    _hold(swarm["a2"], range(3, 6))
    _hold(swarm["c"], range(6, 8))
    _only(swarm["b1"], range(0))
    until(lambda: _holders(swarm["a1"]) == {swarm[place].id[:16] for place in ("a1", "a2", "c")}, 30, "a1 knows the holders")
    return _answer(swarm)


def _holders(node: Node) -> set[str]:
    return {holder[:16] for row in _models(node) for shard in row["shards"] for holder in shard["holder_ids"]}


def _answer(swarm: Swarm, *, nodes: int = 3) -> str:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 60, "messages": [{"role": "user", "content": QUESTION}]}
    reply = swarm["a1"].call("POST", "/v1/chat/completions", body)
    stages, text = reply["swarm"]["stages"], reply["choices"][0]["message"]["content"]
    assert len({stage["node"] for stage in stages}) == nodes, f"the stages were {stages}"
    assert text == swarm.answer or not swarm.answer, f"another answer than before: {text!r}"
    swarm.answer = text
    return f"{reply['swarm']['tokens_per_second']:.0f} tokens/s over {len(stages)} nodes"


def _models(node: Node) -> list[dict[str, Any]]:
    return [row for row in node.call("GET", "/api/admin/models") if row["shards"]]


def _held(node: Node) -> set[int]:
    return {shard["index"] for row in _models(node) for shard in row["shards"] if shard["local"]}


def _elsewhere(node: Node) -> set[int]:
    """Shards that others hold, as far as the node knows."""
    return {
        shard["index"] for row in _models(node) for shard in row["shards"]
        if any(holder[:16] != node.id[:16] for holder in shard["holder_ids"])
    }  # fmt: skip


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


def kill_9_of_a_holder_in_the_midst_of_an_exchange(swarm: Swarm) -> str:
    """c and a1 hold a model, a2, b1 and b2 fetch it, all at once; a1 is killed when a2 has a part. The others bring what is
    missing to each other and from c, whose line alone would need much longer for three."""
    c, a1 = swarm["c"], swarm["a1"]
    fetchers = [swarm[place] for place in ("a2", "b1", "b2")]
    path = random_model.write(c.folder.parent / "exchange.gguf", EXCHANGED)
    model = c.call("POST", "/api/admin/models", {"path": str(path)})["model_id"]
    _fetch(a1, model)
    until(lambda: _fetched(a1, model) == 1.0, 60, "a1 has the model")
    until(lambda: all(_offered(node, model) for node in fetchers), 60, "everybody knows two holders")
    size = path.stat().st_size
    paced = (c, a1)
    for node in paced:
        swarm.lab.pace(node.place, PACED_MBITS)
    try:
        between = _bytes(swarm["b1"], swarm["b2"])
        started = time.monotonic()
        for node in fetchers:
            _fetch(node, model)
        until(lambda: _fetched(swarm["a2"], model) > 0.3, 60, "a2 has a part")
        had = _fetched(swarm["a2"], model)
        assert had < 1.0, "a2 had all of it before a1 was killed"
        a1.signal(signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: all(_fetched(node, model) == 1.0 for node in fetchers), 120, "the others have it all")
        took, after = time.monotonic() - started, time.monotonic() - killed
        between = _bytes(swarm["b1"], swarm["b2"]) - between
    finally:
        for node in paced:
            swarm.lab.pace(node.place, None)
    whole = _digests(c, model)
    assert whole and all(_digests(node, model) == whole for node in fetchers), "some shard is not what c has"
    assert between > size / 4, f"b1 and b2 brought each other {between} bytes of {size}"
    a1.start()
    until(swarm.all_linked, BACK_S, "everybody is linked again")
    for node in (*fetchers, a1, c):
        node.call("DELETE", f"/api/admin/models/{model}")
    return (
        f"{size / 1e6:.0f} MB to three nodes in {took:.1f} s, {after:.1f} s of it after the kill (a2 had {had:.0%}); "
        f"b1 and b2 brought each other {between / size:.0%}"
    )


def _fetch(node: Node, model: str) -> None:
    until(lambda: any(row["id"] == model for row in _models(node)), 30, f"{node.place} hears of the model")
    node.call("POST", f"/api/admin/models/{model}/add", {})


def _fetched(node: Node, model: str) -> float:
    status = node.call("GET", f"/api/admin/models/{model}/status")
    assert not isinstance(status["state"], dict), f"{node.place} gave up: {status['state']}"
    if status["state"] == "complete":
        return 1.0
    return min(0.999, status["downloaded_bytes"] / max(1, status["total_bytes"])) if "total_bytes" in status else 0.0


def _offered(node: Node, model: str) -> bool:
    """By two nodes."""
    rows = [row for row in _models(node) if row["id"] == model]
    return bool(rows) and all(shard["holders"] >= 2 for shard in rows[0]["shards"])


def _digests(node: Node, model: str) -> dict[str, str]:
    """Of the files: headers are made alike everywhere."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((node.folder / "models" / model).glob("shard_*.gguf"))
    }


SCENARIOS: list[Callable[[Swarm], str]] = [
    joining_by_code_from_behind_nat,
    neighbours_at_home_find_each_other,
    two_homes_are_linked_through_the_common_member,
    joining_by_short_code_in_the_room,
    joining_by_short_code_through_the_common_member,
    a_chat_over_two_homes_through_the_relay,
    a_chat_over_a_home_and_the_open_network,
    kill_9_of_the_common_member,
    a_member_that_stands_still_is_noticed_and_comes_back,
    a_pulled_cable,
    another_address,
    a_home_cut_off_and_back,
    a_revoked_member_is_cut_off_everywhere_and_can_be_invited_again,
    kill_9_of_a_holder_in_the_midst_of_an_exchange,
]
