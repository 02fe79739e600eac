"""Other nodes of our network: who may be one, where they are, the links to them, what they say about themselves.

Publishes `NetworkFounded`, `MemberAdmitted`, `MemberRevoked`, `PeerConnected`, `PeerDisconnected`, `SummaryReceived`,
`SummaryRejected`. Listens (`reputation`) to what peers did for us: `GenerationStarted`, `GenerationFinished`,
`ShardRejected`. Work arrives through calls from above and over the wire. It never chooses peers for a task and never
looks for strangers.

Why there is no gossip yet: while every member can reach every other, each node tells its direct neighbours about itself
and about who else is there, and that is everybody. Forwarding what others said begins with relays; signed revocations alone
are passed on, for they must arrive.
"""
