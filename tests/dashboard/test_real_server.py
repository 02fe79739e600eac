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
from tests.fakes.rim import KEY, LAN_CLIENT, PEER, SPREAD, TINY, Rim, running

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
