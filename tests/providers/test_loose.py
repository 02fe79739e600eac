"""Values of JSON that may be anything."""

from __future__ import annotations

from swarmd.providers.loose import as_count, as_dict, as_list, as_text, parsed


def test_what_does_not_fit_is_nothing() -> None:
    assert (as_dict([1]), as_list({"a": 1}), as_text(5), as_count(-1), as_count(True), as_count(1.5)) == (
        {}, [], "", None, None, None,
    )  # fmt: skip
    assert (as_dict({"a": 1}), as_list([1]), as_text("x"), as_count(0)) == ({"a": 1}, [1], "x", 0)
    assert (as_count(2**53), as_count(2**53 + 1)) == (2**53, None)
    assert parsed(b"{") is None
    assert parsed(b"\xff") is None
    assert parsed(b"[" * 100_000) is None
    assert parsed(b'{"a": 1}') == {"a": 1}
