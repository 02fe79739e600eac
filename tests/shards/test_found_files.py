"""Whole GGUF files in the folder of models."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import gguf
import pytest

from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import BadFile, IdTaken, NoSpace, Refusal, UnsupportedModel
from swarmd.domain.shards import FoundFile
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.holders import Holder, open_holder
from tests.fakes.split import write_split

TINY = ModelId("tiny-model")


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[Holder]:
    async with open_holder(1, tmp_path, LoopbackHub()) as holder:
        yield holder


async def found(holder: Holder) -> dict[str, FoundFile]:
    return {Path(one.path).name: one for one in (await holder.desk.rescan()).files}


async def test_a_rescan_names_whole_files_and_says_what_to_do_with_them(holder: Holder, tiny: Path) -> None:
    assert await holder.desk.add_file(tiny, 100_000) == TINY
    root = holder.store.catalog.root
    write_model(root / "Another Model.gguf", TinyModel(seed=2))
    (root / "broken.gguf").write_bytes(b"GGUF and then nothing")
    write_model(root / "!!.gguf", TinyModel(seed=3))
    (root / TINY / tiny.name).write_bytes(tiny.read_bytes())
    (root / "copy.gguf").write_bytes(tiny.read_bytes())
    rows = await found(holder)
    assert set(rows) == {"Another Model.gguf", "broken.gguf", tiny.name, "copy.gguf", "!!.gguf"}
    another = rows["Another Model.gguf"]
    assert another.problem is None and another.model == "another-model" and another.size_bytes == tiny.stat().st_size
    assert "rename" in (rows["!!.gguf"].problem or "")
    for name in (tiny.name, "copy.gguf"):  # its content counts, not its name
        assert "all shards of tiny-model are here" in (rows[name].problem or ""), name
    assert await holder.desk.add_file(Path(another.path), 100_000) == "another-model"


async def test_a_problem_is_the_sentence_with_which_adding_the_file_is_refused(holder: Holder, tiny: Path) -> None:
    root = holder.store.catalog.root
    assert await holder.desk.add_file(tiny, 100_000) == TINY
    encoder = gguf.GGUFWriter(root / "encoder.gguf", "bert")
    encoder.add_block_count(2)
    encoder.write_header_to_file()
    encoder.write_kv_data_to_file()
    encoder.write_tensors_to_file()
    encoder.close()
    (root / "broken.gguf").write_bytes(b"GGUF and then nothing")
    write_model(root / tiny.name, TinyModel(seed=2))
    write_split(root, TinyModel(), tensors_each=20)[1][2].unlink()
    write_model(root / "Large.gguf", TinyModel(seed=4, layers=18))
    holder.limit_disk(1)  # 400 kB of it are taken
    expected: dict[str, type[Refusal]] = {
        "encoder.gguf": UnsupportedModel, "broken.gguf": BadFile, tiny.name: IdTaken, "parts-00001-of-00003.gguf": BadFile,
        "Large.gguf": NoSpace,
    }  # fmt: skip
    rows = await found(holder)
    for name, kind in expected.items():
        refusal = await holder.desk.add_file(Path(rows[name].path), None)
        assert type(refusal) is kind and isinstance(refusal, Refusal)
        assert rows[name].problem == refusal.sentence
    assert "parts-00003-of-00003.gguf is missing" in (rows["parts-00001-of-00003.gguf"].problem or "")


async def test_a_split_model_is_one_row_and_its_parts_become_one_model(holder: Holder) -> None:
    root = holder.store.catalog.root
    whole, parts = write_split(root, TinyModel(), tensors_each=20)
    whole.unlink()
    rows = await found(holder)
    assert list(rows) == [parts[0].name]
    row = rows[parts[0].name]
    assert (row.model, row.problem, row.size_bytes) == ("parts", None, sum(part.stat().st_size for part in parts))
    assert await holder.desk.add_file(Path(row.path), 100_000) == "parts"
    known = holder.store.catalog.get(ModelId("parts"))
    assert known is not None and len(holder.store.storage.held(ModelId("parts"))) == len(known.files) > 2
    assert "not needed" in ((await found(holder))[parts[0].name].problem or "")


async def test_links_out_of_the_folder_are_not_followed(holder: Holder, tiny: Path, tmp_path: Path) -> None:
    root, outside = holder.store.catalog.root, tmp_path / "outside"
    _, parts = write_split(outside, TinyModel(), tensors_each=20)
    (root / "link.gguf").symlink_to(tiny)
    (root / "folder").symlink_to(outside)
    (root / "inside.gguf").symlink_to(root / "there.bin")
    (root / "there.bin").write_bytes(tiny.read_bytes())
    (root / "ring.gguf").symlink_to(root / "ring.gguf")
    shutil.copy(parts[0], root)
    for part in parts[1:]:
        (root / part.name).symlink_to(part)
    rows = await found(holder)
    assert set(rows) == {"link.gguf", "inside.gguf", "ring.gguf", parts[0].name}
    for name in ("link.gguf", parts[0].name):
        assert "leads out of the folder" in (rows[name].problem or "")
    assert (rows["link.gguf"].size_bytes, rows[parts[0].name].size_bytes) == (0, parts[0].stat().st_size)
    assert rows["inside.gguf"].problem is None and rows["ring.gguf"].problem is not None
