"""Every refusal says its value in one sentence; a class added later is walked here as well."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing

import pytest

from swarmd.domain.ids import ModelId, NodeId
from swarmd.domain.refusals import Expired, NoAnswer, NoCapacity, NoCoverage, OtherNetwork, Refusal
from tests.meta.sources import ROOT, python_files

NODE = NodeId("ab" * 32)
WORDS = {str: "the marked words", ModelId: ModelId("marked-model"), NodeId: NODE}
SHOWN = {
    "expired_at": "2023-11-14 22:13 UTC", "node": "abababababababab", "expected": "abababababababab",
    "network": "the marked words"[:16], "param": "", "status": "", "missing": "4323, 4402",  # people count shards from 1
}  # fmt: skip
MILLIONS = "bytes"  # shown in MB


def every_class() -> list[type[Refusal]]:
    for path in python_files():
        if re.search(r"class \w+\(Refusal\)", path.read_text()):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found, waiting = [], [Refusal]
    while waiting:
        for sub in waiting.pop().__subclasses__():
            waiting.append(sub)
            if sub.__module__.startswith("swarmd."):
                found.append(sub)
    # `slots=True` makes every class twice; the module has the one that counts.
    real = {one for one in found if getattr(importlib.import_module(one.__module__), one.__name__, None) is one}
    return sorted(real, key=lambda one: (one.__module__, one.__name__))


def value_for(name: str, kind: object, at: int) -> object:
    """A value that can be found again in a sentence."""
    if kind in WORDS:
        return WORDS[kind]
    if kind is int:
        return (4_321_000_000 + at * 1_000_000) if MILLIONS in name else 4321 + at
    if kind is bool:
        return True
    if kind is float:
        return 1_700_000_000.0
    if typing.get_origin(kind) is tuple and typing.get_origin(typing.get_args(kind)[0]) is tuple:
        return ((4500 + at, 4600 + at),)
    if typing.get_origin(kind) is tuple:
        return (WORDS[str],) if typing.get_args(kind)[0] is str else (4321 + at, 4400 + at)
    return WORDS[str]  # `str | None`


def shown(name: str, value: object) -> str:
    if name in SHOWN:
        return SHOWN[name]
    if isinstance(value, bool):
        return ""  # decides between sentences
    if isinstance(value, float):
        return f"{value:.0f}"
    if isinstance(value, int):
        return str(value // 1_000_000 if MILLIONS in name else value)
    if isinstance(value, tuple):
        return shown(name, value[0])
    return str(value)


@pytest.mark.parametrize("refusal", every_class(), ids=lambda one: one.__name__)
def test_its_sentence_names_every_value(refusal: type[Refusal]) -> None:
    kinds = typing.get_type_hints(refusal)
    values = {f.name: value_for(f.name, kinds[f.name], at) for at, f in enumerate(dataclasses.fields(refusal))}
    sentence = refusal(**values).sentence
    assert len(sentence) > 10
    assert not re.search(r"[{}]|\bNone\b|<.* object|NewType|\(\)|[\s:,(]$", sentence), sentence
    assert "\n" not in sentence
    for name, value in values.items():
        assert shown(name, value) in sentence, f"{name} is not in: {sentence}"


def test_there_are_refusals_to_walk() -> None:
    assert len(every_class()) >= 20
    with pytest.raises(AssertionError, match="does not say"):
        _ = Refusal().sentence


def test_long_lists_are_cut_and_empty_ones_have_words() -> None:
    many = NoCoverage(model=ModelId("m"), missing=tuple(range(20)), shard_count=20).sentence
    assert " 1, 2" in many and "8..." in many and "9," not in many
    assert "any address" in NoAnswer(tried=(), reason="refused").sentence


def test_numbers_are_for_people() -> None:
    assert "needs 1500 MB" in NoCapacity(node=NODE, needed_bytes=1_500_000_000, free_bytes=0).sentence
    assert "1970-01-01 00:00 UTC" in Expired(expired_at=0.0).sentence
    assert "f" * 16 + "," in OtherNetwork(network="f" * 64).sentence
