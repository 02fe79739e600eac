"""Identifiers from outside: what is taken, what is refused, and what a file name becomes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.domain.ids import (
    MODEL_ID_MAX,
    NodeId,
    model_slug,
    parse_model_id,
    parse_network_id,
    parse_node_id,
    parse_session_id,
    short,
)

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEX)
def test_keys_come_back_as_they_are(text: str) -> None:
    assert parse_node_id(text) == parse_network_id(text) == text
    assert parse_session_id(text[:32]) == text[:32]
    assert short(NodeId(text)) == text[:16]


@pytest.mark.parametrize("parse", [parse_node_id, parse_network_id, parse_session_id])
@pytest.mark.parametrize("text", ["", "a" * 31, "a" * 33, "a" * 63, "a" * 65, "A" * 64, "g" * 32, "a" * 64 + "\n"])
def test_what_is_no_key_is_named(parse, text: str) -> None:
    with pytest.raises(ValueError, match="lower-case hex digits, not"):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_an_error_that_shows_little_of_it(text: str) -> None:
    for parse in (parse_node_id, parse_session_id, parse_model_id):
        try:
            found = parse(text)
        except ValueError as error:
            assert len(str(error)) < 500
        else:
            assert found == text
            assert re.fullmatch(r"[a-z0-9.\-]+", found)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Qwen3-0.6B-Q8_0.gguf", "qwen3-0.6b-q8-0"),
        ("/models/TinyLlama 1.1B  Chat.GGUF", "tinyllama-1.1b-chat"),
        ("a..b.gguf", "a.b"),
        ("--x--.gguf", "x"),
        ("größe.gguf", "gr-e"),
        ("../../etc/passwd", "passwd"),
        ("model", "model"),
        (".gguf.gguf", "gguf"),
    ],
)
def test_the_slug_of_a_file_name(name: str, slug: str) -> None:
    assert model_slug(name) == slug


@pytest.mark.parametrize("name", ["", ".gguf", "---.gguf", "äöü", "x" * (MODEL_ID_MAX + 1)])
def test_a_file_name_of_which_nothing_is_left(name: str) -> None:
    with pytest.raises(ValueError, match="a model id is"):
        model_slug(name)


@given(st.text(max_size=100))
def test_a_slug_is_its_own_slug_and_safe_as_a_folder(name: str) -> None:
    try:
        slug = model_slug(name)
    except ValueError:
        assert not re.search(r"[a-z0-9]", name.rsplit("/", 1)[-1].lower().removesuffix(".gguf"))
        return
    assert parse_model_id(slug) == slug
    assert "/" not in slug and ".." not in slug and not slug.startswith((".", "-"))


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "A", "a b", "-a", ".a", "a..b", "a\n", "x" * (MODEL_ID_MAX + 1)])
def test_what_is_no_model_id(text: str) -> None:
    with pytest.raises(ValueError, match="a model id is"):
        parse_model_id(text)
