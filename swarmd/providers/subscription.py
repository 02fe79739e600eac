"""What is found of a Claude subscription on this machine: the program, and who is logged in. Reads, never writes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from swarmd.domain.providers import Subscription
from swarmd.kit.disk import Disk, TooLarge
from swarmd.providers.claude_program import ClaudeProgram
from swarmd.providers.loose import as_dict, as_text, parsed

CREDENTIALS: Final = Path(".claude/.credentials.json")  # contract: swarm_admin_api, below the user's home
LIMIT: Final = 64 * 1024  # bytes; it has some hundreds


async def look(program: ClaudeProgram, *, environ: Mapping[str, str], disk: Disk) -> Subscription:
    """Nothing of what is secret in the file leaves this function."""
    installed = await asyncio.to_thread(program.found) is not None
    version = await program.version() if installed else None
    home = Path(environ.get("HOME") or Path.home())
    try:
        text = await disk.read_bytes(home / CREDENTIALS, limit=LIMIT)
    except (OSError, TooLarge):
        text = b""
    login = as_dict(as_dict(parsed(text)).get("claudeAiOauth"))
    logged_in = bool(as_text(login.get("accessToken")) or as_text(login.get("refreshToken")))
    return Subscription(
        cli_installed=installed, cli_version=version, authenticated=logged_in,
        subscription_type=_word(login.get("subscriptionType")), rate_limit_tier=_word(login.get("rateLimitTier")),
    )  # fmt: skip


def _word(given: object) -> str | None:
    text = as_text(given)
    return text if text and text.isprintable() and len(text) <= 100 else None
