"""What the swarm needs of each model, region by region: demand, and how many nodes should hold a model.

Listens to `GenerationStarted`; publishes nothing. Counts and derives; it never fetches, moves or drops a shard.
"""
