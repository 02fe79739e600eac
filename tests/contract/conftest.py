"""One live node for all tests of a run that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.schemathesis import LiveNode, live_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """A `swarmd run` with the built-in model; starting it takes two to five seconds."""
    with live_node(tmp_path_factory.mktemp("contract")) as started:
        yield started
