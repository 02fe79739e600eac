"""Short codes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.config.settings import PEER_PORT_OFFSET, Settings
from swarmd.discovery.short_text import SAMPLE, TEXT_LIMIT, USUAL_PORT, ShortCode, looks_short, make_short, read_short
from swarmd.domain.peers import MAX_NAMEPLATE, Endpoint
from swarmd.domain.refusals import BadCode, Invalid


@given(nameplate=st.integers(1, MAX_NAMEPLATE), fresh=st.binary(min_size=2, max_size=2))
def test_what_is_made_is_read(nameplate: int, fresh: bytes) -> None:
    text = make_short(nameplate, fresh)
    assert looks_short(text)
    assert read_short(text) == ShortCode(nameplate=nameplate, words=text, at=None)


def test_every_pair_of_bytes_is_a_code_of_its_own() -> None:
    assert len({make_short(1, bytes((a, b))) for a in range(256) for b in range(0, 256, 16)}) == 256 * 16


@pytest.mark.parametrize(
    "text",
    [
        "7-crossover-clockwork", "  7-Crossover-CLOCKWORK\n", "7 crossover clockwork", "007_crossover__clockwork",
        "7 -crossover- clockwork",
    ],
)  # fmt: skip
def test_case_spaces_and_underscores_are_forgiven(text: str) -> None:
    assert looks_short(text)
    assert read_short(text) == ShortCode(nameplate=7, words=SAMPLE, at=None)


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("192.168.1.5", Endpoint("192.168.1.5", USUAL_PORT)), ("192.168.1.5:99", Endpoint("192.168.1.5", 99)),
        (" attic.local:8820 ", Endpoint("attic.local", 8820)), ("attic", Endpoint("attic", USUAL_PORT)),
        ("fd00::5", Endpoint("fd00::5", USUAL_PORT)), ("[fd00::5]", Endpoint("fd00::5", USUAL_PORT)),
        ("[fd00::5]:99", Endpoint("fd00::5", 99)),
    ],
)  # fmt: skip
def test_an_address_may_follow(where: str, at: Endpoint) -> None:
    assert read_short(f"{SAMPLE}@{where}") == ShortCode(nameplate=7, words=SAMPLE, at=at)


@pytest.mark.parametrize("where", ["", ":99", "a b", "x:0", "x:70000", "x:y", "0.0.0.0", "224.0.0.1:5", "u@x", "[x]"])
def test_what_is_no_address_is_refused(where: str) -> None:
    assert isinstance(read_short(f"{SAMPLE}@{where}"), Invalid)


def test_the_usual_port_is_the_default_of_the_settings() -> None:
    assert Settings().node.listen_port + PEER_PORT_OFFSET == USUAL_PORT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7-crossover-clokwork", "'clokwork' is no word of a short code; did you mean 'clockwork'?"),
        ("7-crosover-clockwork", "did you mean 'crossover'?"),
        ("7-crossover-xyzzy", "'xyzzy' is no word of a short code)"),
        ("7-clockwork-crossover", "'clockwork' is in the other word's place"),
        ("0-crossover-clockwork", "its number is '0'"),
        ("1000-crossover-clockwork", "its number is '1000'"),
        ("7-crossover", "2 parts"),
        ("7-crossover-clockwork-tugboat", "4 parts"),
        ("7-" + "x" * 100 + "-clockwork", "'" + "x" * 20 + "' is no word"),
        ("7-" + "x" * TEXT_LIMIT + "-clockwork", "characters"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    wrong = read_short(text)
    assert isinstance(wrong, BadCode)
    assert says in wrong.sentence and SAMPLE in wrong.sentence
    assert "swarm://" not in wrong.sentence


@given(st.text(max_size=60) | st.from_regex(r"[0-9]{1,4}[- _][a-z]{1,12}[- _][a-z]{1,12}(@.{0,20})?", fullmatch=True))
def test_no_text_makes_it_raise(text: str) -> None:
    looks_short(text)
    read = read_short(text)
    assert isinstance(read, ShortCode | BadCode | Invalid)
    if isinstance(read, BadCode | Invalid):
        assert read.sentence


def test_other_codes_do_not_look_like_it() -> None:
    for text in ("swarm://7-abc", "/ip4/1.2.3.4/tcp/5", "", "hello", "7", "12345-crossover-clockwork", "-7-crossover"):
        assert not looks_short(text), text
