"""What mkdocs does beside its own work: the API's page is made, and links into the repository are told from broken ones.

mkdocs calls the functions by their names (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # mkdocs runs this file by its path
    sys.path.insert(0, str(ROOT))

from tools.site.api_page import PAGE, api_page  # noqa: E402

OUTWARD = re.compile(r"\[([^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\((\.\./[^)#\s]*)(?:#[^)\s]*)?\)")
"""A link from a page to a file of the repository that is no page."""


def on_config(config: Any) -> Any:
    """Pages that are not there are left out of the navigation, and those that nobody placed stand under More."""
    there = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")} | {PAGE}
    config.nav = kept(config.nav, there)
    more = sorted(there - placed(config.nav))
    if more:
        config.nav = [*config.nav, {"More": more}]
    return config


def kept(nav: list[Any], there: set[str]) -> list[Any]:
    """The same without pages that are not `there`, and without sections that would be empty."""
    found: list[Any] = []
    for entry in nav:
        ((title, what),) = entry.items()
        if isinstance(what, list):
            inner = kept(what, there)
            found += [{title: inner}] if inner else []
        elif what in there:
            found.append(entry)
    return found


def placed(nav: list[Any]) -> set[str]:
    """The pages in it."""
    found: set[str] = set()
    for entry in nav:
        for what in entry.values():
            found |= placed(what) if isinstance(what, list) else {what}
    return found


def on_files(files: Any, config: Any) -> Any:
    files.append(File.generated(config, PAGE, content=api_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The site has no source files: their links become names. One to a file that is not there is a broken link."""
    return named(markdown, Path("docs") / page.file.src_uri)


def named(markdown: str, path: Path) -> str:
    """`path`: of the page, from the root of the repository. Raises PluginError for a file that is not there."""

    def name(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        where = (ROOT / path.parent / target).resolve()
        if not where.exists() or not where.is_relative_to(ROOT):
            raise PluginError(f"{path}: there is no {target}")
        shown = where.relative_to(ROOT).as_posix()
        return text if shown in text or text.strip("`") in shown else f"{text} (`{shown}`)"

    return OUTWARD.sub(name, markdown)
