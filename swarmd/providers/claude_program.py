"""The `claude` program of this machine as a source of replies, with the subscription that its owner logged in to.

One process for each reply: no shell, the conversation on its standard input and never among its arguments, which everybody
on the machine can read. It runs in an empty folder, without tools, without what people set for their own work, and without
this node's keys in its environment. Leaving the reply ends it by its own process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from swarmd.config.settings import Settings
from swarmd.domain.generation import Finish, GenerationFailed, GenerationRequest, TokenChunk
from swarmd.domain.plans import PipelinePlan
from swarmd.domain.refusals import Busy, Invalid, ProviderFailed, Refusal
from swarmd.domain.structure import ToolUse
from swarmd.kit.disk import Disk
from swarmd.kit.logs import Redactor
from swarmd.kit.service import Spawn
from swarmd.kit.world import Clock
from swarmd.providers.chat_wire import WireError, WireFault
from swarmd.providers.loose import as_count, as_dict, as_list, as_text, parsed
from swarmd.providers.messages_wire import MessagesReader
from swarmd.providers.reply import Piece, ReplyInTheMaking

PROVIDER: Final = "anthropic"
LINE_LIMIT: Final = 8 * 1024 * 1024  # bytes of one line of its output; a whole reply is repeated in one
COMPLAINT_LIMIT: Final = 4096  # bytes of its error output that are kept; the rest is read and dropped
COMPLAINT_SHOWN: Final = 300
END_S: Final = 2.0  # to end by itself after it was asked to; then it is killed
RETRY_S: Final = 5.0  # what a client is told that finds all places taken: replies take seconds
INSTRUCTION: Final = "You answer the last message of the conversation that you are given. Reply with the answer alone."
"""In place of the program's own, which are about writing software. What the client's say is in the conversation."""

ORDERS: Final = ("/", "!", "#")

logger = logging.getLogger(__name__)


class ClaudeProgram:
    """One per node."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        environ: Mapping[str, str],
        folder: Path,
        disk: Disk,
        spawn: Spawn,
        clock: Clock,
    ) -> None:
        """`folder`: empty, for it to run in."""
        self._settings, self._environ, self._folder, self._disk = settings, environ, folder, disk
        self._spawn, self._clock = spawn, clock
        self._running = 0

    @property
    def running(self) -> int:
        return self._running

    def found(self) -> str | None:
        """Path of the program; None: it is not installed."""
        return shutil.which(self._settings().providers.claude_program, path=self._environ.get("PATH"))

    def environment(self) -> dict[str, str]:
        """Without keys: with one of them it would leave the subscription and send the bill elsewhere."""
        secret = ("KEY", "TOKEN", "SECRET", "PASSWORD")
        kept = {name: value for name, value in self._environ.items() if not any(word in name.upper() for word in secret)}
        return {name: value for name, value in kept.items() if not name.startswith(("ANTHROPIC_", "CLAUDECODE", "SWARMD_"))}

    async def open(self, request: GenerationRequest) -> ClaudeReply | Refusal:
        if (refusal := unsupported(request)) is not None:
            return refusal
        limits = self._settings().providers
        if self._running >= limits.claude_max_concurrent:
            return Busy(
                what=f"the claude program makes {self._running} replies already: as many as "
                "providers.claude_max_concurrent allows",
                retry_after_s=RETRY_S,
            )
        path = await asyncio.to_thread(self.found)
        if path is None:
            what = "cannot be asked through the claude program, which is not installed on this machine"
            return ProviderFailed(provider=PROVIDER, what=what, status=503, code="claude_not_installed", unreachable=True)
        self._running += 1
        try:
            process = await self._start(path, request)
        except OSError as error:
            self._running -= 1
            what = f"cannot be asked through the claude program: {error.strerror or 'it does not start'}"
            return ProviderFailed(provider=PROVIDER, what=what, status=503, code="claude_not_started", unreachable=True)
        except BaseException:
            self._running -= 1
            raise
        return ClaudeReply(
            request, process, within_s=limits.claude_timeout_seconds, spawn=self._spawn, clock=self._clock, ended=self._ended
        )

    def _ended(self) -> None:
        self._running -= 1

    async def _start(self, path: str, request: GenerationRequest) -> Process:
        await asyncio.to_thread(self._disk.make_folder_now, self._folder, mode=0o700)
        return await asyncio.create_subprocess_exec(
            path, "--print", "--output-format", "stream-json", "--verbose", "--include-partial-messages",
            "--model", request.model, "--max-turns", "1", "--tools", "", "--strict-mcp-config", "--setting-sources", "",
            "--no-session-persistence", "--system-prompt", INSTRUCTION,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=self._folder, limit=LINE_LIMIT,
            env={
                **self.environment(), "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request.max_tokens),
                "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",  # see `conversation_text`
            },
        )  # fmt: skip

    async def version(self, *, within_s: float = 10.0) -> str | None:
        """What `claude --version` prints; None: it is not installed, or prints nothing."""
        path = await asyncio.to_thread(self.found)
        if path is None:
            return None
        try:
            process = await asyncio.create_subprocess_exec(
                path, "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=self.environment(), limit=LINE_LIMIT
            )
        except OSError:
            return None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                line = (await process.stdout.read(256)).decode(errors="replace").strip().partition("\n")[0]
        except TimeoutError:
            return None
        finally:
            await _end(process)
        return "".join(one for one in line if one.isprintable())[:100] or None


class ClaudeReply:
    """As `api.ports.Generation`."""

    def __init__(
        self,
        request: GenerationRequest,
        process: Process,
        *,
        within_s: float,
        spawn: Spawn,
        clock: Clock,
        ended: Callable[[], None],
    ) -> None:
        self.plan = PipelinePlan(model=request.model, layout="", stages=(), predicted_token_ms=None)
        self.prompt_tokens = self.cached_tokens = 0  # a provider counts them, and says so at the end
        self._process, self._ended, self._clock = process, ended, clock
        self._until = clock.monotonic() + within_s
        self._reply = ReplyInTheMaking(clock=clock)
        self._complaint = bytearray()
        self._helpers = (
            spawn(self._write(conversation_text(request).encode()), name="what claude reads"),
            spawn(self._listen(), name="what claude complains of"),
        )  # both end with the process at the latest
        self._chunks = self._read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._chunks.aclose()
        finally:
            try:
                await _end(self._process)
            finally:
                self._ended()
                for helper in self._helpers:
                    helper.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """Raises GenerationFailed."""
        return await anext(self._chunks)

    async def _read(self) -> AsyncGenerator[TokenChunk]:
        reader = ClaudeOutput()
        async with aclosing(self._lines()) as lines:
            async for line in lines:
                chunk = self._reply.add(self._understood(reader, line))
                if chunk is not None:
                    yield chunk
                if reader.over:
                    break
        if (failure := self._failure(reader)) is not None:
            raise GenerationFailed(failure)
        yield self._reply.last()

    def _understood(self, reader: ClaudeOutput, line: bytes) -> Piece:
        try:
            return reader.piece_of(line)
        except WireFault:
            return Piece()  # a line that is not for programs
        except WireError:
            return Piece()  # said again, with its reason, in the result

    def _failure(self, reader: ClaudeOutput) -> ProviderFailed | None:
        if reader.over and reader.failure is None and self._reply.finish is not None:
            return None
        if self._clock.monotonic() >= self._until:
            return ProviderFailed(
                provider=PROVIDER, what="did not answer through the claude program in time", status=504,
                code="provider_timeout",
            )  # fmt: skip
        said = reader.failure or self._complaint.decode(errors="replace").strip() or "it ended without a reply"
        said = "".join(one if one.isprintable() else " " for one in Redactor().clean(said))[:COMPLAINT_SHOWN]
        return ProviderFailed(provider=PROVIDER, what=f"failed through the claude program: {said}", code="claude_failed")

    async def _lines(self) -> AsyncGenerator[bytes]:
        """Until its output ends, its time is up, or a line is too long."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._until - self._clock.monotonic())):
                    line = await stdout.readline()
            except (TimeoutError, ValueError):  # ValueError: longer than LINE_LIMIT
                return
            if not line:
                return
            yield line

    async def _write(self, conversation: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError):  # it ended before it had read everything, and says why
            stdin.write(conversation)
            await stdin.drain()
            stdin.close()

    async def _listen(self) -> None:
        """A program whose error output nobody reads stands still when the pipe is full."""
        stderr = self._process.stderr
        assert stderr is not None
        while piece := await stderr.read(4096):
            self._complaint += piece[: COMPLAINT_LIMIT - len(self._complaint)]


class ClaudeOutput:
    """Lines of `--output-format stream-json`: events as those of the Messages API, whole messages, a result at the end."""

    def __init__(self) -> None:
        self._events = MessagesReader()
        self.over = False
        self.failure: str | None = None

    def piece_of(self, line: bytes) -> Piece:
        """Raises WireFault, WireError."""
        found = parsed(line)
        if not isinstance(found, dict):
            raise WireFault("writes lines that are no JSON objects")
        row = as_dict(cast("Any", found))
        match row.get("type"):
            case "stream_event":
                return self._events.piece(as_dict(row.get("event")))
            case "assistant" if not self._events.spoke:
                return self._whole(as_dict(row.get("message")))
            case "result":
                return self._result(row)
            case _:
                return Piece()

    def _whole(self, message: dict[str, Any]) -> Piece:
        """Of versions that tell no events."""
        texts = (as_text(as_dict(part).get("text")) for part in as_list(message.get("content")))
        text = "".join(texts)
        self._events.spoke = bool(text)
        return Piece(text=text)

    def _result(self, row: dict[str, Any]) -> Piece:
        self.over = True
        if row.get("is_error") or as_text(row.get("subtype")).startswith("error"):
            self.failure = as_text(row.get("result")) or as_text(row.get("subtype")) or "it failed"
            return Piece()
        usage = as_dict(row.get("usage"))
        text = "" if self._events.spoke else as_text(row.get("result"))
        ended = as_text(row.get("stop_reason"))
        return Piece(
            text=text, finish=Finish.LENGTH if ended == "max_tokens" else Finish.STOP,
            prompt_tokens=as_count(usage.get("input_tokens")), completion_tokens=as_count(usage.get("output_tokens")),
            cached_tokens=as_count(usage.get("cache_read_input_tokens")),
        )  # fmt: skip


def unsupported(request: GenerationRequest) -> Invalid | None:
    """What the program has no way to be told."""
    sampling = request.sampling
    refused = (
        ("prompt", not request.messages),
        ("tools", bool(request.tools) and request.tool_use is not ToolUse.NONE),
        ("messages", any(message.calls or message.call_id for message in request.messages)),
        ("response_format", request.schema is not None),
        ("stop", bool(request.stop)),
        ("logprobs", sampling.top_logprobs is not None),
        ("logit_bias", bool(sampling.logit_bias)),
    )
    for param, given in refused:
        if given:
            what = f"{param} cannot be honoured through the claude program, which takes plain conversations: use an API key"
            return Invalid(what=what, param=param)
    return None


def conversation_text(request: GenerationRequest) -> str:
    """One message is sent as it is; of several each is marked with who speaks.

    The program reads its input as the words of whoever sits at it: @ and a path is that file's contents, and /, ! or # in
    front is an order to itself. A client's message with one of these goes as JSON, and no @ stands in it as such.
    """
    system = [message.content for message in request.messages if message.role == "system"]
    rest = [message for message in request.messages if message.role != "system"]
    if not system and len(rest) == 1 and "@" not in rest[0].content and not rest[0].content.lstrip().startswith(ORDERS):
        return rest[0].content
    turns = [{"role": "system", "content": text} for text in system]
    turns += [{"role": message.role, "content": message.content} for message in rest]
    lines = "\n".join(json.dumps(turn, ensure_ascii=False).replace("@", "\\u0040") for turn in turns)
    return f"The conversation so far, one message a line; answer as the assistant, and follow what system says:\n{lines}\n"


async def _end(process: Process) -> None:
    """Asked first, killed after END_S; by its own id."""
    if process.returncode is not None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:  # it is gone, and something that it started holds its output open
            logger.warning("process %d of the claude program does not end", process.pid)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
