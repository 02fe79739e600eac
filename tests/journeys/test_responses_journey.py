"""The Responses API of a node in a process of its own, driven by the official client; then `kill -9` under a response."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel, Field

from tests.fakes.nodes import free_port

LONG: Any = {
    "type": "json_schema", "name": "long",
    "schema": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 900},
}  # fmt: skip
"""Holds the model to a reply of some thousand tokens."""


class Guess(BaseModel):
    word: str = Field(max_length=5)
    number: int = Field(ge=0, le=9)


@asynccontextmanager
async def process(folder: Path, port: int) -> AsyncIterator[AsyncOpenAI]:
    """A node with the built-in model. It is killed at the end, as by the kernel."""
    environ = {**os.environ, "SWARMD_NETWORK_ENABLE_MDNS": "false", "SWARMD_NETWORK_LISTEN_ADDRESS": "127.0.0.1",
               "SWARMD_RESOURCES_MAX_CPU_THREADS": "1"}  # fmt: skip
    arguments = ("-m", "swarmd", "run", "--data-dir", str(folder), "--port", str(port), "--log-level", "warning")
    node = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environ)
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            while True:
                try:
                    async with session.get("/health/ready") as reply:
                        if reply.status == 200:
                            break
                except aiohttp.ClientError:
                    assert node.returncode is None, "the node has ended"
                await asyncio.sleep(0.05)
        key = (folder / "api_key").read_text().strip()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0) as client:
            yield client
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()


async def test_the_official_client_and_a_node_that_is_killed_under_it(tmp_path: Path) -> None:
    port = free_port()
    async with process(tmp_path, port) as client:
        first = await client.responses.create(model="auto", input="What is a shard?", max_output_tokens=60, temperature=0)
        Response.model_validate(first.to_dict())
        assert first.status == "completed" and "layers" in first.output_text
        second = await client.responses.create(
            model="auto", input="What is a node?", previous_response_id=first.id, max_output_tokens=8, temperature=0
        )
        assert second.status == "incomplete" and second.usage is not None and first.usage is not None
        assert second.usage.input_tokens > first.usage.total_tokens  # the first turn is in it
        parsed = await client.responses.parse(model="auto", input="Guess.", text_format=Guess)
        assert parsed.output_parsed is not None
        async with client.responses.stream(model="auto", input="What is a shard?", temperature=0) as stream:
            said = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            assert (await stream.get_final_response()).output_text == said == first.output_text
        (item,) = (await client.responses.input_items.list(second.id)).data
        assert item.content[0].text == "What is a node?"  # type: ignore[union-attr]
        await client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(second.id)

        # In the background: left, followed again, cancelled.
        seen: list[Any] = []
        async for event in await client.responses.create(
            model="auto", input="Count.", text={"format": LONG}, max_output_tokens=4000, background=True, stream=True
        ):
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        id = seen[0].response.id
        follower = await client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
        assert (await anext(aiter(follower))).sequence_number == seen[-1].sequence_number + 1
        assert (await client.responses.cancel(id)).status == "cancelled"
        assert [event.type async for event in follower][-1] == "response.cancelled"

        doomed = await client.responses.create(
            model="auto", input="Count.", text={"format": LONG}, max_output_tokens=4000, background=True
        )
        while (await client.responses.retrieve(doomed.id)).status == "queued":
            await asyncio.sleep(0.02)
        assert (await client.responses.retrieve(doomed.id)).status == "in_progress"
    async with process(tmp_path, port) as client:
        failed = await client.responses.retrieve(doomed.id)
        assert failed.status == "failed" and failed.error is not None and failed.error.code == "node_stopped"
        assert "the node that answered stopped" in failed.error.message and "ask again" in failed.error.message
        assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
        assert (await client.responses.retrieve(id)).status == "cancelled"
        where = f"http://127.0.0.1:{port}/api/admin/responses?status=failed"
        async with aiohttp.ClientSession() as session, session.get(where) as reply:
            listed = await reply.json()
        assert [row["id"] for row in listed["data"]] == [doomed.id] and not listed["data"][0]["live"]
