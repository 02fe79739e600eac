"""The live socket: order, replay, ticks, bounds, and who may listen."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from swarmd.api import ws as ws_module
from swarmd.domain.events import (
    DownloadEnded,
    GenerationFinished,
    GenerationResumed,
    GenerationStarted,
    ModelRemoved,
    PeerConnected,
    PeerDisconnected,
    ShardDropped,
    SummaryReceived,
    UpdateAvailable,
    WorkerReady,
    WorkerStopped,
)
from swarmd.domain.ids import ModelId, RequestId, ShardRef
from swarmd.domain.peers import PeerView
from tests.fakes.rim import LAN_CLIENT, OWN, PEER, SPREAD, TINY, Rim, acquisition, keyed, running, until

PATH = "/api/admin/ws"


async def hear(socket: aiohttp.ClientWebSocketResponse, timeout_s: float = 4.0) -> Any:
    async with asyncio.timeout(timeout_s):
        return json.loads(await socket.receive_str())


async def hear_until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    while (found := await hear(socket))["type"] != kind:
        pass
    return found


async def test_order_on_a_fresh_socket(rim: Rim) -> None:
    rim.bus.publish(WorkerStopped(model=TINY))
    rim.bus.publish(ModelRemoved(model=TINY))
    await until(lambda: len(rim.feed._recent) == 2)
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        first = await hear(socket)
        assert (first["type"], first["data"]["peers"][0]["node_id"]) == ("peer_list", PEER[:16])
        assert {"addresses", "last_seen"}.isdisjoint(first["data"]["peers"][0])
        assert [(await hear(socket))["data"]["kind"] for _ in range(2)] == ["model_unloaded", "model_removed"]
        stats = await hear(socket)
        assert stats["type"] == "stats_update"
        assert stats["data"]["shard_registry"][SPREAD] == [
            {"index": 0, "local": True, "holders": 1, "in_vram": False},
            {"index": 1, "local": False, "holders": 1, "in_vram": False},
        ]
        assert {
            "peers", "lan_peers", "credits", "active_requests", "tokens_per_second", "requests_served", "requests_made",
            "forwards_served", "uptime_seconds", "acquisitions", "region_summary", "region_demand", "region_coverage_gaps",
            "hardware", "swarm_capacity", "wishlist", "network_traffic",
        } <= set(stats["data"])  # fmt: skip
        assert (stats["data"]["region"], stats["data"]["region_summary"]) == ("US", {"DE": 1})
        assert stats["data"]["region_demand"] == {"US": {TINY: 5}}
        assert stats["data"]["region_coverage_gaps"] == {"DE": [SPREAD, TINY]}
        assert stats["data"]["credits"] == {
            "balance": 320, "lifetime_earned": 700, "lifetime_spent": 500, "lifetime_refunded": 120, "net_spent": 380,
        }  # fmt: skip
        assert stats["data"]["swarm_capacity"]["online_nodes"] == 2
        assert [wish["model_id"] for wish in stats["data"]["wishlist"]["entries"]] == [TINY, SPREAD]
        assert stats["data"]["network_traffic"] == {
            "bytes_in": 5_000, "bytes_out": 2_600_000, "bytes_in_per_sec": None, "bytes_out_per_sec": None,
        }  # fmt: skip


async def test_ticks_and_the_registry_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_module, "TICK_S", 0.05)
    async with running(Rim(tmp_path)) as rim, rim.client() as client, client.ws_connect(PATH) as socket:
        assert "shard_registry" in (await hear_until(socket, "stats_update"))["data"]
        assert "shard_registry" not in (await hear(socket))["data"]
        assert "shard_registry" not in (await hear(socket))["data"]
        rim.desk.running[SPREAD] = acquisition(SPREAD)
        del rim.models.known[TINY]
        stats: Any = {"data": {}}
        while "shard_registry" not in stats["data"]:
            stats = await hear(socket)
        assert list(stats["data"]["shard_registry"]) == [SPREAD]
        (row,) = stats["data"]["acquisitions"]
        assert (row["overall_pct"], row["eta_secs"], row["log"]) == (40.0, 3, ["second", "first"])


async def test_facts_as_they_happen(rim: Rim) -> None:
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        rim.bus.publish(PeerConnected(node=PEER))
        assert [(await hear(socket))["type"] for _ in range(3)] == ["activity_event", "peer_list", "models_changed"]
        for index in range(3):
            rim.bus.publish(ShardDropped(shard=ShardRef(TINY, index)))
        heard = [await hear(socket) for _ in range(4)]
        assert [one["type"] for one in heard] == ["activity_event"] * 3 + ["models_changed"], "one for the burst"
        assert "data" not in heard[-1]


async def test_a_peer_that_comes_and_goes_is_told_with_every_field_of_its_row(rim: Rim) -> None:
    (row,) = rim.peers.rows
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        for fact, kind, toast in (
            (PeerDisconnected(node=PEER, reason="no answer for 30 s"), "peer_disconnected", "warning"),
            (PeerConnected(node=PEER), "peer_connected", "info"),
        ):
            connected = isinstance(fact, PeerConnected)
            rim.peers.rows = [row if connected else PeerView(record=row.record, connected=False)]
            rim.bus.publish(fact)
            activity = await hear_until(socket, "activity_event")
            message = f"node {PEER[:16]} is {'connected' if connected else 'gone: no answer for 30 s'}"
            assert activity["data"] == {
                "kind": kind, "category": "network", "message": message, "timestamp": activity["data"]["timestamp"],
                "toast_level": toast, "toast_duration_ms": 4000 if connected else 6000, "model_id": None,
                "node_id": PEER[:16],
                **({} if connected else {"detail_str": "no answer for 30 s"}),
            }  # fmt: skip
            (shown,) = (await hear(socket))["data"]["peers"]
            assert set(shown) == {
                "node_id", "nickname", "latency_ms", "trust_score", "healthy", "gpu", "hosted_models", "is_lan_peer",
                "version", "uptime_seconds", "hosted_shards", "is_pool_member", "is_anchor", "predicted_rtt_ms",
                "measured_min_rtt_ms", "rtt_samples", "connected", "region", "via", "total_ram_mb", "free_ram_mb",
            }  # fmt: skip
            assert (shown["connected"], shown["latency_ms"]) == ((True, 2) if connected else (False, None))


async def test_a_summary_brings_the_peer_list_with_the_next_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_module, "TICK_S", 0.05)
    async with running(Rim(tmp_path)) as rim, rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        summary = rim.peers.rows[0].summary
        assert summary is not None
        rim.bus.publish(SummaryReceived(summary=summary))
        await hear_until(socket, "peer_list")


async def test_a_newer_version_is_told_with_all_that_is_known_of_it(rim: Rim) -> None:
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        rim.bus.publish(
            UpdateAvailable(
                current_version="0.1.0", latest_version="0.2.0", changelog="- more", published_at="2026-01-02T03:04:05Z",
                downloaded=True,
            )
        )  # fmt: skip
        assert (await hear_until(socket, "update_available"))["data"] == {
            "current_version": "0.1.0", "latest_version": "0.2.0", "changelog": "- more",
            "published_at": "2026-01-02T03:04:05Z", "downloaded": True,
        }  # fmt: skip


async def test_activities_name_models_that_are_known(rim: Rim) -> None:
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        rim.bus.publish(WorkerStopped(model=TINY))
        assert (await hear_until(socket, "activity_event"))["data"]["model_name"] == TINY.upper()
        rim.bus.publish(WorkerStopped(model=ModelId("stranger")))
        assert "model_name" not in (await hear_until(socket, "activity_event"))["data"]


async def test_who_does_not_answer_a_ping_is_cut_off_and_who_does_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("TICK_S", 0.05), ("PING_S", 0.1), ("SILENT_S", 0.4)):
        monkeypatch.setattr(ws_module, name, seconds)
    async with (
        running(Rim(tmp_path)) as rim,
        rim.client() as client,
        client.ws_connect(PATH, autoping=False) as dumb,
        client.ws_connect(PATH) as polite,
    ):
        listening = asyncio.ensure_future(drain(polite))
        pinged = False
        async with asyncio.timeout(5):
            while not (message := await dumb.receive()).type & 0x100:  # aiohttp's own kinds: closed, error
                pinged |= message.type is aiohttp.WSMsgType.PING
        assert pinged and len(rim.feed._sockets) == 1
        await asyncio.sleep(0.5)
        assert len(rim.feed._sockets) == 1, "it answers"
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_ping_of_the_client_is_answered(rim: Rim) -> None:
    async with rim.client() as client, client.ws_connect(PATH, autoping=False) as socket:
        await socket.ping(b"there?")
        async with asyncio.timeout(4):
            while (message := await socket.receive()).type is not aiohttp.WSMsgType.PONG:
                pass
        assert message.data == b"there?"


async def test_a_hundred_hear_the_same_tick_while_one_reads_nothing_and_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws_module, "TICK_S", 0.2)
    async with running(Rim(tmp_path)) as rim, AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            aiohttp.ClientSession(rim.url, connector=aiohttp.TCPConnector(limit=0))
        )
        host, port = rim.server.bound
        _, deaf = await asyncio.open_connection(host, port, limit=1024)
        deaf.write(handshake(host, port))
        await until(lambda: len(rim.feed._sockets) == 1)
        sockets = [await client.ws_connect(PATH) for _ in range(99)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(PATH)
        assert caught.value.status == 503
        await asyncio.gather(*(hear_until(socket, "stats_update") for socket in sockets))
        encoded = 0
        real = ws_module._text

        def counted(envelope: Any) -> str:
            nonlocal encoded
            encoded += envelope.type == "stats_update"
            return real(envelope)

        monkeypatch.setattr(ws_module, "_text", counted)
        await asyncio.gather(*(hear_until(socket, "stats_update") for socket in sockets))
        assert encoded <= 2, "a tick is encoded once, or twice when another one began meanwhile"
        await sockets[0].close()
        await until(lambda: len(rim.feed._sockets) == 99)
        rim.bus.publish(WorkerStopped(model=TINY))
        back = await client.ws_connect(PATH)
        heard = [await hear(back) for _ in range(3)]
        assert [one["type"] for one in heard] == ["peer_list", "activity_event", "stats_update"]
        assert "shard_registry" in heard[2]["data"], "a fresh socket knows nothing yet"
        for socket in (back, *sockets[1:]):
            await socket.close()
        deaf.close()


def handshake(host: str, port: int) -> bytes:
    return (
        f"GET {PATH} HTTP/1.1\r\nhost: {host}:{port}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )


async def test_the_replay_is_bounded(rim: Rim) -> None:
    for _ in range(3):
        for _ in range(200):
            rim.bus.publish(WorkerStopped(model=TINY))
        await asyncio.sleep(0.02)
    await until(lambda: len(rim.feed._recent) == ws_module.RECENT)
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        count = 0
        while (await hear(socket))["type"] != "stats_update":
            count += 1
    assert count == ws_module.RECENT + 1


async def test_who_does_not_keep_up_is_cut_off_and_others_are_not(rim: Rim) -> None:
    host, port = rim.server.bound
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(handshake(host, port))
    await until(lambda: len(rim.feed._sockets) == 1)
    slow = next(iter(rim.feed._sockets))
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await hear_until(socket, "stats_update")
        listening = asyncio.ensure_future(drain(socket))
        async with asyncio.timeout(20):
            while slow in rim.feed._sockets:
                for _ in range(50):
                    rim.bus.publish(WorkerStopped(model=TINY))
                    rim.feed._tell("x" * 20_000)
                await asyncio.sleep(0.01)
        assert len(rim.feed._sockets) == 1, "the quick one stays"
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert reader is not None
    await until(lambda: rim.feed._seats == 0)


async def drain(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass


async def test_room_for_a_hundred(rim: Rim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_module, "SOCKETS_LIMIT", 2)
    async with rim.client() as client:
        one, two = await client.ws_connect(PATH), await client.ws_connect(PATH)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(PATH)
        assert caught.value.status == 503
        await one.close()
        await until(lambda: rim.feed._seats == 1)
        three = await client.ws_connect(PATH)
        await two.close()
        await three.close()
    await until(lambda: rim.feed._seats == 0 and not rim.feed._sockets)


async def test_who_may_listen(rim: Rim) -> None:
    async def status(path: str = PATH, **headers: str) -> int:
        async with rim.client() as client:
            try:
                async with client.ws_connect(path, headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert await status() == 101
    assert await status(origin=rim.url) == 101
    assert await status(origin="https://evil.example") == 403
    assert await status(host="evil.example") == 403
    rim.address = LAN_CLIENT
    assert await status() == 401
    assert await status(**keyed()) == 101
    assert await status(**keyed(origin="https://evil.example")) == 403
    ticket = rim.tickets.issue()
    assert await status(f"{PATH}?ticket={ticket}", origin="https://evil.example") == 403
    assert await status(f"{PATH}?ticket={ticket}") == 101, "a stranger's try did not use it up"
    assert await status(f"{PATH}?ticket={ticket}") == 401, "once"
    assert await status(f"{PATH}?ticket=made-up") == 401


async def test_the_end_is_said(tmp_path: Path) -> None:
    rim = Rim(tmp_path)
    async with aiohttp.ClientSession() as session:
        async with running(rim):
            socket = await session.ws_connect(rim.url + PATH)
            await hear_until(socket, "stats_update")
            closing = asyncio.ensure_future(socket.receive())
        message = await asyncio.wait_for(closing, 3)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        await socket.close()


async def test_what_clients_say_is_not_read_but_bounded(rim: Rim) -> None:
    async with rim.client() as client, client.ws_connect(PATH) as socket:
        await socket.send_str("hello")
        await hear_until(socket, "stats_update")
        await socket.send_str("x" * 100_000)
        async with asyncio.timeout(4):
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert message.data == 1009


async def test_the_feed_knows_where_a_download_came_from_and_what_was_loaded_before(rim: Rim) -> None:
    rim.desk.running[SPREAD] = acquisition(SPREAD, state="complete")
    ended = DownloadEnded(model=SPREAD, state="complete", hub=True)
    ready = [WorkerReady(model=TINY, shards=shards) for shards in ((0,), (0, 1), (1,))]
    for fact in (ended, *ready, WorkerStopped(model=TINY), WorkerReady(model=TINY, shards=(0,))):
        rim.bus.publish(fact)
    await until(lambda: len(rim.feed._recent) == 6)
    assert [json.loads(text)["data"]["kind"] for text in rim.feed._recent] == [
        "model_download_complete", "model_loaded", "shard_loaded_memory", "shard_unloaded_memory", "model_unloaded",
        "model_loaded",
    ]  # fmt: skip


async def test_replies_in_the_making_are_told_until_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_module, "TICK_S", 0.05)
    async with running(Rim(tmp_path)) as rim, rim.client() as client, client.ws_connect(PATH) as socket:
        assert "flows" not in (await hear_until(socket, "stats_update"))["data"]
        rim.bus.publish(GenerationStarted(request=RequestId("1"), model=SPREAD, nodes=(OWN, PEER)))
        rim.tallies.token_s.add(0.001, 10)
        paces: list[float] = []
        told: dict[str, Any] = {}
        while "flows" not in told or not any(paces):  # a fact may be told a tick later than the tokens
            told = (await hear_until(socket, "stats_update"))["data"]
            paces.append(told["tokens_now"])
        (flow,) = told["flows"]
        assert (flow["model"], flow["nodes"]) == (SPREAD, [OWN[:16], PEER[:16]])
        rim.bus.publish(GenerationResumed(request=RequestId("1"), model=SPREAD, nodes=(OWN,), lost=PEER))
        while told["flows"][0]["nodes"] != [OWN[:16]]:
            told = (await hear_until(socket, "stats_update"))["data"]
        about = {"completion_tokens": 3, "duration_ms": 4.0, "outcome": "stop"}
        rim.bus.publish(GenerationFinished(request=RequestId("1"), model=SPREAD, **about))
        while "flows" in told:
            told = (await hear_until(socket, "stats_update"))["data"]
        assert told["tokens_now"] == 0
