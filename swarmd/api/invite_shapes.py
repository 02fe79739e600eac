"""Bodies of `/api/admin/invites`, which is ours alone: the contract knows one code at a time (`shapes.NetworkCodeView`)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from swarmd.domain.membership import RoleName

# Only for the reader of the reference: `discovery.codes` refuses what lies outside, with a sentence.
InviteUses = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 1000})]
InviteLife = Annotated[int, Meta(extra_json_schema={"minimum": 60, "maximum": 31_536_000})]


class InviteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    uses: InviteUses = 1
    life_seconds: InviteLife = 86_400
    short: bool = False
    """A number and two words to be typed, for one node within ten minutes; `uses` and `life_seconds` stay away then."""
    role: RoleName = "member"
    """`inviter`: who joins with it may invite others, and put those out again."""


class InviteMade(Struct, frozen=True, kw_only=True):
    """The only answer with this code in it."""

    code: str
    id: str
    created_at: str
    expires_at: str
    uses: int
    role: RoleName
    qr_svg: str | None
    """The code as an `<svg>` element; null where it is too long to be scanned, and for a short code, which is typed."""
    short: bool


class InviteRow(Struct, frozen=True, kw_only=True):
    id: str
    """16 hex digits; nothing a code could be made from."""
    created_at: str
    expires_at: str
    uses_left: int
    state: str
    """`live`, `used`, `expired`, `cancelled`, or `burnt`: a short code that somebody tried with wrong words."""
    short: bool
    role: RoleName
