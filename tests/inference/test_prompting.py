"""Text from tokens: nothing is lost, nothing is shown twice, and nothing of a stop string is ever shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmd.inference.prompting import TextStream


def run(pieces: list[bytes], stops: list[str]) -> tuple[list[str], TextStream]:
    stream = TextStream(pieces=pieces, stops=stops)
    shown = []
    for token in range(len(pieces)):
        shown.append(stream.feed(token))
        if stream.stopped:
            return shown, stream
    shown.append(stream.finish())
    return shown, stream


def test_a_character_cut_by_a_token_is_shown_when_it_is_whole():
    whole = "é€😀".encode()
    shown, _ = run([whole[i : i + 1] for i in range(len(whole))], [])
    assert shown == ["", "é", "", "", "€", "", "", "", "😀", ""]


def test_bytes_that_never_become_a_character_are_shown_as_replacement():
    assert "".join(run([b"a", b"\xf0\x9f"], [])[0]) == "a\ufffd"


def test_a_stop_string_over_several_tokens_is_never_shown():
    shown, stream = run([b"hello <", b"|en", b"d|> more"], ["<|end|>"])
    assert shown == ["hello ", "", ""]
    assert stream.stopped


def test_what_looked_like_a_stop_string_is_shown_when_it_is_none():
    shown, stream = run([b"a <", b"|e", b"xit"], ["<|end|>"])
    assert "".join(shown) == "a <|exit"
    assert not stream.stopped


def test_the_earliest_of_several_stop_strings_wins():
    assert "".join(run([b"one two three"], ["three", "two"])[0]) == "one "


def test_unknown_token_ids_have_no_text():
    stream = TextStream(pieces=[b"a"], stops=[])
    assert stream.feed(5) == ""
    assert stream.feed(-1) == ""


@given(st.lists(st.binary(max_size=4), max_size=30), st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=3))
def test_any_pieces_give_the_text_up_to_the_first_stop(pieces, stops):
    shown, stream = run(pieces, stops)
    text = "".join(shown)
    assert not any(stop in text for stop in stops)
    whole = b"".join(pieces).decode(errors="replace")
    if stream.stopped:
        assert whole.startswith(text) or "\ufffd" in whole
        assert any(stop in whole for stop in stops)
    else:
        assert text == whole


def test_a_control_token_shows_only_where_it_has_to():
    pieces = [b"", b"", b"x"]
    stream = TextStream(pieces=pieces, stops=[], spoken={0: "[TOOL_CALLS]"})
    assert [stream.feed(token) for token in (0, 1, 2)] == ["[TOOL_CALLS]", "", "x"]


def test_it_knows_which_stop_string_it_was():
    assert run([b"one two three"], ["three", "two"])[1].stopped_by == "two"
    assert run([b"say stopped"], ["stopped", "stop"])[1].stopped_by == "stop", "whole first, had it come letter by letter"
    assert run([b"ends in st", b"op"], ["stop"])[1].stopped_by == "stop"
    assert run([b"nothing"], ["stop"])[1].stopped_by is None
