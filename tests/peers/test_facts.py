"""The record of facts: written, read, signed, and refused."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import ModelId, NetworkId
from swarmd.domain.peers import Endpoint, Holding, ModelDemand, NodeSummary
from swarmd.domain.refusals import Forbidden
from swarmd.identity import certificates
from swarmd.identity.keys import Signed
from swarmd.peers.facts import MAX_VERSION, FactRecord, decode, fitted, is_other_layout, is_signed, make, read_summary
from swarmd.wire.gossip import MAX_FACTS
from tests.fakes.gossips import NETWORK, certificate_of, key_of, summary_of

KEY = key_of(1)
CERTIFICATE = certificates.encode(certificate_of(KEY))
BOOT, RIVAL = b"bootboot", b"rivalriv"
HELD = Holding(model=ModelId("tiny-q8-0"), layout="ab" * 16, shards=(0, 1, 5), layer_ms=0.5, loaded=(1,))
FULL = summary_of(
    KEY.node, version=7, region="DE", gpu="card", endpoints=(Endpoint("10.0.0.1", 8810),), holdings=(HELD,),
    demand=(ModelDemand(model=HELD.model, requests=3),),
)  # fmt: skip


def made(summary: NodeSummary = FULL, *, certificate: bytes = CERTIFICATE) -> bytes:
    return make(KEY, summary, network=NETWORK.network, certificate=certificate, boot=BOOT, rival=RIVAL)


def read(data: bytes) -> FactRecord:
    record = decode(data)
    assert isinstance(record, FactRecord), record
    return record


def test_there_and_back() -> None:
    record = read(made())
    assert (record.node, record.version, record.boot, record.rival) == (KEY.node, 7, BOOT, RIVAL)
    assert record.certificate == CERTIFICATE
    assert is_signed(record, network=NETWORK.network)
    assert read_summary(record) == FULL


def test_a_usual_record_is_small() -> None:
    assert len(made()) < 800
    assert len(made(summary_of(KEY.node))) < 550


def test_the_place_for_no_certificate() -> None:
    record = read(made(certificate=b""))
    assert record.certificate == b"" and is_signed(record, network=NETWORK.network) and read_summary(record) == FULL


def test_it_is_worth_nothing_in_another_network_or_after_any_change() -> None:
    data = made()
    assert not is_signed(read(data), network=NetworkId("ab" * 32))
    for at in range(1, len(data)):  # the first byte is the layout
        changed = bytearray(data)
        changed[at] ^= 1
        record = decode(bytes(changed))
        assert isinstance(record, Forbidden) or not is_signed(record, network=NETWORK.network), at


def test_another_use_of_the_key_is_no_record() -> None:
    data = made()
    body = data[:-64]
    other = body + KEY.sign(Signed.REVOCATION, bytes.fromhex(NETWORK.network) + body)
    assert not is_signed(read(other), network=NETWORK.network)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", made()[:114], made() + bytes(MAX_FACTS), made()[:33] + b"\xff" * 8 + made()[41:],
     made()[:57] + b"\xff\xff" + made()[59:], made()[:57] + (712).to_bytes(2) + made(certificate=b"")[59:350]],
    ids=["empty", "short", "cut", "long", "version", "certificate", "certificate beyond its end"],
)  # fmt: skip
def test_what_is_no_record(data: bytes) -> None:
    refusal = decode(data)
    assert isinstance(refusal, Forbidden) and refusal.sentence.isprintable()


def test_a_newer_layout_is_told_apart() -> None:
    data = b"\x02" + made()[1:]
    refusal = decode(data)
    assert isinstance(refusal, Forbidden) and "update the older node" in refusal.sentence
    assert is_other_layout(data) and not is_other_layout(made()) and not is_other_layout(b"")


def signed(summary: bytes, *, version: int = 7) -> FactRecord:
    """Whatever one may sign."""
    data = made(replace(FULL, version=version))
    start = len(data) - 64 - len(msgspec.msgpack.encode(replace(FULL, version=version)))
    body = data[:start] + summary
    return read(body + KEY.sign(Signed.NODE_FACTS, bytes.fromhex(NETWORK.network) + body))


def test_fields_of_a_newer_node_are_ignored_and_told_on() -> None:
    newer = msgspec.msgpack.decode(msgspec.msgpack.encode(FULL)) | {"mood": "good"}
    record = signed(msgspec.msgpack.encode(newer))
    assert is_signed(record, network=NETWORK.network)
    assert read_summary(record) == FULL
    assert b"mood" in record.data


def test_an_older_node_says_less() -> None:
    older = msgspec.msgpack.decode(msgspec.msgpack.encode(FULL))
    del older["demand"]
    assert read_summary(signed(msgspec.msgpack.encode(older))) == replace(FULL, demand=())


@pytest.mark.parametrize(
    "summary",
    [b"", b"\xc1", b"\x91" * 5000, msgspec.msgpack.encode({"node": KEY.node}), msgspec.msgpack.encode([1]),
     msgspec.msgpack.encode(replace(FULL, node=key_of(2).node)), msgspec.msgpack.encode(replace(FULL, version=8)),
     msgspec.msgpack.encode(replace(FULL, region="a\nb")), msgspec.msgpack.encode(replace(FULL, ram_free_bytes=-1))],
    ids=["empty", "not msgpack", "nested", "fields missing", "a list", "another node", "another version", "text", "numbers"],
)  # fmt: skip
def test_a_summary_that_cannot_be(summary: bytes) -> None:
    refusal = read_summary(signed(summary))
    assert isinstance(refusal, Forbidden) and refusal.sentence.isprintable()


def test_a_version_keeps_its_highest_bit_free() -> None:
    assert read(made(replace(FULL, version=MAX_VERSION))).version == MAX_VERSION


def test_one_too_large_is_not_made() -> None:
    with pytest.raises(ValueError, match="are allowed"):
        made(replace(FULL, software="x" * MAX_FACTS))


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=60))
def test_what_is_made_to_fit_fits(sizes: list[tuple[int, bool]]) -> None:
    holdings = tuple(
        replace(HELD, model=ModelId(f"m{number}"), shards=tuple(range(size)), loaded=(0,) if loaded else ())
        for number, (size, loaded) in enumerate(sizes)
    )
    whole = replace(FULL, holdings=holdings)
    small = fitted(whole)
    chain = b"x" * certificates.MAX_BYTES
    assert len(made(small, certificate=chain)) <= MAX_FACTS
    assert [one for one in holdings if one in small.holdings] == list(small.holdings), "in their order"
    if len(msgspec.msgpack.encode(whole)) < MAX_FACTS - 1000:
        assert small is whole


def test_what_is_loaded_is_told_first() -> None:
    wide = replace(HELD, shards=tuple(range(300)), loaded=())
    cold = tuple(replace(wide, model=ModelId(f"cold{number}")) for number in range(100))
    warm = tuple(replace(wide, model=ModelId(f"warm{number}"), loaded=(7,)) for number in range(5))
    small = fitted(replace(FULL, holdings=(*cold, *warm)))
    assert set(warm) < set(small.holdings) and len(small.holdings) < 100


@given(st.binary(max_size=400))
def test_rubbish_is_refused_or_read(data: bytes) -> None:
    outcome = decode(data)
    if isinstance(outcome, FactRecord):
        assert not is_signed(outcome, network=NETWORK.network)
    else:
        assert outcome.sentence.isprintable()


@given(st.binary(max_size=300))
def test_a_signed_rubbish_summary_is_refused(summary: bytes) -> None:
    assert isinstance(read_summary(signed(summary)), Forbidden)
