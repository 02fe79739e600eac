"""The dashboard of real nodes: a chat with the built-in model, and a second node that joins in its page."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import expect

from tests.dashboard.driver import chromium, opened, show
from tests.fakes.nodes import running


async def test_a_chat_and_a_node_that_joins(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "a", ui__builtin_model=True, inference__context_tokens=1024) as first,
        running(tmp_path / "b") as second,
        chromium() as browser,
    ):
        async with opened(browser) as (_, page):
            await show(page, first.url, "chat")
            await page.wait_for_selector("#chat-model option[value=swarmd-builtin]:not([disabled])", state="attached")
            await page.fill("#chat-field", "What is a shard?")
            await page.press("#chat-field", "Enter")
            await expect(page.locator(".reply-facts .hop").first).to_contain_text("this node", timeout=20_000)
            assert "shard" in await page.locator(".message-assistant .said-text").inner_text()
            await page.get_by_role("link", name="Settings").click()
            await page.get_by_label("nickname", exact=True).fill("anna")
            await page.get_by_role("button", name="Save").click()
            await expect(page.locator('[data-setting="identity.nickname"]')).to_contain_text("now anna (settings file)")
            await page.get_by_role("link", name="Network").click()
            await page.get_by_role("button", name="Invite a node").click()
            await page.get_by_role("button", name="Make a code").click()
            code = page.locator(".invite-text textarea")
            await expect(code).not_to_have_value("")
            text = await code.input_value()
        async with opened(browser) as (_, page):
            await show(page, second.url, "network")
            await page.locator("#join-code").fill(text)
            await page.get_by_role("button", name="Join", exact=True).click()
            await expect(page.locator("#join-said.well")).not_to_be_empty()
            await expect(page.locator(".map-node[role=option]")).to_have_count(2)
            await expect(page.locator(".map")).to_contain_text("anna")
