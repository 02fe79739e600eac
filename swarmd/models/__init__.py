"""What a model file is, how it is cut into shards, what everybody must know of it, and which models this node knows.

All but `catalog` is pure: bytes and numbers in, frozen values out. `gguf` reads the header of a model file nobody has
vouched for; `architectures` says whether it can be cut; `slicing` cuts it; `shard_file` says how a shard lies on disk so
that stock llama.cpp runs it; `manifest` writes all that down. `catalog` keeps manifests and headers on disk and publishes
`ModelDiscovered` and `ModelRemoved`. Nobody here listens to anything or talks to a peer.

Why an own parser: native code sees a file only after this one found nothing wrong with it, and the `gguf` package maps
whole files into memory and trusts every count in them.
"""
