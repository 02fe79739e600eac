"""Shards on this node's disk, who else holds which, and bringing them from one to the other.

Publishes `ShardDownloadStarted`, `ShardStored`, `ShardRejected`, `ShardDropped`, `ModelRemoved`. Never decides by itself
what to fetch or drop: people and, one day, the steward do.
"""
