"""Which hub is asked, as whom, and through which proxy: settings first, then what the user's environment says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from swarmd.kit.disk import Disk

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
TOKEN_LIMIT: Final = 4096  # bytes of the token file; a token has 37 characters


def hub_endpoint(setting: str, environ: Mapping[str, str]) -> str:
    """Without a slash at its end. `HF_ENDPOINT` is the variable of every tool for the hub."""
    return (setting or environ.get("HF_ENDPOINT", "").strip() or DEFAULT_ENDPOINT).rstrip("/")


def hub_token_now(environ: Mapping[str, str], disk: Disk) -> str | None:
    """HF_TOKEN, else what `hf auth login` wrote down; None: there is none. Reads a file: call it in a thread."""
    found = environ.get("HF_TOKEN", "").strip()
    if found:
        return found
    if "HF_TOKEN_PATH" in environ:
        path = Path(environ["HF_TOKEN_PATH"])
    elif "HF_HOME" in environ:
        path = Path(environ["HF_HOME"]) / "token"
    elif "HOME" in environ:
        path = Path(environ["HOME"]) / ".cache" / "huggingface" / "token"
    else:
        return None
    try:
        return disk.read_bytes_now(path, limit=TOKEN_LIMIT).decode().strip() or None
    except (OSError, ValueError):
        return None
