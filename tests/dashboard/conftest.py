"""One browser for all tests of the dashboard, a tab for each, and a node that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from aiohttp import web

from tests.dashboard.fake_node import FakeNode
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


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
async def url(node: FakeNode) -> AsyncIterator[str]:
    """Where the node serves its dashboard."""
    runner = web.AppRunner(node.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await node.drop_sockets()
    await runner.cleanup()
