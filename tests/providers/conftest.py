"""A fake provider on a local port, and providers around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.provider import FakeProvider, Office, opened, serving


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with serving(FakeProvider()) as started:
        yield started


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(Office(tmp_path)) as started:
        yield started
