"""THE table: what this node answers over HTTP. Server, guard, OpenAPI document, reference page and tests read it.

Adding an endpoint is a row here and a handler of a few lines. Plugins bring rows of their own; two owners of one path are a
start-up error that names both.
"""

from __future__ import annotations

from typing import Any

from swarmd.api import adapters as adapters_api
from swarmd.api import (
    autopilot_shapes,
    credit_shapes,
    download_shapes,
    invite_shapes,
    mcp_shapes,
    outlook_shapes,
    shapes,
)
from swarmd.api import encrypted as encrypted_api
from swarmd.api import updates as updates_api
from swarmd.api.adapters import AdapterHandlers
from swarmd.api.autopilot import AutopilotHandlers
from swarmd.api.credits import CreditHandlers, EntryId, PageSize
from swarmd.api.downloads import DownloadHandlers
from swarmd.api.embeddings import EmbeddingHandlers, EmbeddingList, EmbeddingsRequest
from swarmd.api.encrypted import EncryptedHandlers
from swarmd.api.guard import Guard
from swarmd.api.history import History, HistoryView
from swarmd.api.mcp import McpHandlers
from swarmd.api.mcp_protocol import JSON_RPC
from swarmd.api.members import MemberHandlers
from swarmd.api.messages import MessagesHandlers
from swarmd.api.messages_errors import ANTHROPIC, BY_VERSION
from swarmd.api.messages_shapes import (
    CountRequest,
    Event,
    Message,
    MessagesRequest,
    ModelInfo,
    ModelPage,
    Problem,
    TokenCount,
)
from swarmd.api.metrics import Metrics
from swarmd.api.model_cards import MODEL_PAGES
from swarmd.api.models import ModelHandlers
from swarmd.api.network import NetworkHandlers
from swarmd.api.node import NodeHandlers
from swarmd.api.openai import OpenAiHandlers
from swarmd.api.openai_shapes import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ModelCard,
    ModelList,
)
from swarmd.api.outlook import Outlook
from swarmd.api.pages import PageHandlers
from swarmd.api.pass_through import PassThrough
from swarmd.api.provider_routes import provider_rows
from swarmd.api.providers import ProviderHandlers
from swarmd.api.replies import ErrorReply
from swarmd.api.responses import ResponseHandlers
from swarmd.api.responses_rows import responses_rows
from swarmd.api.route import LOCAL_READ, LOCAL_WRITE, OPEN, READ, WRITE, NodeIdText, Query, Route
from swarmd.api.setting_rows import SettingList
from swarmd.api.status import Status, StatusHandlers
from swarmd.api.storage import StorageHandlers
from swarmd.api.updates import UpdateHandlers
from swarmd.api.ws import LiveFeed
from swarmd.config.contract import flat_schema


def table(
    *,
    pages: PageHandlers,
    node: NodeHandlers,
    models: ModelHandlers,
    storage: StorageHandlers,
    network: NetworkHandlers,
    members: MemberHandlers,
    autopilot: AutopilotHandlers,
    encrypted: EncryptedHandlers,
    openai: OpenAiHandlers,
    responses: ResponseHandlers,
    embeddings: EmbeddingHandlers,
    metrics: Metrics,
    feed: LiveFeed,
    messages: MessagesHandlers,
    status: StatusHandlers,
    mcp: McpHandlers,
    updates: UpdateHandlers,
    credits: CreditHandlers,
    outlook: Outlook,
    adapters: AdapterHandlers | None = None,
    downloads: DownloadHandlers | None = None,
    providers: ProviderHandlers | None = None,
    pass_through: PassThrough | None = None,
    history: History | None = None,
) -> tuple[Route, ...]:
    """The node's own rows. `downloads`: None on a node that has no hub; `adapters`, `history`: on one that keeps none."""
    return (
        *_page_rows(pages),
        *_node_rows(node),
        *_update_rows(updates),
        *_model_rows(models),
        *_storage_rows(storage),
        *(_download_rows(downloads) if downloads is not None else ()),
        *_network_rows(network),
        *_member_rows(members),
        *_autopilot_rows(autopilot),
        *_credit_rows(credits),
        *_outlook_rows(outlook),
        *_encrypted_rows(encrypted),
        *(_adapter_rows(adapters) if adapters is not None else ()),
        *(provider_rows(providers) if providers is not None else ()),
        *(_history_rows(history) if history is not None else ()),
        *_openai_rows(openai, pass_through),
        *_messages_rows(messages, pass_through),
        *_mcp_rows(mcp),
        Route(
            method="GET", path="/v1/status", guard=WRITE, handler=status.status, reply=Status,
            doc="What this node serves and what it is doing, in one small reply.",
        ),
        *responses_rows(responses),
        Route(
            method="GET", path="/metrics", guard=READ, handler=metrics.show, media="text/plain",
            doc="Figures for Prometheus: docs/monitoring.md names them.",
        ),
        Route(
            method="POST", path="/v1/embeddings", guard=WRITE, handler=embeddings.embed, request=EmbeddingsRequest,
            reply=EmbeddingList, status=(200, 400, 404, 429, 502, 503, 504), hang_up_cancels=True,
            elsewhere=pass_through.embed if pass_through is not None else None,
            doc="Texts, or their tokens, as vectors of length 1.",
        ),
        Route(
            method="GET", path="/api/admin/ws", guard=Guard.SOCKET, handler=feed.socket, media="websocket",
            query=(Query(name="ticket", doc="Of POST /api/admin/ws-ticket."),), status=(101, 400, 503), hang_up_cancels=True,
            doc="Live updates: envelopes {type, data}; first peer_list, then recent activity, then stats every 2 s.",
        ),
    )  # fmt: skip


def _page_rows(pages: PageHandlers) -> tuple[Route, ...]:
    return (
        Route(method="GET", path="/", guard=OPEN, handler=pages.index, media="text/html", doc="The dashboard."),
        Route(
            method="GET", path="/static/{name:.+}", guard=OPEN, handler=pages.static, media="*/*", status=(200, 304, 404),
            doc="A file of the dashboard.",
        ),
        Route(
            method="GET", path="/api/openapi.json", guard=OPEN, handler=pages.openapi, doc="This table as OpenAPI 3.1.",
            reply=dict[str, Any],
        ),
        Route(
            method="GET", path="/api/docs", guard=OPEN, handler=pages.docs, media="text/html",
            doc="This table as a page for people.",
        ),
        Route(
            method="GET", path="/health", guard=OPEN, handler=pages.health, reply=shapes.Health, doc="The process answers.",
        ),
        Route(
            method="GET", path="/health/ready", guard=OPEN, handler=pages.ready, reply=shapes.Readiness, status=(200, 503),
            bodies={503: shapes.Readiness}, doc="Whether every part of the node is ready.",
        ),
        Route(
            method="POST", path="/api/admin/session", guard=Guard.PAGE, handler=pages.session, request=shapes.SessionRequest,
            reply=shapes.ApiKey, status=(200, 403), doc="Changes the one-time nonce of a dashboard page into the API key.",
        ),
        Route(
            method="POST", path="/api/admin/ws-ticket", guard=WRITE, handler=pages.ticket, reply=shapes.Ticket,
            doc="A one-time pass for GET /api/admin/ws?ticket=, good for 30 s.",
        ),
        Route(
            method="GET", path="/api/admin/api-key", guard=WRITE, handler=pages.api_key, reply=shapes.ApiKey,
            doc="The API key, for who already has it.",
        ),
    )  # fmt: skip


def _node_rows(node: NodeHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/stats", guard=READ, handler=node.stats, reply=shapes.Stats,
            doc="Node statistics and hardware.",
        ),
        Route(
            method="GET", path="/api/admin/config", guard=READ, handler=node.config, reply=dict[str, bool | int | str],
            doc="The settings that may be changed here, flat.",
        ),
        Route(
            method="PUT", path="/api/admin/config", guard=WRITE, handler=node.change_config, request=dict[str, Any],
            request_schema=flat_schema(), reply=shapes.Done, status=(200, 400, 503),
            doc="Change settings: any subset of the writable keys, and of all settings by section.name.",
        ),
        Route(
            method="GET", path="/api/admin/config/schema", guard=READ, handler=node.config_schema, reply=SettingList,
            doc="Every setting: value, range, default, where it comes from, whether a change is live, what it is.",
        ),
        Route(
            method="POST", path="/api/admin/config/reload", guard=WRITE, handler=node.reload_config, reply=shapes.Reloaded,
            status=(200, 400, 404), doc="Read the settings file again and apply what can change while running.",
        ),
        Route(
            method="POST", path="/api/admin/shutdown", guard=LOCAL_WRITE, handler=node.shutdown, reply=shapes.Done,
            doc="Shut the node down in order.",
        ),
    )  # fmt: skip


def _update_rows(updates: UpdateHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/version", guard=READ, handler=updates.version, reply=updates_api.Version,
            doc="The running version, and whether there is a newer one.",
        ),
        Route(
            method="POST", path="/api/admin/update/check", guard=LOCAL_WRITE, handler=updates.check,
            reply=(updates_api.UpToDate, updates_api.UpdateFound), status=(200, 502, 503),
            doc="Look into the release feed now.",
        ),
        Route(
            method="POST", path="/api/admin/update/apply", guard=LOCAL_WRITE, handler=updates.apply,
            reply=updates_api.Applied, status=(200, 400, 502, 503, 507),
            query=(Query(name="retry", type=bool, doc="Also to a version that was tried here and taken back."),),
            doc="Switch to the newest version once running replies have ended; one that does not become ready goes back.",
        ),
    )  # fmt: skip


def _model_rows(models: ModelHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/models", guard=READ, handler=models.models, reply=list[shapes.ModelRow],
            doc="Known models with their shards, memory estimates and acquisition.",
        ),
        Route(
            method="POST", path="/api/admin/models", guard=LOCAL_WRITE, handler=models.add_file, request=shapes.AddFile,
            reply=shapes.ModelAdded, status=(200, 400, 404, 507),
            doc="Cut a GGUF of this machine, one file or all parts of a split one, into shards.",
        ),
        Route(
            method="DELETE", path="/api/admin/models/{model}", guard=WRITE, handler=models.remove, reply=shapes.ModelDeleted,
            status=(200, 404, 503), doc="Remove a model here: shards, manifest and state.",
        ),
        Route(
            method="POST", path="/api/admin/models/{model}/add", guard=WRITE, handler=models.add, reply=shapes.Acquiring,
            status=(200, 404, 503, 507), doc="Fetch a model from the network.",
        ),
        Route(
            method="GET", path="/api/admin/models/{model}/status", guard=READ, handler=models.status,
            reply=(shapes.AcquisitionStatus, shapes.NoAcquisition), doc="How the fetching of a model goes.",
        ),
        Route(
            method="GET", path="/api/admin/models/{model}/metadata", guard=READ, handler=models.metadata,
            reply=shapes.Metadata, status=(200, 400), doc="GGUF metadata of a model, without the tokenizer's lists.",
        ),
        Route(
            method="GET", path="/api/admin/models/{model}/pipeline-plan", guard=READ, handler=models.pipeline_plan,
            reply=shapes.PlanView, status=(200, 404, 503), doc="Which nodes would run a request now; runs nothing.",
        ),
        Route(
            method="POST", path="/api/admin/models/{model}/unload", guard=WRITE, handler=models.unload,
            reply=shapes.ModelUnloaded, status=(200, 404, 503), doc="Free the memory of a model; its files stay.",
        ),
    )  # fmt: skip


def _storage_rows(storage: StorageHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="DELETE", path="/api/admin/models/{model}/shards/{index}", guard=WRITE, handler=storage.delete_shard,
            reply=shapes.ShardDeleted, status=(200, 400, 404, 503), doc="Delete one shard from this node's disk.",
        ),
        Route(
            method="POST", path="/api/admin/models/{model}/shards/{index}/load", guard=WRITE, handler=storage.load_shard,
            reply=shapes.ShardLoaded, status=(200, 400, 404, 503), doc="Load a shard that is on disk into memory.",
        ),
        Route(
            method="POST", path="/api/admin/models/{model}/shards/{index}/unload", guard=WRITE, handler=storage.unload_shard,
            reply=shapes.ShardUnloaded, status=(200, 400, 404, 503), doc="Unload a shard from memory; its file stays.",
        ),
        Route(
            method="POST", path="/api/admin/models/{model}/shards/{index}/download", guard=WRITE,
            handler=storage.download_shard, reply=shapes.ShardDownload, status=(200, 400, 404, 507),
            doc="Fetch one shard from a peer, or say where the hub has it.",
        ),
        Route(
            method="GET", path="/api/admin/shard-storage", guard=READ, handler=storage.shard_storage,
            reply=shapes.ShardStorageView, doc="What the shards take on disk, by model.",
        ),
        Route(
            method="POST", path="/api/admin/rescan-shards", guard=WRITE, handler=storage.rescan, reply=shapes.Rescanned,
            doc="Look for shards and GGUF files that were put into the data folder by hand.",
        ),
    )  # fmt: skip


def _download_rows(downloads: DownloadHandlers) -> tuple[Route, ...]:
    # The hub's rows are LOCAL_READ: opening the reads must not let passers-by send this node, and its token, to the hub.
    return (
        Route(
            method="GET", path="/api/admin/hf/search", guard=LOCAL_READ, handler=downloads.search,
            reply=list[download_shapes.HubRepoRow], status=(200, 400, 502),
            query=(
                Query(name="query", type=download_shapes.SearchText, doc="What to look for; nothing finds nothing."),
                Query(name="q", type=download_shapes.SearchText, doc="The same, for clients that say `q`."),
            ),
            doc="GGUF models on the hub, by repository, with what fits this node and the swarm; `q` is the same as `query`.",
        ),
        Route(
            method="GET", path="/api/admin/hf/probe", guard=LOCAL_READ, handler=downloads.probe,
            reply=download_shapes.HubProbe, status=(200, 400, 502),
            query=(
                Query(name="repo_id", type=download_shapes.RepoId, required=True),
                Query(name="filename", type=download_shapes.GgufName, required=True, doc="Of a split model the first part."),
            ),
            doc="What the header of a GGUF file on the hub says: size, shards, architecture.",
        ),
        Route(
            method="POST", path="/api/admin/hf/download-shards", guard=WRITE, handler=downloads.download_shards,
            request=download_shapes.DownloadShards, reply=download_shapes.DownloadStarted, status=(200, 400, 502, 503, 507),
            doc="Fetch a model of the hub: some shards, this node's fair share, or all; from peers where they have it.",
        ),
        Route(
            method="GET", path="/api/admin/hf/source/{model}", guard=LOCAL_READ, handler=downloads.source,
            reply=download_shapes.HubOrigin, status=(200, 404, 502), doc="Where on the hub a known model is found.",
        ),
        Route(
            method="GET", path="/api/admin/downloads", guard=READ, handler=downloads.downloads,
            reply=download_shapes.DownloadList, doc="What is being fetched, or was: progress, speed, source by shard.",
        ),
        Route(
            method="POST", path="/api/admin/downloads/{model}/cancel", guard=WRITE, handler=downloads.cancel,
            reply=download_shapes.DownloadChanged, status=(200, 400), doc="Give a download up; shards that are here stay.",
        ),
        Route(
            method="POST", path="/api/admin/downloads/{model}/pause", guard=WRITE, handler=downloads.pause,
            reply=download_shapes.DownloadChanged, status=(200, 404), doc="Let the fetching of a model rest.",
        ),
        Route(
            method="POST", path="/api/admin/downloads/{model}/resume", guard=WRITE, handler=downloads.resume,
            reply=download_shapes.DownloadChanged, status=(200, 404), doc="Go on with fetching a model.",
        ),
        Route(
            method="PUT", path="/api/admin/downloads/{model}/place", guard=WRITE, handler=downloads.place,
            request=download_shapes.DownloadPlace, reply=download_shapes.DownloadMoved, status=(200, 400, 404),
            doc="Another place in the queue of downloads; 0 is the first.",
        ),
    )  # fmt: skip


def _network_rows(network: NetworkHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/peers", guard=READ, handler=network.peers, reply=list[shapes.PeerRow],
            doc="Peers with latency and the models they host.",
        ),
        Route(
            method="GET", path="/api/admin/links", guard=READ, handler=network.links, reply=list[shapes.LinkRow],
            doc="Every standing connection to a peer: its path, round trip, bytes and queue.",
        ),
        Route(
            method="GET", path="/api/admin/network-map", guard=READ, handler=network.network_map, reply=shapes.NetworkMap,
            doc="Nodes, models, demand and what is missing, by region; this node included.",
        ),
        Route(
            # Not READ: a code admits a node, and opening the reads must not give it to passers-by.
            method="GET", path="/api/admin/network-code", guard=LOCAL_READ, handler=network.network_code,
            reply=shapes.NetworkCodeView, status=(200, 400, 403, 503), doc="An invite code for one more node.",
        ),
        Route(
            method="POST", path="/api/admin/invites", guard=WRITE, handler=network.make_invite,
            request=invite_shapes.InviteRequest, reply=invite_shapes.InviteMade, status=(200, 201, 400, 403, 503),
            doc="A new invite code for some nodes, some time and a role, or a short one (201); told once and not stored.",
        ),
        Route(
            # The key even on loopback: who was invited when is for whoever may invite.
            method="GET", path="/api/admin/invites", guard=WRITE, handler=network.invites,
            reply=list[invite_shapes.InviteRow], doc="The invites this node remembers, newest first, without their codes.",
        ),
        Route(
            method="DELETE", path="/api/admin/invites/{id}", guard=WRITE, handler=network.cancel_invite,
            reply=invite_shapes.InviteRow, status=(200, 404), doc="From now on nobody joins with this invite.",
        ),
        Route(
            method="POST", path="/api/admin/join-network", guard=WRITE, handler=network.join, request=shapes.JoinRequest,
            reply=shapes.Joined, status=(200, 400, 403, 409, 502),
            doc="Join a network by invite code or short code, or an open one by multiaddr.",
        ),
    )  # fmt: skip


def _member_rows(members: MemberHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/members", guard=READ, handler=members.members, reply=list[shapes.MemberRow],
            doc="Who belongs to the network as far as this node knows, in which role, and who admitted it.",
        ),
        Route(
            method="POST", path="/api/admin/members/{node}/revoke", guard=WRITE, handler=members.revoke,
            path_types={"node": NodeIdText},
            reply=shapes.MemberRow, status=(200, 400, 403, 404, 503),
            doc="Put a node out, and whom it invited: the founder anybody, an inviter those below it.",
        ),
    )  # fmt: skip


def _autopilot_rows(autopilot: AutopilotHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/models/{model}/auto-manage", guard=READ, handler=autopilot.policy,
            reply=autopilot_shapes.PolicyView, doc="What the autopilot may do with a model here.",
        ),
        Route(
            method="PUT", path="/api/admin/models/{model}/auto-manage", guard=WRITE, handler=autopilot.set_policy,
            request=autopilot_shapes.PolicyRequest, reply=autopilot_shapes.PolicySet, status=(200, 400),
            doc="Say what the autopilot may do with a model here; what is left out is set to its default.",
        ),
        Route(
            method="PUT", path="/api/admin/models/{model}/shards/{index}/lock", guard=WRITE, handler=autopilot.lock,
            request=autopilot_shapes.LockRequest, reply=autopilot_shapes.LockSet, status=(200, 400),
            doc="Lock a shard, so that the autopilot never drops it here, or unlock it.",
        ),
        Route(
            method="GET", path="/api/admin/prune-history", guard=READ, handler=autopilot.prune_history,
            reply=autopilot_shapes.PruneHistory, doc="Shards that the autopilot dropped here, newest first.",
        ),
        Route(
            method="GET", path="/api/admin/schedule", guard=READ, handler=autopilot.schedule,
            reply=autopilot_shapes.ScheduleView, doc="The hours in which this machine gives less.",
        ),
        Route(
            method="PUT", path="/api/admin/schedule", guard=WRITE, handler=autopilot.set_schedule,
            request=autopilot_shapes.ScheduleRequest, reply=autopilot_shapes.ScheduleSet, status=(200, 400),
            doc="Change the hours in which this machine gives less: any subset of the fields.",
        ),
        Route(
            method="GET", path="/api/admin/auto-manage/plan", guard=READ, handler=autopilot.plan,
            reply=autopilot_shapes.AutopilotPlan,
            doc="What the autopilot would fetch and drop now, and of everything else why not; changes nothing.",
        ),
    )  # fmt: skip


def _credit_rows(credits: CreditHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/credits", guard=READ, handler=credits.credits, reply=credit_shapes.CreditView,
            doc="What this node did for others and had done by them, in credits, and its tier; it gates nothing.",
        ),
        Route(
            method="GET", path="/api/admin/credits/transactions", guard=READ, handler=credits.transactions,
            reply=credit_shapes.CreditRows, status=(200, 400),
            query=(
                Query(name="limit", type=PageSize, doc="Of a page; 100 if left out."),
                Query(name="before", type=EntryId, doc="Only entries with smaller ids."),
            ),
            doc="The account's entries of the last 90 days, by hour, newest first; `before` is `next_before` of a page.",
        ),
        Route(
            method="GET", path="/api/admin/credits/peers", guard=READ, handler=credits.peers,
            reply=list[credit_shapes.PeerCreditRow],
            doc="What each peer did for this node and had done by it, by this node's own count, and its tier here.",
        ),
    )  # fmt: skip


def _outlook_rows(outlook: Outlook) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/swarm/capacity", guard=READ, handler=outlook.show_capacity,
            reply=outlook_shapes.SwarmCapacity, doc="What the nodes that are linked now can serve together.",
        ),
        Route(
            method="GET", path="/api/admin/wishlist", guard=READ, handler=outlook.show_wishlist,
            reply=outlook_shapes.Wishlist, doc="Which models the swarm should hold more of, and why.",
        ),
    )  # fmt: skip


def _encrypted_rows(encrypted: EncryptedHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/models/{model}/encrypted-pipeline", guard=READ, handler=encrypted.show,
            reply=encrypted_api.EncryptedView, status=(200, 404),
            doc="Whether a model's pipeline begins and ends on this node, so that no other one sees a token.",
        ),
        Route(
            method="PUT", path="/api/admin/models/{model}/encrypted-pipeline", guard=WRITE, handler=encrypted.choose,
            request=encrypted_api.EncryptedRequest, reply=encrypted_api.EncryptedSet, status=(200, 400, 404),
            doc="Switch that on or off for a model; it needs the first and the last shard on this node.",
        ),
    )  # fmt: skip


def _adapter_rows(adapters: AdapterHandlers) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/adapters", guard=READ, handler=adapters.list, reply=adapters_api.AdapterList,
            doc="LoRA adapters that are registered on this node.",
        ),
        Route(
            method="POST", path="/api/admin/adapters", guard=WRITE, handler=adapters.add,
            request=adapters_api.AdapterRequest, reply=adapters_api.AdapterAdded, status=(200, 400, 507),
            doc="Register a LoRA adapter from a safetensors file; it is checked and converted before the answer.",
        ),
        Route(
            method="DELETE", path="/api/admin/adapters/{id}", guard=WRITE, handler=adapters.remove,
            reply=adapters_api.AdapterGone, status=(200, 400), doc="Unregister a LoRA adapter; its file stays.",
        ),
    )  # fmt: skip


def _history_rows(history: History) -> tuple[Route, ...]:
    return (
        Route(
            method="GET", path="/api/admin/history", guard=READ, handler=history.show, reply=HistoryView,
            doc="Speed, round trips, memory and peers of the last hour, every 5 s, in columns.",
        ),
    )  # fmt: skip


def _openai_rows(openai: OpenAiHandlers, pass_through: PassThrough | None) -> tuple[Route, ...]:
    return (
        Route(
            method="POST", path="/v1/chat/completions", guard=WRITE, handler=openai.chat, request=ChatRequest,
            reply=ChatCompletion, streams=(ChatChunk, ErrorReply), status=(200, 400, 404, 429, 502, 503, 504),
            hang_up_cancels=True, elsewhere=pass_through.chat if pass_through is not None else None,
            doc="A chat reply, whole or as server-sent events.",
        ),
        Route(
            method="POST", path="/v1/completions", guard=WRITE, handler=openai.complete, request=CompletionRequest,
            reply=Completion, streams=(Completion, ErrorReply), status=(200, 400, 404, 429, 502, 503, 504),
            hang_up_cancels=True, elsewhere=pass_through.complete if pass_through is not None else None,
            doc="A text continued, whole or as server-sent events.",
        ),
        Route(
            # The key, although admin reads are free on loopback: clients ask this to find out whether their key is right.
            method="GET", path="/v1/models", guard=WRITE, handler=openai.models, reply=(ModelList, ModelPage),
            status=(200, 400), query=MODEL_PAGES, errors=BY_VERSION,
            doc="Models this node can answer with now, and who can serve them; in pages for who sends `anthropic-version`.",
        ),
        Route(
            method="GET", path="/v1/models/{id:.+}", guard=WRITE, handler=openai.model, reply=(ModelCard, ModelInfo),
            status=(200, 404), errors=BY_VERSION, doc="One of them.",
        ),
    )  # fmt: skip


def _messages_rows(messages: MessagesHandlers, pass_through: PassThrough | None) -> tuple[Route, ...]:
    return (
        Route(
            method="POST", path="/v1/messages", guard=WRITE, handler=messages.create, request=MessagesRequest, reply=Message,
            streams=(Event, Problem), status=(200, 400, 404, 429, 502, 503, 504, 529), hang_up_cancels=True,
            elsewhere=pass_through.messages if pass_through is not None else None, errors=ANTHROPIC,
            doc="A reply in the Anthropic dialect, whole or as server-sent events.",
        ),
        Route(
            method="POST", path="/v1/messages/count_tokens", guard=WRITE, handler=messages.count_tokens,
            request=CountRequest, reply=TokenCount, status=(200, 400, 404, 429, 502, 503, 504, 529), hang_up_cancels=True,
            elsewhere=pass_through.count_tokens if pass_through is not None else None, errors=ANTHROPIC,
            doc="How many tokens a prompt has, counted by the model's own template and vocabulary.",
        ),
    )  # fmt: skip


def _mcp_rows(mcp: McpHandlers) -> tuple[Route, ...]:
    return (
        Route(
            # The handler decodes the body: what is no JSON has an answer of JSON-RPC's own.
            method="POST", path="/mcp", guard=WRITE, handler=mcp.post, request=mcp_shapes.Incoming, reads_body=True,
            reply=(mcp_shapes.RpcResult, mcp_shapes.RpcError), status=(200, 202, 400, 404, 503), hang_up_cancels=True,
            streams=(mcp_shapes.RpcNotification, mcp_shapes.RpcResult, mcp_shapes.RpcError), errors=JSON_RPC,
            doc="One message of the Model Context Protocol, as JSON-RPC; calls with a progress token answer in events.",
        ),
        Route(
            method="GET", path="/mcp", guard=WRITE, handler=mcp.listen, media="text/event-stream", status=(200, 400, 404),
            errors=JSON_RPC, doc="The stream of a session on which the node may speak unasked.",
        ),
        Route(
            method="DELETE", path="/mcp", guard=WRITE, handler=mcp.end, reply=shapes.Done, status=(200, 400, 404),
            errors=JSON_RPC, doc="End a session and cancel its calls.",
        ),
    )  # fmt: skip
