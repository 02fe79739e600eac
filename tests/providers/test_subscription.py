"""What is found of a subscription; nothing secret comes out."""

from __future__ import annotations

import json
from pathlib import Path

from swarmd.domain.providers import Subscription
from tests.fakes.claude import FakeClaude
from tests.fakes.provider import Office, opened


async def found(folder: Path) -> Subscription:
    async with opened(Office(folder)) as office:
        return await office.desk.subscription()


async def test_nothing_is_there(tmp_path: Path) -> None:
    assert await found(tmp_path) == Subscription(
        cli_installed=False, cli_version=None, authenticated=False, subscription_type=None, rate_limit_tier=None
    )


async def test_installed_and_logged_in(tmp_path: Path) -> None:
    FakeClaude(tmp_path)
    (tmp_path / ".claude").mkdir()
    login = {"accessToken": "sk-ant-oat-secret", "subscriptionType": "max", "rateLimitTier": "default_claude_max_5x"}
    (tmp_path / ".claude" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    seen = await found(tmp_path)
    assert seen == Subscription(
        cli_installed=True, cli_version="2.1.92 (Claude Code)", authenticated=True, subscription_type="max",
        rate_limit_tier="default_claude_max_5x",
    )  # fmt: skip
    assert "secret" not in repr(seen)


async def test_a_file_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / ".claude").mkdir()
    for text in ("[", '{"claudeAiOauth": 5}', '{"claudeAiOauth": {"subscriptionType": 5}}', "x" * 100_000):
        (tmp_path / ".claude" / ".credentials.json").write_text(text)
        assert (await found(tmp_path)).authenticated is False
