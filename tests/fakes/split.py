"""A tiny model in one file, and the same in several as `gguf-split` names them."""

from __future__ import annotations

from pathlib import Path

import gguf

from tests.fakes.gguf import TinyModel, _metadata, _Weights, write_model


def write_split(folder: Path, model: TinyModel, *, tensors_each: int, bare_first: bool = False) -> tuple[Path, list[Path]]:
    """The whole, and its parts. `bare_first`: the first part has no tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write_model(folder / "tiny.gguf", model)
    writer = gguf.GGUFWriter(
        folder / "parts.gguf", model.architecture, split_max_tensors=tensors_each, small_first_shard=bare_first
    )
    _metadata(writer, model)
    _Weights(writer, model).add_all()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return whole, sorted(folder.glob("parts-*.gguf"))
