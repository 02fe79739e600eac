"""asyncio tools that know no noun of ours; each could be a library of its own.

Holds the program's only homes of time, chance (`world`), disk (`disk`), task creation (`service`) and the only broad
`except` (`service`). Publishes nothing, listens to nothing, never imports another floor.
"""
