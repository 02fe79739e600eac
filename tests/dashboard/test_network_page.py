"""The network page in a real browser, against a node that only pretends: map, card, table, members, regions."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from tests.dashboard.fake_node import ANNA, BERT, SELF, FakeNode, link, member, model, peer, shard
from tests.fakes.browser import Page

NASTY = '<img src=x onerror="window.hit=1"><b>bold</b>'
CARL = "ca41000000000003"


@pytest.fixture
def node() -> FakeNode:
    made = FakeNode()
    made.peers = [
        peer(ANNA, "anna", 2, ["mid-7b"], connected=True, region="DE", hosted_shards=3, total_ram_mb=16_000,
             free_ram_mb=9_000, rtt_samples=7, version="0.1.0", uptime_seconds=4_000),
        peer(BERT, None, 23, ["mid-7b"], connected=True, region="US", is_lan_peer=False, hosted_shards=2, via=ANNA),
        peer(CARL, None, 0, [], connected=False, healthy=False, region="??", latency_ms=None),
    ]  # fmt: skip
    made.links = [link(ANNA, 1.84), link(BERT, 23.4, via=ANNA), link(ANNA, 1.9, purpose="bulk", bytes_in=800_000_000)]
    made.members = [
        member(BERT, None, issued_at=None, expires_at=None), member(SELF, "inviter", is_self=True),
        member(CARL, revoked_at="2026-04-01T10:00:00.000Z", connected=False),
        member(ANNA, "inviter", admitted_by=SELF.ljust(64, "0"), members_below=2),
    ]  # fmt: skip
    return made


async def load(page: Page, url: str) -> None:
    await page.open(f"{url}#/network")
    await page.until("document.documentElement.dataset.link === 'open'")
    await page.until("document.querySelector('.member, .members-panel .empty:not([hidden])')")
    await page.until("document.querySelector('.map-picture[aria-busy=false]')")
    await page.until("document.querySelector('.region')")


async def facts(page: Page) -> dict[str, str]:
    """What the card says."""
    rows = "[...document.querySelectorAll('.card-facts > div')]"
    return dict(await page.ask(f"{rows}.map(row => [row.children[0].textContent, row.children[1].textContent])"))


def at(identity: str) -> str:
    return f"document.querySelector('.map-node[data-node=\"{identity}\"]')"


async def middle(page: Page, identity: str) -> tuple[float, float]:
    box = f"{at(identity)}.querySelector('circle').getBoundingClientRect()"
    x, y = await page.ask(f"(r => [r.left + r.width / 2, r.top + r.height / 2])({box})")
    return x, y


def crowd(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Peers and links: three regions, every ninth away, every seventh behind the first."""
    peers: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    for number in range(count):
        identity, up = f"{number + 16:02x}" * 8, number % 9 != 8
        region, rtt = ("DE", "US", "??")[number % 3], 0.2 * 1.12**number
        via = peers[0]["node_id"] if up and number % 7 == 6 else None
        ram = (4_000, 16_000, 64_000)[number % 3]
        peers.append(peer(identity, None, rtt, [], connected=up, region=region, via=via, total_ram_mb=ram, hosted_shards=2))
        if up:
            links.append(link(identity, rtt, via=via))
    return peers, links


async def test_the_map_shows_who_is_there_how_far_and_by_which_way(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    assert await page.all_text(".map-node[role=option] .map-name") == ["this node", "anna", BERT[:8], CARL[:8]]
    assert await page.all_text(".map-node[role=option] .map-note") == ["1.8\u202fms", "23\u202fms", "away"]
    assert sorted(await page.all_text(".map-region")) == ["DE · 1", "US · 1", "region unknown · 1"]
    lines = "[...document.querySelectorAll('.map-lines path')]"
    assert await page.ask(f"{lines}.map(line => line.classList.contains('relay'))") == [False, True, False]
    assert await page.ask(f"{lines}.map(line => Boolean(line.getAttribute('d')))") == [True, True, False], "away: no line"
    dashes = "getComputedStyle(document.querySelector('.map-lines .relay')).strokeDasharray"
    assert await page.ask(dashes) != "none"
    # The line of a relayed node begins at its relay, not at this node.
    start = f"{lines}[1].getAttribute('d').slice(1).split('Q')[0].split(' ').map(Number)"
    relay = f"{at(ANNA)}.getAttribute('transform').match(/[\\d.]+/g).map(Number)"
    assert await page.ask(start) == await page.ask(relay)
    near, far = [await page.ask(f"{at(one)}.getAttribute('aria-label')") for one in (ANNA, BERT)]
    assert near == "anna, connected, direct, round trip 1.8\u202fms, region DE, 3 shards"
    assert far == "b0b0cafe, connected, through anna, round trip 23\u202fms, region US, 2 shards"
    await page.until("document.querySelector('.network-numbers').textContent.includes('DE, US')")
    tiles = await page.all_text(".network-numbers .tile-value")
    assert [*tiles[:3], *tiles[4:]] == ["2", "1.8\u202fms", "1", "32.4\u202fGB", "2"]
    assert page.complaints == []


async def test_it_follows_the_socket_and_nothing_jumps(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    nodes = "[...document.querySelectorAll('.map-node[role=option]')]"
    places = f"{nodes}.map(e => [e.dataset.node, e.getAttribute('transform')])"
    before = dict(await page.ask(places))
    await page.ask(f"window.kept = {at(BERT)}; {at(BERT)}.focus()")
    node.peers[0]["latency_ms"] = 9
    await node.push("peer_list", {"peers": [*node.peers[:2], {**node.peers[2], "nickname": "carl"}]})
    await page.until(f"{at(CARL)}.textContent.includes('carl')")
    assert dict(await page.ask(places)) == before
    node.peers[1] |= {"connected": False, "healthy": False}
    node.links = node.links[:1]
    await node.push("peer_list", {"peers": node.peers})
    await page.until(f"{at(BERT)}.classList.contains('away')")
    assert await page.ask(f"document.activeElement === window.kept && window.kept === {at(BERT)}"), "the focus stays"
    assert dict(await page.ask(places))[ANNA] == before[ANNA]
    assert await page.ask("document.querySelector('.card .chip').textContent") == "away"
    await node.push("peer_list", {"peers": [*node.peers, peer("d0" * 8, "dora", 40, [], region="US", connected=True)]})
    await page.until("document.querySelectorAll('.map-node[role=option]').length === 5")
    assert await page.ask("document.activeElement === window.kept"), "also when a node comes in between"
    assert page.complaints == []


async def test_rates_come_from_two_reads_of_the_connections(page: Page, url: str, node: FakeNode) -> None:
    await page.hurry()
    await load(page, url)
    node.links[2]["bytes_in"] += 30_000_000
    await page.until("/MB\\/s/.test(document.querySelector('.network-numbers').textContent)")
    await page.ask(f"{at(ANNA)}.focus()")
    traffic = (await facts(page))["Traffic"]
    assert traffic.startswith("835\u202fMB in, ") and "MB/s now" in traffic and traffic.endswith("2.4\u202fMB out")
    width = "Number(document.querySelectorAll('.map-lines path')[0].getAttribute('stroke-width'))"
    assert await page.ask(width) > 2


async def test_the_card_says_what_is_known_of_a_node(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    await page.until("document.querySelector('.card').textContent.includes('RegionDE')")  # with the first tick
    assert await page.text(".card-name") == "This node", "as long as nobody else is meant"
    await page.point(*await middle(page, ANNA))
    await page.until("document.querySelector('.card-name').textContent === 'anna'")
    shown = await facts(page)
    assert shown["Id"] == ANNA
    assert shown["Path"] == "direct · in this LAN"
    assert shown["Round trip"] == "1.8\u202fms · least 1.8\u202fms · 7 samples"
    assert shown["Address"] == "/ip4/192.0.2.7/tcp/8810"
    assert shown["Memory"] == "9.0\u202fGB free of 16.0\u202fGB"
    assert shown["Holds"] == "Mid-7B: shards 1\u20133 of 5"
    assert shown["Trust"] == "0.90 of 1"
    assert shown["Software"] == "swarmd 0.1.0 · up 1\u202fh 6\u202fmin"
    assert shown["Member"] == "may invite · until 1 Mar 2099"
    await page.point(*await middle(page, BERT), click=True)
    await page.point(5, 5)
    assert await page.text(".card-name") == BERT[:8], "a click stays"
    shown = await facts(page)
    assert shown["Path"] == "through anna, a relay"
    assert "Address" not in shown
    await page.ask("document.querySelector('.card-close').click()")
    assert await page.text(".card-name") == "This node"
    assert page.complaints == []


async def test_with_the_keyboard_from_node_to_node(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    await page.ask("document.querySelector('#map').focus()")
    await page.press("Tab")
    here = "document.activeElement.dataset.node"
    assert await page.ask(here) == SELF[:16]
    for key, expected in (
        ("ArrowRight", ANNA), ("ArrowRight", BERT), ("ArrowLeft", ANNA), ("End", CARL), ("ArrowRight", SELF[:16]),
    ):  # fmt: skip
        await page.press(key)
        assert await page.ask(here) == expected
        assert await page.ask("document.querySelector('.map-node[aria-selected=true]').dataset.node") == expected
    await page.press("ArrowRight")
    assert await page.text(".card-name") == "anna"
    ring = f"getComputedStyle({at(ANNA)}.querySelector('.map-focus')).stroke"
    assert await page.ask(ring) != "rgba(0, 0, 0, 0)"
    await page.press("Escape")
    assert await page.ask("document.querySelector('.map-node[aria-selected=true]')") is None
    await page.press("Tab")
    assert await page.ask("document.activeElement.tagName") == "SUMMARY", "one stop of the tab key for the whole map"


async def test_on_a_phone_the_card_is_a_sheet(page: Page, url: str, node: FakeNode) -> None:
    await page.window(360, 740)
    await load(page, url)
    assert await page.ask("document.querySelector('.card').checkVisibility()") is False
    await page.ask(f"{at(BERT)}.scrollIntoView({{block: 'center'}})")
    x, y = await middle(page, BERT)
    await page.point(x + 9, y + 9, click=True)  # a finger is not exact
    assert await page.ask("getComputedStyle(document.querySelector('.card')).position") == "fixed"
    top = await page.ask("document.querySelector('.card').getBoundingClientRect().top")
    assert top > 300
    assert (await middle(page, BERT))[1] < top, "what was tapped stays in view"
    await page.press("Escape")
    assert await page.ask("document.querySelector('.card').checkVisibility()") is False
    assert page.complaints == []


async def test_the_same_as_a_table(page: Page, url: str, node: FakeNode) -> None:
    await page.hurry()
    await load(page, url)
    await page.ask("document.querySelector('.map .as-table').open = true")
    await page.until("document.querySelectorAll('.map tbody tr').length === 4")
    titles = await page.all_text(".map thead th")
    rows = [dict(zip(titles, row, strict=True)) for row in await page.ask(
        "[...document.querySelectorAll('.map tbody tr')].map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )]  # fmt: skip
    assert [row["State"] for row in rows] == ["this node", "connected", "connected", "away"]
    assert [row["Path"] for row in rows] == ["\u2013", "direct", "through anna", "away"]
    assert (rows[1]["Round trip"], rows[1]["Received"], rows[1]["Shards"]) == ("1.8\u202fms", "805\u202fMB", "3")
    await page.ask("window.row = document.querySelectorAll('.map tbody tr')[1]")
    node.links[0]["rtt_ms"] = 7.0
    await page.until("window.row.isConnected && window.row.textContent.includes('7.0\u202fms')")


async def test_members_with_role_and_state_the_revoked_ones_last(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    assert await page.all_text(".member .code") == ["this node", "anna", BERT[:8], CARL[:8]]
    assert await page.all_text(".member .chip") == [
        "may invite", "connected", "may invite", "connected", "revoked", "member",
    ]  # fmt: skip
    assert await page.all_text(".member button") == ["Revoke", "Revoke"], "neither this node nor one that is out"
    first = (await page.all_text(".member .hint"))[1]
    assert first == "joined 1 Mar 2026 · admitted by this node · until 1 Mar 2099"
    assert "out since 1 Apr 2026" in (await page.all_text(".member .hint"))[3]
    style = "getComputedStyle(document.querySelector('.member-out .code'))"
    assert await page.ask(f"{style}.textDecorationLine") == "line-through"


async def test_a_member_is_put_out_after_a_question_that_says_what_it_means(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    button = "document.querySelector('[aria-label=\"Revoke anna\"]')"
    await page.ask(f"{button}.focus()")
    await page.press("Enter")
    assert await page.until("document.querySelector('dialog[open] h2')?.textContent") == "Put anna out of the network?"
    said = await page.text("dialog p")
    assert "comes back only with a new invite code" in said
    assert "2 members it invited go with it" in said
    assert "Shards of Mid-7B are on that node alone" in said
    await page.press("Escape")
    await page.until("!document.querySelector('dialog')")
    assert node.writes == []
    assert await page.ask(f"document.activeElement === {button}")
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open]')")
    await page.press("Tab")
    await page.press("Enter")
    await page.until("document.querySelectorAll('.chip-bad').length === 2")
    assert node.writes == [("POST", f"/api/admin/members/{ANNA.ljust(64, '0')}/revoke")]
    assert await page.text(".toast-text") == "anna was put out of the network, and 2 members with it."
    assert await page.ask("document.activeElement.className") == "members"
    assert page.complaints == []


async def test_a_refused_revocation_says_why_at_the_member(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    node.network_refusal = (403, "only the founder of the network puts nodes out")
    await page.ask("document.querySelector('[aria-label=\"Revoke anna\"]').click()")
    await page.ask("document.querySelector('dialog .danger').click()")
    assert await page.text(".member .trouble") == "Only the founder of the network puts nodes out."
    await page.until("document.activeElement === document.querySelector('[aria-label=\"Revoke anna\"]')")
    assert "The list could not be read" in await page.text(".members-panel > .row .trouble")
    node.network_refusal = None
    await page.ask("document.querySelector('.members-panel > .row button').click()")
    await page.until("document.querySelector('.members-panel > .row').hidden")


async def test_a_plain_member_is_told_who_may_revoke(page: Page, url: str, node: FakeNode) -> None:
    node.members = [member(SELF, is_self=True), member(ANNA)]
    await load(page, url)
    assert await page.all_text(".member button") == []
    assert "Only the founder" in await page.text(".members-panel > .hint:not([hidden])")


async def test_regions_with_what_is_held_asked_for_and_missing(page: Page, url: str, node: FakeNode) -> None:
    node.regions["US"] = {
        "total": 1, "models": {}, "demand": {}, "coverage_gaps": ["gap-3b", "mid-7b", "x", "y"], "replication_target": {},
    }  # fmt: skip
    await load(page, url)
    await page.until("document.querySelector('.regions').textContent.includes('this one')")  # with the first tick
    assert await page.all_text(".region-head") == ["DE3 nodes, this one among them", "US1 node"]
    assert await page.all_text(".region dd") == [
        "mid-7b (3), gap-3b (1)", "mid-7b (5)", "gap-3b (1 of 2)", "nothing", "gap-3b, mid-7b, x and 1 more",
    ]  # fmt: skip
    node.regions["US"]["coverage_gaps"] = []
    node.regions["US"]["demand"] = {"mid-7b": 2}
    await node.tick()
    await page.until("document.querySelectorAll('.region-gap').length === 0")
    assert "mid-7b (2)" in await page.all_text(".region dd"), "from the tick, without another read"


async def test_alone_it_says_how_to_invite(page: Page, url: str, node: FakeNode) -> None:
    node.peers, node.links, node.members = [], [], []
    await load(page, url)
    assert "alone so far" in await page.text(".map-alone:not([hidden])")
    await page.ask("document.querySelector('.map-alone a.button').focus()")
    await page.press("Enter")
    assert await page.ask("document.activeElement.textContent") == "Invite a node"
    assert await page.ask("document.activeElement.tagName") == "BUTTON"
    assert "belongs to no network yet" in await page.text(".members-panel .empty")
    assert page.complaints == []


async def test_when_nobody_is_connected_it_says_so(page: Page, url: str, node: FakeNode) -> None:
    node.peers, node.links = [node.peers[2]], []
    await load(page, url)
    assert "None of the 1 node known here is connected" in await page.text(".map-state")


async def test_unreadable_connections_are_said_and_the_rest_stays(page: Page, url: str, node: FakeNode) -> None:
    node.network_refusal = (503, "the node stops")
    await page.open(f"{url}#/network")
    assert "The connections could not be read. The node stops." in await page.text(".map-state.trouble")
    assert "The list could not be read. The node stops." in await page.text(".members-panel .trouble")
    await page.until("document.querySelectorAll('.map-node[role=option]').length === 4")
    notes = await page.all_text(".map-node[role=option] .map-note")
    assert notes == ["2.0\u202fms", "23\u202fms", "away"], "from the list of peers"
    node.network_refusal = None
    await page.ask("document.querySelector('.members-panel button').click()")
    await page.until("document.querySelectorAll('.member').length === 4")


async def test_text_of_others_is_never_html(page: Page, url: str, node: FakeNode) -> None:
    node.peers[0] |= {"nickname": NASTY, "region": NASTY, "version": NASTY, "gpu": NASTY}
    node.links[0]["address"] = NASTY
    node.models = [model(NASTY, [shard(0, (0, 2), [ANNA])], status="ready")]
    node.members[3]["role"] = NASTY
    node.regions = {NASTY: {**node.regions["DE"], "models": {NASTY: 1}}}
    await load(page, url)
    await page.ask(f"{at(ANNA)}.focus()")
    await page.ask("document.querySelector('.map .as-table').open = true")
    assert (await facts(page))["Address"] == NASTY
    assert NASTY in await page.all_text(".region strong")
    await page.ask("document.querySelector('.member button').click()")
    await page.until("document.querySelector('dialog[open]')")
    assert await page.ask("window.hit") is None
    assert await page.ask("document.querySelectorAll('main img, main b, dialog b, dialog img').length") == 0
    assert page.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(360, True), (820, False), (1440, True)])
async def test_it_fits_and_nodes_do_not_cover_each_other(
    page: Page, url: str, node: FakeNode, width: int, dark: bool
) -> None:
    node.members += [member(row["node_id"]) for row in crowd(60)[0]]
    node.peers, node.links = [], []
    await page.window(width, 800, dark=dark)
    await load(page, url)
    for count in (1, 12, 60):
        node.peers, node.links = crowd(count)
        await node.push("peer_list", {"peers": node.peers})
        await page.until(f"document.querySelectorAll('.map-node[role=option]').length === {count + 1}")
        await check_picture(page, width)
    assert page.complaints == []


async def check_picture(page: Page, width: int) -> None:
    beyond = "e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll-x, svg')"
    assert await page.ask(f"[...document.querySelectorAll('main *')].filter(e => {beyond}).map(e => e.className)") == []
    assert await page.ask("document.documentElement.scrollWidth") == width
    outside = "((b, r) => b.left < r.left || b.right > r.right || b.top < r.top || b.bottom > r.bottom)"
    frame = "document.querySelector('.map-picture').getBoundingClientRect()"
    shapes = "[...document.querySelectorAll('.map-picture text, .map-picture circle')].filter(e => !e.closest('.none'))"
    beyond = f"{outside}(e.getBoundingClientRect(), {frame})"
    assert await page.ask(f"{shapes}.filter(e => {beyond}).map(e => e.textContent)") == []
    circles = await page.ask(
        "[...document.querySelectorAll('.map-node[role=option] .map-body-of-node, .map-self-ground')]"
        ".map(e => e.getBoundingClientRect()).map(b => [b.left + b.width / 2, b.top + b.height / 2, b.width / 2])"
    )
    apart = [
        math.hypot(a[0] - b[0], a[1] - b[1]) - a[2] - b[2] for i, a in enumerate(circles) for b in circles[i + 1 :]
    ]  # fmt: skip
    assert min(apart) > -1, "pixels between two nodes"


async def test_directions_do_not_depend_on_round_trips(page: Page, url: str, node: FakeNode) -> None:
    """The layout alone, for sizes of all kinds: everything is inside, and only distances change with time."""
    await load(page, url)
    found = await page.ask(
        """(async () => {
          const { arrange, frameOf, modeOf } = await import("/static/panels/map_layout.js");
          const wrong = [];
          for (const width of [280, 619, 620, 1100]) for (const count of [1, 2, 5, 6, 16, 17, 80]) {
            const frame = frameOf(width, count, modeOf(width, count));
            const one_of = (at, slow) => ({
              id: `n${at}`, region: ["DE", "US", "??"][at % 3], up: at % 4 > 0, least: at ? 0.01 * at * slow : null,
            });
            const nodes = (slow) => Array.from({ length: count }, (_, at) => one_of(at, slow));
            const [one, other] = [arrange(nodes(1), frame), arrange(nodes(900).reverse(), frame)];
            for (const [id, place] of one.places) {
              const [across, down] = [(place.x - frame.centre.x) / frame.rx, (place.y - frame.centre.y) / frame.ry];
              const turned = Math.abs(place.angle - other.places.get(id).angle) > 1e-9;
              if (Math.hypot(across, down) > 1.0001 || turned) wrong.push([width, count, id]);
            }
            const counted = one.sectors.reduce((sum, sector) => sum + sector.count, 0);
            if (one.places.size !== count || counted !== count) wrong.push([width, count]);
          }
          return wrong;
        })()"""
    )
    assert found == []


async def test_from_page_to_page(page: Page, url: str, node: FakeNode) -> None:
    await load(page, url)
    pages = ["Overview", "Chat", "Network", "Activity", "Models", "Downloads", "Search", "Adapters", "Providers"]
    assert await page.all_text("nav .nav-page") == [*pages, "Responses", "Credits", "Settings"]
    assert await page.text("nav [aria-current=page]") == "Network"
    await page.ask("document.querySelector('nav a[href=\"#/\"]').click()")
    await page.until("document.querySelector('.ring-picture')")
    assert await page.text("nav [aria-current=page]") == "Overview"
    assert await page.ask("document.activeElement.id") == "content"
    await asyncio.sleep(0.1)
    await page.ask("document.querySelector('nav a[href=\"#/network\"]').click()")
    await page.until("document.querySelectorAll('.map-node[role=option]').length === 4")
    assert page.complaints == []
