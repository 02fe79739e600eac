"""A live node with the built-in model, asked by the official clients of Anthropic's dialect and of MCP, unchanged."""

from __future__ import annotations

from pathlib import Path

import anthropic
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from swarmd.app import BUILTIN_SHARD_BYTES
from swarmd.domain.ids import ModelId
from tests.fakes.nodes import spread, swarm

BUILTIN = Path(__file__).parents[2] / "swarmd" / "builtin" / "swarmd-builtin.gguf"
QUESTION = "What is a shard?"


async def test_messages_tokens_and_tools_over_two_nodes(tmp_path: Path) -> None:
    async with swarm(tmp_path, 2, inference__context_tokens=512) as nodes:
        model = ModelId(await nodes[0].desk.add_file(BUILTIN, BUILTIN_SHARD_BYTES))
        await spread(nodes, model)
        key = nodes[0].api_key_path.read_text().strip()
        async with anthropic.AsyncAnthropic(base_url=nodes[0].url, api_key=key, max_retries=0) as client:
            asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
            cold = {"temperature": 0.0}
            count = await client.messages.count_tokens(**asked)
            more = await client.messages.count_tokens(**asked, system="Be short.")
            assert 0 < count.input_tokens < more.input_tokens and not nodes[0].registry.loaded(model), "nothing ran"
            whole = await client.messages.create(**asked, max_tokens=60, extra_body=cold)
            usage = whole.usage
            assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
            async with client.messages.stream(**asked, max_tokens=60, extra_body=cold) as stream:
                same = await stream.get_final_message()
            assert same.content[0].text == whole.content[0].text and "shard" in same.content[0].text.lower()
            word = whole.content[0].text.split()[3]
            cut = await client.messages.create(**asked, max_tokens=60, stop_sequences=["zzz", word], extra_body=cold)
            assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", word)
            assert cut.content[0].text == whole.content[0].text.split(word)[0]
            short = await client.messages.create(**asked, max_tokens=2, extra_body=cold)
            assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
            (card,) = [one async for one in client.models.list()]
            assert card.id == model and card.model_extra["swarm"]["source"] == "hybrid" and card.max_input_tokens == 512

        async with (
            httpx2.AsyncClient(headers={"x-api-key": key}) as http,
            Client(streamable_http_client(f"{nodes[0].url}mcp", http_client=http)) as agent,
        ):
            said = await agent.call_tool("chat", {"prompt": QUESTION, "temperature": 0, "max_tokens": 60})
            assert said.content[0].text == whole.content[0].text and len(said.structured_content["nodes"]) == 2
            compared = await agent.call_tool("compare", {"prompt": QUESTION, "models": ["auto", "nobody"], "max_tokens": 5})
            assert [one["status"] for one in compared.structured_content["results"]] == ["ok", "failed"]
        assert nodes[0].pipeline.active == 0
