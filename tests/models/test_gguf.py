from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.models.ggml import TENSOR_TYPES
from swarmd.models.gguf import (
    ALIGNMENT_KEY,
    BadGguf,
    GgufHeader,
    GgufLimits,
    HeaderParser,
    encode_header,
    padded,
    parse_header,
    place_tensors,
)
from swarmd.models.gguf_values import Value, ValueType, number_array, number_value, string_array, text_value
from tests.fakes.gguf import TinyModel, handmade, pair, rich_header, string, tensor, tokens, write_model

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
SCALARS = st.one_of(
    st.builds(number_value, st.just(ValueType.UINT32), st.integers(0, 2**32 - 1)),
    st.builds(number_value, st.just(ValueType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.builds(number_value, st.just(ValueType.FLOAT32), st.floats(width=32)),
    st.builds(number_value, st.just(ValueType.BOOL), st.booleans()),
    st.builds(text_value, st.text(max_size=30)),
)
ARRAYS = st.one_of(
    st.builds(string_array, st.lists(st.binary(max_size=12), max_size=8).map(tuple)),
    st.builds(number_array, st.just(ValueType.INT16), st.lists(st.integers(-(2**15), 2**15 - 1), max_size=8).map(tuple)),
    st.builds(number_array, st.just(ValueType.BOOL), st.lists(st.booleans(), max_size=8).map(tuple)),
)
METADATA = st.dictionaries(NAMES.filter(lambda name: name != ALIGNMENT_KEY), SCALARS | ARRAYS, max_size=8)
ROWS = st.lists(
    st.tuples(NAMES, st.lists(st.integers(1, 5), max_size=3), st.integers(1, 3), st.sampled_from(sorted(TENSOR_TYPES))),
    max_size=6,
    unique_by=lambda row: row[0],
)


def headers(
    metadata: dict[str, Value], rows: list[tuple[str, list[int], int, int]], power: int
) -> tuple[bytes, dict[str, Value]]:
    metadata = {**metadata, ALIGNMENT_KEY: number_value(ValueType.UINT32, 1 << power)}
    placed = place_tensors(
        ((name, (blocks * TENSOR_TYPES[kind].block_elements, *dims), kind) for name, dims, blocks, kind in rows),
        alignment=1 << power,
    )
    return encode_header(metadata=metadata, tensors=placed), metadata


@given(METADATA, ROWS, st.integers(3, 16), st.data())
def test_what_is_written_is_read_whatever_the_pieces(
    metadata: dict[str, Value], rows: list[tuple[str, list[int], int, int]], power: int, data: st.DataObject
) -> None:
    encoded, metadata = headers(metadata, rows, power)
    header = parse_header(encoded)
    assert list(header.metadata.items()) == list(metadata.items())
    assert [(row.name, row.type) for row in header.tensors] == [(name, kind) for name, _, _, kind in rows]
    assert (header.alignment, header.data_offset) == (1 << power, len(encoded))
    assert encode_header(metadata=header.metadata, tensors=header.tensors) == encoded
    size = data.draw(st.integers(1, 64))
    parser = HeaderParser()
    found = [parser.feed(encoded[start : start + size]) for start in range(0, len(encoded), size)]
    assert found[-1] == header


def test_a_file_of_the_gguf_package_reads_as_that_package_reads_it(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", TinyModel(layers=2, tokenizer=True))
    data = path.read_bytes()
    header = parse_header(data, file_size_bytes=len(data))
    theirs = gguf.GGUFReader(path)
    assert header.data_offset == theirs.data_offset
    assert [
        (row.name, row.dims, row.type, header.data_offset + row.offset_bytes, row.size_bytes) for row in header.tensors
    ] == [
        (row.name, tuple(int(dim) for dim in row.shape), row.tensor_type.value, int(row.data_offset), int(row.n_bytes))
        for row in theirs.tensors
    ]
    assert [token.decode() for token in header.metadata["tokenizer.ggml.tokens"].strings()] == list(tokens())
    assert header.text("tokenizer.ggml.model") == "gpt2"
    assert header.integer("llama.block_count") == 2
    assert (header.integer("nothing"), header.text("nothing"), header.integers("nothing")) == (None, None, None)
    assert header.integers("tokenizer.ggml.token_type") is not None
    assert encode_header(metadata=header.metadata, tensors=header.tensors) == data[: header.data_offset]


def test_every_value_type_is_read() -> None:
    header = parse_header(rich_header())
    scalars = [header.metadata[f"test.scalar{kind}"].numbers()[0] for kind in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12)]
    assert scalars == [254, -2, 65534, -2, 0x04030201, -0xFCFDFF, 1.5, True, 0x0101010101010101, -1, -0.25]
    assert list(header.metadata["test.words"].strings()) == [b"a", b"bc", b"\xff\xfe", b"", "Ġthe".encode()]
    assert header.integers("test.numbers") == tuple(range(6))
    assert header.metadata["test.flags"].numbers() == (False, True, True)
    assert header.metadata["test.nothing"].count == 0
    assert [row.size_bytes for row in header.tensors] == [680, 864, 256]


def test_version_2_is_read_and_written_again() -> None:
    data = handmade([pair("a", 0, b"\x01")], version=2)
    header = parse_header(data)
    assert header.version == 2
    assert encode_header(metadata=header.metadata, tensors=(), version=2).rstrip(b"\0") == data.rstrip(b"\0")


def test_wrong_kinds_are_named() -> None:
    header = parse_header(rich_header())
    for ask, key, words in (
        (header.integer, "test.words", "array of 5 STRING"),
        (header.integer, "test.scalar6", "1.5 as FLOAT32"),
        (header.integers, "test.scalar4", "UINT32"),
        (header.text, "test.scalar7", "True as BOOL"),
        (header.integer, "general.architecture", "'llama'"),
    ):
        with pytest.raises(BadGguf, match=f"{key}.*{words}"):
            ask(key)


def test_a_string_that_is_no_utf8_is_shown_and_kept() -> None:
    header = parse_header(handmade([pair("a", 8, string(b"x\xffy"))]))
    assert header.text("a") == "x\ufffdy"
    assert header.metadata["a"].encoded().endswith(b"x\xffy")


def rows(*kinds: tuple[str, tuple[int, ...], int, int]) -> bytes:
    return handmade([], [tensor(*kind) for kind in kinds])


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return handmade([pair("a", 9, struct.pack("<IQ", kind, count) + data)])


def alignment(kind: int, payload: bytes) -> bytes:
    return handmade([pair(ALIGNMENT_KEY, kind, payload)])


HUGE = (1 << 64) - 1
HOSTILE = {
    "magic": (handmade(magic=b"GGML"), "b'GGML'"),
    "version 1": (handmade(version=1), "version 1 "),
    "version 4": (handmade(version=4), "version 4 "),
    "big-endian": (handmade(version=3 << 24), "big-endian"),
    "too many keys": (handmade(pair_count=HUGE), f"{HUGE} metadata keys"),
    "too many tensors": (handmade(tensor_count=HUGE), f"{HUGE} tensors"),
    "key without end": (handmade([struct.pack("<Q", HUGE)]), f"{HUGE} bytes"),
    "empty key": (handmade([pair("", 0, b"\0")]), "has 0 bytes"),
    "key with a zero byte": (handmade([pair("a\0b", 0, b"\0")]), "printable"),
    "key beyond ASCII": (handmade([pair("é", 0, b"\0")]), "printable"),
    "the same key twice": (handmade([pair("a", 0, b"\0"), pair("a", 0, b"\0")]), "'a' is there twice"),
    "value type": (handmade([pair("a", 13, b"\0")]), "value type 13"),
    "value type of an array": (array(4_000_000_000, 1), "value type 4000000000"),
    "array of arrays": (array(9, 1), "array of arrays"),
    "array too long": (array(0, HUGE), f"array of {HUGE} elements"),
    "array beyond the cap": (array(12, 1 << 22, b"\0" * 64), "GB|bytes"),
    "strings beyond the file": (array(8, 1000, b"\0" * 64), "bytes"),
    "string without end": (handmade([pair("a", 8, struct.pack("<Q", HUGE))]), f"string of {HUGE} bytes"),
    "token without end": (array(8, 1, struct.pack("<Q", 1 << 50)), f"string of {1 << 50} bytes"),
    "bool": (handmade([pair("a", 7, b"\2")]), "neither 0 nor 1"),
    "bools": (array(7, 2, b"\0\xff"), "neither 0 nor 1"),
    "alignment 0": (alignment(4, b"\0" * 4), "0 as UINT32"),
    "alignment 4": (alignment(4, b"\4\0\0\0"), "4 as UINT32"),
    "alignment 48": (alignment(4, b"\x30\0\0\0"), "48 as UINT32"),
    "alignment 131072": (alignment(4, b"\0\0\2\0"), "131072"),
    "alignment of another type": (alignment(10, b"\x20" + b"\0" * 7), "32 as UINT64"),
    "alignment as text": (alignment(8, string("32")), "the string '32'"),
    "tensor name too long": (rows(("n" * 64, (1,), 0, 0)), "64 bytes, allowed are 1 to 63"),
    "tensor name with a line end": (rows(("a\nb", (1,), 0, 0)), "printable"),
    "the same tensor twice": (rows(("a", (1,), 0, 0), ("a", (1,), 0, 32)), "'a' is there twice"),
    "no dimensions": (rows(("a", (), 0, 0)), "0 dimensions"),
    "five dimensions": (rows(("a", (1, 1, 1, 1, 1), 0, 0)), "5 dimensions"),
    "dimension 0": (rows(("a", (4, 0), 0, 0)), "impossible dimensions"),
    "negative dimension": (rows(("a", (HUGE,), 0, 0)), "impossible dimensions"),
    "overflowing product": (rows(("a", (1 << 32, 1 << 32, 1 << 32), 0, 0)), "impossible dimensions"),
    "overflowing bytes": (rows(("a", (1 << 62,), 0, 0)), "nothing can hold"),
    "overflowing sum": (rows(("a", (1 << 60,), 0, 0), ("b", (1 << 60,), 0, 1 << 62)), "nothing can hold"),
    "unknown tensor type": (rows(("a", (32,), 4, 0)), "tensor type 4"),
    "row inside a block": (rows(("a", (33,), 8, 0)), "row of 33"),
    "first offset": (rows(("a", (1,), 0, 32)), "starts at 32 and has to start at 0"),
    "gap": (rows(("a", (1,), 0, 0), ("b", (1,), 0, 64)), "starts at 64 and has to start at 32"),
    "overlap": (rows(("a", (64,), 0, 0), ("b", (1,), 0, 32)), "starts at 32 and has to start at 256"),
    "unaligned": (rows(("a", (1,), 0, 0), ("b", (1,), 0, 4)), "starts at 4 and"),
}


@pytest.mark.parametrize(("data", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_are_refused_with_what_is_wrong(data: bytes, words: str) -> None:
    with pytest.raises(BadGguf, match=words) as caught:
        parse_header(data)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400 and "\n" not in message
    with pytest.raises(BadGguf):
        parse_header(data, file_size_bytes=len(data) + 100)


def test_tensors_behind_the_end_of_the_file() -> None:
    data = rich_header()
    start = parse_header(data).data_offset
    end = start + 1568 + 256
    assert parse_header(data, file_size_bytes=end).data_offset == start
    with pytest.raises(BadGguf, match=rf"'output_norm.weight' ends at byte {end} of a file of {end - 1}"):
        parse_header(data, file_size_bytes=end - 1)


def test_a_length_that_passes_the_end_of_the_file_is_refused_before_its_bytes_are_there() -> None:
    data = handmade([pair("a", 9, struct.pack("<IQ", 4, 1_000_000))])
    assert HeaderParser().feed(data) is None
    with pytest.raises(BadGguf, match="key 'a' would end at byte"):
        HeaderParser(file_size_bytes=4096).feed(data)


def test_a_short_file_is_told_where_it_ends() -> None:
    with pytest.raises(BadGguf, match="inside its first bytes"):
        parse_header(b"")
    with pytest.raises(BadGguf, match=r"inside key 'test\.words'"):
        parse_header(rich_header()[: rich_header().index(b"test.words") + 30])


def test_no_more_than_the_cap_is_kept() -> None:
    limits = GgufLimits(max_header_bytes=1000, max_string_bytes=1 << 40)
    parser = HeaderParser(limits=limits)
    parser.feed(handmade([pair("a", 9, struct.pack("<IQ", 0, 900))]))
    for _ in range(100):
        if parser.feed(b"\1" * 64) is not None:
            break
    assert parser.feed(b"") is not None
    with pytest.raises(BadGguf, match="a header may have 1000 bytes"):
        parse_header(array(0, 960), limits=limits)
    with pytest.raises(BadGguf, match="a header may have 1000 bytes"):
        parse_header(handmade([pair("a", 8, struct.pack("<Q", 1 << 30))]), limits=limits)


def test_a_refusal_stays_a_refusal() -> None:
    parser = HeaderParser()
    for _ in range(2):
        with pytest.raises(BadGguf, match="GGML"):
            parser.feed(b"GGML\3\0\0\0")


def test_nothing_behind_the_header_is_asked_for() -> None:
    data = rich_header()
    parser = HeaderParser()
    header = parser.feed(data + b"tensor data")
    assert isinstance(header, GgufHeader)
    assert parser.feed(b"more") is header


def test_a_real_vocabulary_is_read_within_a_second() -> None:
    """150,000 tokens with types and 280,000 merges, as in the 7B models of today; 0.1 s where this was written."""
    words = tuple(b"token%d" % number for number in range(150_000))
    merges = tuple(b"tok%d en%d" % (number, number) for number in range(280_000))
    metadata = {
        "tokenizer.ggml.tokens": string_array(words),
        "tokenizer.ggml.token_type": number_array(ValueType.INT32, (1,) * 150_000),
        "tokenizer.ggml.merges": string_array(merges),
    }
    data = encode_header(metadata=metadata, tensors=())
    start = time.process_time()
    header = parse_header(data)
    assert time.process_time() - start < 1
    assert header.metadata == metadata
    parser = HeaderParser()
    start = time.process_time()
    found = [parser.feed(data[at : at + 4096]) for at in range(0, len(data), 4096)][-1]
    assert time.process_time() - start < 2, "small pieces may not make it walk the array again"
    assert found == header


def test_padding() -> None:
    assert [padded(size, 32) for size in (0, 1, 31, 32, 33)] == [0, 32, 32, 32, 64]
