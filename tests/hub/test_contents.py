"""Contents and repositories without a socket."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub.contents import PAGE, PIECE, Altered, Blob, Held, OnDisk, Pattern
from tests.hub.messages import BadRequest, parse_head
from tests.hub.repositories import Repository, load_folder


@given(offset=st.integers(0, 3 * PIECE), count=st.integers(0, 2 * PIECE), size=st.integers(0, 3 * PIECE))
def test_a_pattern_is_the_same_however_it_is_read(offset: int, count: int, size: int) -> None:
    whole = Pattern(3 * PIECE, seed=2).read(0, 3 * PIECE)[:size]
    assert Pattern(size, seed=2).read(offset, count) == whole[offset : offset + count]


def test_no_two_pages_of_a_pattern_are_equal() -> None:
    data = Pattern(2 * PIECE).read(0, 2 * PIECE)
    assert len({data[at : at + PAGE] for at in range(0, len(data), PAGE)}) == len(data) // PAGE
    assert int.from_bytes(Pattern(1 << 40).read((1 << 40) - PAGE, 8), "little") == (1 << 40) // PAGE - 1
    assert Pattern(100, seed=1).read(0, 100) != Pattern(100, seed=2).read(0, 100)


def test_names_are_those_git_and_lfs_give(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    git = subprocess.run(["git", "hash-object", tmp_path / "a"], capture_output=True, check=True, text=True).stdout.strip()
    plain, large = Blob(OnDisk(tmp_path / "a"), lfs=False, xet=True), Blob(Held(b"hello"), lfs=True, xet=True)
    assert plain.oid == plain.etag == git and plain.xet_hash is None
    assert large.etag == hashlib.sha256(b"hello").hexdigest() and large.oid != git
    assert large.xet_hash is not None and len(large.xet_hash) == 64


def test_an_altered_content_differs_in_its_bytes_alone() -> None:
    altered = Altered(Held(b"0123456789"), (2, 7))
    assert [at for at, byte in enumerate(altered.read(0, 10)) if byte != b"0123456789"[at]] == [2, 7]
    assert altered.read(3, 4) == b"3456"


def test_changes_between_two_looks_are_one_commit() -> None:
    repository = Repository("a/b").file("x.txt", "1").file("y.gguf", b"2")
    first = repository.head
    assert len(repository.commits) == 1 and repository.head is first
    assert (first.files["x.txt"].lfs, first.files["y.gguf"].lfs) == (False, True)
    repository.file("x.txt", "3").without("y.gguf")
    assert [list(one.files) for one in repository.commits] == [["x.txt"], ["x.txt", "y.gguf"]]
    assert repository.at(first.sha) is first and repository.at("main") is repository.head
    assert repository.at(first.sha[:10]) is None
    assert Repository("a/b").file("x.txt", "1").file("y.gguf", b"2").head.sha == first.sha


@pytest.mark.parametrize("name", ["a", "a/b/c", "../b", "a/.b", "a/b c", "/b", ""])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a repository"):
        Repository(name)


@pytest.mark.parametrize("path", ["", "/etc/x", "a/../b", "a//b", "a/"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ValueError, match="no path of a file"):
        Repository("a/b").file(path, b"")


def test_a_folder_of_repositories(tmp_path: Path) -> None:
    for path in ("o/n/config.json", "o/n/sub/w.gguf", "o/n/.cache/x", "datasets/o/d/t.csv", "stray.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "o/n/hub.json").write_text(json.dumps({"downloads": 5, "readers": ["alice"]}))
    model, dataset = load_folder(tmp_path)
    assert (model.id, model.kind, list(model.head.files)) == ("o/n", "model", ["config.json", "sub/w.gguf"])
    assert model.details.downloads == 5 and model.details.readers == {"alice"}
    assert (dataset.id, dataset.kind, list(dataset.head.files)) == ("o/d", "dataset", ["t.csv"])
    for wrong in ("{", "[]", '{"secret": 1}'):
        (tmp_path / "o/n/hub.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"hub\.json|nothing the local hub says"):
            list(load_folder(tmp_path))
    with pytest.raises(NotADirectoryError):
        list(load_folder(tmp_path / "none"))


@given(st.binary(max_size=300))
def test_any_head_is_a_request_or_refused(head: bytes) -> None:
    try:
        exchange = parse_head(head, "hub")
    except BadRequest as error:
        assert error.status in (400, 431)
    else:
        assert exchange.target.startswith("/") and exchange.segments
