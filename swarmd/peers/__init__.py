"""Other nodes of our network: who may be one, where they are, the links to them, what they say about themselves.

Publishes `NetworkFounded`, `MemberAdmitted`, `MemberRevoked`, `PeerConnected`, `PeerDisconnected`, `SummaryReceived`,
`SummaryRejected`, `SummaryForgotten`, `IdentityCloned`. Listens (`reputation`) to what peers did for us:
`GenerationStarted`, `GenerationFinished`, `ShardRejected`. Work arrives through calls from above and over the wire. It never
chooses peers for a task and never looks for strangers.

Why gossip beside links: members need not be linked to each other (behind NAT, or because there are too many), and what
the swarm holds is asked about as a whole. So what a node says about itself is signed by it and told on by everybody
(`gossip`, `fact_table`, `facts`). Nobody works with a node for what is told of it: work goes over links.
"""
