"""Whole GGUF files in the folder of models."""

from __future__ import annotations

from pathlib import Path

from swarmd.domain.ids import ModelId
from swarmd.transport.loopback import LoopbackHub
from tests.fakes.holders import Holder, open_holder

TINY = ModelId("tiny-model")


async def test_a_rescan_names_whole_files_and_says_what_to_do_with_them(tmp_path: Path, tiny: Path) -> None:
    net = LoopbackHub()
    async with open_holder(1, tmp_path, net) as holder:
        assert await holder.desk.add_file(tiny, 100_000) == TINY
        await look(holder, tiny)


async def look(holder: Holder, tiny: Path) -> None:
    root = holder.store.catalog.root
    (root / "Another Model.gguf").write_bytes(tiny.read_bytes())
    (root / "broken.gguf").write_bytes(b"GGUF and then nothing")
    (root / TINY / tiny.name).write_bytes(tiny.read_bytes())
    (root / "!!.gguf").write_bytes(tiny.read_bytes())
    found = {Path(one.path).name: one for one in (await holder.desk.rescan()).files}
    assert set(found) == {"Another Model.gguf", "broken.gguf", tiny.name, "!!.gguf"}
    another = found["Another Model.gguf"]
    assert another.problem is None and another.model == "another-model" and another.size_bytes == tiny.stat().st_size
    assert "GGUF" in (found["broken.gguf"].problem or "") and "not needed" in (found[tiny.name].problem or "")
    assert "rename" in (found["!!.gguf"].problem or "")
    assert await holder.desk.add_file(Path(another.path), 100_000) == "another-model"
