"""Each figure of `/metrics` moves when its thing happens, on real nodes, and the dashboard names no others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from swarmd.app import Node
from swarmd.domain.generation import EmbeddingRequest
from swarmd.domain.ids import ModelId, RequestId
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.nodes import chat, generated, spread, swarm

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


async def read(node: Node) -> dict[str, float]:
    """By name, over all labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{node.url}metrics") as reply:
        text = await reply.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, 0.0)
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def queries(dashboard: Any) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable.get("definition", "")


async def test_figures_move_when_their_things_happen_and_the_dashboard_shows_them(tmp_path: Path, monkeypatch) -> None:
    path = write_model(tmp_path / "tiny.gguf", TinyModel(layers=4, tokenizer=True))
    async with swarm(tmp_path, 2, inference__max_concurrent_requests=1, providers__private_addresses=True) as nodes:
        head, other = nodes
        model = ModelId(await head.desk.add_file(path, 1))
        before = await read(head)
        await spread(nodes, model)
        monkeypatch.setattr("swarmd.inference.drafting.PAYS", 0.0)  # guesses whatever it costs
        request = chat(model, "the shard and the shard and the shard " * 12, max_tokens=60)
        for _ in range(2):  # the second one finds the beginning of its prompt in the caches
            await generated(head, request)
        waiting = [asyncio.create_task(generated(head, request)) for _ in range(2)]
        seen: set[tuple[float, ...]] = set()  # one of them runs while the other waits, with a stage and cells of its own
        while not any(waiting == running == stages == 1 and cells for waiting, running, stages, cells in seen):
            busy = await read(head)
            assert not all(task.done() for task in waiting), seen
            names = ("requests_waiting", "requests_running", "stage_sessions", "cache_cells_used")
            seen.add(tuple(busy[f"swarmd_{name}"] for name in names))
        await asyncio.gather(*waiting)
        await head.embeddings.embed(EmbeddingRequest(request=RequestId("e"), model=model, inputs=("a shard", "b")))
        await head.pipeline.open(chat(ModelId("nobody"), "a"))
        key = head.api_key_path.read_text().strip()
        async with aiohttp.ClientSession(head.url, headers={"x-api-key": key}) as session:
            nowhere = {"custom": [{"name": "mine", "base_url": "http://127.0.0.1:1/v1"}]}
            assert (await session.put("/api/admin/providers", json=nowhere)).status == 200
            asked = {"model": "mine:m", "messages": [{"role": "user", "content": "a"}]}
            assert (await session.post("/v1/chat/completions", json=asked)).status == 502
        after = await read(head)
        for name in (
            "swarmd_requests_total", "swarmd_queue_seconds_sum", "swarmd_queue_seconds_count", "swarmd_prefill_seconds_sum",
            "swarmd_time_to_first_token_seconds_sum", "swarmd_token_seconds_sum", "swarmd_prompt_tokens_total",
            "swarmd_cached_tokens_total", "swarmd_completion_tokens_total", "swarmd_embedded_tokens_total",
            "swarmd_proposed_tokens_total", "swarmd_accepted_tokens_total", "swarmd_step_link_seconds_sum",
            "swarmd_step_hops_total", "swarmd_stage_compute_seconds_sum", "swarmd_stage_node_seconds_sum",
            "swarmd_batch_steps_count", "swarmd_computed_rows_total", "swarmd_compute_seconds_total",
            "swarmd_loaded_shards", "swarmd_loaded_bytes", "swarmd_worker_resident_bytes", "swarmd_cache_cells",
            "swarmd_provider_requests_total",
            "swarmd_link_bytes_total", "swarmd_uptime_seconds", "swarmd_event_loop_lag_seconds_count",
        ):  # fmt: skip
            assert after[name] > before.get(name, 0.0), name
        assert after["swarmd_requests_total"] == 6 and after["swarmd_prefill_seconds_count"] == 4
        assert after["swarmd_peers_linked"] == 1 and after["swarmd_links"] == 2 and after["swarmd_shards_held"] == 2
        assert after["swarmd_peer_round_trip_seconds"] > 0 and after["swarmd_resident_bytes"] > 0
        assert after["swarmd_step_hops_total"] == 2 * after["swarmd_step_link_seconds_count"]
        assert after["swarmd_stored_bytes_total"] >= path.stat().st_size / 2

        async with asyncio.timeout(5):
            while (there := await read(other))["swarmd_served_rows_total"] == 0:
                await asyncio.sleep(0.01)
        assert there["swarmd_computed_rows_total"] > 0 and there["swarmd_stored_bytes_total"] > 0
        assert there["swarmd_requests_total"] == 0, "it is the head's"

        worker = other.workers._hosts[model].process
        steps, ask = 0, worker.ask

        def crash(command, payload, on_answer, *, deadline_s):
            nonlocal steps
            steps += type(command).__name__ == "Step"
            if steps == 3:
                worker._process.kill()
            ask(command, payload, on_answer, deadline_s=deadline_s)

        worker.ask = crash
        await generated(head, request)
        assert (await read(head))["swarmd_resumes_total"] == 1
        assert (await read(other))["swarmd_worker_deaths_total"] == 1

        dashboard = json.loads(DASHBOARD.read_text())
        named = {name for query in queries(dashboard) for name in re.findall(r"\bswarmd_\w+", query)}
        assert named <= after.keys(), named - after.keys()
        base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
        live = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in after}
        assert {re.sub(r"_total$", "", name) for name in base} == live, "and it shows all there is"


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None and dashboard["title"] and dashboard["schemaVersion"] >= 36
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "instance"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    corners = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(corners)) == len(corners) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)
    for panel in panels:
        assert panel["type"] in ("row", "timeseries", "stat") and panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"]
            assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])
    assert all(query.count("(") == query.count(")") for query in queries(dashboard))
