"""How nodes find each other for the first time: invite codes, joining, and members in the local network.

Publishes `NetworkJoined` and `IdentityCloned`. Listens to `NetworkFounded` and `NetworkJoined`. What it finds it offers to
`peers`, which keeps it; it holds no link itself. Asking neighbours for neighbours belongs here too.

Why the code is encrypted although it carries its own key: it hides addresses from a glance, a screenshot crop or a chat
preview, not from somebody who has the whole code. What protects the network is that the code admits once, for a day,
and that its secret takes part in the handshake, so that nobody who merely reads the traffic can answer in the inviter's
place.
"""
