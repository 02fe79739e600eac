"""The genuine `huggingface_hub` client, pointed at a local hub and kept away from home and from everybody else.

The library reads its environment when it is imported. `environment` is for other processes, set before they start;
`genuine` is for this one, and changes what the library has read already.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmd.downloads.hub import library

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NOBODY: dict[str, Any] = {"standardEnvVars": [], "harnesses": {}}  # a list the client else fetches once a day


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """Variables for a process that uses the client: everything it writes is below `home`, and it asks `endpoint` alone."""
    return {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "DO_NOT_TRACK": "1",
    }


@contextlib.contextmanager
def genuine(endpoint: str, home: Path, *, token: str | None = None) -> Iterator[HfApi]:
    """The client for one hub, in this process; calls block, so make them in a thread.

    What it writes without being told where is below `home`; it takes no token but `token`, sends no telemetry and uses
    plain HTTP in place of Xet. Afterwards its connections are closed and its settings are as they were. One at a time.
    """
    from huggingface_hub import HfApi, constants, set_client_factory
    from huggingface_hub.utils import close_session
    from huggingface_hub.utils._http import default_client_factory

    home.mkdir(parents=True, exist_ok=True)
    harnesses = home / ".agent_harnesses.json"
    harnesses.write_text(json.dumps(NOBODY))
    settings: dict[str, Any] = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(harnesses),
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_XET": True,
    }
    before = {name: getattr(constants, name) for name in settings}
    for name, value in settings.items():
        setattr(constants, name, value)
    library.forget()
    set_client_factory(default_client_factory)  # somebody in this process may have put in another
    close_session()
    try:
        yield HfApi(endpoint=endpoint, token=token or False)
    finally:
        close_session()
        for name, value in before.items():
            setattr(constants, name, value)
