"""The rim on a real local port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.rim import Rim, running


@pytest.fixture
async def rim(tmp_path: Path) -> AsyncIterator[Rim]:
    async with running(Rim(tmp_path)) as started:
        yield started
