"""What a node may be called."""

from __future__ import annotations

import pytest

from swarmd.domain.peers import is_nickname


@pytest.mark.parametrize("text", ["anna", "Anna-2", "büro 2", "a", "x" * 32, "node_1.lan", "節"])
def test_a_nickname(text: str) -> None:
    assert is_nickname(text)


@pytest.mark.parametrize("text", ["", " anna", "anna ", "a\nb", "x" * 33, "<b>", "a\u202eb", "a/b"])
def test_what_is_none(text: str) -> None:
    assert not is_nickname(text)
