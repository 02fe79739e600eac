"""What is believed of what is told about nodes, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NetworkId, NodeId
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.kit.world import DEFAULT_START
from swarmd.peers import facts
from swarmd.peers.fact_table import (
    FORGET_S,
    PRESENT_S,
    RECORDS_BURST,
    RECORDS_PER_S,
    TOLD_S,
    FactTable,
    Outcome,
    Verdict,
)
from swarmd.wire.gossip import BATCH_BYTES, MAX_BUCKETS, MAX_FACTS, MAX_TOLD, bucket_of
from tests.fakes.gossips import NETWORK, certificate_of, key_of, summary_of

OWN, A, B, C = (key_of(number) for number in (10, 11, 12, 13))
NOW_MS = int(DEFAULT_START * 1000)
DAY_MS = 24 * 3600 * 1000


@dataclass
class HandClock:
    seconds: float = 0.0

    def now(self) -> float:
        return DEFAULT_START + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def ticks(self) -> float:
        return self.seconds


@dataclass
class Scene:
    own: NodeKey = OWN
    max_nodes: int = 2000
    clock: HandClock = field(default_factory=HandClock)
    network: NetworkId | None = NETWORK.network
    revoked: set[NodeId] = field(default_factory=set)
    linked: set[NodeId] = field(default_factory=set)
    is_open: bool = False
    table: FactTable = field(init=False)

    def __post_init__(self) -> None:
        self.table = FactTable(
            own=self.own.node, network=lambda: self.network, revoked=lambda one: one.node in self.revoked,
            bare=lambda node: self.is_open and node not in self.revoked,
            linked=self.linked.__contains__, clock=self.clock, max_nodes=self.max_nodes,
        )  # fmt: skip

    def hear(self, data: bytes, *, age_s: float = 0.0) -> Verdict:
        return self.outcome(data, age_s=age_s).verdict

    def outcome(self, data: bytes, *, age_s: float = 0.0) -> Outcome:
        return self.table.hear(data, age_s=age_s)

    def version(self, key: NodeKey) -> int | None:
        known = self.table.known(key.node)
        return None if known is None else known.record.version

    def present(self, key: NodeKey) -> bool:
        known = self.table.known(key.node)
        return known is not None and self.table.is_present(known)


def record(
    key: NodeKey, version: int = 1, *, shown: Certificate | bytes | None = None, network: NetworkId = NETWORK.network,
    boot: bytes = b"boot0000", rival: bytes = facts.NO_RIVAL, **said: Any,
) -> bytes:  # fmt: skip
    """`version`: milliseconds after NOW."""
    shown = certificate_of(key) if shown is None else shown
    encoded = shown if isinstance(shown, bytes) else certificates.encode(shown)
    summary = summary_of(key.node, version=NOW_MS + version, **said)
    return facts.make(key, summary, network=network, certificate=encoded, boot=boot, rival=rival)


def test_the_newest_wins_and_no_other() -> None:
    scene = Scene()
    assert scene.hear(record(A, 5)) is Verdict.NEWS
    assert scene.hear(record(A, 5)) is Verdict.OLD
    assert scene.hear(record(A, 4)) is Verdict.OLD
    assert scene.hear(record(A, 6)) is Verdict.NEWS
    assert scene.version(A) == NOW_MS + 6 and len(scene.table) == 1


def test_a_sign_of_life_is_told_apart_from_a_change() -> None:
    scene = Scene()
    assert scene.outcome(record(A, 1)).changed
    assert not scene.outcome(record(A, 2)).changed
    assert scene.outcome(record(A, 3, region="DE")).changed
    scene.table.doubt(A.node)
    assert scene.outcome(record(A, 4, region="DE")).changed, "it is there after all"


def test_forged_is_what_its_node_did_not_sign() -> None:
    scene = Scene()
    good = record(A, 5)
    endless = b"\x01" + bytes(MAX_FACTS)
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:41] + b"other" + good[46:], good[:90], b"", endless):
        assert scene.hear(bad) is Verdict.FORGED
    higher = good[:33] + (NOW_MS + 99).to_bytes(8) + good[41:]
    assert scene.hear(higher) is Verdict.FORGED
    assert scene.hear(good) is Verdict.NEWS, "the forged one has not taken its place"


def test_a_newer_layout_is_nobodys_lie() -> None:
    assert Scene().hear(b"\x07" + record(A)[1:]) is Verdict.REFUSED


def test_only_members_are_believed() -> None:
    scene = Scene()
    others = NetworkKey(bytes([7]) * 32)
    theirs = certificates.issue(others, node=A.node, role=certificates.Role.MEMBER, now=DEFAULT_START)
    late = certificate_of(A, now=DEFAULT_START - 1000, life_s=900)
    early = certificate_of(A, now=DEFAULT_START + 2 * 24 * 3600)
    for shown in (theirs, late, early, certificate_of(B), replace(certificate_of(A), signature=bytes(64)), b"", b"x" * 178):
        outcome = scene.outcome(record(A, shown=shown))
        assert outcome.verdict is Verdict.REFUSED and outcome.why.isprintable(), shown
    assert scene.hear(record(A, network=others.network)) is Verdict.FORGED, "signed for another network"
    assert len(scene.table) == 0
    assert scene.hear(record(A)) is Verdict.NEWS, "none of that was held against it"


def test_who_was_put_out_is_not_believed_and_forgotten_at_once() -> None:
    scene = Scene()
    scene.hear(record(A, 1))
    scene.hear(record(B, 1))
    scene.linked.add(A.node)
    scene.revoked.add(A.node)
    assert scene.hear(record(A, 2)) is Verdict.REFUSED
    assert scene.table.forget() == (A.node,)
    assert list(scene.table) == [B.node]


def test_a_certificate_that_was_believed_must_still_hold() -> None:
    scene = Scene()
    shown = certificate_of(A, now=DEFAULT_START - 10, life_s=100)
    assert scene.hear(record(A, 1, shown=shown)) is Verdict.NEWS
    assert scene.hear(record(A, 2, shown=shown)) is Verdict.NEWS
    scene.clock.seconds = 95
    assert scene.hear(record(A, 3, shown=shown)) is Verdict.REFUSED
    assert scene.hear(record(A, 3)) is Verdict.NEWS, "a new one"


def test_a_version_from_the_future_is_not_believed() -> None:
    scene = Scene()
    assert scene.hear(record(A, DAY_MS + 1000)) is Verdict.REFUSED
    assert scene.hear(record(A, DAY_MS - 1000)) is Verdict.NEWS
    scene = Scene()
    assert scene.hear(record(A, 10 * DAY_MS)) is Verdict.REFUSED
    assert scene.hear(record(A, 1)) is Verdict.NEWS, "once its clock is right it is heard"


def test_what_a_node_cannot_be_is_held_against_it_and_not_asked_for_again() -> None:
    scene, other = Scene(), Scene(own=B)
    bad = record(A, 3, software="a\nb")
    outcome = scene.outcome(bad)
    assert outcome.verdict is Verdict.UNSOUND and outcome.record is not None and outcome.record.node == A.node
    assert scene.hear(bad) is Verdict.OLD
    (pair,) = scene.table.pairs((0,), buckets=1)
    assert pair.dismissed and other.table.lacking((pair,)) == ()
    assert scene.hear(record(A, 4)) is Verdict.NEWS


def test_a_node_that_says_something_new_without_end_is_heard_slowly() -> None:
    scene = Scene()
    verdicts = [scene.hear(record(A, version, region=f"{version}")) for version in range(1, RECORDS_BURST + 30)]
    assert verdicts.count(Verdict.NEWS) == RECORDS_BURST + 1 and set(verdicts) == {Verdict.NEWS, Verdict.LATER}
    assert scene.hear(record(B)) is Verdict.NEWS, "others are heard"
    scene.clock.seconds += 2 / RECORDS_PER_S
    assert [scene.hear(record(A, version)) for version in (100, 101, 102)] == [Verdict.NEWS, Verdict.NEWS, Verdict.LATER]


def test_a_network_begins_with_nothing_known() -> None:
    scene = Scene()
    scene.hear(record(A))
    scene.network = NetworkId("ab" * 32)
    assert scene.hear(record(A, 2)) is Verdict.FORGED
    assert len(scene.table) == 0
    scene.network = None
    assert scene.hear(record(A, 2)) is Verdict.REFUSED


# ---- how long


def test_a_silent_node_is_there_for_a_while_and_known_for_longer() -> None:
    scene = Scene()
    scene.hear(record(A), age_s=10)
    for seconds, present, known in ((0, True, True), (PRESENT_S - 11, True, True), (PRESENT_S - 10, False, True),
                                    (FORGET_S - 11, False, True), (FORGET_S - 10, False, False)):  # fmt: skip
        scene.clock.seconds = seconds
        scene.table.forget()
        assert (scene.present(A), A.node in scene.table) == (present, known), seconds
    assert scene.hear(record(A)) is Verdict.OLD, "nobody can bring it back with what it said"
    assert scene.hear(record(A, 2)) is Verdict.NEWS


def test_a_linked_node_is_not_forgotten() -> None:
    scene = Scene()
    scene.hear(record(A))
    scene.linked.add(A.node)
    scene.clock.seconds = 10 * FORGET_S
    assert scene.table.forget() == () and A.node in scene.table


def test_a_node_whose_link_went_is_doubted_until_it_says_something() -> None:
    scene = Scene()
    scene.hear(record(A))
    scene.table.doubt(A.node)
    scene.table.doubt(B.node)
    assert not scene.present(A)
    scene.hear(record(A, 2))
    assert scene.present(A)


def test_nobody_gets_back_what_it_has_just_forgotten() -> None:
    """A chain of nodes, each of which asks the one before it a moment before that one forgets."""
    scenes = [Scene(own=key_of(100 + number), clock=HandClock()) for number in range(30)]
    for scene in scenes[1:]:
        scene.clock = scene.table._clock = scenes[0].clock
    scenes[0].hear(record(A))
    for earlier, later in pairwise(scenes):
        scenes[0].clock.seconds += FORGET_S / 10
        for told in earlier.table.tell([A.node])[1]:
            later.hear(told.record, age_s=told.age_s)
    for scene in scenes:
        scene.table.forget()
    assert scenes[0].clock.seconds > 2 * FORGET_S
    assert not any(A.node in scene.table for scene in scenes)
    assert sum(scene.hear(record(A), age_s=TOLD_S) is Verdict.NEWS for scene in scenes) == 0


# ---- room


def test_who_is_there_is_pushed_out_by_nobody() -> None:
    scene = Scene(max_nodes=3)
    for key in (A, B, C):
        assert scene.hear(record(key)) is Verdict.NEWS
    late = key_of(99)
    assert scene.hear(record(late)) is Verdict.REFUSED
    assert scene.hear(record(A, 2)) is Verdict.NEWS
    scene.clock.seconds = PRESENT_S
    scene.linked.add(B.node)
    scene.hear(record(A, 3))
    assert scene.hear(record(late)) is Verdict.NEWS, "C has not been heard for long"
    assert set(scene.table) == {A.node, B.node, late.node}
    near = key_of(98)
    scene.linked |= {near.node, A.node}
    assert scene.hear(record(near)) is Verdict.NEWS, "a neighbour takes the place of one far away"
    assert set(scene.table) == {A.node, B.node, near.node}
    scene.linked.add(C.node)
    assert scene.hear(record(C, 5)) is Verdict.REFUSED, "there are only neighbours left"


def test_a_full_table_asks_for_nobody_new() -> None:
    scene, other = Scene(max_nodes=1), Scene(own=B)
    scene.hear(record(A))
    other.hear(record(A, 2))
    other.hear(record(C))
    assert scene.table.lacking(other.table.pairs((0,), buckets=1)) == (A.node,)


def test_what_was_dismissed_is_bounded() -> None:
    scene = Scene(max_nodes=4)
    for number in range(1, 10):
        scene.hear(record(key_of(number), software="\n"))
    assert len(scene.table.pairs((0,), buckets=1)) == 4


# ---- telling


def test_a_message_is_bounded_in_records_and_bytes() -> None:
    scene = Scene()
    keys = [key_of(1000 + number) for number in range(MAX_TOLD + 5)]
    for key in keys:
        scene.hear(record(key))
    nodes = [key.node for key in keys]
    answered, told = scene.table.tell(nodes)
    assert (answered, len(told)) == (MAX_TOLD, MAX_TOLD)
    assert scene.table.tell([B.node, nodes[0]])[0] == 2, "looked at, though there is nothing to tell"
    wide = Scene()
    for key in keys[:10]:
        wide.hear(big(key))
    answered, told = wide.table.tell(nodes[:10])
    assert 1 < answered < 10 and sum(len(one.record) for one in told) <= BATCH_BYTES


def big(key: NodeKey) -> bytes:
    """A record near the limit: a newer node says much that we do not know."""
    small = record(key)
    shown = len(certificates.encode(certificate_of(key)))
    head, summary = small[: 59 + shown], msgspec.msgpack.decode(small[59 + shown : -64])
    body = head + msgspec.msgpack.encode(summary | {"mood": "x" * (MAX_FACTS - 1000)})
    return body + key.sign(facts.Signed.NODE_FACTS, bytes.fromhex(NETWORK.network) + body)


def test_ages_are_told() -> None:
    scene = Scene()
    scene.hear(record(A), age_s=20)
    scene.table.keep_own(record(OWN), summary_of(OWN.node))
    scene.clock.seconds = 30
    assert [one.age_s for one in scene.table.tell([A.node, OWN.node])[1]] == [50, 0]
    scene.clock.seconds = TOLD_S
    assert [one.age_s for one in scene.table.tell([A.node, OWN.node])[1]] == [0]


def test_our_own_record_from_another_run_is_ours_to_judge() -> None:
    scene = Scene()
    ours = record(OWN, 5)
    scene.table.keep_own(ours, summary_of(OWN.node))
    assert scene.hear(ours) is Verdict.OLD
    assert scene.hear(record(OWN, 4)) is Verdict.OLD, "this run said so"
    assert scene.hear(record(OWN, 4, boot=b"another1")) is Verdict.OURS
    assert scene.hear(record(OWN, 6)) is Verdict.OURS, "this run did not say so"
    forged = record(OWN, 9, boot=b"another1")
    assert scene.hear(forged[:-1] + bytes([forged[-1] ^ 1])) is Verdict.FORGED
    assert scene.version(OWN) == NOW_MS + 5


# ---- two tables


def compared(asker: Scene, answerer: Scene) -> int:
    """One comparison without a wire, as `gossip` does it. Returns how many records travelled."""
    buckets = asker.table.buckets()
    ours = answerer.table.marks(buckets)
    differing = [at for at, mark in enumerate(asker.table.marks(buckets)) if mark != ours[at]]
    pairs = answerer.table.pairs(differing, buckets=buckets)
    ahead, lacking = asker.table.ahead(pairs, differing, buckets=buckets), asker.table.lacking(pairs)
    for nodes, here, there in ((ahead, asker, answerer), (lacking, answerer, asker)):
        while nodes:
            answered, told = here.table.tell(nodes)
            nodes = nodes[answered:]
            for one in told:
                there.hear(one.record, age_s=one.age_s)
    return len(ahead) + len(lacking)


POOL = [key_of(number) for number in range(200, 206)]
RECORDS = {(number, version): record(key, version) for number, key in enumerate(POOL) for version in range(4)}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(RECORDS))), max_size=60),
    st.permutations([(0, 1), (1, 2), (2, 3)]),
)
def test_any_order_with_losses_and_duplicates_ends_with_the_newest_of_each(
    deliveries: list[tuple[int, tuple[int, int]]], order: list[tuple[int, int]]
) -> None:
    """Four nodes in a line: whatever arrived where, comparing along the line makes all four know the newest of each."""
    scenes = [Scene(own=key_of(300 + number)) for number in range(4)]
    newest: dict[int, int] = {}
    for at, (number, version) in deliveries:
        scenes[at].hear(RECORDS[number, version])
        newest[number] = max(version, newest.get(number, 0))
    for _ in range(3):
        for one, other in order:
            compared(scenes[one], scenes[other])
    for scene in scenes:
        assert {number: scene.version(POOL[number]) for number in newest} == {
            number: NOW_MS + version for number, version in newest.items()
        }
        assert len(scene.table) == len(newest)
    assert [compared(one, other) for one, other in pairwise(scenes)] == [0, 0, 0], "and then nothing travels"


def test_marks_show_where_two_tables_differ() -> None:
    one, other = Scene(), Scene()
    for number in range(1, 100):
        one.hear(record(key_of(number)))
        other.hear(record(key_of(number)))
    buckets = one.table.buckets()
    assert 16 <= buckets <= 32 and buckets & (buckets - 1) == 0
    assert one.table.marks(buckets) == other.table.marks(buckets)
    other.hear(record(key_of(50), 2))
    pairs = zip(one.table.marks(buckets), other.table.marks(buckets), strict=True)
    differing = [at for at, (ours, theirs) in enumerate(pairs) if ours != theirs]
    assert differing == [bucket_of(key_of(50).node, buckets)]
    assert compared(one, other) == 1 and one.version(key_of(50)) == NOW_MS + 2


@pytest.mark.parametrize(("nodes", "buckets"), [(0, 1), (7, 1), (8, 2), (100, 32), (1024, 256), (2000, MAX_BUCKETS)])
def test_marks_grow_with_the_table(nodes: int, buckets: int) -> None:
    scene = Scene()
    scene.table._known = dict.fromkeys(range(nodes))  # type: ignore[assignment]
    assert scene.table.buckets() == buckets


def test_in_an_open_network_a_signature_is_enough_until_the_founder_puts_the_node_out() -> None:
    scene = Scene(is_open=True)
    assert scene.hear(record(A, 5, shown=b"")) is Verdict.NEWS
    assert scene.hear(record(B, 5)) is Verdict.NEWS, "a certificate is as good there"
    forged = bytearray(record(A, 6, shown=b""))
    forged[-1] ^= 1
    assert scene.hear(bytes(forged)) is Verdict.FORGED
    scene.revoked.add(A.node)
    assert scene.table.forget() == (A.node,)
    assert scene.hear(record(A, 7, shown=b"")) is not Verdict.NEWS


def test_in_a_network_of_invited_nodes_nobody_is_believed_without_a_certificate() -> None:
    scene = Scene()
    assert scene.hear(record(A, 5, shown=b"")) is Verdict.REFUSED
