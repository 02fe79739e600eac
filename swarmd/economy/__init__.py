"""What the swarm needs of each model: demand, trust, how many nodes should hold it; and the steward, which sees to that.

Publishes `ShardsWanted`, `ShardPruned`, `ShardLocked`, `AutopilotInstructed`. Listens to generations, shards, peers and what
they say. All but the steward counts and derives; the steward alone fetches and drops, through `shards.desk`. The ledger
keeps account of what this node did for others and had done by them.

Why not a leader that decides for all: nodes come and go, and whoever leads must be agreed on first. Here every node
decides for itself from what all of them know, and hashes say whose turn it is. What lost: shards are not placed best.
"""
