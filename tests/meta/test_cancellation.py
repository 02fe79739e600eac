"""Nobody swallows a cancellation."""

from __future__ import annotations

import ast

from tests.meta.sources import lines, name_of, place, python_files, tree

CATCHING = {"CancelledError", "BaseException"}
EXEMPTION = "cancellation-exempt:"  # with the reason behind it, on the line of the handler


def catches(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(name_of(one).split(".")[-1] in CATCHING for one in kinds)


def raises(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Raise) for statement in body for node in ast.walk(statement))


def swallowing(module: ast.Module) -> list[ast.ExceptHandler | ast.Call]:
    found: list[ast.ExceptHandler | ast.Call] = []
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler) and catches(node.type) and not raises(node.body):
            found.append(node)
        if isinstance(node, ast.Call) and name_of(node.func).split(".")[-1] == "suppress":
            found += [node for argument in node.args if catches(argument)]
    return found


def test_a_handler_that_names_cancellation_raises() -> None:
    bad = [
        place(path, node)
        for path in python_files()
        for node in swallowing(tree(path))
        if EXEMPTION not in lines(path)[node.lineno - 1]
    ]
    assert not bad, f"cancellation may be caught only to clean, and the handler ends in raise: {bad}"


def test_the_check_sees_what_it_should() -> None:
    module = ast.parse(
        "try:\n  x()\nexcept (ValueError, asyncio.CancelledError):\n  pass\n"
        "try:\n  x()\nexcept BaseException:\n  clean()\n  raise\n"
        "with contextlib.suppress(CancelledError): pass\n"
        "try:\n  x()\nexcept:\n  pass\n"
    )
    assert sorted(node.lineno for node in swallowing(module)) == [3, 10, 13]
