"""Who belongs to the network, and putting somebody out of it."""

from __future__ import annotations

from swarmd.api import shapes, views
from swarmd.api.calls import Call
from swarmd.api.ports import Members
from swarmd.domain.ids import parse_node_id
from swarmd.domain.refusals import Invalid, Refusal


class MemberHandlers:
    def __init__(self, *, members: Members) -> None:
        self._members = members

    async def members(self, _call: Call) -> list[shapes.MemberRow]:
        return [views.member_row(member) for member in await self._members.views()]

    async def revoke(self, call: Call) -> shapes.MemberRow | Refusal:
        try:
            node = parse_node_id(call.path["node"])
        except ValueError as error:
            return Invalid(what=str(error), param="node")
        member = await self._members.revoke(node)
        return member if isinstance(member, Refusal) else views.member_row(member)
