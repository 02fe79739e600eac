"""Versions: which texts are one, and which is newer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version as Pep440

from swarmd.domain.updates import VERSION_LIMIT, Version, parse_version

ASCENDING = [
    "0.0.0",
    "0.0.1a1",
    "0.0.1a2",
    "0.0.1a10",
    "0.0.1b1",
    "0.0.1rc1",
    "0.0.1",
    "0.1.0",
    "0.2.0",
    "0.10.0",
    "1.0.0rc2",
    "1.0.0",
]


def test_their_order() -> None:
    for older, newer in pairwise(ASCENDING):
        assert parse_version(older) < parse_version(newer)
        assert not parse_version(newer) < parse_version(older)
        assert parse_version(older) != parse_version(newer)


NUMBER = st.integers(0, 999_999)
TEXT = st.builds(
    lambda numbers, stage: ".".join(map(str, numbers)) + ("" if stage is None else f"{stage[0]}{stage[1]}"),
    st.tuples(NUMBER, NUMBER, NUMBER),
    st.none() | st.tuples(st.sampled_from(("a", "b", "rc")), NUMBER),
)


@given(TEXT, TEXT)
def test_pip_orders_them_alike(one: str, other: str) -> None:
    assert (parse_version(one) < parse_version(other)) == (Pep440(one) < Pep440(other))
    assert (parse_version(one) == parse_version(other)) == (Pep440(one) == Pep440(other))
    assert parse_version(one).is_prerelease == Pep440(one).is_prerelease


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3-rc1", "1.2.03", "1.2.3.dev1", "1.2.3+local", "../1.2.3", "1.2.3\n",
             "\N{FULLWIDTH DIGIT ONE}.2.3", "9999999.0.0", "1.2.3rc" + "1" * VERSION_LIMIT],
)  # fmt: skip
def test_what_is_no_version_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        parse_version(text)


def test_it_prints_as_it_was_written() -> None:
    assert f"{parse_version('1.2.3rc1')}" == "1.2.3rc1"
    assert parse_version("1.2.3rc1").is_prerelease and not Version("1.2.3").is_prerelease
