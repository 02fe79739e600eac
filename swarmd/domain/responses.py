"""Answers that are kept: what became of one, and the row that the store holds of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ResponseStatus(Enum):
    """Values as in the OpenAI contract."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    """The reply was cut by its limit of tokens."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Something is still to come."""
        return self in (ResponseStatus.QUEUED, ResponseStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSummary:
    """What a listing shows of a response."""

    id: str
    created_at: float
    """Unix seconds, as the other time."""
    expires_at: float
    model: str
    """As the client can ask for it: with the adapter, if any."""
    status: ResponseStatus
    background: bool
    previous: str | None
    """Id of the response that this one continues."""
    input_tokens: int | None
    """None until the reply has ended."""
    output_tokens: int | None
    input_preview: str
    output_preview: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    summary: ResponseSummary
    body: str
    """JSON of the response object, without its output."""
    output: str
    """JSON of the list of items, as the next."""
    input_items: str

    @property
    def size_bytes(self) -> int:
        """Of the texts in it."""
        texts = (self.body, self.output, self.input_items, self.summary.input_preview, self.summary.output_preview)
        return sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTurn:
    """A stored response as a turn of the conversation that is continued."""

    id: str
    status: ResponseStatus
    previous: str | None
    output: str
    input_items: str
