"""The real classes are what the rim expects of them; the type checker holds their signatures to it in `app`."""

from __future__ import annotations

import pytest

from swarmd.api import ports
from swarmd.discovery.codes import NetworkCodes
from swarmd.discovery.join import Joiner
from swarmd.economy.census import Census
from swarmd.inference.workers import Workers
from swarmd.peers.links import Links
from swarmd.shards.desk import ShardDesk
from swarmd.shards.hub_desk import HubDesk
from swarmd.shards.registry import Registry

PAIRS = [
    (ports.Models, Registry),
    (ports.Downloads, ShardDesk),
    (ports.HubDesk, HubDesk),
    (ports.Memory, Workers),
    (ports.Peers, Links),
    (ports.Census, Census),
    (ports.Codes, NetworkCodes),
    (ports.Joiner, Joiner),
]


@pytest.mark.parametrize(("port", "real"), PAIRS)
def test_real_classes_have_the_methods(port: type, real: type) -> None:
    wanted = [name for name in vars(port) if not name.startswith("_")]
    assert wanted
    assert all(callable(getattr(real, name)) for name in wanted)
