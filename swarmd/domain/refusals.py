"""Every expected "no", as a value. `sentence` says what was wrong, with what value, and what to do.

Failures of the world are exceptions, bugs are assertions (style 3.4); neither is here. `api/replies` gives each class its
HTTP status.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from swarmd.domain.ids import ModelId, NetworkId, NodeId, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Base of all refusals."""

    @property
    def sentence(self) -> str:
        raise AssertionError(f"{type(self).__name__} does not say what it refuses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid(Refusal):
    """A value from outside is not acceptable."""

    what: str
    """The whole sentence, value and remedy included."""
    param: str | None = None

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound(Refusal):
    what: str

    @property
    def sentence(self) -> str:
        return self.what


def _layers(runs: tuple[tuple[int, int], ...]) -> str:
    """`layers 0 to 3, 7`, as the plan shows them."""
    listed = ", ".join(f"{start} to {end - 1}" if end - start > 1 else str(start) for start, end in runs[:8])
    return f"layers {listed}{'...' if len(runs) > 8 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCoverage(Refusal):
    """Some shards of the model are on no connected node. People read their numbers, which count from 1."""

    model: ModelId
    missing: tuple[int, ...]
    shard_count: int
    layers: tuple[tuple[int, int], ...] = ()
    """Of those shards: runs from, to; the end is not included."""

    @property
    def sentence(self) -> str:
        listed = ", ".join(str(index + 1) for index in self.missing[:8]) + ("..." if len(self.missing) > 8 else "")
        layers = f"{_layers(self.layers)}; " if self.layers else ""
        return (
            f"no connected node holds shard {listed} of model {self.model} ({layers}{self.shard_count} shards in all): "
            "connect a node that has it, or fetch it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCapacity(Refusal):
    """The shards exist, but a node has not the memory to run them."""

    node: NodeId
    needed_bytes: int
    free_bytes: int
    layers: tuple[tuple[int, int], ...] = ()
    """That it was to run: runs from, to; the end is not included."""

    @property
    def sentence(self) -> str:
        what = _layers(self.layers) if self.layers else "its shards"
        return (
            f"node {short(self.node)} needs {self.needed_bytes / 1e6:.0f} MB of memory for {what} "
            f"and has {self.free_bytes / 1e6:.0f} MB free: free some, raise resources.max_ram_mb, or add a node"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSpace(Refusal):
    """The disk, or the share of it that swarmd may use, is full."""

    needed_bytes: int
    free_bytes: int

    @property
    def sentence(self) -> str:
        return (
            f"needs {self.needed_bytes / 1e6:.0f} MB on disk and {self.free_bytes / 1e6:.0f} MB may be used: "
            "free some, or raise resources.max_disk_mb"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy(Refusal):
    what: str
    retry_after_s: float | None = None
    """When it is worth to ask again, where that is known."""

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTooLong(Refusal):
    prompt_tokens: int
    context_tokens: int
    param: str | None = None
    """Which of several texts, where nothing is replied to it."""

    @property
    def sentence(self) -> str:
        if self.param is not None:
            return (
                f"{self.param} has {self.prompt_tokens} tokens and the context holds {self.context_tokens}: "
                "shorten it, or cut it into several"
            )
        return (
            f"the prompt has {self.prompt_tokens} tokens and the context holds {self.context_tokens}, "
            "of which one must be left for the reply: shorten it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BadTemplate(Refusal):
    """The model's chat template failed, or refused these messages."""

    model: ModelId
    reason: str

    @property
    def sentence(self) -> str:
        return f"the chat template of model {self.model} refused these messages: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsupportedModel(Refusal):
    what: str
    param: str | None = None
    """The field that named the file, where somebody asked for it by one. The same below."""

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class BadFile(Refusal):
    """A file is not what it should be: hostile, truncated or of another kind."""

    what: str
    param: str | None = None

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTaken(BadFile):
    """Another model has the id under which a file was to be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadCode(Refusal):
    """An invite code that cannot be read, or that nobody takes."""

    reason: str
    remedy: str = "copy the whole text that starts with swarm://"

    @property
    def sentence(self) -> str:
        return f"this is not a valid invite code ({self.reason}): {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Refusal):
    expired_at: float

    @property
    def sentence(self) -> str:
        when = datetime.fromtimestamp(self.expired_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"this invite code expired on {when}: ask for a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedUp(Refusal):
    """The inviter knows the code, and every use of it is spent."""

    @property
    def sentence(self) -> str:
        return "this invite code has already been used: ask for a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer(Refusal):
    """Nobody at the given addresses completed the handshake in time."""

    tried: tuple[str, ...]
    reason: str

    @property
    def sentence(self) -> str:
        return f"no node answered at {', '.join(self.tried) or 'any address'} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden(Refusal):
    what: str

    @property
    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFailed(Refusal):
    """The hub cannot be reached, or answers what it should not."""

    what: str
    """The whole sentence, but for when to try again."""
    retry_after_s: float = 0.0
    """The hub asks for so much patience; 0: it does not say."""

    @property
    def sentence(self) -> str:
        return f"{self.what}: try again in {math.ceil(self.retry_after_s)} s" if self.retry_after_s else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class HubForbidden(Refusal):
    """The hub does not show a repository to this node: it is gated, private, or not there at all, which a hub does not tell
    apart to strangers."""

    repo_id: str
    has_token: bool
    """A token was sent along."""

    @property
    def sentence(self) -> str:
        if self.has_token:
            return (
                f"the hub does not show {self.repo_id} to the owner of this node's token: accept its terms on its page with "
                "that account, or look whether the name is right"
            )
        return (
            f"the hub does not show {self.repo_id} to everybody: accept its terms on its page, set HF_TOKEN to a token of "
            "that account, and start the node again; or look whether the name is right"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherNode(Refusal):
    """A member answered, and not the one that was meant."""

    node: NodeId
    expected: NodeId
    where: str

    @property
    def sentence(self) -> str:
        return f"node {short(self.node)} answered at {self.where} in place of {short(self.expected)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked(Refusal):
    """A membership was taken back."""

    node: NodeId
    above: NodeId | None = None
    """Who was put out in truth, where `node` went with it."""

    @property
    def sentence(self) -> str:
        if self.above is None:
            return f"the membership of node {short(self.node)} was revoked"
        return (
            f"the membership of node {short(self.node)} went with that of node {short(self.above)}, which invited it and "
            "was revoked: the founder can invite it again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenNetwork(Refusal):
    """Who answered belongs to an open network, and this node to none: there is no link yet, but it may join."""

    node: NodeId
    network: NetworkId

    @property
    def sentence(self) -> str:
        return (
            f"node {short(self.node)} belongs to the open network {self.network[:16]}, and this node does not: "
            "join it with the address of that node (`swarmd join /ip4/...`)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherNetwork(Refusal):
    """This node is already a member elsewhere; one node belongs to one network."""

    network: str

    @property
    def sentence(self) -> str:
        return (
            f"this node already belongs to network {self.network[:16]}, which has other members: "
            "start a node with a new data folder to join another network"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFailed(Refusal):
    """A stage of a running generation went away or reported an error."""

    node: NodeId
    reason: str

    @property
    def sentence(self) -> str:
        return f"node {short(self.node)} failed during the generation: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed(Refusal):
    """A worker process crashed, hung or ran out of memory; the supervisor restarts it."""

    model: ModelId
    how: str
    """`crashed`, `hung`, `out of memory` or `refused`, with the evidence."""

    @property
    def sentence(self) -> str:
        return f"the worker of model {self.model} {self.how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatesOff(Refusal):
    """Nobody told this node where new versions are, or whose signature counts."""

    @property
    def sentence(self) -> str:
        return "this node looks for no updates: set updates.feed_url and updates.signed_by (docs/updates.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFailed(Refusal):
    """The release feed, or a file of it, did not come, or is not to be believed."""

    reason: str

    @property
    def sentence(self) -> str:
        return f"the update failed: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFailed(Refusal):
    """A provider refused, failed, or could not be reached; the status is passed on to the client."""

    provider: str
    what: str
    """The rest of the sentence that begins with the provider's name; no key is in it."""
    status: int = 502
    """HTTP: the provider's own where it gave one from 400 up; 504: it did not answer in time; 502: it is not there, or
    answers what it should not."""
    code: str = "provider_failed"
    param: str | None = None
    retry_after: str | None = None
    """As the provider said it: seconds or a date."""
    unreachable: bool = False
    """There was no connection."""

    @property
    def sentence(self) -> str:
        return f"provider {self.provider} {self.what}"
