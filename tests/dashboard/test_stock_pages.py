"""The pages of models, downloads and search in a real browser: what they show, ask, start and say when it does not work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from tests.dashboard.fake_node import ANNA, BERT, SELF, FakeNode, model, peer, shard
from tests.dashboard.fake_stock import REPO, detail, download, plan, pruned, refused, repo
from tests.fakes.browser import Page

NASTY = '<img src=x onerror="window.hit=1"><b>bold</b>'
ME = SELF[:16]


async def load(page: Page, url: str, name: str, ready: str) -> None:
    await page.open(f"{url}#/{name}")
    await page.until("document.documentElement.dataset.link === 'open'")
    await page.until(f"document.querySelector({json.dumps(ready)})")


async def click(page: Page, name: str) -> None:
    """The button of this accessible name, which has to be visible."""
    found = f"[...document.querySelectorAll('button')].find(e => e.checkVisibility() && e.ariaLabel === {json.dumps(name)})"
    await page.until(found)
    await page.ask(f"{found}.click()")


async def eventually(check: Callable[[], Any]) -> Any:
    async with asyncio.timeout(3):
        while not (value := check()):
            await asyncio.sleep(0.02)
    return value


def cell(model_id: str, row: int, col: int) -> str:
    return f'document.querySelector(\'[data-card="{model_id}"] [data-row="{row}"][data-col="{col}"]\')'


def downloads_of(node: FakeNode, *rows: dict[str, Any]) -> None:
    node.stock.downloads = node.acquisitions = list(rows)


# --- models ---


async def test_the_map_of_shards_tells_every_state_and_its_menu_acts(page: Page, url: str, node: FakeNode) -> None:
    node.stock.plan = plan()
    row = node.models[0]["shards"][2]
    row["download"] = {"state": "Downloading", "progress_pct": 45.0, "downloaded_bytes": 18, "total_bytes": 40}
    await load(page, url, "models", "[data-card=gap-3b] .shard-cell")
    states = "e => e.getAttribute('class').match(/shard-is-(\\w+)/)[1]"
    shown = await page.ask(f"[...document.querySelectorAll('[data-card=mid-7b] [data-row=\"0\"]')].map({states})")
    assert shown == ["loaded", "loaded", "arriving", "none", "none"]
    assert await page.ask(f"{cell('gap-3b', 1, 1)}.classList.contains('shard-is-gap')")
    label = f"{cell('mid-7b', 0, 2)}.getAttribute('aria-label')"
    assert await page.ask(label) == "Shard 2, 40.0\u202fMB: this node, arriving, 45 %"
    words = await page.all_text("[data-card=gap-3b] .shard-words li")
    assert words == ["2 shards on 2 nodes.", "This node holds none.", "b0b0cafe holds 0.", "No connected node holds 1."]
    await page.until("!document.querySelector('#autopilot').hidden")
    await page.ask(f"{cell('mid-7b', 0, 0)}.focus()")
    await page.press("ArrowRight")
    assert "Shard 1, 40.0\u202fMB: this node, in memory" in await page.text("[data-card=mid-7b] .shard-says")
    await page.press("Enter")
    await page.until("document.querySelector('.menu:popover-open')")
    count = len(node.models[0]["shards"])
    assert (await page.text(".menu-title")).endswith(f": shard 2 of {count} (index 1)"), "as messages and as the map count"
    items = await page.all_text(".menu-item")
    assert items == ["Unload from memoryits file stays", "Lockthe autopilot never drops it", "Delete from disk…"]
    await page.press("Escape")
    await page.until(f"!document.querySelector('.menu') && document.activeElement === {cell('mid-7b', 0, 1)}")
    await page.press(" ")
    await page.until("document.activeElement.textContent.startsWith('Unload')")
    await page.press("ArrowDown")
    await page.press("Enter")
    await eventually(lambda: ("models/mid-7b/shards/1/lock", {"locked": True}) in node.stock.bodies)
    node.models[0]["shards"][1]["locked"] = True
    await node.push("models_changed")
    await page.until(f"{cell('mid-7b', 0, 1)}.getAttribute('aria-label').endsWith('locked')")
    await page.until(f"document.activeElement === {cell('mid-7b', 0, 1)}")
    await page.press("Enter")
    await page.until("document.activeElement.role === 'menuitem'")
    await page.press("ArrowUp")
    await page.press("Enter")
    assert f": delete shard 2 of {count} (index 1)?" in await page.text("dialog[open]")
    assert "1 other node holds it" in await page.text("dialog[open] p")
    await page.press("Tab")
    await page.press("Enter")
    await eventually(lambda: ("DELETE", "/api/admin/models/mid-7b/shards/1") in node.writes)
    assert page.complaints == []


async def test_what_no_peer_has_comes_from_the_hub(page: Page, url: str, node: FakeNode) -> None:
    node.models[1] |= {"hf_source": {"repo_id": REPO, "filename": "gap.gguf"}}
    use_hub = {"status": "use_hf", "source": "huggingface", "repo_id": REPO, "filename": "gap.gguf"}
    node.answers["models/gap-3b/shards/1/download"] = web.json_response(use_hub)
    node.answers["models/gap-3b/add"] = refused(503, "no connected node holds shard 1")
    await load(page, url, "models", "[data-card=gap-3b] .shard-cell")
    link = "document.querySelector('[data-card=gap-3b] .hub-link')"
    assert await page.ask(f"[{link}.pathname, {link}.target, {link}.rel]") == [f"/{REPO}", "_blank", "noopener noreferrer"]
    assert "shard 1" in await page.text("[data-card=gap-3b] .shard-says.trouble")
    await page.ask(f"{cell('gap-3b', 0, 1)}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")
    assert await page.all_text(".menu-item") == ["Download to this node40.0\u202fMB from Hugging Face"]
    await page.press("Enter")
    wanted = {"repo_id": REPO, "filename": "gap.gguf", "model_id": "gap-3b"}
    assert (await eventually(lambda: node.stock.bodies))[0] == ("hf/download-shards", wanted | {"shards": [1]})
    node.stock.bodies.clear()
    await click(page, "Fetch what is missing: Gap-3B")
    assert await eventually(lambda: node.stock.bodies) == [("hf/download-shards", wanted | {"shards": [0, 1]})]


async def test_a_hundred_shards_on_twenty_nodes_stay_legible(page: Page, url: str, node: FakeNode) -> None:
    names = [f"{number:02x}" * 8 for number in range(16, 36)]
    node.peers += [peer(name, None, 7, []) for name in names]
    rows = [shard(index, (index, index + 1), [names[index // 5]]) for index in range(100)]
    node.models, node.stock.plan = [model("Big", rows, status="ready")], plan()
    await page.window(1440, 900)
    await load(page, url, "models", "[data-card=big] .shard-cell")
    assert await page.ask("document.querySelectorAll('[data-card=big] [data-col]').length") == 2100
    box = f"{cell('big', 0, 99)}.getBoundingClientRect()"
    assert await page.ask(f"(b => b.right <= innerWidth && b.width >= 8 && b.height >= 18)({box})")
    await page.window(390, 844)
    await page.until("document.querySelector('.shard-scrolls')")
    assert await page.ask(f"{box}.width") >= 20
    assert await page.ask("document.documentElement.scrollWidth") == 390
    await page.ask(f"{cell('big', 0, 0)}.focus()")
    await page.press("End")
    await page.until(f"(b => b.left >= 0 && b.right <= innerWidth)({box})")
    assert page.complaints == []


async def test_a_badge_explains_itself_to_the_keyboard(page: Page, url: str, node: FakeNode) -> None:
    node.models[1]["trust_level"] = "Discovered"
    await load(page, url, "models", "[data-card=gap-3b] .tip")
    await page.ask("document.querySelectorAll('[data-card=gap-3b] .tip')[1].focus()")
    await page.press("ArrowRight")  # the keyboard is in use: focus is visible
    words = "document.querySelectorAll('[data-card=gap-3b] .tip-text')[1]"
    assert "does not fetch it by itself" in await page.until(f"{words}.checkVisibility() && {words}.textContent")
    await page.press("Escape")
    assert await page.ask(f"{words}.checkVisibility()") is False


# --- autopilot ---


async def test_a_node_without_autopilot_shows_none(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url, "models", "[data-card=mid-7b] .shard-cell")
    await page.until("document.querySelector('#autopilot').hidden")
    await page.until("document.querySelectorAll('.policy:not([hidden]), .nav-section').length === 0")  # drawn a frame later
    await page.ask(f"{cell('mid-7b', 0, 0)}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")
    assert await page.all_text(".menu-item") == ["Unload from memoryits file stays", "Delete from disk…"]


async def test_the_autopilot_says_what_it_would_do_and_is_steered(page: Page, url: str, node: FakeNode) -> None:
    node.stock.plan, node.stock.pruned = plan(), [pruned(3)]
    await load(page, url, "models", "#autopilot:not([hidden]) tbody tr")
    first = await page.all_text("#autopilot .pilot-table tbody tr:first-child td")
    assert first[:6] == ["↓ fetch", "Gap-3B", "1", "40.0\u202fMB", "2.50", "0 of 2 copies are there"]
    await page.until("[...document.querySelectorAll('#autopilot td')].some(e => e.textContent === '4 → 3')")
    rest = await page.all_text("#autopilot details td")
    assert rest[:4] == ["stays away", "Mid-7B", "2\u20134", "2 of 2 copies are there"]
    await page.until("document.querySelector('.schedule:not([hidden])')")
    await page.ask("document.querySelector('#schedule-on').click()")
    await page.ask("document.querySelector('#schedule-start').value = '20'")
    await page.ask("document.querySelector('.schedule').requestSubmit()")
    await page.until("document.querySelector('.schedule .well')?.textContent === 'Saved.'")
    assert node.stock.schedule["enabled"] is True and node.stock.schedule["reduced_hours_start"] == 20
    await page.ask("document.querySelector('.switch').click()")
    await page.until("document.querySelector('.switch').getAttribute('aria-checked') === 'false'")
    assert ("config", {"auto_manage_shards": False}) in node.stock.bodies
    form = "document.querySelector('[data-card=mid-7b] .policy-form')"
    await page.until("document.querySelector('[data-card=mid-7b] .policy:not([hidden])')")
    await page.ask(f"{form}.querySelector('[type=number]').value = '3'")
    await page.ask(f"{form}.querySelectorAll('[type=checkbox]')[1].click()")
    await page.ask(f"{form}.requestSubmit()")
    said = "[...document.querySelectorAll('[data-card=mid-7b] .policy summary')].at(-1).textContent"
    await page.until(f"{said} === 'Autopilot: fetches up to 3 shards, never drops'")
    assert node.stock.policies["mid-7b"] == {"model_id": "mid-7b", "enabled": True, "max_shards": 3, "prune_enabled": False}
    assert page.complaints == []


# --- downloads ---


async def test_downloads_move_without_flicker(page: Page, url: str, node: FakeNode) -> None:
    shards = [detail(0, "complete", 100, "huggingface"), detail(1, "downloading", 50, ANNA), detail(2, "pending", 0)]
    downloads_of(node, download("Mid-7B", "downloading", shards, place=0), download("Gap-3B", "queued", [], place=1))
    await load(page, url, "downloads", ".download")
    assert await page.text(".download .download-facts") == (
        "50 % · 60.0\u202fMB of 120\u202fMB · 1 of 3 shards · 6.0\u202fMB/s · 10\u202fs left · from Hugging Face and anna"
    )
    assert await page.all_text(".tile-value") == ["6.0\u202fMB/s", "10\u202fs", "1", "220\u202fGB"]
    assert (await page.text("nav .nav-note")).startswith("2")
    await page.ask("document.querySelector('.download-more').open = true")
    await page.until("document.querySelectorAll('.download-shard').length === 3")
    lines = await page.all_text(".download-shard")
    assert lines[1:] == ["shard 150 % · 6.0\u202fMB/s · from anna", "shard 2waiting"]
    await page.ask("window.kept = [...document.querySelectorAll('.download, .download-shard, .download-log li')]")
    await click_focus(page, "Pause: Mid-7B")
    shards[1] |= detail(1, "downloading", 80, ANNA)
    node.acquisitions[0] |= download("Mid-7B", "downloading", shards, place=0)
    await node.tick()
    await page.until("document.querySelector('.download progress').value === 60")
    assert await page.ask("kept.every(e => e.isConnected)"), "rows are patched, not made again"
    assert await page.ask("document.activeElement.ariaLabel") == "Pause: Mid-7B"
    await page.press("Enter")
    await page.until("document.querySelector('.download-paused')")
    await click(page, "Resume: Mid-7B")
    await page.until("document.querySelector('.download-downloading')")
    assert [path for path, _ in node.stock.bodies] == ["downloads/mid-7b/pause", "downloads/mid-7b/resume"]
    assert page.complaints == []


async def click_focus(page: Page, name: str) -> None:
    await page.ask(f"[...document.querySelectorAll('button')].find(e => e.ariaLabel === {json.dumps(name)}).focus()")


async def test_the_order_is_changed_by_button_and_key(page: Page, url: str, node: FakeNode) -> None:
    downloads_of(node, *(download(name, "queued", [detail(0, "pending", 0)], place=at) for at, name in enumerate("abc")))
    await load(page, url, "downloads", ".download")
    await click_focus(page, "Move up: c")
    await page.press("Enter")
    order = "[...document.querySelectorAll('.download h3')].map(e => e.textContent).join('')"
    await page.until(f"{order} === 'acb'")
    await page.until("document.activeElement.ariaLabel === 'Move up: c'")
    key = "new KeyboardEvent('keydown', { key: 'Home', altKey: true, bubbles: true, cancelable: true })"
    await page.ask(f"document.activeElement.dispatchEvent({key})")
    await page.until(f"{order} === 'cab'")
    await page.until("document.querySelector('#announcer').textContent === 'c is number 1 of 3'")
    assert [body for _, body in node.stock.bodies] == [{"place": 1}, {"place": 0}]


async def test_cancelling_asks_and_failures_say_why_and_go_on(page: Page, url: str, node: FakeNode) -> None:
    broken = [detail(0, "complete", 100, "huggingface"), detail(1, "failed", 12, "huggingface")]
    downloads_of(
        node,
        download("Mid-7B", "downloading", [detail(0, "downloading", 50, ANNA)], place=0),
        download("Gap-3B", "failed", broken, reason="the disk is full: 40 MB are needed and 3 MB are free"),
    )
    await load(page, url, "downloads", ".download-failed")
    assert "The disk is full: 40 MB are needed" in await page.text(".download-failed .trouble")
    await click(page, "Cancel: Mid-7B")
    await page.until("document.querySelector('dialog[open] .danger')")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog')")
    assert node.stock.bodies == []
    await click(page, "Cancel: Mid-7B")
    await page.until("document.querySelector('dialog[open] .danger')")
    await page.ask("document.querySelector('dialog .danger').click()")
    await page.until("document.querySelector('.download-cancelled')")
    await click(page, "Try again: Gap-3B")
    wanted = {"repo_id": REPO, "filename": "mid.Q4_K_M.gguf", "shards": [1], "model_id": "gap-3b"}
    await eventually(lambda: ("hf/download-shards", wanted) in node.stock.bodies)
    await click(page, "Try again: Mid-7B")
    await eventually(lambda: ("POST", "/api/admin/models/mid-7b/add") in node.writes)


async def test_nothing_to_fetch_and_a_notice_that_leads_there(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url, "models", "[data-card=mid-7b]")
    said = {"kind": "download_started", "category": "download", "message": "fetching 2 shards of m from peers"}
    await node.push("activity_event", said | {"timestamp": "2026-04-01T10:00:00.000Z", "toast_level": "info"})
    await page.until("document.querySelector('.toast a')")
    await page.ask("document.querySelector('.toast a').click()")
    await page.until("document.querySelector('.downloads-panel .empty:not([hidden])')")
    assert await page.all_text(".downloads-panel .empty a") == ["Search Hugging Face", "Models"]
    assert await page.text("nav [aria-current=page]") == "Downloads"
    assert await page.ask("document.querySelectorAll('.toast').length") == 0


# --- search ---


async def find(page: Page, text: str) -> None:
    await page.ask("document.querySelector('#hub-search').focus()")
    await page.write(text)
    await page.press("Enter")


async def test_a_model_is_found_judged_and_fetched(page: Page, url: str, node: FakeNode) -> None:
    for row in node.peers:
        row["free_ram_mb"] = 6_000
    await load(page, url, "search", ".search-start")
    await page.ask("document.querySelector('#hub-search').focus()")
    await page.write("mid 7")
    await page.until("document.querySelector('.file')")  # by itself, after a pause
    assert node.stock.searched == ["mid 7"]
    verdicts = await page.all_text(".repo:first-child .verdict")
    assert verdicts[2:] == ["✓Fits here", "✓Fits here", "✓Fits here", "✓Fits here", "◐Fits the swarm"]
    assert await page.all_text(".repo:nth-child(2) .verdict") == ["✕Does not fit"] * 3
    assert await page.text(".repo:first-child .file-recommended .file-quant") == "Q4_K_M★ recommended"
    assert "2 nodes of the swarm have it" in await page.text(".repo:first-child .repo-facts")
    node.stock.go.clear()
    await page.ask("document.querySelector('.file-recommended button').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('.pick progress')?.matches(':indeterminate')")
    node.stock.go.set()
    await page.until("document.activeElement.value === 'all'")
    assert "8, about 513\u202fMB each" in await page.text(".pick-facts")
    await page.press("ArrowRight")
    assert await page.ask("document.querySelector('.pick input:checked').value") == "share"
    await page.press("Enter")
    await page.until("location.hash === '#/downloads' && document.querySelector('.download')")
    wanted = {"repo_id": REPO, "filename": "Mid-7B-Instruct.Q4_K_M.gguf", "peer_fair_share": True}
    assert node.stock.bodies == [("hf/download-shards", wanted)]
    assert page.complaints == []


async def test_single_shards_are_chosen(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url, "search", ".search-start")
    await find(page, "mid")
    await page.until("document.querySelector('.file')")
    await page.ask("document.querySelector('.file').click()")
    await page.until("document.querySelector('.pick-ways')")
    await page.ask("document.querySelector('.pick input[value=some]').click()")
    await page.ask("document.querySelector('.pick form').requestSubmit()")
    assert "Choose at least one shard" in await page.text(".pick .trouble:not([hidden])")
    await page.ask("document.querySelectorAll('.pick-shard input')[1].click()")
    shift = "new MouseEvent('click', { shiftKey: true, bubbles: true, cancelable: true })"
    await page.ask(f"document.querySelectorAll('.pick-shard input')[3].dispatchEvent({shift})")
    assert "3 shards (1\u20133), about 1.5\u202fGB" in await page.text(".pick-chooser .hint")
    node.stock.refusal = (507, "the disk has no room for 1.5 GB: 3 MB are free")
    await page.ask("document.querySelector('.pick form').requestSubmit()")
    await page.until("document.querySelector('.pick .trouble').textContent.includes('The disk has no room')")
    node.stock.refusal = None
    await page.ask("document.querySelector('.pick form').requestSubmit()")
    await page.until("location.hash === '#/downloads'")
    assert node.stock.bodies[-1][1]["shards"] == [1, 2, 3]


async def test_what_cannot_run_or_be_read_says_so(page: Page, url: str, node: FakeNode) -> None:
    node.stock.repos = [repo("lab/Odd-GGUF", {"Q4_K_M": 1.0}, gated=True)]
    node.stock.probe |= {"architecture_supported": False, "shard_count": 0, "reason": "this node runs llama, not rwkv"}
    await load(page, url, "search", ".search-start")
    await find(page, "odd")
    await page.until("document.querySelector('.file')")
    await page.ask("document.querySelector('.file').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('.pick .trouble').textContent === 'This node runs llama, not rwkv.'")
    assert await page.ask("document.querySelector('.pick .primary').hidden") is True
    await page.press("Escape")
    await page.until("!document.querySelector('.pick') && document.activeElement.className === 'file'")
    node.stock.refusal = (502, "Odd-GGUF is behind terms")
    await page.press("Enter")
    said = await page.until("(t => t && t.textContent)(document.querySelector('.pick .trouble:not([hidden])'))")
    assert "HF_TOKEN" in said
    await page.until("document.activeElement.textContent === 'Try again'")


async def test_a_search_that_finds_nothing_or_fails_helps_on(page: Page, url: str, node: FakeNode) -> None:
    node.stock.repos, node.stock.refusal = [], (502, "the hub did not answer within 30 s")
    await load(page, url, "search", ".search-start")
    await find(page, "mid")
    said = await page.text(".search-trouble")
    assert "The hub did not answer within 30 s." in said and "reach the internet" in said
    node.stock.refusal = None
    await page.ask("document.querySelector('.search-trouble button').click()")
    await page.until("document.querySelector('.repos .empty')?.textContent.includes('Nothing found for “mid”')")
    node.stock.repos = [repo(f"x/{NASTY.replace('/', '')}", {NASTY: 1.0}, task_tags=[NASTY])]
    await find(page, " again")
    await page.until("document.querySelector('.file')")
    assert await page.ask("window.hit") is None
    assert await page.ask("document.querySelectorAll('main img, main b, .repo a').length") == 0


# --- all of them ---


@pytest.mark.parametrize(("width", "dark"), [(360, False), (390, True), (1280, False)])
async def test_nothing_is_wider_than_the_view(page: Page, url: str, node: FakeNode, width: int, dark: bool) -> None:
    long = "A-model-with-a-name-that-never-ends-" * 4
    node.models[0]["name"], node.stock.plan, node.stock.pruned = long, plan(), [pruned(1, long)]
    rows = [detail(0, "downloading", 10, BERT)]
    downloads_of(node, download(long, "downloading", rows, place=0), download("b" * 90, "failed", rows, reason="f" * 300))
    node.stock.repos[0] = repo(f"owner/{long}", {"Q4_K_M": 1.0, "x" * 60: 2.0}, task_tags=["t" * 50] * 9)
    await page.window(width, 740, dark=dark)
    beyond = "e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll-x, .shard-scroll, svg')"
    ready = {"models": "#autopilot:not([hidden]) tbody tr", "downloads": ".download", "search": ".search-start"}
    for name, selector in ready.items():
        await load(page, url, name, selector)
        if name == "search":
            await find(page, "mid")
            await page.until("document.querySelector('.file')")
        await page.ask("[...document.querySelectorAll('main details')].forEach(e => { e.open = true })")
        await asyncio.sleep(0.05)  # the map of shards follows its box in the next frame
        found = await page.ask(f"[...document.querySelectorAll('main *')].filter(e => {beyond}).map(e => e.className)")
        assert found == [], name
        assert await page.ask("document.documentElement.scrollWidth") == width, name
    assert page.complaints == []
