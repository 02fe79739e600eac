"""A small typed client of a node's HTTP API. Every way in which it can fail is a Failure with one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import UNSET, Struct, UnsetType

from swarmd import __version__
from swarmd.api import adapters as adapter_shapes
from swarmd.api import (
    autopilot_shapes,
    credit_shapes,
    download_shapes,
    invite_shapes,
    openai_shapes,
    provider_shapes,
    responses_shapes,
    shapes,
)
from swarmd.api import updates as update_shapes
from swarmd.api.replies import ErrorBody, ErrorReply
from swarmd.api.setting_rows import SettingList, SettingRow
from swarmd.cli.failure import NOT_RUNNING, REFUSED, USAGE, Failure, exit_code_of
from swarmd.cli.place import Place
from swarmd.domain.membership import RoleName

T = TypeVar("T")

CONNECT_S: Final = 5.0  # the node is on this machine or in the next room
REPLY_S: Final = 30.0  # the slowest quick answer is a join: 15 s for the dials, 10 s for the link
SILENCE_S: Final = 600.0  # between two pieces of a reply: the first one may wait until all nodes have loaded their shards
PROBE_S: Final = 300.0  # for what asks the hub: a probe is tried again after 5, 30 and 120 s (swarmllm.md 2.4.2)
CONVERT_S: Final = 300.0  # 1 GiB of an adapter read twice, hashed and written on a slow disk
UPDATE_S: Final = 1800.0  # a wheel and what it needs over a slow line, and pip on a slow disk
LOAD_S: Final = 300.0  # a shard of 2 GB read from a slow disk, with the worker started first
CUT_S: Final = 4 * 3600.0  # a file of 400 GB is read and hashed at 100 MB/s in little more than an hour


class Turn(Struct, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /v1/chat/completions`."""

    model: str
    messages: list[Turn]
    stream: bool
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stream_options: dict[str, bool] | None = None


class _Delta(Struct, frozen=True, kw_only=True):
    content: str | None = None


class _Choice(Struct, frozen=True, kw_only=True):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(Struct, frozen=True, kw_only=True):
    cached_tokens: int = 0


class _Usage(Struct, frozen=True, kw_only=True):
    """As providers say it, too: each leaves out something else."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    def whole(self) -> openai_shapes.UsageOut:
        details = self.prompt_tokens_details or _Details()
        return openai_shapes.UsageOut(
            prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens,
            total_tokens=self.prompt_tokens + self.completion_tokens,
            prompt_tokens_details=openai_shapes.PromptDetails(cached_tokens=details.cached_tokens),
        )  # fmt: skip


class _Off(Struct, frozen=True, kw_only=True):
    """As provider_shapes.FeatureOff, or of a reply that says no such thing."""

    error: str = ""


class _Event(Struct, frozen=True, kw_only=True):
    """One server-sent event: a chunk, or the error that ends the stream."""

    choices: list[_Choice] = msgspec.field(default_factory=list[_Choice])
    swarm: openai_shapes.Swarm | UnsetType = UNSET
    usage: _Usage | None = None
    model: str = ""
    error: ErrorBody | UnsetType | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text of a reply, and with the last one where its time went."""

    text: str
    swarm: openai_shapes.Swarm | None = None
    usage: openai_shapes.UsageOut | None = None
    finish_reason: str | None = None
    model: str = ""
    """Who answers, where `auto` was asked."""


class _Checked(Struct, frozen=True, kw_only=True):
    """Both bodies of `POST /update/check` fit."""

    status: str
    current_version: str = ""
    info: update_shapes.UpdateInfo | UnsetType = UNSET


class AcquisitionState(Struct, frozen=True, kw_only=True):
    """How a model's shards come in; both bodies of `GET /models/{id}/status` fit."""

    state: str | shapes.FailedState
    message: str = ""
    total_bytes: int = 0
    downloaded_bytes: int = 0
    speed_bytes_per_sec: int = 0
    log: list[str] = msgspec.field(default_factory=list[str])

    @property
    def failed(self) -> str | None:
        """The reason, when it failed."""
        return self.state.failed.reason if isinstance(self.state, shapes.FailedState) else None


class NodeClient:
    """Use it as `async with NodeClient(place) as node`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"authorization": f"Bearer {self._place.key}"} if self._place.key else {}
        self._session = aiohttp.ClientSession(headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None, "the client was not entered"
        await self._session.close()

    @property
    def url(self) -> str:
        return self._place.url

    # -- the node and the network

    async def readiness(self) -> shapes.Readiness:
        """Also of a node that is not ready yet."""
        return await self._ask("GET", "/health/ready", shapes.Readiness, also=(503,))

    async def health(self) -> shapes.Health:
        return await self._ask("GET", "/health", shapes.Health)

    async def stats(self) -> shapes.Stats:
        return await self._ask("GET", "/api/admin/stats", shapes.Stats)

    async def peers(self) -> list[shapes.PeerRow]:
        return await self._ask("GET", "/api/admin/peers", list[shapes.PeerRow])

    async def links(self) -> list[shapes.LinkRow]:
        return await self._ask("GET", "/api/admin/links", list[shapes.LinkRow])

    async def invite(self) -> shapes.NetworkCodeView:
        return await self._ask("GET", "/api/admin/network-code", shapes.NetworkCodeView)

    async def make_invite(self, *, uses: int, life_seconds: int, role: RoleName = "member") -> invite_shapes.InviteMade:
        body = invite_shapes.InviteRequest(uses=uses, life_seconds=life_seconds, role=role)
        return await self._ask("POST", "/api/admin/invites", invite_shapes.InviteMade, body=body)

    async def make_short_code(self) -> invite_shapes.InviteMade:
        body = invite_shapes.InviteRequest(short=True)
        return await self._ask("POST", "/api/admin/invites", invite_shapes.InviteMade, body=body, also=(201,))

    async def invites(self) -> list[invite_shapes.InviteRow]:
        return await self._ask("GET", "/api/admin/invites", list[invite_shapes.InviteRow])

    async def cancel_invite(self, id: str) -> invite_shapes.InviteRow:
        return await self._ask("DELETE", f"/api/admin/invites/{_part(id)}", invite_shapes.InviteRow)

    async def members(self) -> list[shapes.MemberRow]:
        return await self._ask("GET", "/api/admin/members", list[shapes.MemberRow])

    async def revoke(self, node: str) -> shapes.MemberRow:
        return await self._ask("POST", f"/api/admin/members/{_part(node)}/revoke", shapes.MemberRow)

    async def join(self, code: str) -> shapes.Joined:
        return await self._ask("POST", "/api/admin/join-network", shapes.Joined, body=shapes.JoinRequest(code=code))

    async def settings(self) -> dict[str, bool | int | str]:
        """The flat settings; only those the API shows."""
        found = await self._ask("GET", "/api/admin/config", dict[str, Any])
        return {name: value for name, value in found.items() if isinstance(value, bool | int | str)}

    async def setting_rows(self) -> list[SettingRow]:
        """Every setting as the node has it; secrets without their values."""
        return (await self._ask("GET", "/api/admin/config/schema", SettingList)).settings

    async def reload_settings(self) -> shapes.Reloaded:
        return await self._ask("POST", "/api/admin/config/reload", shapes.Reloaded)

    async def change_setting(self, name: str, value: bool | int | str) -> None:
        await self._ask("PUT", "/api/admin/config", shapes.Done, body={name: value})

    async def version(self) -> update_shapes.Version:
        return await self._ask("GET", "/api/admin/version", update_shapes.Version)

    async def check_update(self) -> update_shapes.UpToDate | update_shapes.UpdateFound:
        found = await self._ask("POST", "/api/admin/update/check", _Checked, within_s=UPDATE_S)
        if isinstance(found.info, UnsetType):
            return update_shapes.UpToDate(status=found.status, current_version=found.current_version)
        return update_shapes.UpdateFound(status=found.status, info=found.info)

    async def apply_update(self, *, retry: bool = False) -> update_shapes.Applied:
        path = f"/api/admin/update/apply{'?retry=true' if retry else ''}"
        return await self._ask("POST", path, update_shapes.Applied, within_s=UPDATE_S)

    async def responses(self, limit: int, status: str | None) -> responses_shapes.StoredList:
        filtered = "" if status is None else f"&status={_part(status)}"
        return await self._ask("GET", f"/api/admin/responses?limit={limit}{filtered}", responses_shapes.StoredList)

    async def response(self, id: str) -> dict[str, Any]:
        """With the fields of the request that no shape names."""
        return await self._ask("GET", f"/v1/responses/{_part(id)}", dict[str, Any])

    async def cancel_response(self, id: str) -> dict[str, Any]:
        return await self._ask("POST", f"/v1/responses/{_part(id)}/cancel", dict[str, Any])

    async def delete_response(self, id: str) -> responses_shapes.ResponseDeleted:
        return await self._ask("DELETE", f"/v1/responses/{_part(id)}", responses_shapes.ResponseDeleted)

    async def credits(self) -> credit_shapes.CreditView:
        return await self._ask("GET", "/api/admin/credits", credit_shapes.CreditView)

    async def credit_entries(self, limit: int) -> credit_shapes.CreditRows:
        return await self._ask("GET", f"/api/admin/credits/transactions?limit={limit}", credit_shapes.CreditRows)

    async def credit_peers(self) -> list[credit_shapes.PeerCreditRow]:
        return await self._ask("GET", "/api/admin/credits/peers", list[credit_shapes.PeerCreditRow])

    # -- models

    async def models(self) -> list[shapes.ModelRow]:
        return await self._ask("GET", "/api/admin/models", list[shapes.ModelRow])

    async def add_file(self, path: str, *, shard_size_mb: int | None = None) -> shapes.ModelAdded:
        body = shapes.AddFile(path=path, shard_size_mb=shard_size_mb)
        return await self._ask("POST", "/api/admin/models", shapes.ModelAdded, body=body, within_s=CUT_S)

    async def fetch_model(self, model: str) -> shapes.Acquiring:
        return await self._ask("POST", f"/api/admin/models/{_part(model)}/add", shapes.Acquiring)

    async def fetch_shard(self, model: str, index: int) -> shapes.ShardDownload:
        return await self._ask("POST", f"{_shard(model, index)}/download", shapes.ShardDownload)

    async def delete_shard(self, model: str, index: int) -> shapes.ShardDeleted:
        return await self._ask("DELETE", _shard(model, index), shapes.ShardDeleted)

    async def acquisition(self, model: str) -> AcquisitionState:
        return await self._ask("GET", f"/api/admin/models/{_part(model)}/status", AcquisitionState)

    async def load_shard(self, model: str, index: int) -> shapes.ShardLoaded:
        return await self._ask("POST", f"{_shard(model, index)}/load", shapes.ShardLoaded, within_s=LOAD_S)

    async def unload_shard(self, model: str, index: int) -> shapes.ShardUnloaded:
        return await self._ask("POST", f"{_shard(model, index)}/unload", shapes.ShardUnloaded)

    async def unload(self, model: str) -> shapes.ModelUnloaded:
        return await self._ask("POST", f"/api/admin/models/{_part(model)}/unload", shapes.ModelUnloaded)

    async def remove_model(self, model: str) -> shapes.ModelDeleted:
        return await self._ask("DELETE", f"/api/admin/models/{_part(model)}", shapes.ModelDeleted)

    async def autopilot_plan(self) -> autopilot_shapes.AutopilotPlan:
        return await self._ask("GET", "/api/admin/auto-manage/plan", autopilot_shapes.AutopilotPlan)

    async def lock_shard(self, model: str, index: int, *, locked: bool) -> autopilot_shapes.LockSet:
        body = autopilot_shapes.LockRequest(locked=locked)
        return await self._ask("PUT", f"{_shard(model, index)}/lock", autopilot_shapes.LockSet, body=body)

    # -- adapters

    async def adapters(self) -> list[adapter_shapes.AdapterRow]:
        return (await self._ask("GET", "/api/admin/adapters", adapter_shapes.AdapterList)).adapters

    async def add_adapter(self, request: adapter_shapes.AdapterRequest) -> adapter_shapes.AdapterRow:
        added = await self._ask(
            "POST", "/api/admin/adapters", adapter_shapes.AdapterAdded, body=request, within_s=CONVERT_S
        )
        return added.adapter

    async def remove_adapter(self, id: str) -> adapter_shapes.AdapterGone:
        return await self._ask("DELETE", f"/api/admin/adapters/{_part(id)}", adapter_shapes.AdapterGone)

    # -- providers

    async def providers(self) -> provider_shapes.ProviderList:
        return await self._ask("GET", "/api/admin/providers", provider_shapes.ProviderList)

    async def provider_health(self) -> list[provider_shapes.HealthRow]:
        return (await self._ask("GET", "/api/admin/provider-health", provider_shapes.HealthList)).providers

    async def change_providers(self, change: provider_shapes.ProvidersRequest) -> provider_shapes.ProvidersChanged:
        body = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not None}
        found = await self._ask("PUT", "/api/admin/providers", msgspec.Raw, body=body)
        off = msgspec.json.decode(found, type=_Off).error
        if off:
            raise Failure(f"{off}: `swarmd config set providers.claude_subscription true` first", exit_code=REFUSED)
        return msgspec.json.decode(found, type=provider_shapes.ProvidersChanged)

    # -- the hub and downloads

    async def search_hub(self, query: str) -> list[download_shapes.HubRepoRow]:
        path = f"/api/admin/hf/search?query={_part(query)}"
        return await self._ask("GET", path, list[download_shapes.HubRepoRow], within_s=PROBE_S)

    async def probe_hub(self, repo_id: str, filename: str) -> download_shapes.HubProbe:
        path = f"/api/admin/hf/probe?repo_id={_part(repo_id)}&filename={_part(filename)}"
        return await self._ask("GET", path, download_shapes.HubProbe, within_s=PROBE_S)

    async def download_shards(
        self, repo_id: str, filename: str, *, shards: Sequence[int] | None = None, fair_share: bool = False
    ) -> download_shapes.DownloadStarted:
        """`shards` None and no `fair_share`: all."""
        body = download_shapes.DownloadShards(
            repo_id=repo_id,
            filename=filename,
            shards=None if shards is None else [*shards],
            peer_fair_share=fair_share,
            all_shards=shards is None and not fair_share,
        )
        path = "/api/admin/hf/download-shards"
        return await self._ask("POST", path, download_shapes.DownloadStarted, body=body, within_s=PROBE_S)

    async def downloads(self) -> download_shapes.DownloadList:
        return await self._ask("GET", "/api/admin/downloads", download_shapes.DownloadList)

    async def change_download(self, model: str, verb: str) -> download_shapes.DownloadChanged:
        """`verb`: `pause`, `resume` or `cancel`."""
        return await self._ask("POST", f"/api/admin/downloads/{_part(model)}/{verb}", download_shapes.DownloadChanged)

    async def move_download(self, model: str, place: int) -> download_shapes.DownloadMoved:
        body = download_shapes.DownloadPlace(place=place)
        return await self._ask("PUT", f"/api/admin/downloads/{_part(model)}/place", download_shapes.DownloadMoved, body=body)

    # -- chat

    async def chat(
        self,
        model: str,
        turns: Sequence[Turn],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> AsyncGenerator[Piece]:
        """The reply as it is made. Closing the generator, or a cancellation, ends it on all nodes."""
        question = Question(
            model=model, messages=[*turns], stream=True, max_tokens=max_tokens, temperature=temperature, seed=seed,
            stream_options={"include_usage": True},
        )  # fmt: skip
        try:
            data = msgspec.json.encode(question)
        except UnicodeEncodeError:  # bytes that are no UTF-8 come from the command line as half characters
            raise Failure("what was asked is no text: questions are asked in UTF-8", exit_code=USAGE) from None
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
        with self._explained(SILENCE_S):
            async with self._opened().post(
                f"{self.url}/v1/chat/completions",
                data=data,
                headers={"content-type": "application/json"},
                timeout=timeout,
            ) as response:
                if response.status != 200:
                    raise self._refused(response.status, await response.read())
                async for line in response.content:
                    data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                    if data == b"[DONE]":
                        return
                    if data:
                        yield self._piece(data)
        raise Failure("the reply broke off: the node hung up before its end")

    def _piece(self, data: bytes) -> Piece:
        event = msgspec.json.decode(data, type=_Event)
        if isinstance(event.error, ErrorBody):
            raise Failure(event.error.message)
        text = "".join(choice.delta.content or "" for choice in event.choices if choice.delta)
        reasons = [choice.finish_reason for choice in event.choices if choice.finish_reason]
        return Piece(
            text=text, swarm=None if isinstance(event.swarm, UnsetType) else event.swarm,
            usage=None if event.usage is None else event.usage.whole(),
            finish_reason=reasons[0] if reasons else None, model=event.model,
        )  # fmt: skip

    # -- inside

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the client was not entered"
        return self._session

    async def _ask(
        self,
        method: str,
        path: str,
        reply: Callable[..., T],
        *,
        body: Any = None,
        also: tuple[int, ...] = (),
        within_s: float = REPLY_S,
    ) -> T:
        """One request. `reply`: the type of the body of a success; `also`: further statuses that have it."""
        timeout = aiohttp.ClientTimeout(total=within_s, connect=CONNECT_S)
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        with self._explained(within_s):
            async with self._opened().request(
                method, self.url + path, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                text = await response.read()
                if response.status != 200 and response.status not in also:
                    raise self._refused(response.status, text)
                found: T = msgspec.json.decode(text, type=reply)
                return found

    @contextlib.contextmanager
    def _explained(self, within_s: float) -> Generator[None]:
        """Failures of the connection and of the reply's form, as sentences."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            sentence = f"no node answers at {self.url}: start one with `swarmd run`"
            raise Failure(sentence, exit_code=NOT_RUNNING) from error
        except aiohttp.InvalidURL as error:
            raise Failure(f"{self.url!r} is not the URL of a node") from error
        except TimeoutError as error:
            raise Failure(f"the node at {self.url} did not answer within {within_s:.0f} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Failure(f"the node at {self.url} hung up: look into its log") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise Failure(f"{self.url} answers, but not as swarmd {__version__} does: is another program there?") from error

    def _refused(self, status: int, text: bytes) -> Failure:
        code = exit_code_of(status)
        try:
            message = msgspec.json.decode(text, type=ErrorReply).error.message
        except (msgspec.DecodeError, ValueError):
            sentence = f"{self.url} answered {status} without a reason: is another program there?"
            return Failure(sentence, status=status)  # whatever it is, it says nothing about models and keys
        if status == 401 and self._place.withheld:
            message = (
                f"{self.url} wants its API key, and the key of this machine's own node is not sent elsewhere: copy the file "
                "`api_key` from its data folder and name it with --api-key-file"
            )
        elif status == 401 and self._place.key is None:
            message = f"there is no API key at {self._place.key_path}: name the node's folder with --data-dir"
        return Failure(message, exit_code=code, status=status)


def _part(text: str) -> str:
    return quote(text, safe="")


def _shard(model: str, index: int) -> str:
    return f"/api/admin/models/{_part(model)}/shards/{index}"
