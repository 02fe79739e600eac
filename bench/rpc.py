"""llama.cpp's own way to split a model: its RPC servers on loopback, measured by llama-bench on the same file.

The programs are those that `bench.rpc_build` has built, or in the folder that LLAMA_CPP_BIN names. The RPC has neither
encryption nor authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path

from bench import rpc_build

SERVERS = 3
FIRST_PORT = 17990
START_S, RUN_S = 10.0, 300.0


def folder() -> Path | None:
    """Where llama.cpp's programs are; None when there are none. Raises RuntimeError when LLAMA_CPP_BIN lacks one."""
    named = os.environ.get("LLAMA_CPP_BIN")
    if not named:
        return rpc_build.BIN if rpc_build.present() else None
    found = Path(named)
    for program in rpc_build.PROGRAMS:
        if not (found / program).is_file():
            raise RuntimeError(f"LLAMA_CPP_BIN is {found}, and there is no {program} in it")
    return found


async def milliseconds(programs: Path, model: Path, *, threads: int, tokens: int, servers: int = SERVERS) -> float:
    """Mean milliseconds per decoded token of one llama-bench run; `servers` 0: without RPC."""
    async with AsyncExitStack() as stack:
        endpoints = [await _server(stack, programs, FIRST_PORT + number, threads) for number in range(servers)]
        command = [
            str(programs / "llama-bench"), "-m", str(model), "-p", "0", "-n", str(tokens), "-t", str(threads), "-r", "1",
            "-o", "json",
        ]  # fmt: skip
        if endpoints:
            command += ["--rpc", ",".join(endpoints), "-ngl", "99"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(RUN_S):
            output, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"llama-bench ended with {process.returncode}")
        return 1e3 / float(json.loads(output)[0]["avg_ts"])


async def _server(stack: AsyncExitStack, programs: Path, port: int, threads: int) -> str:
    process = await asyncio.create_subprocess_exec(
        str(programs / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port), "-t", str(threads),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

    stack.push_async_callback(end)
    async with asyncio.timeout(START_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return f"127.0.0.1:{port}"
