"""The peer protocol without I/O: bytes in, events out.

Nothing here awaits, sleeps, logs, or reads a clock or a random source.

From the bottom: `noise` (the framework), `handshake` (who talks to whom), `frames` (records, frames, message heads),
`session` (streams, credit, keep-alive), `messages` (the code table). `transport` gives them sockets and time.
"""
