"""The dashboard served by the node's own HTTP rim, over fakes of the floors below: do the two speak the same language?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.api.pages import read_static_now
from swarmd.domain.events import PeerDisconnected, WorkerReady
from swarmd.domain.ids import NodeId
from swarmd.domain.peers import PeerRecord
from swarmd.kit.disk import Disk
from tests.fakes.browser import Page
from tests.fakes.rim import KEY, LAN_CLIENT, PEER, REPO, SPREAD, TINY, Rim, running

LIVE = "document.documentElement.dataset.link === 'open' && document.querySelector('.model[data-model]')"


@pytest.fixture
async def rim(tmp_path: Path) -> AsyncIterator[Rim]:
    made = Rim(tmp_path)
    made.pages._files = read_static_now(Disk())
    async with running(made) as started:
        yield started


async def test_shows_live_facts_and_chats_without_a_key_typed(rim: Rim, page: Page) -> None:
    await page.open(rim.url)
    await page.until(LIVE)
    assert await page.ask("document.querySelectorAll('.ring-picture .node').length") == 2
    assert await page.text(".tile-peers .tile-value") == "1"
    assert await page.text(".tile-memory .tile-value") == "3.0\u202fGB"
    strip = await page.ask(f"document.querySelector('[data-model=\"{SPREAD}\"] svg.strip').getAttribute('aria-label')")
    assert strip == "Shards of SPREAD-Q8, 2 in all: this node holds 0; bbbbbbbb holds 1."
    rim.bus.publish(WorkerReady(model=TINY, shards=(0,)))
    await page.until("document.querySelector('.entry-text')?.textContent.includes('tiny-q8 is loaded')")
    await page.ask(f"document.querySelector('#chat-model').value = '{SPREAD}'")
    await page.ask("document.querySelector('#chat-field').focus()")
    await page.write("hello")
    await page.press("Enter")
    await page.until("document.querySelector('.reply-facts .hops')")
    assert await page.text(".message-assistant .said-text") == "Hello!"
    assert await page.text(".reply-rate") == "50.0 tokens/s · 3 tokens · prompt read in 12.3\u202fms"
    assert await page.ask("document.querySelectorAll('.reply-facts .hop').length") == 3
    assert rim.pipeline.requests[0].model == SPREAD
    assert page.complaints == []


async def test_invites_and_joins(rim: Rim, page: Page) -> None:
    await page.open(rim.url)
    await page.until(LIVE)
    await page.ask("document.querySelector('#join .half button').click()")
    await page.until("document.querySelector('.invite-list .empty:not([hidden])')")
    await page.ask("document.querySelector('.invite-terms button').click()")
    assert await page.until("document.querySelector('.invite-shown textarea').value") == "swarm://new1"
    await page.until("document.querySelector('.qr svg path')")
    await page.until("document.querySelector('.invite button')")
    await page.ask("document.querySelector('.invite button').click()")
    await page.ask("document.querySelector('dialog:not(.invite-dialog) .danger').click()")
    await page.until("document.querySelector('.invite .chip').textContent === 'cancelled'")
    await page.press("Escape")
    await page.ask("document.querySelector('#join-code').focus()")
    await page.write("swarm://abc")
    await page.press("Enter")
    assert await page.until("document.querySelector('#join-said.well')?.textContent")
    assert page.complaints == []


async def test_the_network_page(rim: Rim, page: Page) -> None:
    relayed = NodeId("d" * 64)
    record = PeerRecord(node=relayed, endpoints=(), last_seen=None)
    rim.peers.rows.append(replace(rim.peers.rows[0], record=record, via=PEER))
    rim.peers.links.append(replace(rim.peers.links[0], node=relayed, via=PEER, remote=None, rtt_ms=31.0))
    await page.open(f"{rim.url}/#/network")
    await page.until("document.querySelectorAll('.map-node[role=option]').length === 3 && document.querySelector('.member')")
    shown = "document.querySelector('.map-node[data-node^=dddd]').getAttribute('aria-label')"
    assert await page.until(f"{shown}.includes('31') && {shown}") == (
        "dddddddd, connected, through bbbbbbbb, round trip 31\u202fms, region DE, 1 shard"
    )
    await page.ask("document.querySelector('.map-node[data-node^=bbbb]').focus()")
    card = await page.text(".card-facts")
    assert "/ip4/192.168.1.5/tcp/8810" in card and "3.0\u202fGB free of 8.0\u202fGB" in card and "0.61 of 1" in card
    await page.until("document.querySelector('.region-head')?.textContent === 'US3 nodes, this one among them'")
    await page.ask("document.querySelector('[aria-label=\"Revoke bbbbbbbb\"]').click()")
    await page.ask("document.querySelector('dialog .danger').click()")
    await page.until("document.querySelector('.member-out')")
    assert rim.members.rows[1].revoked_at is not None
    rim.peers.rows.pop()
    rim.bus.publish(PeerDisconnected(node=relayed, reason="test"))
    await page.until("document.querySelectorAll('.map-node[role=option]').length === 2")
    assert page.complaints == []


async def test_a_search_becomes_a_download_and_the_map_shows_who_holds_what(rim: Rim, page: Page) -> None:
    await page.open(f"{rim.url}/#/search")
    await page.until("document.documentElement.dataset.link === 'open' && document.querySelector('.search-start')")
    await page.ask("document.querySelector('#hub-search').focus()")
    await page.write("tiny")
    await page.press("Enter")
    await page.until("document.querySelector('.file-recommended button')")
    assert await page.text(".file-recommended .verdict") == "✓Fits here"
    await page.ask("document.querySelector('.file-recommended button').click()")
    await page.until("document.querySelector('.pick-ways')")
    assert "llama" in await page.text(".pick-facts")
    await page.ask("document.querySelector('.pick form').requestSubmit()")
    await page.until("location.hash === '#/downloads' && document.querySelector('.download progress').value === 40")
    assert rim.hub.asked[-1] == ("fetch", REPO, "tiny.Q4_K_M.gguf", None, False, None)
    pressed = "[...document.querySelectorAll('.download button')].find(e => e.textContent === '{}').click()"
    await page.ask(pressed.format("Pause"))
    await page.until("document.querySelector('.download-paused')")
    await page.ask(pressed.format("Cancel…"))
    await page.until("document.querySelector('dialog .danger')")
    await page.ask("document.querySelector('dialog .danger').click()")
    await page.until("document.querySelector('.download-cancelled')")
    await page.ask("location.hash = '#/models'")
    mine = f'document.querySelector(\'[data-card="{SPREAD}"] [data-row="0"][data-col="1"]\')'
    label = "Shard 1, layers 2\u20133, 5.0\u202fMB: this node, not here"
    assert await page.until(f"{mine}.getAttribute('aria-label')") == label
    await page.ask(f"{mine}.focus()")
    await page.press("Enter")
    await page.until("document.activeElement.textContent.startsWith('Download to this node')")
    await page.press("Enter")
    await page.until(f"document.querySelector('[data-card=\"{SPREAD}\"] .model-progress:not([hidden])')")
    assert SPREAD in rim.desk.running
    # A node without an autopilot answers 404, which browsers report on the console.
    assert [said for said in page.complaints if "auto-manage/plan" not in said] == []


async def test_from_another_machine_the_key_opens_reads_and_the_socket(rim: Rim, page: Page) -> None:
    rim.address = LAN_CLIENT
    await page.open(rim.url)
    await page.until("document.querySelector('dialog[open] #key-field') === document.activeElement")
    await page.write(KEY)
    await page.press("Enter")
    await page.until(LIVE)
    await page.until("document.querySelectorAll('.ring-picture .node').length === 2")
    await page.until("document.querySelector('#banner').hidden")
    assert await page.ask("document.querySelector('.add-file').hidden") is True
