"""One browser for all tests of the dashboard, and a tab for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.fakes.browser import NoBrowser, Page, open_page, running_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[str]:
    with ExitStack() as stack:
        missing = ""
        try:
            address = stack.enter_context(running_browser())
        except NoBrowser as error:
            missing = str(error)
        if missing:
            pytest.fail(missing, pytrace=False)
        yield address


@pytest.fixture
async def page(browser: str) -> AsyncIterator[Page]:
    """A tab of desktop size, light, without motion."""
    async with open_page(browser) as opened:
        await opened.window(1280, 900)
        yield opened
