"""The dashboard in a real browser, against a node that only pretends: what is shown, typed, streamed and refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.dashboard.fake_node import ANNA, BERT, KEY, NOW, FakeNode, invite, model, peer, shard
from tests.fakes.browser import Page

NASTY = '<img src=x onerror="window.hit=1"><script>window.hit=1</script><b>bold</b>'


async def load(page: Page, url: str) -> None:
    await page.open(url)
    await page.until("document.documentElement.dataset.link === 'open'")
    await page.until("document.querySelector('.model[data-model], .models .empty')")


async def ask(page: Page, question: str) -> None:
    await page.ask("document.querySelector('#chat-field').focus()")
    await page.write(question)
    await page.press("Enter")


async def focused(page: Page) -> str:
    return await page.ask("(e => e.textContent.trim() || e.id || e.tagName)(document.activeElement)")


async def test_page_loads_without_a_complaint_and_shows_the_swarm(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    await page.until("document.querySelectorAll('.ring-picture .node').length === 3")
    names = await page.all_text(".ring-picture .node-name")
    assert names == ["5e1f5e1f", BERT[:8], "anna"]
    assert "23\u202fms" in await page.text(".ring-picture")
    assert await page.all_text(".tile-value") == [
        "2", "\u2013", "41", "12", "0", "6.1\u202fGB", "280\u202fGB", "2\u202fh 3\u202fmin",
    ]  # fmt: skip
    await node.push("peer_list", {"peers": [*node.peers, peer("c" * 16, "carl", 4, [])]})
    await page.until("document.querySelectorAll('.ring-picture .node').length === 4")
    assert await page.ask("document.querySelector('meta[name=swarmd-nonce]')") is None
    assert page.complaints == []


async def test_strips_show_holders_memory_and_gaps(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    mid = await page.until("document.querySelector('[data-model=\"mid-7b\"] svg.strip')?.getAttribute('aria-label')")
    held = ["this node holds 0\u20131 (in memory: 0\u20131)", "anna holds 1\u20133", "b0b0cafe holds 3\u20134"]
    assert mid == f"Shards of Mid-7B, 5 in all: {'; '.join(held)}."
    blocks = await page.all_text('.strip-card[data-model="mid-7b"] .block-text')
    assert blocks == ["● shards 0\u20131 in memory", "shards 1\u20133", "shards 3\u20134"]
    edges = "[...document.querySelectorAll('[data-model=\"mid-7b\"] .strip .edge')]"
    looks = await page.ask(f"new Set({edges}.map(e => e.getAttribute('fill'))).size")
    assert looks == 3, "every holder has a pattern of its own"
    assert await page.all_text('.strip-card[data-model="gap-3b"] .gap-text') == ["no holder"]
    assert "shard 1" in await page.text('.strip-card[data-model="gap-3b"] .gap-line')
    node.models[1] = model("Gap-3B", [shard(0, (0, 8), [BERT]), shard(1, (8, 16), [ANNA])], status="ready")
    await node.push("models_changed")
    await page.until("!document.querySelector('.gap-text')")
    assert page.complaints == []


async def test_chat_streams_and_ends_with_the_way_of_the_reply(page: Page, url: str, node: FakeNode) -> None:
    node.piece_seconds = 0.15
    await load(page, url)
    await page.until("document.querySelector('.example')")
    assert len(await page.all_text(".example")) == 3
    await ask(page, "What is a shard?")
    said = "document.querySelector('.message-assistant .said-text')?.textContent"
    part = await page.until(f"(t => t && !t.endsWith('model.') && t)({said})")
    assert "".join(node.pieces).startswith(part)
    await page.until("document.querySelector('.way-planned .way-step')")
    await page.until("document.querySelector('.reply-facts .hops')")
    assert await page.text(".message-assistant .said-text") == "".join(node.pieces)
    assert await page.text(".reply-rate") == "56.8 tokens/s · 5 tokens · prompt read in 118\u202fms"
    assert await page.all_text(".reply-facts .hop") == [
        "this nodelayers 0\u201375.40\u202fms",
        "annalayers 8\u2013156.30\u202fms",
        "b0b0cafelayers 16\u2013193.50\u202fms",
        "links2.40\u202fms",
    ]
    await page.until("document.querySelectorAll('.way:not(.way-planned) .way-step').length === 3")
    await page.until("document.querySelector('.strip-path')")
    await page.until("document.querySelector('.tile-speed .tile-value').textContent === '56.8'")
    assert await page.until("document.querySelector('#announcer').textContent") == "Reply finished, 56.8 tokens per second."
    assert page.complaints == []
    await ask(page, "And then?")
    await page.until("document.querySelectorAll('.reply-facts').length === 2")
    assert [each["role"] for each in node.asked[1]["messages"]] == ["user", "assistant", "user"]
    assert node.asked[1]["stream"] is True


async def test_text_from_the_network_is_never_html(page: Page, url: str, node: FakeNode) -> None:
    node.pieces = ["before ", NASTY]
    node.peers[0]["nickname"] = NASTY
    node.models[0]["name"] = NASTY
    node.activity.append({"kind": "x", "model_id": None, "message": NASTY, "timestamp": NOW + 9, "toast_level": "error"})
    await load(page, url)
    await ask(page, NASTY)
    await page.until("document.querySelector('.reply-facts')")
    await node.push("activity_event", {**node.activity[-1], "message": f"toast {NASTY}", "timestamp": NOW + 10})
    await page.until("document.querySelector('.toast')")
    assert await page.text(".message-assistant .said-text") == f"before {NASTY}"
    assert await page.text(".message-user .said-text") == NASTY
    assert NASTY in await page.all_text(".entry-text")
    assert NASTY in await page.all_text(".model-name")
    assert await page.ask("window.hit") is None
    assert await page.ask("document.querySelectorAll('main img, main b, main script, .toasts b').length") == 0
    assert page.complaints == []


async def test_keyboard_alone(page: Page, url: str, node: FakeNode) -> None:
    node.piece_seconds = 0.2
    node.pieces = ["word "] * 60
    await load(page, url)
    await page.press("Tab")
    assert await focused(page) == "Skip to the content"
    reached = {await focused(page)}
    for _ in range(40):
        await page.press("Tab")
        reached.add(await focused(page))
    assert {"Swarm", "Chat", "Fetch here", "Remove", "chat-field", "Invite a node", "join-code"} <= reached
    await page.ask("document.querySelector('#chat-field').focus()")
    assert await page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.write("one")
    await page.press("Enter", shift=True)
    await page.write("two")
    assert await page.ask("document.querySelector('#chat-field').value") == "one\ntwo"
    assert node.asked == []
    await page.press("Enter")
    await page.until("document.querySelector('.message-assistant .said-text')?.textContent.includes('word')")
    assert node.asked[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]
    await page.press("Escape")
    assert await page.until("document.querySelector('.reply-facts')?.textContent") == "Stopped here."
    assert await page.ask("document.querySelector('.composer button').textContent") == "Send"
    async with asyncio.timeout(3):
        while not node.chats_cut:
            await asyncio.sleep(0.02)


async def test_models_are_fetched_and_removed_after_a_question(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    await page.ask("document.querySelector('[aria-label=\"Fetch here Gap-3B\"]').click()")
    async with asyncio.timeout(3):
        while not node.writes:
            await asyncio.sleep(0.02)
    assert node.writes == [("POST", "/api/admin/models/gap-3b/add")]
    node.acquisitions = [
        {
            "model_id": "gap-3b", "state": "downloading", "overall_pct": 25.0, "downloaded_bytes": 20_000_000,
            "total_bytes": 80_000_000, "speed_bytes_per_sec": 4_000_000, "eta_secs": 15, "cancellable": False,
        }
    ]  # fmt: skip
    await node.tick()
    bar = "document.querySelector('.model[data-model=\"gap-3b\"] progress')"
    assert await page.until(f"{bar}.checkVisibility() && {bar}.value") == 25
    await page.ask("document.querySelector('[aria-label=\"Remove Mid-7B\"]').click()")
    assert await page.until("document.querySelector('dialog[open] h2')?.textContent") == "Remove Mid-7B?"
    assert "1 shard of them no other connected node holds" in await page.text("dialog p")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog')")
    assert len(node.writes) == 1
    await page.ask("document.querySelector('[aria-label=\"Remove Mid-7B\"]').click()")
    await page.until("document.querySelector('dialog[open]')")
    await page.press("Tab")
    await page.press("Enter")
    async with asyncio.timeout(3):
        while len(node.writes) < 2:
            await asyncio.sleep(0.02)
    assert node.writes[1] == ("DELETE", "/api/admin/models/mid-7b")


@pytest.mark.parametrize(
    ("refusal", "broken_after", "says"),
    [
        ((503, "no connected node holds shard 4: connect a node that has it"), None, "No connected node holds shard 4"),
        (None, 2, "The reply broke off before its end"),
    ],
)
async def test_a_failed_reply_says_why_and_can_be_asked_again(
    page: Page, url: str, node: FakeNode, refusal: Any, broken_after: int | None, says: str
) -> None:
    node.chat_refusal, node.broken_after = refusal, broken_after
    await load(page, url)
    await ask(page, "Why?")
    assert says in await page.until("document.querySelector('.reply-trouble')?.textContent")
    node.chat_refusal, node.broken_after = None, None
    await page.ask("document.querySelector('.reply-trouble button').click()")
    await page.until("document.querySelector('.reply-facts .hops') && !document.querySelector('.reply-trouble')")
    assert [each["content"] for each in node.asked[-1]["messages"]] == ["Why?"]


async def test_without_a_session_the_key_is_asked_for(page: Page, url: str, node: FakeNode) -> None:
    node.nonce = ""
    await load(page, url)
    await page.ask("document.querySelector('[aria-label=\"Fetch here Gap-3B\"]').click()")
    await page.until("document.querySelector('dialog[open] #key-field') === document.activeElement")
    await page.write("wrong")
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open]')?.textContent.includes('refused the key')")
    await page.write(KEY)
    await page.press("Enter")
    async with asyncio.timeout(3):
        while not node.writes:
            await asyncio.sleep(0.02)
    assert await page.ask("sessionStorage.getItem('swarmd-api-key')") == KEY
    assert await page.ask("Object.values(localStorage).length") == 0


async def open_invites(page: Page, url: str) -> None:
    await load(page, url)
    await page.ask("document.querySelector('#join .half button').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('.invite-dialog[open]')")


async def test_an_invite_is_made_on_chosen_terms_and_shown_once(page: Page, url: str, node: FakeNode) -> None:
    await open_invites(page, url)
    assert "None yet" in await page.text(".invites:not([hidden]), .invite-list .empty:not([hidden])")
    await page.until("document.activeElement.id === 'invite-uses'")
    await page.ask("document.activeElement.select()")
    await page.write("3")
    await page.ask("document.querySelector('#invite-life').value = '604800'")
    await page.press("Enter")
    assert (await page.until("document.querySelector('.invite-shown textarea').value")).startswith("swarm://")
    assert node.asked == [{"uses": 3, "life_seconds": 604_800, "role": "member"}]
    assert (await page.text(".invite-shown .hint")).startswith("For 3 machines")
    assert await page.ask("document.querySelector('.qr svg').getAttribute('viewBox')") == "0 0 29 29"
    assert await focused(page) == "Copy the code"
    await page.press("Enter")
    copied = "['Copied', 'Press Ctrl+C to copy'].includes(document.querySelector('.invite-text button').textContent)"
    await page.until(copied)
    await page.until("document.querySelector('.invite .chip')")
    assert await page.all_text(".invite .chip") == ["live"]
    await page.press("Escape")
    await page.until("!document.querySelector('dialog[open]')")
    assert await focused(page) == "Invite a node"
    assert page.complaints == []


async def test_an_invite_may_admit_an_inviter(page: Page, url: str, node: FakeNode) -> None:
    await open_invites(page, url)
    await page.until("document.activeElement.id === 'invite-uses'")
    await page.ask("document.querySelector('#invite-role').value = 'inviter'")
    await page.press("Enter")
    await page.until("document.querySelector('.invite-shown textarea').value")
    assert [asked["role"] for asked in node.asked] == ["inviter"]
    await page.until("document.querySelector('.invite-said')?.textContent.includes('inviter')")


async def test_invites_are_listed_with_their_state_and_cancelled_after_a_question(
    page: Page, url: str, node: FakeNode
) -> None:
    states = ("used", "expired", "cancelled", "live")
    node.invites = [invite(f"{number:016x}", uses_left=number, state=state) for number, state in enumerate(states)]
    await open_invites(page, url)
    await page.until("document.querySelector('.invite')")
    assert await page.all_text(".invite .chip") == ["live", "used", "expired", "cancelled"]
    assert await page.ask("document.querySelectorAll('.invite button').length") == 1
    await page.ask("document.querySelector('.invite button').focus()")
    await page.press("Enter")
    assert "3 machines could" in await page.text("dialog[open]:not(.invite-dialog) p")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog:not(.invite-dialog)')")
    assert node.writes == []
    assert await page.ask("document.activeElement.dataset.invite") == f"{3:016x}"
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open]:not(.invite-dialog)')")
    await page.press("Tab")
    await page.press("Enter")
    await page.until("!document.querySelector('.invite button')")
    assert node.writes == [("DELETE", f"/api/admin/invites/{3:016x}")]
    await page.until("document.activeElement.textContent === 'Codes this node gave'")
    assert page.complaints == []


async def test_a_short_code_is_shown_large_and_says_when_it_was_burnt(page: Page, url: str, node: FakeNode) -> None:
    await page.hurry()
    await open_invites(page, url)
    await page.ask("document.querySelector('.invite-short').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('.words:not([hidden])')?.textContent")
    assert node.asked == [{"short": True}]
    assert await page.text(".words") == "701-grapefruit-greenhouse"
    assert await page.ask("document.querySelector('.invite-text textarea').hidden && document.querySelector('.qr').hidden")
    assert "swarmd join, for " in await page.text(".invite-text .hint")
    size = "parseFloat(getComputedStyle(document.querySelector('.words')).fontSize)"
    assert await page.ask(size) >= 32
    assert await focused(page) == "Copy the code"
    await page.press("Enter")
    copied = "['Copied', 'Press Ctrl+C to copy'].includes(document.querySelector('.invite-text button').textContent)"
    await page.until(copied)
    assert (await page.text(".invite-said")).startswith("short code, ")
    await page.window(320, 640)
    fits = "document.querySelector('.words').scrollWidth <= document.querySelector('.words').clientWidth"
    assert await page.ask(fits) and await page.ask(size) >= 20
    node.invites[0]["state"] = "burnt"
    await page.until("document.querySelector('.invite-text .hint').textContent.includes('wrong words')", seconds=8)
    assert await page.all_text(".invite .chip") == ["burnt"]
    assert await page.ask("document.querySelectorAll('.invite button').length") == 0
    assert page.complaints == []


async def test_a_code_that_is_cancelled_leaves_the_page(page: Page, url: str, node: FakeNode) -> None:
    await open_invites(page, url)
    await page.ask("document.querySelector('.invite-terms button').click()")
    await page.until("document.querySelector('.invite button')")
    await page.ask("document.querySelector('.invite button').click()")
    await page.ask("document.querySelector('dialog:not(.invite-dialog) .danger').click()")
    await page.until("document.querySelector('.invite-shown').hidden")
    assert await page.ask("document.querySelector('.invite-shown textarea').value") == ""
    assert await page.ask("document.querySelector('.qr').children.length") == 0


async def test_refused_and_unreadable_invites_say_why(page: Page, url: str, node: FakeNode) -> None:
    node.invite_refusal = (503, "64 invite codes are out, and no more may be: cancel one first")
    await open_invites(page, url)
    assert "The list could not be read. 64 invite codes are out" in await page.text(".invite-list .trouble:not([hidden])")
    await page.ask("document.querySelector('.invite-terms button').click()")
    assert "cancel one first" in await page.text(".invite-dialog > .trouble:not([hidden])")
    node.invite_refusal = None
    await page.ask("document.querySelector('.invite-list .row button').click()")
    await page.until("document.querySelector('.invite-list .trouble').hidden")
    assert "None yet" in await page.text(".invite-list .empty:not([hidden])")


@pytest.mark.parametrize(
    "svg", [None, "<b>x</b>", '<svg viewBox="0 0 29 29"><script>window.hit=1</script></svg>', "x" * 30_000]
)
async def test_a_picture_that_is_no_qr_code_is_not_drawn(page: Page, url: str, node: FakeNode, svg: str | None) -> None:
    node.qr_svg = svg
    await open_invites(page, url)
    await page.ask("document.querySelector('.invite-terms button').click()")
    await page.until("document.querySelector('.invite-shown textarea').value")
    assert await page.ask("document.querySelector('.qr').hidden && !document.querySelector('.qr *') && !window.hit")


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
async def test_the_invite_dialog_fits_and_its_code_is_dark_on_light(
    page: Page, url: str, node: FakeNode, width: int, dark: bool
) -> None:
    node.invites = [invite(f"{number:016x}", uses_left=1000) for number in range(30)]
    await page.window(width, 740, dark=dark)
    await open_invites(page, url)
    await page.ask("document.querySelector('.invite-terms button').click()")
    await page.until("document.querySelector('.qr svg')")
    inside = "(r => r.left >= 0 && r.right <= innerWidth + 1)(e.getBoundingClientRect())"
    assert await page.ask(f"[...document.querySelectorAll('.invite-dialog *')].every(e => {inside})")
    assert await page.ask("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.invite-dialog'))") == 0
    assert await page.ask("document.querySelector('.invite-dialog').getBoundingClientRect().bottom <= innerHeight")
    assert await page.ask("getComputedStyle(document.querySelector('.qr')).backgroundColor") == "rgb(255, 255, 255)"
    assert await page.ask("getComputedStyle(document.querySelector('.qr path')).stroke") == "rgb(0, 0, 0)"
    assert page.complaints == []


async def test_join(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    await page.ask("document.querySelector('#join-code').focus()")
    for code, said in (
        ("nonsense", "it starts with swarm://"),
        ("7 crossover clockwork", "This invite code has already been used"),
        ("7-good-code@10.0.0.5", "Joined the network of anna."),
        ("swarm://old", "This invite code has already been used"),
        ("swarm://good", "Joined the network of anna."),
    ):
        await page.ask("document.querySelector('#join-code').value = ''")
        await page.write(code)
        await page.press("Enter")
        await page.until(f"document.querySelector('#join-said').textContent.includes({json.dumps(said)})")


async def test_empty_node_says_what_to_do(page: Page, url: str, node: FakeNode) -> None:
    node.peers, node.models, node.activity = [], [], []
    await load(page, url)
    await page.until("document.querySelector('.ring-picture')?.textContent.includes('Alone so far')")
    assert "Add a GGUF file" in await page.text(".models")
    assert await page.ask("document.querySelector('.add-file').open") is True
    assert "knows no model yet" in await page.text(".chat-log")
    assert await page.ask("document.querySelector('.composer button').disabled") is True
    assert "Nothing has happened yet" in await page.text(".activity")
    assert page.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(360, False), (768, True), (1920, True)])
async def test_nothing_is_wider_than_the_view(page: Page, url: str, node: FakeNode, width: int, dark: bool) -> None:
    node.models[0]["name"] = "A-model-with-a-name-that-never-ends-" * 4
    node.peers += [peer(f"{number:02x}" * 8, "somebody-with-a-long-name", 7, []) for number in range(16, 24)]
    node.activity.append({"kind": "x", "message": "f" * 300, "timestamp": NOW + 9, "toast_level": None})
    await page.window(width, 740, dark=dark)
    await load(page, url)
    await ask(page, "w" * 200)
    await page.until("document.querySelector('.reply-facts .hops')")
    beyond = "e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll-x, svg')"
    assert await page.ask(f"[...document.querySelectorAll('main *')].filter(e => {beyond}).map(e => e.className)") == []
    assert await page.ask("document.documentElement.scrollWidth") == width
    ground = await page.ask("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(12, 21, 22)") is dark
    await page.ask("document.querySelector('#theme').click()")
    assert await page.ask("getComputedStyle(document.body).backgroundColor") != ground
