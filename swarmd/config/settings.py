"""Every setting of the node: default, range, one sentence, and whether a change needs a restart.

One declaration feeds the checks, the file format, the environment names, the admin API, the example file and the
reference page. A setting that nobody reads does not belong here.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from swarmd.domain.ids import parse_model_id
from swarmd.domain.peers import is_nickname, parse_endpoint
from swarmd.domain.regions import UNKNOWN, as_region

Value = bool | int | str
T = TypeVar("T", bool, int, str)

PEER_PORT_OFFSET = 10  # peers listen on node.listen_port + 10 (design, section 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a free text must look like: the words for people and the check, which raises ValueError."""

    words: str
    check: Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is declared about a setting, besides its default."""

    doc: str
    live: bool
    """True: a change takes effect in the running node. False: at the next start."""
    low: int | None
    high: int | None
    choices: tuple[str, ...]
    form: Form | None
    secret: bool
    """Never shown, logged or printed."""


def setting(
    default: T,
    doc: str,
    *,
    live: bool,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    form: Form | None = None,
    secret: bool = False,
) -> T:
    """A field of a section. Numbers have `low` and `high`, texts `choices` or `form`, switches nothing."""
    declared = Declared(doc=doc, live=live, low=low, high=high, choices=choices, form=form, secret=secret)
    return field(default=default, metadata={"declared": declared})


def _address(text: str) -> None:
    if text != "localhost":
        ipaddress.ip_address(text)


def _endpoint(text: str) -> None:
    if text:
        parse_endpoint(text)


def _url(text: str) -> None:
    if text and not re.fullmatch(r"https?://[!-~]{1,500}", text):
        raise ValueError("no address")


def _folder(text: str) -> None:
    if (text and not text.startswith(("/", "~"))) or "\0" in text or len(text) > 4096:
        raise ValueError("not absolute")


def _program(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}|/[^\0]{1,4095}", text) or not text.isprintable():
        raise ValueError("no program")


def _model(text: str) -> None:
    if text:
        parse_model_id(text)


def _key(text: str) -> None:
    if text and not re.fullmatch(r"[!-~]{16,256}", text):
        raise ValueError("no key")


def _nickname(text: str) -> None:
    if text and not is_nickname(text):
        raise ValueError("no name")


def _region(text: str) -> None:
    if text and as_region(text) == UNKNOWN:
        raise ValueError("no region")


def _signers(text: str) -> None:
    if not re.fullmatch(r"([0-9a-f]{64}([ ,]+[0-9a-f]{64}){0,7})?", text):
        raise ValueError("no keys")


ADDRESS = Form(words="an IP address or localhost", check=_address)
ENDPOINT = Form(words="empty, or host:port", check=_endpoint)
FOLDER = Form(words="empty, or an absolute path", check=_folder)
URL = Form(words="empty, or an address that begins with http:// or https://", check=_url)
PROGRAM = Form(words="the name of a program, or an absolute path", check=_program)
MODEL = Form(words="empty, or a model id", check=_model)
NICKNAME = Form(words="empty, or up to 32 letters, digits, blanks, dots, - and _", check=_nickname)
REGION = Form(words="empty, or up to 16 letters, digits, - and _", check=_region)
SIGNERS = Form(words="empty, or up to 8 public keys of 64 hex digits", check=_signers)
API_KEY = Form(words="empty, or 16 to 256 printable ASCII characters without blanks", check=_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    listen_port: int = setting(
        8800, "TCP port of the API and the dashboard; links from peers come in on this number plus 10.",
        live=False, low=1, high=65535 - PEER_PORT_OFFSET,
    )
    listen_address: str = setting(
        "127.0.0.1", "Address on which the API and the dashboard listen; 0.0.0.0 opens them to other machines.",
        live=False, form=ADDRESS,
    )
    data_dir: str = setting(
        "", "Folder of keys, state and shards; empty: `swarmd` in the platform's folder for application data.",
        live=False, form=FOLDER,
    )
    contribution: str = setting(
        "minimal", "How much of this machine the swarm may use where a setting says 0 = automatic.",
        live=True, choices=("minimal", "moderate", "maximum"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    nickname: str = setting(
        "", "What members of the network call this node, instead of the first digits of its id; empty: just those.",
        live=True, form=NICKNAME,
    )
    region: str = setting(
        "", "Where this node stands, as a two-letter country code; empty: by this machine's time zone, else its locale.",
        live=False, form=REGION,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesSettings:
    max_ram_mb: int = setting(
        0, "Memory for loaded shards, in MB; 0: by contribution and what the machine has.",
        live=True, low=0, high=16_777_216,
    )
    max_disk_mb: int = setting(
        50_000, "Disk space for shards, in MB.",
        live=True, low=100, high=10_000_000,
    )
    max_bandwidth_mbps: int = setting(
        0, "Upload limit for shards, in Mbit/s; 0: by contribution (10, 50, none). Not for private addresses, nor tokens.",
        live=True, low=0, high=100_000,
    )
    max_cpu_threads: int = setting(
        0, "Threads of each model's worker; 0: 1/2, 3/4 or all of the physical cores by contribution, rounded, at least 1.",
        live=False, low=0, high=1024,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    listen_address: str = setting(
        "0.0.0.0", "Address on which links from peers are accepted.",
        live=False, form=ADDRESS,
    )
    external_address: str = setting(
        "", "Public address of this node behind a router that forwards a port to it; empty: none.",
        live=False, form=ENDPOINT,
    )
    admission: str = setting(
        "invite", "Who gets in: `invite`: invited nodes alone; `open`: whoever states the network's id, in both directions.",
        live=False, choices=("invite", "open"),
    )
    enable_mdns: bool = setting(
        True, "Find members in the local network, and be found there; what is announced: docs/architecture.md, Security.",
        live=False,
    )
    upnp: bool = setting(
        False, "Ask the home router (UPnP) to forward the peer port, so that others can dial us; needs `swarmd[upnp]`.",
        live=False,
    )
    max_peers: int = setting(
        150, "Links kept at the same time.",
        live=False, low=1, high=10_000,
    )
    relay: bool = setting(
        True, "Relay the links of members that cannot dial each other; what passes is sealed between the two.",
        live=True,
    )
    relay_mbps: int = setting(
        100, "Most that is relayed for others, in megabits a second, all circuits and both directions together.",
        live=True, low=1, high=100_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    default_model: str = setting(
        "", "Model that answers requests for `auto`; empty: the first one that is complete.",
        live=True, form=MODEL,
    )
    max_concurrent_requests: int = setting(
        10, "Generations that run at the same time; further requests wait.",
        live=True, low=1, high=256,
    )
    queue_requests: int = setting(
        64, "Requests that may wait for a place; further ones are refused with 503 and told when to come back.",
        live=True, low=0, high=512,
    )
    queue_seconds: int = setting(
        120, "Seconds that a request waits for a place until it is refused with 503.",
        live=True, low=1, high=3600,
    )
    priority_by_tier: bool = setting(
        False, "Whether members wait in line for layers here, with more turns the more they did for this node (credits).",
        live=True,
    )
    session_timeout_seconds: int = setting(
        600, "Seconds without a step until a node ends its stage of a generation; also of one whose client reads nothing.",
        live=True, low=10, high=86_400,
    )
    idle_unload_minutes: int = setting(
        30, "Minutes without a request after which a model leaves the memory; 0: it stays until the memory is needed.",
        live=True, low=0, high=10_080,
    )
    context_tokens: int = setting(
        8192, "Tokens of prompt and reply together that a generation may have; a model's own limit may be lower.",
        live=False, low=256, high=1_048_576,
    )
    max_batch_size: int = setting(
        8, "Generations that share one step of a worker.",
        live=True, low=1, high=256,
    )
    batch_timeout_ms: int = setting(
        50, "Longest wait to fill a batch, in ms; kept for the contract: a batch takes what is there and never waits.",
        live=True, low=1, high=60_000,
    )
    encrypted_pipeline: bool = setting(
        False, "Whether generations begin and end on this node where it has a model's first and last shard.",
        live=True,
    )
    prefix_cache_mb: int = setting(
        256, "Memory for what a model computed of the beginnings of prompts, in MB for each loaded model; 0: keep nothing.",
        live=True, low=0, high=1_048_576,
    )
    speculation: bool = setting(
        True, "Whether to guess tokens from the text so far and compute several in a step: another speed, the same replies.",
        live=True,
    )
    adapter_folder: str = setting(
        "", "A further folder from which LoRA adapters may be registered; empty: `adapters` in the data folder alone.",
        live=True, form=FOLDER,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    shard_size_mb: int = setting(
        512, "Target size of a shard when a model is cut, in MB; models that are already cut keep their shards.",
        live=True, low=64, high=2048,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoManageSettings:
    enabled: bool = setting(
        True, "Whether this node may fetch and drop shards by itself as the swarm needs them.",
        live=True,
    )
    max_storage_mb: int = setting(
        0, "Disk space for shards that the node fetched by itself, in MB; 0: a share of resources.max_disk_mb.",
        live=True, low=0, high=10_000_000,
    )
    min_replicas: int = setting(
        2, "Nodes that should hold each model even where nobody asks for it, as far as a third of the swarm allows.",
        live=True, low=1, high=100,
    )
    interval_minutes: int = setting(
        5, "Minutes between two looks at what the swarm needs; news of it are looked at sooner.",
        live=True, low=1, high=1440,
    )
    max_concurrent_downloads: int = setting(
        3, "Shards that the node fetches by itself at the same time.",
        live=True, low=1, high=64,
    )
    default_model_shard_cap: int = setting(
        0, "Shards of one model up to which the node fetches more, where the model's policy says nothing; 0: no limit.",
        live=True, low=0, high=100_000,
    )
    prune_enabled: bool = setting(
        True, "Whether the node may drop shards of which the swarm has more copies than it needs.",
        live=True,
    )
    prune_cooldown_secs: int = setting(
        300, "Seconds after one shard of a model is dropped until the next one may be.",
        live=True, low=0, high=86_400,
    )
    max_holder_load_for_prune: int = setting(
        3, "Requests a minute for each of the remaining holders above which no copy of a model is dropped.",
        live=True, low=1, high=10_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadsSettings:
    hub_endpoint: str = setting(
        "", "Address of the hub that models are downloaded from; empty: HF_ENDPOINT, else https://huggingface.co.",
        live=True, form=URL,
    )
    proxy: str = setting(
        "", "Proxy for downloads from the hub, as http://host:port; empty: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        live=True, form=URL,
    )
    max_mbps: int = setting(
        0, "Limit of all downloads from the hub together, in Mbit/s; 0: none.", live=True, low=0, high=100_000,
    )
    connections: int = setting(
        16, "Connections to the hub for one shard or file at most; as few as bring the speed are used.",
        live=True, low=1, high=64,
    )
    models_at_once: int = setting(
        2, "Models that are fetched at a time; others wait in the queue.", live=True, low=1, high=64,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidersSettings:
    private_addresses: bool = setting(
        False, "Whether providers may be on this machine or in a private network; needed for a custom one there.",
        live=True,
    )
    route_by_name: bool = setting(
        True, "Whether a plain name may mean a provider's model where the swarm has none of it; else only `provider:model`.",
        live=True,
    )
    list_models: bool = setting(
        True, "Whether /v1/models lists the models of providers, too.",
        live=True,
    )
    claude_subscription: bool = setting(
        False, "Whether `claude-*` may be sent through the `claude` program of this machine; it is switched on apart.",
        live=True,
    )
    claude_program: str = setting(
        "claude", "The `claude` program: a name looked for in PATH, or an absolute path.",
        live=True, form=PROGRAM,
    )
    claude_max_concurrent: int = setting(
        3, "Replies that the `claude` program makes at the same time; further requests are refused with 503.",
        live=True, low=1, high=64,
    )
    claude_timeout_seconds: int = setting(
        300, "Seconds after which a reply of the `claude` program is given up.",
        live=True, low=10, high=3600,
    )
    anthropic_url: str = setting(
        "", "Another address for anthropic, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    openai_url: str = setting(
        "", "Another address for openai, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    deepseek_url: str = setting(
        "", "Another address for deepseek, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    mistral_url: str = setting(
        "", "Another address for mistral, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    groq_url: str = setting(
        "", "Another address for groq, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    nvidia_nim_url: str = setting(
        "", "Another address for nvidia_nim, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    cerebras_url: str = setting(
        "", "Another address for cerebras, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    sambanova_url: str = setting(
        "", "Another address for sambanova, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    fireworks_url: str = setting(
        "", "Another address for fireworks, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    together_url: str = setting(
        "", "Another address for together, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    deepinfra_url: str = setting(
        "", "Another address for deepinfra, such as that of a proxy; empty: its own.", live=True, form=URL,
    )
    moonshot_url: str = setting(
        "", "Another address for moonshot, such as that of a proxy; empty: its own.", live=True, form=URL,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    rate_limit_rpm: int = setting(
        60, "Requests a minute from one address to /v1; 0: no limit.",
        live=True, low=0, high=1_000_000,
    )
    rate_limit_admin_rpm: int = setting(
        200, "Requests a minute from one address to /api/admin; 0: no limit.",
        live=True, low=0, high=1_000_000,
    )
    open_reads: str = setting(
        "loopback", "From where the open reads of the admin API work without a key.",
        live=True, choices=("loopback", "everywhere"),
    )
    trust_loopback: bool = setting(
        True, "Callers on this machine need no key to read; switch it off behind a reverse proxy on this machine.",
        live=True,
    )
    api_key: str = setting(
        "", "Fixed key of the API; empty: the one the node made at its first start, in `api_key` of its data folder.",
        live=False, form=API_KEY, secret=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    level: str = setting(
        "info", "What is logged: this level and the graver ones.",
        live=True, choices=("debug", "info", "warning", "error"),
    )
    format: str = setting(
        "pretty", "How it is logged: for people, or one JSON object a line.",
        live=False, choices=("pretty", "json"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    builtin_model: bool = setting(
        True, "Offer the built-in model when the node holds no other.",
        live=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatesSettings:
    mode: str = setting(
        "notify", "What happens with a new version: nothing, it is told, also downloaded, or also installed by itself.",
        live=True, choices=("off", "notify", "download", "install"),
    )
    feed_url: str = setting(
        "", "Address of the signed list of releases, by https, or http on this machine; empty: updates are not looked for.",
        live=True, form=URL,
    )
    signed_by: str = setting(
        "", "Public keys of whoever may sign releases, 64 hex digits each, with blanks between; one signature is enough.",
        live=True, form=SIGNERS,
    )
    check_interval_hours: int = setting(
        1, "Hours between two looks at the list of releases.", live=True, low=1, high=720,
    )
    include_prereleases: bool = setting(
        False, "Whether versions before a final one (1.2.0rc1) count as new ones.", live=True,
    )
    drain_seconds: int = setting(
        120, "Seconds that replies may still run when the node restarts as a new version; new ones are refused meanwhile.",
        live=True, low=0, high=3600,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    node: NodeSettings = field(default_factory=NodeSettings)
    resources: ResourcesSettings = field(default_factory=ResourcesSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    auto_manage: AutoManageSettings = field(default_factory=AutoManageSettings)
    downloads: DownloadsSettings = field(default_factory=DownloadsSettings)
    providers: ProvidersSettings = field(default_factory=ProvidersSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    ui: UiSettings = field(default_factory=UiSettings)
    updates: UpdatesSettings = field(default_factory=UpdatesSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting, found by its dotted path."""

    section: str
    name: str
    default: Value
    declared: Declared

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def environment(self) -> str:
        return f"SWARMD_{self.section}_{self.name}".upper()

    @property
    def kind(self) -> str:
        """`switch`, `number` or `text`."""
        return {bool: "switch", int: "number", str: "text"}[type(self.default)]

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, int):
            return f"{self.declared.low} to {self.declared.high}"
        if self.declared.form is not None:
            return self.declared.form.words
        return " or ".join([", ".join(self.declared.choices[:-1]), self.declared.choices[-1]])

    def problem(self, value: object) -> str | None:
        """What is wrong with `value` as a value of this setting, in one sentence, or None."""
        shown = "this value" if self.declared.secret else repr(value)
        sentence = f"{self.path} cannot be {shown}: it must be {self.range}"
        if type(value) is not type(self.default):  # exactly: True is an int elsewhere, not here
            return sentence
        if isinstance(value, bool):
            return None
        if isinstance(value, int):
            assert self.declared.low is not None and self.declared.high is not None
            return None if self.declared.low <= value <= self.declared.high else sentence
        assert isinstance(value, str)
        if self.declared.form is None:
            return None if value in self.declared.choices else sentence
        try:
            self.declared.form.check(value)
        except ValueError:
            return sentence
        return None


def _keys() -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for section in dataclasses.fields(Settings):
        for one in dataclasses.fields(getattr(Settings(), section.name)):
            default = cast("Value", one.default)
            key = Key(section=section.name, name=one.name, default=default, declared=one.metadata["declared"])
            keys[key.path] = key
    return keys


KEYS: Final[Mapping[str, Key]] = _keys()
"""Every setting by its dotted path, in the order of declaration."""

SECTIONS: Final[tuple[str, ...]] = tuple(dict.fromkeys(key.section for key in KEYS.values()))


def value_of(settings: Settings, path: str) -> Value:
    key = KEYS[path]
    return getattr(getattr(settings, key.section), key.name)


def with_values(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """The same settings with other values; the values have been checked."""
    for section in SECTIONS:
        changed = {KEYS[path].name: value for path, value in values.items() if KEYS[path].section == section}
        if changed:
            whole = dataclasses.replace(getattr(settings, section), **changed)
            settings = dataclasses.replace(settings, **{section: whole})
    return settings
