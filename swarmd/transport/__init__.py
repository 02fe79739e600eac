"""Sockets for `wire`: one `Connection` per socket, `Doors` that accept and dial, calls and streams in `rpc`.

`loopback` is the same without sockets, with knobs for latency, stalls and partitions. This floor publishes no facts: who is
linked to whom is known by `peers`. It never decides who is a member: it asks the `Authority` it was handed.
"""
