"""The whole node: what it refuses to start on, what survives a restart, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from swarmd.api.api_key import FILE_NAME as API_KEY_NAME
from swarmd.app import EXIT_ERROR, EXIT_OK, STOP_TIMEOUT_S, Node, open_node, run_node
from swarmd.cli.place import Chosen, find
from swarmd.config.loading import load
from swarmd.config.settings import PEER_PORT_OFFSET
from swarmd.domain.events import NodeStarted
from swarmd.domain.ids import ModelId, ShardRef
from swarmd.domain.refusals import Refusal
from swarmd.kit.logs import Redactor
from swarmd.kit.service import Fatal
from swarmd.kit.world import real_world
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import chat, free_port, generated, join, running, spread, text_of

MODEL = TinyModel(layers=2, tokenizer=True)


async def refused(folder: Path, **settings: str | int | bool) -> str:
    """The sentence with which a node on this folder ends at once."""
    with pytest.raises(Fatal) as fatal:
        async with running(folder, **settings):
            pytest.fail("it runs")
    assert fatal.value.exit_code == EXIT_ERROR
    sentence = str(fatal.value)
    assert "\n" not in sentence and "Traceback" not in sentence
    return sentence


async def test_one_node_per_folder(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        assert "another swarmd runs on this data folder" in await refused(tmp_path)
        assert node.api_key_path.read_text().strip()
    async with running(tmp_path):  # the lock goes with its owner
        pass


async def test_a_database_of_a_newer_program(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "state.sqlite") as database:
        database.execute("PRAGMA user_version = 4711")
    database.close()
    assert "schema version 4711 and this program knows versions up to" in await refused(tmp_path)
    assert "state.sqlite" in await refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [("identity.key", b"damaged", "identity.key"), ("state.sqlite", b"not a database" * 100, "state.sqlite")],
)
async def test_damaged_files_are_named_and_left_alone(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    async with running(tmp_path):
        pass
    (tmp_path / name).write_bytes(data)
    assert words in await refused(tmp_path)
    assert (tmp_path / name).read_bytes() == data


async def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((Fatal, OSError)):
        await refused(tmp_path / "file" / "below")


@pytest.mark.parametrize("offset", [0, PEER_PORT_OFFSET])
async def test_a_port_that_somebody_has(tmp_path: Path, offset: int) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + offset))
        other.listen()
        assert f"{port + offset}" in await refused(tmp_path, port=port)
    async with running(tmp_path, port=port) as node:  # and nothing was left half open
        assert node.url == f"http://127.0.0.1:{port}/"


async def test_a_restart_keeps_identity_network_shards_and_friends(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    ports = [free_port(), free_port()]
    folders = [tmp_path / "a", tmp_path / "b"]
    async with running(folders[0], port=ports[0]) as first:
        async with running(folders[1], port=ports[1]) as second:
            await join([first, second])
            model = ModelId(await first.desk.add_file(path, 1))
            await spread([first, second], model)
            said = text_of(await generated(first, chat(model, "hello", max_tokens=5)))
            before = (second.node, second.api_key_path.read_text(), second.codes._membership.network)
        async with running(folders[1], port=ports[1]) as second:
            assert await first.links.wait_for(second.node, timeout_s=15)
            assert (second.node, second.api_key_path.read_text(), second.codes._membership.network) == before
            assert second.registry.held(model) == (1,)
            assert second.workers.statuses() == ()  # what was in memory is not
            async with asyncio.timeout(10):
                while not first.registry.holders(ShardRef(model, 1)):
                    await asyncio.sleep(0.01)
            assert text_of(await generated(first, chat(model, "hello", max_tokens=5))) == said


async def test_a_short_hf_token_keeps_no_node_from_starting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags: dict[str, str | int | bool | None] = {
        "node.data_dir": str(tmp_path), "node.listen_port": free_port(), "network.listen_address": "127.0.0.1",
        "network.enable_mdns": False, "ui.builtin_model": False,
    }  # fmt: skip
    loaded = load(tmp_path / "config.toml", {}, flags)
    assert not isinstance(loaded, Refusal)
    environ, redactor = {"HF_TOKEN": "tok"}, Redactor()
    async with open_node(loaded, world=real_world(), environ=environ, flags=flags, redactor=redactor) as node:
        assert node.url
    warned = [record.getMessage() for record in caplog.records if "HF_TOKEN" in record.getMessage()]
    assert len(warned) == 1 and "is not struck out of the log" in warned[0]
    assert redactor.clean("a token of a stock") == "a token of a stock", "no holes in ordinary words"


async def test_a_running_node_says_in_its_folder_where_it_answers(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        found = find(Chosen(data_dir=tmp_path))
        assert found.url + "/" == node.url
        assert found.key == node.api_key_path.read_text().strip()
    assert not (tmp_path / "running.json").exists()


async def test_it_stops_in_time_and_takes_its_workers_along(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    loop = asyncio.get_running_loop()
    async with running(tmp_path / "a") as node:
        model = ModelId(await node.desk.add_file(path, 1))
        generation = await node.pipeline.open(chat(model, "hello", max_tokens=400))
        async with generation:
            await anext(generation)
            (status,) = node.workers.statuses()
            os.kill(status.pid, signal.SIGSTOP)  # one that hears nothing
        async with aiohttp.ClientSession() as client, client.get(f"{node.url}api/admin/stats") as reply:
            assert reply.status == 200
            assert (await reply.json())["node_id"] == node.node
        began = loop.time()
    assert loop.time() - began < 10 > STOP_TIMEOUT_S
    assert not psutil.pid_exists(status.pid)


async def test_shutdown_over_the_api_and_signals_end_it_with_success(tmp_path: Path) -> None:
    flags: dict[str, str | int | bool | None] = {
        "node.data_dir": str(tmp_path), "node.listen_port": free_port(), "network.listen_address": "127.0.0.1",
        "ui.builtin_model": False,
    }  # fmt: skip
    loaded = load(tmp_path / "swarmd.toml", {}, flags)
    assert not isinstance(loaded, Refusal), loaded

    async def shut(url: str) -> None:
        key = (tmp_path / API_KEY_NAME).read_text().strip()
        headers = {"authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as client, client.post(f"{url}api/admin/shutdown") as reply:
            assert reply.status == 200
            assert await reply.json() == {"status": "shutting_down"}

    async def signalled(_url: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for end in (shut, signalled):
        tasks: list[asyncio.Task[None]] = []
        async with asyncio.timeout(15):
            code = await run_node(
                loaded, world=real_world(), environ={}, flags=flags,
                on_ready=lambda node, end=end, tasks=tasks: tasks.append(asyncio.create_task(end(node.url))),
            )  # fmt: skip
        assert code == EXIT_OK
        await tasks[0]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_lonely_node_gets_the_built_in_model_in_eight_shards(tmp_path: Path) -> None:
    async with running(tmp_path, ui__builtin_model=True) as node:
        (model,) = node.registry.models()
        view = node.registry.view(model)
        assert model == "swarmd-builtin"
        assert len(view.shards) == 8 and all(shard.held for shard in view.shards)
        assert any(isinstance(fact, NodeStarted) for fact in node.bus.recent())
        await node.desk.delete_model(model)
        assert node.registry.models() == ()
    path = write_model(tmp_path / "own.gguf", MODEL)
    async with running(tmp_path) as node:  # the setting is off: nothing comes
        assert node.registry.models() == ()
        await node.desk.add_file(path, None)
    async with running(tmp_path, ui__builtin_model=True) as node:  # there is one already
        assert node.registry.models() == ("own",)


async def test_a_builtin_model_that_was_cut_in_half_is_completed_at_the_next_start(tmp_path):
    async with running(tmp_path, ui__builtin_model=True) as node:
        assert len(node.registry.held(ModelId("swarmd-builtin"))) == 8
    (tmp_path / "models" / "swarmd-builtin" / "shard_005.gguf").unlink()  # as if the node had been killed before it
    async with running(tmp_path, ui__builtin_model=True) as node:
        assert len(node.registry.held(ModelId("swarmd-builtin"))) == 8


async def test_a_builtin_model_that_was_removed_does_not_come_back_at_the_next_start(tmp_path):
    model = ModelId("swarmd-builtin")
    async with running(tmp_path, ui__builtin_model=True) as node:
        await node.desk.delete_model(model)
    async with running(tmp_path, ui__builtin_model=True) as node:
        assert node.registry.held(model) == ()


async def test_the_map_shows_both_nodes_in_their_regions_with_what_they_hold_and_are_asked_for(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", MODEL)
    async with (
        running(tmp_path / "a", identity__region="de") as first,
        running(tmp_path / "b", identity__region="US") as second,
    ):
        await join([first, second])
        model = ModelId(await first.desk.add_file(path, 1))
        await spread([first, second], model)
        for _ in range(2):
            await generated(first, chat(model, "hello", max_tokens=2))

        async def told(path: str) -> Any:
            headers = {"authorization": f"Bearer {first.api_key_path.read_text().strip()}"}
            async with aiohttp.ClientSession(headers=headers) as client, client.get(f"{first.url}{path}") as reply:
                return await reply.json()

        def region(demand: dict[str, int]) -> dict[str, Any]:
            return {
                "total": 1, "models": {model: 1}, "demand": demand, "coverage_gaps": [], "replication_target": {model: 2}
            }  # fmt: skip

        async with asyncio.timeout(10):
            while (found := await told("api/admin/network-map"))["regions"].get("US", {}).get("models") != {model: 1}:
                await asyncio.sleep(0.05)
        # Demand shows at its head at once, elsewhere with the next summary.
        us = {**region({}), "replication_target": {model: 1}}
        assert found == {"regions": {"DE": region({model: 2}), "US": us}}
        (peer,) = await told("api/admin/peers")
        assert peer["trust_score"] > 0.51 and peer["region"] == "US", "it has served two replies"


async def test_an_open_network_over_real_sockets_and_after_a_restart(tmp_path: Path) -> None:
    admission: dict[str, str] = {"network__admission": "open"}
    async with running(tmp_path / "a", **admission) as a:
        await a.codes.network_code()
        port = free_port()
        async with running(tmp_path / "b", port=port, **admission) as b, running(tmp_path / "c") as c:
            async with aiohttp.ClientSession(headers=key_of(b)) as session:
                body = {"code": a.peer_endpoint.multiaddr()}
                async with session.post(f"{b.url}api/admin/join-network", json=body) as reply:
                    assert reply.status == 200, await reply.text()
                async with session.get(f"{b.url}api/admin/members") as reply:
                    rows = {row["node_id"]: row for row in await reply.json()}
            assert (rows[a.node]["admitted_by"], rows[b.node]["role"]) == ("founder", None)
            async with (
                aiohttp.ClientSession(headers=key_of(c)) as session,
                session.post(f"{c.url}api/admin/join-network", json=body) as reply,
            ):
                assert reply.status == 403
                assert "network.admission" in (await reply.json())["error"]["message"]
        async with running(tmp_path / "b", port=port, **admission) as b:
            assert await b.links.wait_for(a.node, timeout_s=20) and await a.links.wait_for(b.node, timeout_s=20)


def key_of(node: Node) -> dict[str, str]:
    return {"authorization": f"Bearer {node.api_key_path.read_text().strip()}"}
