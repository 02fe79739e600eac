from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.models.gguf import BadGguf, GgufHeader, parse_header
from swarmd.models.split_files import MAX_PARTS, Merged, merge, part_names, part_of, quant_of, whole_name
from tests.fakes.gguf import TinyModel
from tests.fakes.split import write_split

STEMS = st.from_regex(r"[A-Za-z0-9._-]{1,30}(/[A-Za-z0-9._-]{1,20})?", fullmatch=True)


@given(STEMS, st.integers(1, MAX_PARTS), st.data())
def test_every_part_names_all_of_them(stem: str, count: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, count))
    name = f"{stem}-{number:05d}-of-{count:05d}.gguf"
    names = part_names(name)
    assert len(names) == count and names[number - 1] == name
    assert part_of(name) == (number, count)
    assert {whole_name(one) for one in names} == {f"{stem}.gguf"}
    assert [part_of(one) for one in names] == [(at, count) for at in range(1, count + 1)]


@given(st.text(max_size=80))
def test_any_name_has_parts_and_a_whole(name: str) -> None:
    assert name in part_names(name)
    if part_of(name) is None:
        assert part_names(name) == (name,) and whole_name(name) == name
    quant_of(name)


@pytest.mark.parametrize(
    "name",
    ["x-00000-of-00003.gguf", "x-00004-of-00003.gguf", "x-00001-of-01000.gguf", "x-1-of-3.gguf", "-00001-of-00002.gguf",
     "x-00001-of-00002.bin", "x-00001-of-00000.gguf", "x-00001-of-00002.gguf.part"],
)  # fmt: skip
def test_what_is_no_part(name: str) -> None:
    assert part_of(name) is None
    assert part_names(name) == (name,)


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Q4_K_M"), ("llama-2-7b.Q4_0.gguf", "Q4_0"), ("x-IQ2_XXS.gguf", "IQ2_XXS"),
        ("DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"), ("Q8_0/model-Q8_0-00002-of-00004.gguf", "Q8_0"),
        ("model-f16.gguf", "F16"), ("gpt-oss-20b-MXFP4.gguf", "MXFP4"), ("model.gguf", ""), ("mmproj-BF16.gguf", "BF16"),
        ("TQ1_0.gguf", "TQ1_0"), ("Q4_K_M/x.gguf", "Q4_K_M"), ("seq2seq.gguf", ""),
    ],
)  # fmt: skip
def test_quantisations_are_read_from_names(name: str, quant: str) -> None:
    assert quant_of(name) == quant


def headers(files: list[Path]) -> list[GgufHeader]:
    return [parse_header(file.read_bytes(), file_size_bytes=file.stat().st_size) for file in files]


def merged(files: list[Path]) -> Merged:
    return merge(headers(files), [file.stat().st_size for file in files])


def payloads(data: bytes, header: GgufHeader) -> dict[str, bytes]:
    start = header.data_offset
    return {
        one.name: data[start + one.offset_bytes : start + one.offset_bytes + one.size_bytes] for one in header.tensors
    }


@pytest.mark.parametrize(("tensors_each", "bare_first"), [(7, False), (20, True), (1, False), (1000, True)])
def test_the_parts_together_are_the_whole(tmp_path: Path, tensors_each: int, bare_first: bool) -> None:
    whole_file, files = write_split(tmp_path, TinyModel(layers=3), tensors_each=tensors_each, bare_first=bare_first)
    assert len(files) > 1 or tensors_each == 1000
    if len(files) == 1:
        return
    found = merged(files)
    whole = parse_header(whole_file.read_bytes(), file_size_bytes=whole_file.stat().st_size)
    assert [one.name for one in found.header.tensors] == [one.name for one in whole.tensors]
    assert not any(key.startswith("split.") for key in found.header.metadata)
    assert {**found.header.metadata} == {**whole.metadata}
    # The file that nobody has: the header, and behind it the data of each part at its offset.
    data = bytearray(found.size_bytes)
    data[: len(found.header_data)] = found.header_data
    for file, header, offset in zip(files, headers(files), found.offsets, strict=True):
        part = file.read_bytes()[header.data_offset :]
        data[offset : offset + len(part)] = part
    assert len(data) == found.size_bytes
    assert payloads(bytes(data), found.header) == payloads(whole_file.read_bytes(), whole)
    assert merged(files) == found, "two nodes get the same"


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    _, files = write_split(tmp_path / "a", TinyModel(layers=2), tensors_each=8)
    found, sizes = headers(files), [file.stat().st_size for file in files]
    with pytest.raises(BadGguf, match=r"says that it is part 1 \(from 0\)"):
        merge([found[1], *found[1:]], sizes)
    with pytest.raises(BadGguf, match="part 1 of 2 says"):
        merge(found[:2], sizes[:2])
    _, others = write_split(tmp_path / "b", TinyModel(layers=3), tensors_each=8)
    others = others[: len(files)]
    with pytest.raises(BadGguf):
        merge([found[0], *headers(others)[1:]], sizes)
    whole, _ = write_split(tmp_path / "c", TinyModel(), tensors_each=8)
    with pytest.raises(BadGguf, match=r"part None \(from 0\) of None"):
        merged([whole])


def test_parts_with_one_tensor_twice_are_refused(tmp_path: Path) -> None:
    _, files = write_split(tmp_path, TinyModel(layers=2), tensors_each=8)
    found, sizes = headers(files), [file.stat().st_size for file in files]
    last = found[-1]
    twice = GgufHeader(
        version=last.version, metadata=last.metadata, tensors=found[0].tensors[: len(last.tensors)],
        alignment=last.alignment, data_offset=last.data_offset,
    )  # fmt: skip
    with pytest.raises(BadGguf):
        merge([*found[:-1], twice], sizes)
