"""Shards on this node's disk, who else holds which, and bringing them from one to the other; LoRA adapters likewise.

Publishes `ShardDownloadStarted`, `ShardStored`, `ShardRejected`, `ShardDropped`, and `AdapterRegistered`, `AdapterRemoved`,
`AdapterRejected`. Never decides by itself which shards to
fetch or drop: people and, one day, the steward do. What is learned of models nobody asked for comes and goes (`discovered`).
"""
