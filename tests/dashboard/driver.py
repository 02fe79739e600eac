"""Playwright over the system's Chromium: a page of the dashboard, what it complains about, and axe-core to look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from aiohttp import web
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.dashboard.fake_node import FakeNode
from tests.fakes.browser import FLAGS, find_browser

PATIENCE_MS = 10_000  # on a machine that many people share; a page settles within a tenth of a second on a quiet one
GRAVE = ("serious", "critical")
PAGES = (
    "", "chat", "network", "activity", "models", "downloads", "search", "adapters", "providers", "responses", "credits",
    "settings",
)  # fmt: skip
LIVE = 'html[data-link="open"]'  # no wait_for_function: the page's policy forbids to evaluate texts


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser of the system; nothing is downloaded."""
    async with async_playwright() as playwright:
        own = [flag for flag in FLAGS if not flag.startswith(("--headless", "--remote-debugging"))]
        browser = await playwright.chromium.launch(executable_path=find_browser(), args=own)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, *, dark: bool = False, width: int = 1280, height: int = 900
) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """A tab of its own, without motion. Fails at the end where the page complained on its console or broke."""
    scheme: Literal["dark", "light"] = "dark" if dark else "light"
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", service_workers="block"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    try:
        yield context, page
    finally:
        await context.close()
    # A refusal that a test asked for is on the console, too; the page itself shows it.
    assert [one for one in complaints if "Failed to load resource" not in one and "WebSocket" not in one] == []


async def show(page: Page, url: str, name: str) -> None:
    """A page of the dashboard, live, with what it reads first."""
    await page.goto(f"{url}#/{name}")
    await page.wait_for_selector(LIVE, state="attached")
    await expect(page.locator("main .panel:not([hidden]) .row-waiting")).to_have_count(0)


async def grave_faults(page: Page, *, colours_only: bool = False) -> list[str]:
    """What axe-core finds that is serious or critical, with the place. A theme changes nothing but colours."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    rules: object = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    if colours_only:
        rules = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    found: dict[str, Any] = await page.evaluate("options => axe.run(options)", options)
    return [
        f"{one['id']}: {node['target']} {node['html'][:120]}"
        for one in found["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"][:4]
    ]


@asynccontextmanager
async def serving(node: FakeNode) -> AsyncIterator[str]:
    """Where the fake node serves its dashboard."""
    runner = web.AppRunner(node.app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await node.drop_sockets()
        await runner.cleanup()


async def until(check: Any, seconds: float = PATIENCE_MS / 1000) -> Any:
    """What `check()` answers once it is true."""
    async with asyncio.timeout(seconds):
        while not (value := check()):
            await asyncio.sleep(0.02)
    return value
