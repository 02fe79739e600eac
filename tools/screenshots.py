"""Pictures of every page of the dashboard, in light and dark, of three real nodes that share the built-in model.

`python -m tools.screenshots` starts the nodes in a folder of their own, asks them something in the page, and writes WebP
files to docs/screenshots/. Needs Playwright and the Chromium of the system; nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from playwright.async_api import Browser, Page, async_playwright
from rich.console import Console

from tests.fakes.browser import FLAGS, find_browser
from tools.swarm import ROOT, Member, Screen, Swarm, choose_ports

FOLDER: Final = ROOT / "docs" / "screenshots"
PORTS: Final = (21520, 21540, 21560)
NAMES: Final = ("workstation", "laptop", "kitchen")
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
QUALITY: Final = 82  # of WebP: text has no fringes, and a page takes some 40 kB
LIMIT_BYTES: Final = 3_000_000  # of all pictures together: the repository keeps every version
PATIENCE_MS: Final = 30_000
SETTLE_MS: Final = 2_500  # one tick of the live feed and the reads of a page
QUESTION: Final = "What is a shard?"

PAGES: Final = (
    "", "chat", "network", "activity", "models", "downloads", "search", "adapters", "providers", "responses", "credits",
    "settings",
)  # fmt: skip
ON_A_PHONE: Final = ("", "chat", "settings")


async def _call(member: Member, method: str, path: str, body: object = None) -> int:
    """Status of one request with the node's key."""
    key = (member.folder / "api_key").read_text().strip()
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.request(method, member.url + path, json=body, headers={"authorization": f"Bearer {key}"}) as reply,
    ):
        await reply.read()
        return reply.status


async def _prepare(members: Sequence[Member]) -> None:
    """Names for the nodes, and something to see on the pages that show what clients did."""
    for member, name in zip(members, NAMES, strict=True):
        await _call(member, "PUT", "/api/admin/config", {"identity.nickname": name})
    for text in (QUESTION, "How does a node join a swarm?"):
        await _call(members[0], "POST", "/v1/responses", {"model": "auto", "input": text, "max_output_tokens": 64})


async def _picture(page: Page, path: Path) -> int:
    session = await page.context.new_cdp_session(page)
    told = await session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    data = base64.b64decode(told["data"])
    await asyncio.to_thread(path.write_bytes, data)
    return len(data)


async def _open(browser: Browser, url: str, *, dark: bool, phone: bool) -> Page:
    context = await browser.new_context(
        viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
        color_scheme="dark" if dark else "light", reduced_motion="reduce", locale="en-GB",
    )  # fmt: skip
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.goto(f"{url}/#/chat")
    await page.wait_for_selector(".example")
    await page.fill("#chat-field", QUESTION)
    await page.press("#chat-field", "Enter")
    await page.wait_for_selector(".reply-facts .hops")
    return page


async def _shoot(browser: Browser, url: str, folder: Path) -> int:
    """Every page in both themes; answers the bytes of all files."""
    total = 0
    for dark in (False, True):
        for phone in (False, True):
            page = await _open(browser, url, dark=dark, phone=phone)
            for name in ON_A_PHONE if phone else PAGES:
                await page.evaluate("name => { location.hash = `#/${name}`; }", name)
                await page.wait_for_timeout(SETTLE_MS)
                file = f"{name or 'overview'}{'-phone' if phone else ''}-{'dark' if dark else 'light'}.webp"
                total += await _picture(page, folder / file)
            await page.context.close()
    return total


async def _first_questions(browser: Browser, folder: Path, state: Path, port: int) -> int:
    """The wizard of a node that nobody has set up."""
    member = Member(9, port, state / "fresh")
    await member.start()
    assert member.process is not None
    total = 0
    try:
        for dark in (False, True):
            context = await browser.new_context(
                viewport=DESKTOP,  # type: ignore[arg-type]
                color_scheme="dark" if dark else "light", reduced_motion="reduce",
            )  # fmt: skip
            page = await context.new_page()
            await _until_it_listens(page, member.url)
            await page.wait_for_selector(".wizard-steps li", timeout=PATIENCE_MS)
            await page.wait_for_timeout(SETTLE_MS)
            total += await _picture(page, folder / f"first-questions-{'dark' if dark else 'light'}.webp")
            await context.close()
    finally:
        member.process.terminate()
        await member.process.wait()
    return total


async def _until_it_listens(page: Page, url: str) -> None:
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while True:
            with contextlib.suppress(Exception):  # it starts
                if (await page.goto(url)) is not None:
                    return
            await asyncio.sleep(0.3)


async def shoot(folder: Path) -> int:
    """Starts everything, writes the pictures into `folder`, ends everything. Answers the bytes of all files."""
    with tempfile.TemporaryDirectory(prefix="swarmd-screenshots-") as state:
        ports = choose_ports(PORTS, lambda port: True)
        named = zip(ports, NAMES, strict=True)
        members = [Member(number, port, Path(state) / name) for number, (port, name) in enumerate(named, start=1)]
        swarm = Swarm(members, Screen(Console()), question=QUESTION)
        keepers = [asyncio.create_task(swarm.keep(member), name=member.name) for member in members]
        try:
            await swarm.show(stay=False)
            await _prepare(members)
            async with async_playwright() as playwright:
                flags = [flag for flag in FLAGS if not flag.startswith(("--headless", "--remote-debugging"))]
                browser = await playwright.chromium.launch(executable_path=find_browser(), args=flags)
                total = await _shoot(browser, members[0].url, folder)
                total += await _first_questions(browser, folder, Path(state), ports[-1] + 20)
                await browser.close()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await swarm.stop()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    total = asyncio.run(shoot(folder))
    print(f"{total / 1e6:.2f} MB in {folder}")
    if total > LIMIT_BYTES:
        raise SystemExit(f"more than {LIMIT_BYTES / 1e6:.0f} MB: lower QUALITY")


if __name__ == "__main__":
    main()
