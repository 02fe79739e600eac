"""How many nodes should hold a model. Pure."""

from __future__ import annotations

from typing import Final

_HALVES: Final = ((0, 2), (5, 3), (20, 4), (100, 5))
"""Up to so many requests, so many halves: contract, swarmllm.md 4.9. In halves, so that nothing is rounded twice."""
_HALVES_BEYOND: Final = 6
_SHARE: Final = 3  # contract: without demand at most a third of the nodes hold one model


def replication_target(*, pool: int, min_replicas: int, requests: int) -> int:
    """Holders wanted among `pool` nodes, between 1 and `pool`, for `requests` in one window of `demand`.

    It grows with the logarithm of the swarm, because the danger that all holders leave at once falls with each one more,
    and with demand, because a holder serves only so many.
    """
    assert pool >= 1 and min_replicas >= 1 and requests >= 0, "the asker is a node, and counts do not go below nothing"
    if pool == 1:
        floor = min_replicas
    else:
        most = max(1, pool // _SHARE)
        floor = min(max((pool - 1).bit_length(), min(min_replicas, most)), most)  # bit_length: ceil(log2(pool))
    halves = next((halves for limit, halves in _HALVES if requests <= limit), _HALVES_BEYOND)
    return max(1, min(pool, (floor * halves + 1) // 2))
