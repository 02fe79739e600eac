"""Mutates records of facts and the messages that carry them until the time is up: `python -m tests.fuzz.fuzz_gossip`.

    python -m tests.fuzz.fuzz_gossip --seconds 60 --seed 1

Half of the mutated records are signed anew, so that what lies behind the signature is reached as well. Whatever comes in,
the table answers with a verdict, a message is decoded or refused, and what was kept can be told on and is believed by
another node. The seed and the number of the case are printed with a failure.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from swarmd.domain.ids import ModelId
from swarmd.domain.peers import Endpoint, Holding, ModelDemand
from swarmd.identity import certificates
from swarmd.identity.keys import SIGNATURE_BYTES, Signed
from swarmd.kit.world import DEFAULT_START
from swarmd.peers import facts
from swarmd.peers.fact_table import FactTable, Verdict
from swarmd.wire.gossip import (
    Compare,
    Facts,
    Given,
    Told,
    Versions,
    Want,
    pack_pairs,
    unpack_marks,
    unpack_nodes,
    unpack_pairs,
)
from swarmd.wire.messages import CODES, MessageError, decode, encode
from tests.fakes.gossips import NETWORK, certificate_of, key_of, summary_of

KEY, OWN = key_of(1), key_of(2)
CHAIN = certificates.encode(certificate_of(KEY))


@dataclass
class StandingClock:
    seconds: float = field(default=0.0)

    def now(self) -> float:
        return DEFAULT_START + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def ticks(self) -> float:
        return self.seconds


def seeds() -> tuple[bytes, ...]:
    """Valid records: a short and a full one, and one without a certificate."""
    held = Holding(model=ModelId("tiny-q8-0"), layout="ab" * 16, shards=(0, 1, 5), layer_ms=0.5, loaded=(1,))
    full = summary_of(
        KEY.node, version=7, region="DE", gpu="card", endpoints=(Endpoint("10.0.0.1", 8810),), holdings=(held, held),
        demand=(ModelDemand(model=held.model, requests=3),),
    )  # fmt: skip
    said = (summary_of(KEY.node, version=7), full)
    return tuple(
        facts.make(KEY, one, network=NETWORK.network, certificate=chain, boot=bytes(8))
        for one in said
        for chain in (CHAIN, b"")
    )


def cases(records: tuple[bytes, ...], chance: random.Random) -> Iterator[bytes]:
    """Endless mutations: bits flipped, the end cut off, pieces moved, dropped, repeated; every second one signed again."""
    while True:
        data = bytearray(chance.choice(records))
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            mutate(data, chance)
        if chance.random() < 0.5 and len(data) > SIGNATURE_BYTES:
            body = bytes(data[:-SIGNATURE_BYTES])
            yield body + KEY.sign(Signed.NODE_FACTS, bytes.fromhex(NETWORK.network) + body)
        else:
            yield bytes(data)


def mutate(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(max(len(data), 1))
    match chance.randrange(5):
        case 0:
            for _ in range(chance.randint(1, 8)):
                if data:
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at : at + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC1, 0xCF, 0xDC, 0xDF, 0xFF))])
        case 3:
            piece = data[at : at + chance.randint(1, 64)]
            where = chance.randrange(len(data) + 1)
            data[where:where] = piece * chance.choice((1, 1, 100))
        case _:
            del data[at : at + chance.randint(1, 64)]


def exercise(data: bytes) -> Verdict:
    """Everything that may happen to a record from outside; any exception is a bug."""
    heard, other = table(), table()
    outcome = heard.hear(data, age_s=0)
    assert outcome.why.isprintable(), outcome
    if outcome.verdict is Verdict.NEWS:
        assert outcome.record is not None
        _, told = heard.tell([outcome.record.node])
        assert [other.hear(one.record, age_s=one.age_s).verdict for one in told] == [Verdict.NEWS]
        assert heard.marks(4) == other.marks(4)
    exercise_messages(data)
    return outcome.verdict


def exercise_messages(data: bytes) -> None:
    """The bytes as the typed part of each message, and as the packed parts inside."""
    for cls in (Facts, Compare, Versions, Want, Given):
        try:
            value = decode(CODES[cls], data)
        except MessageError:
            continue
        assert decode(*encode(value)) == value
    if (pairs := unpack_pairs(data)) is not None:
        assert pack_pairs(pairs) == data
        known = table()
        assert set(known.lacking(pairs)) <= {pair.node for pair in pairs}
        assert known.ahead(pairs, (0,), buckets=1) == ()
    unpack_nodes(data)
    unpack_marks(data)
    if len(data) <= 16 * 1024:
        told = msgspec.msgpack.encode({"told": [[0, data]], "hints": data[:40]})
        assert isinstance(decode(CODES[Facts], told), Facts)
        assert Told(age_s=0, record=data).record == data


def table() -> FactTable:
    return FactTable(
        own=OWN.node, network=lambda: NETWORK.network, revoked=lambda _: False, bare=lambda _: False, linked=lambda _: False,
        clock=StandingClock(),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    counts = dict.fromkeys(Verdict, 0)
    for number, data in enumerate(cases(seeds(), random.Random(options.seed)), start=1):
        try:
            counts[exercise(data)] += 1
        except BaseException:
            sys.stderr.write(f"seed {options.seed}, case {number}: {data.hex()}\n")
            raise
        if time.monotonic() > deadline:
            break
    found = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    sys.stdout.write(f"{found}, none crashed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
