"""The judge of everybody who wants to talk to us, and of everybody who answers. Implements `transport.doors.Authority`.

A stranger gets silence: no certificate, another network's, an unknown invite, all look the same from outside. Whoever
proved that it has one of our codes is told why it is not let in, over the encrypted channel.

Revocations come in through the `revoked` argument of `certificates.verify`: a certificate that was taken back is none.

In an open network (`network.admission = "open"`) a node without a certificate is let in when it states the same network's id
and the founder has not put it out; one that states none is told ours and turned away: it may join and come back. A
certificate that is shown must hold there as everywhere: who has none that does shows none. The one other exception to the
silence: who states our id without a certificate while we let in invited nodes alone is told so, for it was a member
while the network was open. It learns no more than that, and had to know the id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from swarmd.domain.ids import NetworkId, NodeId, short
from swarmd.domain.peers import Endpoint, PeerIdentity, Purpose
from swarmd.domain.refusals import Expired, Forbidden, OpenNetwork, Refusal, Revoked, UsedUp
from swarmd.identity import certificates
from swarmd.identity.certificates import Certificate
from swarmd.identity.keys import NodeKey, Signed, verify
from swarmd.kit.logs import Seldom
from swarmd.kit.world import World
from swarmd.peers import hello as hellos
from swarmd.peers.addresses import MAX_ENDPOINTS
from swarmd.peers.hello import BOOT_BYTES, MAX_SOFTWARE, Declined, Hello, StatedEndpoint
from swarmd.peers.invitations import Invitations, Redeemed
from swarmd.peers.membership import Membership
from swarmd.peers.short_codes import ShortCodes
from swarmd.transport.doors import Admitted, Elsewhere, Exchange, TurnedAway
from swarmd.transport.foreign_text import cleaned

_NO_READING: Final = Forbidden(what="its Hello cannot be read")
_MISLED: Final = Forbidden(what="it looks for another node at our address")

logger = logging.getLogger(__name__)


class Gate:
    """One per node."""

    def __init__(
        self,
        *,
        key: NodeKey,
        membership: Membership,
        invitations: Invitations,
        short_codes: ShortCodes,
        world: World,
        software: str,
        listening: Callable[[], tuple[Endpoint, ...]],
    ) -> None:
        """`software`: `name/version`. `listening`: the bound endpoints; an unspecified host is right for
        "everywhere"."""
        self._key = key
        self._membership = membership
        self._invitations = invitations
        self._short_codes = short_codes
        self._clock = world.clock
        self._software = software[:MAX_SOFTWARE]
        self._listening = listening
        self._boot = world.entropy.token(BOOT_BYTES)
        self._seldom = Seldom(clock=world.clock)

    def static_private(self) -> bytes:
        return self._key.static_private

    def hello(self, *, purpose: Purpose, invited: bool, expect: NodeId | None = None) -> bytes:
        ours = self._guest_hello(purpose) if invited else self._own_hello(purpose)
        return hellos.encode(msgspec.structs.replace(ours, expects=None if expect is None else bytes.fromhex(expect)))

    async def psk_for(self, tag: bytes) -> bytes | None:
        return await self._invitations.psk_for(tag)

    async def exchange(self, nameplate: int, element: bytes, *, caller: Endpoint) -> Exchange | Elsewhere | None:
        return await self._short_codes.exchange(nameplate, element, caller=caller)

    def exchange_over(self, exchange: Exchange, *, guess: bool | None, caller: Endpoint) -> None:
        self._short_codes.exchange_over(exchange, guess=guess, caller=caller)

    async def admit(self, hello: bytes, *, static_public: bytes, invite_tag: bytes | None) -> Admitted | TurnedAway:
        said = self._read(hello, static_public=static_public)
        if isinstance(said, Forbidden):
            return TurnedAway(why=said)
        misled = said.expects not in (None, bytes.fromhex(self._key.node))
        if invite_tag is not None:
            return TurnedAway(why=_MISLED) if misled else await self._admit_invited(said, invite_tag)
        verdict = self._admit_uncertified(said) if said.certificate is None else self._admit_member(said)
        if misled and isinstance(verdict, Admitted):
            return TurnedAway(why=_MISLED, reply=verdict.reply)  # a member may know who lives here
        return verdict

    async def check(self, hello: bytes, *, static_public: bytes, invited: bool) -> PeerIdentity | Refusal:
        said = self._read(hello, static_public=static_public)
        if isinstance(said, Forbidden):
            return said
        if not invited:
            return self._judge_answer(said) or _identity(said)
        if said.declined is not None:
            return _told(said.declined, since=said.declined_since)
        certificate = self._read_admission(said)
        return certificate if isinstance(certificate, Refusal) else _identity(said)

    def admission(self, hello: bytes, *, network: NetworkId | None) -> Certificate | Forbidden:
        """Our new certificate out of the Hello that answered an invited handshake; `network` is the one in the code, None
        for a short code, which names none."""
        said = hellos.decode(hello)
        if said is None:
            return _NO_READING
        certificate = self._read_admission(said)
        if isinstance(certificate, Certificate) and network is not None and certificate.network != network:
            return Forbidden(what="the inviter belongs to another network than its code says: ask for a new code")
        return certificate

    def _own_hello(self, purpose: Purpose) -> Hello:
        """As the member that we are."""
        ours = self._membership
        hello = self._hello(purpose, certificate=ours.shown_certificate())
        if not ours.is_open:
            return hello
        network = None if ours.network is None else bytes.fromhex(ours.network)
        return msgspec.structs.replace(hello, network=network, is_open=True)

    def _guest_hello(self, purpose: Purpose) -> Hello:
        return self._hello(purpose, certificate=None)

    def _hello(self, purpose: Purpose, *, certificate: Certificate | None) -> Hello:
        return Hello(
            node=bytes.fromhex(self._key.node),
            static_signature=self._key.static_signature,
            purpose=purpose,
            software=self._software,
            boot=self._boot,
            endpoints=tuple(StatedEndpoint(one.host, one.port) for one in self._listening()[:MAX_ENDPOINTS]),
            certificate=None if certificate is None else certificates.encode(certificate),
        )

    def _read(self, data: bytes, *, static_public: bytes) -> Hello | Forbidden:
        """The Hello, if it really comes from the node that it names and that node is not us."""
        said = hellos.decode(data)
        if said is None:
            return _NO_READING
        if said.node_id == self._key.node:
            return Forbidden(what="this node reached itself")
        if not verify(said.node_id, Signed.STATIC_KEY, static_public, said.static_signature):
            return Forbidden(what=f"the link's key does not belong to node {short(said.node_id)}, which it claims to be")
        return said

    def _judge(self, said: Hello) -> Refusal | None:
        """None: a member of our network, now."""
        network = self._membership.network
        if network is None:
            return Forbidden(what="this node belongs to no network yet")
        certificate = self._certificate_of(said, network=network)
        return certificate if isinstance(certificate, Refusal) else None

    def _admit_member(self, said: Hello) -> Admitted | TurnedAway:
        refusal = self._judge(said)
        if refusal is not None:
            return TurnedAway(why=refusal)
        answer = self._own_hello(said.purpose)
        if answer.certificate is None and not said.is_open:
            # It will hang up when it reads this; taken in meanwhile, it would come and go for ever.
            why = Forbidden(what=f"node {short(said.node_id)} links to nodes with certificates alone, and this one has none")
            return TurnedAway(why=why, reply=hellos.encode(answer))
        return Admitted(peer=_identity(said), reply=hellos.encode(answer))

    def _admit_uncertified(self, said: Hello) -> Admitted | TurnedAway:
        ours = self._membership
        refusal = Forbidden(what=f"node {short(said.node_id)} shows no certificate")
        if not ours.is_open:
            if ours.network is None:
                return TurnedAway(why=Forbidden(what="this node belongs to no network yet"))
            if said.network_id != ours.network:
                return TurnedAway(why=refusal)
            bare = msgspec.structs.replace(self._guest_hello(said.purpose), endpoints=())
            return TurnedAway(why=refusal, reply=hellos.encode(msgspec.structs.replace(bare, declined=Declined.CLOSED)))
        reply = hellos.encode(self._own_hello(said.purpose))
        if said.network is None and said.is_open:
            return TurnedAway(why=Forbidden(what=f"node {short(said.node_id)} asks for our network"), reply=reply)
        if (refusal := self._judge_uncertified(said)) is not None:
            return TurnedAway(why=refusal)
        return Admitted(peer=_identity(said), reply=reply)

    def _judge_uncertified(self, said: Hello) -> Refusal | None:
        """None: in our open network, as it says. The caller has seen that ours is open."""
        who, network = short(said.node_id), self._membership.network
        if network is None:
            return Forbidden(what="this node belongs to no network yet")
        if said.network_id is None:
            return Forbidden(what=f"node {who} shows no certificate and states no network")
        if said.network_id != network:
            return Forbidden(what=f"node {who} belongs to network {said.network_id[:16]}, not to {network[:16]}")
        if self._membership.revocations.of_founder(said.node_id) is not None:
            return Revoked(node=said.node_id)
        return None

    def _judge_answer(self, said: Hello) -> Refusal | None:
        """None: who answered us is a member of our network."""
        ours, who = self._membership, short(said.node_id)
        if said.declined is Declined.CLOSED:
            text = f"node {who} lets in invited nodes alone: ask for an invite code and join with it"
            if self._seldom.due(text):
                logger.warning("%s", text)
            return Forbidden(what=text)
        if ours.network is None:
            return self._judge_offer(said)
        if said.certificate is not None:
            return self._judge(said)
        if ours.is_open:
            return self._judge_uncertified(said)
        return Forbidden(
            what=f'node {who} shows no certificate, and network.admission is "invite": this node links to members with one '
            "alone"
        )

    def _judge_offer(self, said: Hello) -> Refusal:
        """We belong to no network, and this one answered: perhaps we may join its own."""
        if not self._membership.is_open:
            return Forbidden(what="this node belongs to no network yet")
        if said.network_id is None or not said.is_open:
            return Forbidden(
                what=f"node {short(said.node_id)} belongs to no open network: found one there with `swarmd invite`"
            )
        if said.certificate is not None:
            verdict = self._certificate_of(said, network=said.network_id)
            if isinstance(verdict, Refusal):
                return verdict
        return OpenNetwork(node=said.node_id, network=said.network_id)

    def _certificate_of(self, said: Hello, *, network: NetworkId) -> Certificate | Refusal:
        if said.certificate is None:
            return Forbidden(what=f"node {short(said.node_id)} shows no certificate")
        certificate = certificates.decode(said.certificate)
        if isinstance(certificate, Forbidden):
            return certificate
        if certificate.node != said.node_id:
            return Forbidden(what=f"node {short(said.node_id)} shows the certificate of node {short(certificate.node)}")
        return certificates.verify(
            certificate, network=network, now=self._clock.now(), revoked=self._membership.revocations.covers
        )

    def _read_admission(self, said: Hello) -> Certificate | Forbidden:
        """Our certificate, if the inviter itself belongs to the network it let us into."""
        if said.admission is None:
            return Forbidden(what="the inviter answered without a certificate")
        ours = certificates.decode(said.admission)
        if isinstance(ours, Forbidden):
            return ours
        if ours.node != self._key.node:
            return Forbidden(what=f"the inviter issued a certificate for node {short(ours.node)}, not for this one")
        for verdict in (
            certificates.verify(ours, network=ours.network, now=self._clock.now()),
            self._certificate_of(said, network=ours.network),
        ):
            if isinstance(verdict, Refusal):
                return Forbidden(what=f"the inviter's answer does not hold: {verdict.sentence}")
        return ours

    async def _admit_invited(self, said: Hello, tag: bytes) -> Admitted | TurnedAway:
        if not said.is_guest:  # what it shows was not judged, and `links` takes in as members those who show something
            return TurnedAway(why=Forbidden(what=f"node {short(said.node_id)} joins and shows a certificate or a network"))
        outcome = await self._invitations.redeem(tag, said.node_id)
        answer = self._hello(said.purpose, certificate=self._membership.certificate)
        if isinstance(outcome, Redeemed):
            reply = msgspec.structs.replace(answer, admission=outcome.certificate)
            return Admitted(peer=_identity(said), reply=hellos.encode(reply))
        declined, since = _to_tell(outcome)
        reply = msgspec.structs.replace(answer, declined=declined, declined_since=since)
        return TurnedAway(why=outcome, reply=hellos.encode(reply))


def _identity(said: Hello) -> PeerIdentity:
    return PeerIdentity(node=said.node_id, purpose=said.purpose, software=cleaned(said.software), endpoints=said.stated)


def _to_tell(refusal: UsedUp | Expired | Forbidden) -> tuple[Declined, float]:
    match refusal:
        case UsedUp():
            return Declined.USED, 0.0
        case Expired():
            return Declined.EXPIRED, refusal.expired_at
        case Forbidden():
            return Declined.WITHDRAWN, 0.0


def _told(declined: Declined, *, since: float) -> Refusal:
    match declined:
        case Declined.USED:
            return UsedUp()
        case Declined.EXPIRED:
            return Expired(expired_at=min(2.0**35, max(0.0, since)))  # what a date can show; in this order NaN is 0
        case Declined.WITHDRAWN | Declined.CLOSED:
            return Forbidden(what="the inviter takes nobody in with this code any more: ask for a new one")
