"""Names say what a thing is, and no secret is written to a log or a screen."""

from __future__ import annotations

import ast

from tests.meta.sources import ROOT, name_of, place, python_files, tree

FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "base", "manager", "tools"}
WRITERS = {"debug", "info", "warning", "error", "exception", "critical", "log", "print", "echo"}
SECRET_NAMES = {"api_key", "secret", "psk", "password", "private_key", "signing_key", "bearer", "authorization"}
HARMLESS = {"len", "type", "bool", "isinstance"}  # what these say of a secret may be said


def leaks(call: ast.Call) -> bool:
    if name_of(call.func).split(".")[-1] not in WRITERS:
        return False
    inside = [one for part in (*call.args, *(keyword.value for keyword in call.keywords)) for one in ast.walk(part)]
    harmless = {
        id(part)
        for one in inside
        if isinstance(one, ast.Call) and name_of(one.func) in HARMLESS
        for part in ast.walk(one)
    }
    return any(
        name_of(one).split(".")[-1].lstrip("_") in SECRET_NAMES and id(one) not in harmless for one in inside
    )


def test_file_names_are_nouns_of_ours() -> None:
    bad = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if {path.stem, path.parent.name} & FORBIDDEN_NAMES
    ]
    assert not bad, f"a function that fits nowhere has no floor yet: find it ({bad})"


def test_no_secret_is_written() -> None:
    bad = [
        place(path, node)
        for path in python_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and leaks(node)
    ]
    assert not bad, f"a secret is an argument of a log line or a print: {bad}"


def test_the_check_sees_what_it_should() -> None:
    calls = ast.parse("logger.info('x %s', self._api_key)\nprint(len(secret))\nprint(a.psk.hex())\nhash(secret)")
    assert [node.lineno for node in ast.walk(calls) if isinstance(node, ast.Call) and leaks(node)] == [1, 3]
