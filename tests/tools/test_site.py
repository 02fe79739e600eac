"""The site of docs/: the API's page from the table of routes, links into the repository, the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.site.api_page import anchor, api_page, described, kind

ROOT = Path(__file__).parents[2]


def test_every_operation_and_shape_is_on_the_page() -> None:
    found, page = described(), api_page()
    for path, methods in found["paths"].items():
        assert all(f"### {method.upper()} {path}\n" in page for method in methods)
    assert all(f"### {name}\n" in page for name in found["components"]["schemas"])


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    page = api_page()
    headings = {anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings


def test_types_in_words() -> None:
    assert kind({"type": "array", "items": {"$ref": "#/components/schemas/ModelRow"}}) == "list of [ModelRow](#modelrow)"
    assert kind({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}) == "integer from 1 or null"
    assert kind({"type": "object", "additionalProperties": {"type": "boolean"}}) == "object of boolean"
    assert kind({"enum": ["on", "off"]}) == "`on` or `off`" and kind({}) == "anything"


def test_links_to_sources_become_names_and_broken_ones_are_told() -> None:
    hooks = pytest.importorskip("tools.site.hooks", reason="mkdocs is not installed: make docs")
    page = Path("docs/architecture.md")
    assert hooks.named("see [`api/routes.py`](../swarmd/api/routes.py#L1) there", page) == "see `api/routes.py` there"
    assert hooks.named("[the table](../swarmd/api/routes.py)", page) == "the table (`swarmd/api/routes.py`)"
    assert hooks.named("[here](security.md#keys)", page) == "[here](security.md#keys)"
    for broken in ("[x](../swarmd/none.py)", "[x](../../elsewhere)"):
        with pytest.raises(hooks.PluginError):
            hooks.named(broken, page)


def test_pages_that_are_not_there_leave_the_navigation() -> None:
    hooks = pytest.importorskip("tools.site.hooks", reason="mkdocs is not installed: make docs")
    nav = [{"Home": "index.md"}, {"Use": [{"A": "a.md"}, {"B": "b.md"}]}, {"Gone": [{"C": "c.md"}]}]
    left = hooks.kept(nav, {"index.md", "b.md"})
    assert left == [{"Home": "index.md"}, {"Use": [{"B": "b.md"}]}]
    assert hooks.placed(left) == {"index.md", "b.md"}
