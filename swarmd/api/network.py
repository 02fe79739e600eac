"""Peers, invite codes, joining."""

from __future__ import annotations

from swarmd.api import shapes, views
from swarmd.api.calls import Call
from swarmd.api.ports import Codes, Joiner, Peers
from swarmd.domain.refusals import Refusal


class NetworkHandlers:
    def __init__(self, *, peers: Peers, codes: Codes, joiner: Joiner) -> None:
        self._peers, self._codes, self._joiner = peers, codes, joiner

    async def peers(self, call: Call) -> list[shapes.PeerRow]:
        return [views.peer_row(peer, now=call.now, whole=True) for peer in self._peers.views()]

    async def network_code(self, _call: Call) -> shapes.NetworkCodeView | Refusal:
        code = await self._codes.network_code()
        return code if isinstance(code, Refusal) else views.network_code(code)

    async def join(self, call: Call) -> shapes.Joined | Refusal:
        body: shapes.JoinRequest = call.body
        outcome = await self._joiner.join(body.code)
        if isinstance(outcome, Refusal):
            return outcome
        return views.joined(outcome)
