"""No module or class keeps state for everybody: what is shared is a constant with an upper-case name."""

from __future__ import annotations

import ast
import re

from tests.meta.sources import name_of, place, python_files, tree

MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict", "bytearray", "WeakValueDictionary"}
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*|__[a-z]+__|_fields_")  # the last one is how ctypes wants a struct described


def is_mutable(value: ast.expr | None) -> bool:
    return isinstance(value, MUTABLE) or (
        isinstance(value, ast.Call) and name_of(value.func).split(".")[-1] in MAKERS
    )


def shared(module: ast.Module) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    bodies = [module.body, *(node.body for node in ast.walk(module) if isinstance(node, ast.ClassDef))]
    for statement in (statement for body in bodies for statement in body):
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign):
            targets, value = [statement.target], statement.value
        else:
            continue
        if is_mutable(value) and not all(CONSTANT.fullmatch(name_of(target)) for target in targets):
            found.append(statement)
    return found


def test_no_module_or_class_holds_mutable_state() -> None:
    bad = [place(path, node) for path in python_files() for node in shared(tree(path))]
    assert not bad, f"shared mutable state; make it a field of an object, or a constant with an upper-case name: {bad}"


def test_the_check_sees_what_it_should() -> None:
    module = ast.parse("cache = {}\nTABLE = {}\nclass A:\n  seen: set[int] = set()\n  x = 1\n__all__ = []\nn = deque()\n")
    assert sorted(node.lineno for node in shared(module)) == [1, 4, 7]
