from __future__ import annotations

import pytest

from swarmd.api.limits import RateLimit, client_of
from swarmd.kit.world import World


@pytest.mark.looptime
async def test_a_bucket_refills_over_the_minute(world: World) -> None:
    import asyncio

    limit = RateLimit(clock=world.clock)
    assert [limit.wait_s("10.0.0.1", per_minute=2) for _ in range(2)] == [None, None]
    assert limit.wait_s("10.0.0.1", per_minute=2) == pytest.approx(30.0)
    await asyncio.sleep(30)
    assert limit.wait_s("10.0.0.1", per_minute=2) is None


async def test_clients_do_not_share_but_a_household_does(world: World) -> None:
    limit = RateLimit(clock=world.clock)
    assert limit.wait_s("10.0.0.1", per_minute=1) is None
    assert limit.wait_s("10.0.0.2", per_minute=1) is None
    assert limit.wait_s("2001:db8::1", per_minute=1) is None
    assert limit.wait_s("2001:db8::2", per_minute=1) is not None


async def test_the_table_is_bounded_and_forgets_the_longest_silent(world: World) -> None:
    limit = RateLimit(clock=world.clock, clients_limit=2)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"):
        limit.wait_s(address, per_minute=5)
    assert len(limit) == 2
    for _ in range(5):
        limit.wait_s("10.0.0.1", per_minute=5)
    assert limit.wait_s("10.0.0.1", per_minute=5) is not None, "it was not the one to go"


async def test_a_new_limit_counts_afresh_and_zero_is_none(world: World) -> None:
    limit = RateLimit(clock=world.clock)
    assert limit.wait_s("10.0.0.1", per_minute=1) is None
    assert limit.wait_s("10.0.0.1", per_minute=1) is not None
    assert limit.wait_s("10.0.0.1", per_minute=2) is None
    assert all(limit.wait_s("10.0.0.1", per_minute=0) is None for _ in range(10))


def test_client_of() -> None:
    assert client_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert client_of("2001:db8:0:1:2:3:4:5") == "2001:db8:0:1::"
    assert client_of("") == ""
