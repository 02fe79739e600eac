"""Peers, invite codes, joining."""

from __future__ import annotations

from typing import Final

from swarmd.api import invite_shapes, shapes, views
from swarmd.api.calls import Call, Reply
from swarmd.api.ports import Census, Codes, Joiner, Peers, Trust
from swarmd.domain.refusals import Invalid, Refusal

_PLAIN: Final = invite_shapes.InviteRequest()
_NO_TERMS: Final = (_PLAIN.uses, _PLAIN.life_seconds, _PLAIN.role)


class NetworkHandlers:
    def __init__(self, *, peers: Peers, codes: Codes, joiner: Joiner, census: Census, trust: Trust) -> None:
        self._peers, self._codes, self._joiner, self._census = peers, codes, joiner, census
        self._trust = trust

    async def peers(self, call: Call) -> list[shapes.PeerRow]:
        return [
            views.peer_row(peer, trust=self._trust.score(peer.record.node), now=call.now, whole=True)
            for peer in self._peers.views()
        ]

    async def links(self, _call: Call) -> list[shapes.LinkRow]:
        summaries = {view.record.node: view.summary for view in self._peers.views()}
        names = {node: summary.nickname for node, summary in summaries.items() if summary is not None}
        return [views.link_row(line, nickname=names.get(line.node) or None) for line in self._peers.lines()]

    async def network_map(self, _call: Call) -> shapes.NetworkMap:
        return views.network_map(self._census.regions())

    async def network_code(self, _call: Call) -> shapes.NetworkCodeView | Refusal:
        code = await self._codes.network_code()
        return code if isinstance(code, Refusal) else views.network_code(code)

    async def make_invite(self, call: Call) -> Reply | Refusal:
        body: invite_shapes.InviteRequest = call.body
        if not body.short:
            made = await self._codes.new_code(life_s=body.life_seconds, uses=body.uses, role=body.role)
        elif (body.uses, body.life_seconds, body.role) != _NO_TERMS:
            what = "a short code admits one member within ten minutes: leave uses, life_seconds and role out"
            made = Invalid(what=what, param="short")
        else:
            made = await self._codes.short_code()
        if isinstance(made, Refusal):
            return made
        status = 201 if body.short else 200
        return Reply(body=views.invite_made(made), status=status, headers={"cache-control": "no-store"})

    async def invites(self, _call: Call) -> list[invite_shapes.InviteRow]:
        return [views.invite_row(invite) for invite in await self._codes.invites()]

    async def cancel_invite(self, call: Call) -> invite_shapes.InviteRow | Refusal:
        invite = await self._codes.cancel(call.path["id"])
        return invite if isinstance(invite, Refusal) else views.invite_row(invite)

    async def join(self, call: Call) -> shapes.Joined | Refusal:
        body: shapes.JoinRequest = call.body
        outcome = await self._joiner.join(body.code)
        if isinstance(outcome, Refusal):
            return outcome
        return views.joined(outcome)
