"""Every queue has a size."""

from __future__ import annotations

import ast
import re

from tests.meta.sources import lines, name_of, place, python_files, tree

QUEUES = {"Queue", "LifoQueue", "PriorityQueue", "JoinableQueue"}
NEVER = {"SimpleQueue"}  # has no size at all
REASON = re.compile(r"#.*\b(bound|bounded|at most)\b")  # a deque without maxlen says on its line what bounds it


def unbounded(module: ast.Module, text: list[str]) -> list[ast.Call]:
    found: list[ast.Call] = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func).split(".")[-1]
        keywords = {keyword.arg for keyword in node.keywords}
        zero = [one for one in (*node.args[:1], *(k.value for k in node.keywords)) if ast.unparse(one) in ("0", "None")]
        if name in NEVER or (name in QUEUES and (zero or not (node.args or "maxsize" in keywords))):
            found.append(node)
        if name == "deque" and len(node.args) < 2 and "maxlen" not in keywords and not REASON.search(text[node.lineno - 1]):
            found.append(node)
    return found


def test_no_queue_is_made_without_a_limit() -> None:
    bad = [place(path, node) for path in python_files() for node in unbounded(tree(path), lines(path))]
    assert not bad, f"queues without a size, or deques whose line does not say '# bounded by ...' or '# at most ...': {bad}"


def test_the_check_sees_what_it_should() -> None:
    text = [
        "asyncio.Queue()",
        "asyncio.Queue(8)",
        "queue.Queue(maxsize=0)",
        "deque()",
        "deque(maxlen=4)",
        "deque()  # bounded by x",
        "asyncio.Queue[int](maxsize=5)",
        "asyncio.Queue[int]()",
    ]
    assert [node.lineno for node in unbounded(ast.parse("\n".join(text)), text)] == [1, 3, 4, 8]
