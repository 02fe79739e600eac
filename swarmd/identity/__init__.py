"""Who this node is and what proves it: key files, signatures, membership certificates.

Publishes nothing, listens to nothing, opens no socket. `keys` touches two files; `certificates` and
`revocations` are pure.

Why certificates and not a shared network password: a password cannot be taken back from one machine, says nothing about
who is speaking, and is known to everybody who was ever told it. A certificate names one node and one network, ends by
itself, and its holder proves the name with a key that never leaves the machine.
"""
