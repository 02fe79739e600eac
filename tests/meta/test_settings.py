"""Every setting is declared whole, and somebody reads it."""

from __future__ import annotations

import re

import pytest

from swarmd.config.settings import KEYS, Key
from tests.meta.sources import ROOT, python_files

NOT_READ_YET = {
    # The contract's config names it; what obeys it comes with continuous batching. Only shrinks.
    "inference.batch_timeout_ms",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.path)
def test_it_has_a_range_a_sentence_and_a_mark(key: Key) -> None:
    declared = key.declared
    if key.kind == "number":
        assert declared.low is not None and declared.high is not None and declared.low < declared.high
    if key.kind == "text":
        assert bool(declared.choices) != (declared.form is not None)
        assert len(declared.choices) != 1
    assert len(declared.doc) > 20 and declared.doc.endswith(".") and "\n" not in declared.doc and "|" not in declared.doc
    assert isinstance(declared.live, bool)
    if key.kind != "switch":
        assert str(key.default).isprintable() and '"' not in str(key.default)


def test_environment_names_are_unique() -> None:
    assert len({key.environment for key in KEYS.values()}) == len(KEYS)


def test_what_sounds_secret_is_marked_secret() -> None:
    for key in KEYS.values():
        assert key.declared.secret == any(word in key.name for word in ("key", "secret", "password"))


def is_read(key: Key, text: str) -> bool:
    # A plain word like `level` counts only after its section; a name of several words is unmistakable.
    return bool(re.search(rf"\b{key.section}\.{key.name}\b", text) or ("_" in key.name and f".{key.name}" in text))


def test_every_setting_is_read_somewhere() -> None:
    text = "\n".join(path.read_text() for path in python_files() if path.parent != ROOT / "swarmd" / "config")
    unread = {key.path for key in KEYS.values() if not is_read(key, text)}
    assert not unread - NOT_READ_YET, f"a setting that nobody reads is a lie: {sorted(unread - NOT_READ_YET)}"
    assert not NOT_READ_YET - unread, f"these are read now, take them off the list: {sorted(NOT_READ_YET - unread)}"
