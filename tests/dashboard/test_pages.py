"""Each page in Chromium, driven by Playwright against a node that only pretends: what it shows, takes and refuses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.dashboard.driver import LIVE, PAGES, chromium, grave_faults, opened, serving, show, until
from tests.dashboard.fake_node import ANNA, NOW, FakeNode

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def url(node: FakeNode) -> AsyncIterator[str]:
    async with serving(node) as address:
        yield address


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_grave_on_any_page(browser: Browser, url: str, node: FakeNode, dark: bool) -> None:
    node.services.adapters = [{"id": "a", "name": "Mine", "base_model": "mid-7b", "rank": 8, "alpha": 16.0, "path": "/a"}]
    node.pieces = ["A list:\n\n- one\n- two\n\n", "```python\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"]
    async with opened(browser, dark=dark) as (_, page):
        faults = {}
        for name in PAGES:
            await show(page, url, name)
            if name == "chat":
                await page.fill("#chat-field", "What?")
                await page.press("#chat-field", "Enter")
                await page.wait_for_selector(".reply-facts .hops")
            if name == "responses":
                await page.locator(".row-card summary").first.click()
            if found := await grave_faults(page):
                faults[name] = found
        assert faults == {}


async def test_no_page_is_wider_than_a_phone_and_the_menu_leads_to_all(browser: Browser, url: str) -> None:
    async with opened(browser, width=390, height=844) as (_, page):
        for name in PAGES:
            await show(page, url, name)
            assert await page.evaluate("document.documentElement.scrollWidth") == 390, name
        menu = page.get_by_role("button", name="Menu")
        await menu.click()
        await expect(menu).to_have_attribute("aria-expanded", "true")
        await page.get_by_role("link", name="Credits").click()
        await expect(page.locator("#account-title")).to_be_visible()
        await expect(page.locator("nav")).to_be_hidden()
        await menu.focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Escape")
        await expect(page.locator("nav")).to_be_hidden()
        await expect(menu).to_be_focused()


async def test_settings_are_changed_and_a_refusal_stands_beside_its_field(
    browser: Browser, url: str, node: FakeNode
) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "settings")
        assert await page.locator(".setting").count() == len(node.services.settings)
        batch = page.get_by_label("max_batch_size", exact=True)
        row = page.locator('[data-setting="inference.max_batch_size"]')
        await expect(row).to_contain_text("live")
        await batch.fill("999")
        await page.get_by_role("button", name="Save").click()
        await expect(row.get_by_role("alert")).to_have_text(
            "Inference.max_batch_size cannot be 999: it must be 1 to 256."
        )
        await expect(batch).to_be_focused()
        await expect(batch).to_have_attribute("aria-invalid", "true")
        await batch.fill("12")
        await page.get_by_label("context_tokens", exact=True).fill("1024")
        await page.get_by_label("speculation", exact=True).uncheck()
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator(".toast-success")).to_contain_text("Saved")
        wanted = {"inference.max_batch_size": 12, "inference.context_tokens": 1024, "inference.speculation": False}
        assert node.services.bodies[-1] == ("config", wanted)
        await expect(page.locator(".notice-line")).to_contain_text("inference.context_tokens")
        await expect(page.locator(".save-bar")).to_be_hidden()
        await expect(page.get_by_label("data_dir", exact=True)).to_be_disabled()
        assert await page.get_by_label("api_key", exact=True).input_value() == ""
        await page.get_by_label("Find").fill("nickname")
        await expect(page.locator(".setting:visible")).to_have_count(1)


async def test_activity_is_filtered_and_held(browser: Browser, url: str, node: FakeNode) -> None:
    node.activity = [
        {"kind": "x", "category": "network", "message": "anna connected", "timestamp": NOW, "toast_level": "info"},
        {"kind": "y", "category": "model", "message": "mid-7b is loaded", "timestamp": NOW + 1, "toast_level": None},
        {"kind": "z", "category": "model", "message": "its worker ended", "timestamp": NOW + 2, "toast_level": "error"},
    ]
    async with opened(browser) as (_, page):
        await show(page, url, "activity")
        entries = page.locator(".activity-all .entry")
        await expect(entries).to_have_count(3)
        await page.get_by_label("Subject").select_option("model")
        await expect(entries).to_have_count(2)
        await page.get_by_label("How loud").select_option("trouble")
        await expect(entries).to_have_count(1)
        await page.get_by_label("Words").fill("nothing like it")
        await expect(page.locator(".activity-all .empty")).to_contain_text("Nothing fits")
        await page.reload()
        await page.wait_for_selector(LIVE, state="attached")
        assert await page.get_by_label("Words").input_value() == "nothing like it"
        await page.get_by_label("Words").fill("")
        await page.get_by_role("button", name="Hold").click()
        late = {"kind": "w", "category": "model", "message": "again", "timestamp": NOW + 3, "toast_level": "error"}
        await node.push("activity_event", late)
        await expect(page.locator(".activity-page .hint").first).to_contain_text("1 more since it is held")
        await page.get_by_role("button", name="Go on").click()
        await expect(entries).to_have_count(2)


async def test_errors_stay_until_they_are_dismissed(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await page.clock.install()
        await show(page, url, "activity")
        about = {"kind": "x", "category": "model", "timestamp": NOW + 9, "toast_duration_ms": 4000}
        worse = {**about, "message": "a worker ended", "toast_level": "error"}
        await node.push("activity_event", worse)
        await node.push("activity_event", {**worse, "timestamp": NOW + 10})
        await node.push("activity_event", {**about, "message": "settings changed", "toast_level": "info"})
        await expect(page.locator(".toast")).to_have_count(2)
        await expect(page.locator(".toast-error .toast-times")).to_have_text("\u00d72")
        await page.clock.run_for(3500)
        await expect(page.locator(".toast-info")).to_be_visible()
        await page.clock.run_for(1000)
        await expect(page.locator(".toast-info")).to_have_count(0)
        await page.clock.run_for(600_000)
        await expect(page.locator(".toast-error")).to_be_visible()
        await page.get_by_role("button", name="Dismiss").click()
        await expect(page.locator(".toast")).to_have_count(0)


async def test_adapters_are_registered_and_removed(browser: Browser, url: str, node: FakeNode) -> None:
    node.services.adapter_refusal = (400, "there is no file mine.safetensors", "path")
    async with opened(browser) as (_, page):
        await show(page, url, "adapters")
        await expect(page.locator(".adapters .empty")).to_contain_text("No adapter yet")
        await page.get_by_text("Register an adapter").click()
        await page.get_by_label("Name").fill("Mine")
        await page.get_by_label("File").fill("mine.safetensors")
        await page.get_by_role("button", name="Register").click()
        await expect(page.locator("#adapter-path-problem")).to_have_text("There is no file mine.safetensors.")
        node.services.adapter_refusal = None
        await page.get_by_role("button", name="Register").click()
        await expect(page.locator("[data-adapter]")).to_contain_text("mid-7b:made-up")
        assert node.services.bodies[-1] == ("adapters", {"name": "Mine", "base_model": "mid-7b", "path": "mine.safetensors"})
        await page.get_by_role("button", name="Remove the adapter Mine").click()
        await page.get_by_role("button", name="Remove", exact=True).click()
        await expect(page.locator("[data-adapter]")).to_have_count(0)


async def test_a_provider_gets_a_key_that_is_never_shown(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "providers")
        anthropic, openai = page.locator('[data-provider="anthropic"]'), page.locator('[data-provider="openai"]')
        await expect(openai).to_contain_text("key from the environment")
        await anthropic.get_by_label("Key for Anthropic", exact=True).fill("sk-secret")
        await anthropic.get_by_role("button", name="Save").click()
        await expect(anthropic).to_contain_text("key stored here")
        assert node.services.bodies[-1] == ("providers", {"anthropic_key": "sk-secret"})
        assert "sk-secret" not in await page.content()
        await page.get_by_role("button", name="Ask all whether they answer").click()
        await expect(openai).to_contain_text("limits requests in 320")
        node.services.provider_refusal = (400, "this is no key of Anthropic", "anthropic_key")
        await anthropic.get_by_label("Key for Anthropic", exact=True).fill("nonsense")
        await anthropic.get_by_role("button", name="Save").click()
        await expect(anthropic.get_by_role("alert")).to_contain_text("This is no key of Anthropic.")
        await page.get_by_role("button", name="Ask whether these answer").click()
        await expect(page.get_by_role("row", name="GPT-4o")).to_contain_text("answers, 210")
        await page.get_by_text("Add a server of your own").click()
        await page.locator("#custom-name").fill("ray")
        await page.locator("#custom-url").fill("http://ray.example:8000/v1")
        await page.get_by_role("button", name="Add", exact=True).click()
        await expect(page.get_by_role("region", name="Models of providers")).to_contain_text("ray:large")
        await page.locator(".toast").get_by_role("button").first.click()
        await page.get_by_role("button", name="Remove ray").click()
        await page.get_by_role("button", name="Remove", exact=True).click()
        await expect(page.locator('[data-provider="ray"]')).to_have_count(0)


async def test_a_refused_key_of_a_provider_is_not_the_node_s_key(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "chat")
        await page.locator("#chat-model").select_option("openai:gpt-4o")
        said = "provider openai refuses the key that this node has for it (401)"
        node.chat_refusal = (401, said, "provider_key_refused", "provider_error")
        await page.fill("#chat-field", "Hello")
        await page.press("#chat-field", "Enter")
        await expect(page.locator(".reply-trouble")).to_contain_text(said[1:])
        await expect(page.locator("dialog[open]")).to_have_count(0)
        node.chat_refusal = None
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".message-assistant .who")).to_have_text("OpenAI")
        assert node.asked[-1]["model"] == "openai:gpt-4o"


async def test_stored_responses_are_read_cancelled_and_deleted(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "responses")
        await expect(page.locator("[data-response]")).to_have_count(2)
        first = page.locator('[data-response="resp_1"]')
        await first.get_by_text("The whole of it").click()
        await expect(first.locator(".response-body strong")).to_have_text("shard")
        await page.get_by_role("button", name="Cancel resp_2").click()
        await expect(page.locator('[data-response="resp_2"]')).to_contain_text("cancelled")
        await page.get_by_label("State").select_option("completed")
        await expect(page.locator("[data-response]")).to_have_count(1)
        await page.get_by_role("button", name="Delete resp_1").click()
        await page.get_by_role("button", name="Delete", exact=True).click()
        await expect(page.locator(".panel-stored .empty")).to_have_text("None in this state.")
        assert [row["id"] for row in node.services.responses] == ["resp_2"]


async def test_credits_with_their_entries(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "credits")
        facts = page.locator(".panel-account .facts")
        await expect(facts).to_contain_text("990")
        await expect(facts).to_contain_text("gold")
        entries = page.get_by_role("region", name="Entries of the account").get_by_role("row")
        await expect(entries).to_have_count(2)
        await page.get_by_role("button", name="Older ones").click()
        await expect(entries).to_have_count(3)
        await expect(page.get_by_role("region", name="Books by node")).to_contain_text("anna")


async def test_an_older_node_says_what_it_has_not(browser: Browser, url: str, node: FakeNode) -> None:
    node.services.missing = True
    async with opened(browser) as (_, page):
        for name, words in (
            ("providers", "speaks to no providers"), ("responses", "keeps no responses"), ("credits", "keeps no books"),
            ("adapters", "keeps no adapters"), ("settings", "does not describe its settings"),
        ):  # fmt: skip
            await page.goto(f"{url}#/{name}")
            await expect(page.locator("main")).to_contain_text(words)


async def test_the_version_and_an_update(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "settings")
        await expect(page.locator(".version-line")).to_have_text("swarmd 0.1.0 runs here.")
        await page.get_by_role("button", name="Look for an update").click()
        await expect(page.locator(".version .said")).to_have_text("This is the newest version.")
        node.services.version |= {"latest_version": "0.2.0", "update_available": True, "changelog": "- faster"}
        news = {"current_version": "0.1.0", "latest_version": "0.2.0", "changelog": "- faster", "published_at": None}
        await node.push("update_available", news | {"downloaded": False})
        await expect(page.locator(".toast")).to_contain_text("Version 0.2.0 is available")
        await expect(page.locator(".version-line")).to_contain_text("Version 0.2.0 is available.")
        await page.get_by_role("button", name="Update and restart…").click()
        await page.get_by_role("button", name="Update", exact=True).click()
        await expect(page.locator(".version .said")).to_have_text("The node restarts in 0.2.0.")


async def test_replies_are_marked_up_safely_and_kept_in_this_browser(browser: Browser, url: str, node: FakeNode) -> None:
    node.pieces = [
        "# Title\n\nSome **bo", "ld** and `code` <b>no</b> [link](https://example.com) [bad](javascript:alert(1))\n\n",
        "1. first\n2. second\n   - inner\n\n```js\nlet a = '<script>';\n", "```\n\n> quoted\n",
    ]  # fmt: skip
    async with opened(browser) as (context, page):
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await show(page, url, "chat")
        await page.fill("#chat-field", "Show **everything**")
        await page.press("#chat-field", "Enter")
        await page.wait_for_selector(".reply-facts .hops")
        said = page.locator(".message-assistant .said-text")
        await expect(said.locator("strong")).to_have_text("bold")
        assert await said.locator("b, script, img").count() == 0
        assert await said.locator("a").evaluate_all("all => all.map(one => one.href)") == ["https://example.com/"]
        await expect(said).to_contain_text("[bad](javascript:alert(1))")
        await expect(said.locator("ol > li")).to_have_count(2)
        await expect(said.locator("ol ul li")).to_have_text("inner")
        await expect(said.locator("pre")).to_have_text("let a = '<script>';")
        await said.get_by_role("button", name="Copy").click()
        assert await page.evaluate("navigator.clipboard.readText()") == "let a = '<script>';"
        await expect(page.locator(".message-user .said-text")).to_have_text("Show **everything**")
        await page.reload()
        await expect(page.locator(".message-assistant .said-text strong")).to_have_text("bold")
        await expect(page.locator(".message-assistant .reply-rate")).to_contain_text("56.8 tokens/s · on this node, anna")
        await page.get_by_role("button", name="New chat").click()
        await page.fill("#chat-field", "Something else")
        await page.press("#chat-field", "Enter")
        await page.wait_for_selector(".reply-facts .hops")
        assert [one["content"] for one in node.asked[-1]["messages"]] == ["Something else"]
        await page.get_by_label("Conversations kept in this browser").select_option(label="Show **everything**")
        await expect(page.locator(".message-user")).to_have_text("YouShow **everything**")
        await page.get_by_role("button", name="Forget this conversation").click()
        kept = await page.evaluate("JSON.parse(localStorage.getItem('swarmd-conversations')).length")
        assert kept == 1


async def test_a_lost_connection_is_said_and_everything_is_fresh_when_it_is_back(
    browser: Browser, url: str, node: FakeNode
) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "")
        await node.drop_sockets()
        await expect(page.locator("#banner")).to_contain_text("No connection to this node")
        await expect(page.locator("#banner")).to_contain_text("Trying again")
        node.peers, node.socket_open = node.peers[:1], True
        node.services.settings[0]["value"] = "other"
        await page.get_by_role("button", name="Try now").click()
        await expect(page.locator("#banner")).to_be_hidden()
        await expect(page.locator(".tile-peers .tile-value")).to_have_text("1")
        await expect(page.locator(".entry")).to_have_count(2)  # the same history is not told twice
        await expect(page.locator(".toast")).to_have_count(0)


async def test_the_progress_of_a_download(browser: Browser, url: str, node: FakeNode) -> None:
    row = {
        "model_id": "gap-3b", "model_name": "Gap-3B", "state": "downloading", "overall_pct": 25.0, "place": 0,
        "downloaded_bytes": 20_000_000, "total_bytes": 80_000_000, "speed_bytes_per_sec": 4_000_000, "eta_secs": 15,
        "cancellable": True, "total_shards": 2, "verified_shards": 0, "shard_details": [], "log": [], "source": "network",
    }  # fmt: skip
    async with opened(browser) as (_, page):
        await show(page, url, "downloads")
        for percent in (25.0, 75.0):
            node.acquisitions = [{**row, "overall_pct": percent, "downloaded_bytes": int(percent * 800_000)}]
            node.stock.downloads = node.acquisitions
            await node.tick()
            await expect(page.locator(".download progress").first).to_have_js_property("value", percent)
        await expect(page.locator("nav .nav-note")).to_contain_text("1")


async def test_the_first_questions_are_asked_skipped_and_taken_up_again(browser: Browser, url: str, node: FakeNode) -> None:
    node.peers = []
    node.services.settings[0] |= {"value": "", "source": "default"}
    async with opened(browser) as (_, page):
        await page.goto(url)
        await page.get_by_label("Name (optional)").fill("kitchen")
        await page.get_by_role("button", name="Next").click()
        await until(lambda: ("config", {"identity.nickname": "kitchen"}) in node.services.bodies)
        await page.get_by_label("Much").check()
        await page.get_by_role("button", name="Next").click()
        await until(lambda: ("config", {"node.contribution": "moderate"}) in node.services.bodies)
        await page.locator(".wizard").get_by_label("Somebody gave you a code?").fill("swarm://good")
        await page.locator(".wizard").get_by_role("button", name="Join").click()
        await expect(page.locator(".wizard .said.well")).to_have_text("Joined the network of anna.")
        await page.reload()
        await expect(page.locator(".wizard-steps [aria-current]")).to_have_text("3. Network")
        assert await grave_faults(page) == []
        await page.get_by_role("button", name="Skip this").click()
        await expect(page.locator(".wizard .row-card").first).to_be_visible()
        await page.get_by_role("button", name="Done").click()
        await expect(page.locator(".panel-wizard")).to_be_hidden()
        await page.reload()
        await page.wait_for_selector(LIVE, state="attached")
        await asyncio.sleep(0.2)
        await expect(page.locator(".panel-wizard")).to_be_hidden()


async def test_charts_begin_with_the_hour_before_and_go_on(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "")
        await page.wait_for_selector(".chart-tokens canvas")
        picture = page.locator(".chart-memory .chart-picture")
        await expect(picture).to_have_attribute("aria-label", re.compile("whole machine 6.1"))
        await page.get_by_role("button", name="1 hour").click()
        await expect(page.get_by_role("button", name="1 hour")).to_have_attribute("aria-pressed", "true")


async def test_replies_of_others_flow_through_the_picture(browser: Browser, url: str, node: FakeNode) -> None:
    async with opened(browser) as (_, page):
        await show(page, url, "")
        flow = {"model": "mid-7b", "nodes": [node.stats["node_id"][:16], ANNA], "seconds": 1.0}
        node.stats |= {"flows": [flow], "tokens_now": 31.5}
        await node.tick()
        await expect(page.locator(".flow-line")).to_have_text("1 reply in the making, 31.5 tokens/s together.")
        await page.wait_for_selector(".flows .flow", state="attached")
        del node.stats["flows"]
        await node.tick()
        await page.wait_for_selector(".flows .flow", state="detached")
