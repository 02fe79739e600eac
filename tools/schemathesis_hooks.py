"""What schemathesis calls before each request (schemathesis.toml): some generations reach the engine, and stay short."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

import schemathesis
from schemathesis.generation.modes import GenerationMode

TOKENS: Final = 2
ONE_IN: Final = 8
"""So many requests are for a model that is there: with two tokens each, 2,000 of them cost a minute of the engine."""

LENGTHS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Nothing is changed that was made to be wrong."""
    if not case.path.startswith("/v1/") or not isinstance(case.body, dict) or "model" not in case.body:
        return
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if zlib.crc32(json.dumps(case.body, sort_keys=True, default=repr).encode()) % ONE_IN:
        return
    case.body["model"] = "auto"
    lengths = [name for name in LENGTHS if name in case.body]
    usual = "max_output_tokens" if case.path == "/v1/responses" else LENGTHS[0]
    for name in lengths or [usual]:
        case.body[name] = TOKENS
