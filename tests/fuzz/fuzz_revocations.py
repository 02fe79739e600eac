"""Mutates revocations and reads them until the time is up: `python -m tests.fuzz.fuzz_revocations --seconds 60 --seed 1`.

Whatever comes in is read exactly or refused with a sentence; what is read and changed is refused by what it says, or its
signature does not hold. The seed and the number of the case are printed with a failure, so that it can be repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

from swarmd.domain.refusals import Forbidden
from swarmd.identity import certificates, revocations
from swarmd.identity.certificates import LINK_BYTES, Role
from swarmd.identity.keys import NetworkKey, NodeKey
from swarmd.identity.revocations import MAX_PROOF, REVOCATION_BYTES, Revocation

NOW = 1_800_000_000
NETWORK = NetworkKey(bytes([9]) * 32)
NODE = NodeKey(bytes([1]) * 32).node
INVITERS = tuple(NodeKey(bytes([100 + n]) * 32) for n in range(MAX_PROOF))
EDGES = (0, 1, 2, 3, 127, 128, 255)


def seeds() -> tuple[bytes, ...]:
    """The founder's record, and one of an inviter at every depth."""
    out = [revocations.encode(revocations.revoke(NETWORK, NODE, now=NOW))]
    proof = certificates.issue(NETWORK, node=INVITERS[0].node, role=Role.INVITER, now=NOW)
    out.append(revocations.encode(revocations.revoke(INVITERS[0], NODE, now=NOW, proof=proof)))
    for above, own in pairwise(INVITERS):
        proof = certificates.issue(above, node=own.node, role=Role.INVITER, now=NOW, parent=proof)
        out.append(revocations.encode(revocations.revoke(own, NODE, now=NOW, proof=proof)))
    return tuple(out)


def cases(records: tuple[bytes, ...], chance: random.Random) -> Iterator[bytes]:
    """Endless mutations: bytes changed, the end cut off or repeated, links exchanged between records."""
    while True:
        data = bytearray(chance.choice(records))
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            mutate(data, records, chance)
        yield bytes(data)


def mutate(data: bytearray, records: tuple[bytes, ...], chance: random.Random) -> None:
    at = chance.randrange(max(len(data), 1))
    match chance.randrange(6):
        case 0 if data:
            data[at] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at] = chance.choice(EDGES)
        case 2:
            del data[at:]
        case 3:  # a whole link more or less
            link = REVOCATION_BYTES + LINK_BYTES * chance.randrange(MAX_PROOF)
            data[link : link + LINK_BYTES * chance.randrange(2)] = chance.choice(records)[link : link + LINK_BYTES]
        case 4:  # the head of one record before the proof of another
            data[:REVOCATION_BYTES] = chance.choice(records)[:REVOCATION_BYTES]
        case _:
            data += bytes(chance.randrange(2 * LINK_BYTES))


def exercise(data: bytes, records: tuple[bytes, ...]) -> Revocation | None:
    """The record, where `data` is one. Asserts what the module says of it."""
    record = revocations.decode(data)
    if isinstance(record, Forbidden):
        assert record.sentence.isprintable()
        return None
    assert revocations.encode(record) == data
    refusal = revocations.refuse(record, network=NETWORK.network, now=NOW)
    if refusal is not None:
        assert refusal.sentence.isprintable()
    elif revocations.is_signed(record):
        # The proof is not under the signature: a longer life of the same inviter would say the same. Nothing else differs.
        assert data[:REVOCATION_BYTES] in {one[:REVOCATION_BYTES] for one in records}
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    records, accepted, number = seeds(), 0, 0
    for number, data in enumerate(cases(records, random.Random(options.seed)), start=1):
        try:
            accepted += exercise(data, records) is not None
        except BaseException:
            sys.stderr.write(f"seed {options.seed}, case {number}: {data.hex()}\n")
            raise
        if time.monotonic() > deadline:
            break
    sys.stdout.write(f"{number} records, {accepted} read, {number - accepted} refused, none held that was changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
