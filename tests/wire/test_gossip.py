"""The messages of gossip: packed and bounded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import NodeId
from swarmd.wire.frames import MAX_META
from swarmd.wire.gossip import (
    BATCH_BYTES,
    MAX_AGE_S,
    MAX_BUCKETS,
    MAX_FACTS,
    MAX_PAIRS,
    MAX_TOLD,
    Compare,
    Facts,
    Given,
    Pair,
    Told,
    Versions,
    Want,
    bucket_of,
    pack_marks,
    pack_nodes,
    pack_pairs,
    unpack_marks,
    unpack_nodes,
    unpack_pairs,
)
from swarmd.wire.messages import CODES, RETIRED, MessageError, decode, encode, message

NODES = st.binary(min_size=32, max_size=32).map(lambda key: NodeId(key.hex()))
PAIRS = st.lists(st.builds(Pair, NODES, st.integers(0, 2**63 - 1), st.booleans()))


@given(PAIRS)
def test_pairs_there_and_back(pairs: list[Pair]) -> None:
    assert unpack_pairs(pack_pairs(pairs)) == tuple(pairs)


@given(st.lists(NODES))
def test_nodes_there_and_back(nodes: list[NodeId]) -> None:
    assert unpack_nodes(pack_nodes(nodes)) == tuple(nodes)


@given(st.sampled_from([1, 2, 64, 256]).flatmap(lambda n: st.lists(st.integers(0, 2**64 - 1), min_size=n, max_size=n)))
def test_marks_there_and_back(marks: list[int]) -> None:
    assert unpack_marks(pack_marks(marks)) == tuple(marks)


@given(st.binary(max_size=200))
def test_what_is_not_whole_is_nothing(data: bytes) -> None:
    assert (unpack_pairs(data) is None) == (len(data) % 40 != 0)
    assert (unpack_nodes(data) is None) == (len(data) % 32 != 0)
    assert (unpack_marks(data) is None) == (len(data) not in (8, 16, 32, 64, 128))


@given(NODES, st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 256]))
def test_every_node_has_a_bucket_by_its_first_bits(node: NodeId, buckets: int) -> None:
    assert bucket_of(node, buckets) == int(node, 16) * buckets >> 256


@pytest.mark.parametrize(
    "value",
    [
        Facts(told=(Told(age_s=0, record=bytes(MAX_FACTS)),)),
        Facts(told=(Told(age_s=MAX_AGE_S, record=bytes(BATCH_BYTES // MAX_TOLD)),) * MAX_TOLD),
        Given(answered=MAX_TOLD, told=(Told(age_s=1, record=bytes(BATCH_BYTES // MAX_TOLD)),) * MAX_TOLD),
        Compare(marks=bytes(8 * MAX_BUCKETS)),
        Versions(differing=bytes(range(256)), pairs=bytes(40 * MAX_PAIRS)),
        Want(nodes=bytes(32 * MAX_TOLD)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_largest_of_each_fits_a_message(value: object) -> None:
    code, meta = encode(value)
    assert len(meta) <= MAX_META
    assert decode(code, meta) == value


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Facts, {"told": [[0, bytes(MAX_FACTS + 1)]]}),
        (Facts, {"told": [[0, b""]] * (MAX_TOLD + 1)}),
        (Facts, {"told": [[-1, b""]]}),
        (Facts, {"told": [[MAX_AGE_S + 1, b""]]}),
        (Facts, {"told": [[0]]}),
        (Compare, {"marks": b"1234567"}),
        (Compare, {"marks": bytes(8 * MAX_BUCKETS + 1)}),
        (Versions, {"differing": bytes(MAX_BUCKETS + 1), "pairs": b""}),
        (Versions, {"differing": b"", "pairs": bytes(40 * MAX_PAIRS + 1)}),
        (Want, {"nodes": bytes(32 * MAX_TOLD + 1)}),
        (Given, {"answered": MAX_TOLD + 1, "told": []}),
    ],
)
def test_what_is_above_its_limit_is_not_read(cls: type, fields: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        decode(CODES[cls], msgspec.msgpack.encode(fields))


@given(st.binary(max_size=300), st.sampled_from([Facts, Compare, Versions, Want, Given]))
def test_rubbish_is_refused_or_read(data: bytes, cls: type) -> None:
    try:
        value = decode(CODES[cls], data)
    except MessageError as error:
        assert str(error)
    else:
        assert isinstance(value, cls)


def test_the_code_of_the_old_summary_is_nobodys() -> None:
    assert 10 in RETIRED and 10 not in CODES.values()
    with pytest.raises(AssertionError, match="another message's"):
        message(10)(type("Summary", (), {}))
