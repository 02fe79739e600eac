"""What `GET` and `PUT /api/admin/config` take: the flat names, whose ranges are the contract's, and any setting by its path.

The contract clamps numbers that are out of range, and refuses a wrong enum or shard size. A setting that is named by its
dotted path (`inference.context_tokens`) is never clamped: a value out of range is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from swarmd.config.settings import KEYS, Settings, Value, value_of, with_values
from swarmd.domain.refusals import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatKey:
    """One key of the contract and the setting it stands for."""

    name: str
    path: str
    writable: bool = True
    clamp: tuple[int, int] | None = None
    """The contract's own bounds; None: a value outside the setting's range is refused."""


FLAT_KEYS: Final[tuple[FlatKey, ...]] = (
    FlatKey(name="contribution", path="node.contribution"),
    FlatKey(name="max_concurrent_requests", path="inference.max_concurrent_requests", clamp=(1, 256)),
    FlatKey(name="max_bandwidth_mbps", path="resources.max_bandwidth_mbps", clamp=(1, 100_000)),
    FlatKey(name="max_disk_mb", path="resources.max_disk_mb", clamp=(100, 10_000_000)),
    FlatKey(name="listen_port", path="node.listen_port", writable=False),
    FlatKey(name="session_timeout_seconds", path="inference.session_timeout_seconds", writable=False),
    FlatKey(name="auto_manage_shards", path="auto_manage.enabled"),
    FlatKey(name="auto_manage_max_storage_mb", path="auto_manage.max_storage_mb", clamp=(1, 10_000_000)),
    FlatKey(name="shard_size_mb", path="model.shard_size_mb"),
    FlatKey(name="max_batch_size", path="inference.max_batch_size", clamp=(1, 256)),
    FlatKey(name="batch_timeout_ms", path="inference.batch_timeout_ms", clamp=(1, 60_000)),
    FlatKey(name="update_mode", path="updates.mode"),
)

_PROVIDER_URL: Final = r"providers\.[a-z_]+_url"
FILE_ONLY: Final[Mapping[str, str]] = {
    "node.data_dir": "the folder that this file is in is chosen at the start",
    "api.api_key": "a key is no value to send around",
    "inference.adapter_folder": "which folders may be read is said on the machine itself",
    "updates.feed_url": "where programs come from is said on the machine itself",
    "updates.signed_by": "who may sign programs is said on the machine itself",
    "providers.claude_program": "which programs run is said on the machine itself",
    "providers.private_addresses": "whether this node asks its own network is said on the machine itself",
    "downloads.hub_endpoint": "where the hub's token is sent is said on the machine itself",
    # A stored key goes where these lead: who may change them could read the keys, which no reply shows.
    **{path: "where keys are sent is said on the machine itself" for path in KEYS if re.fullmatch(_PROVIDER_URL, path)},
}
"""Settings that nobody changes over HTTP, not even with the key, and why."""

_BY_NAME: Final = {key.name: key for key in FLAT_KEYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatChange:
    """An accepted `PUT`: the settings it makes, and what `loading.save` has to store."""

    settings: Settings
    changes: Mapping[str, Value]
    """By dotted path; only values that really differ."""


def flat_view(settings: Settings) -> dict[str, Value]:
    """The body of `GET /api/admin/config`, as far as it is settings."""
    return {key.name: value_of(settings, key.path) for key in FLAT_KEYS}


def flat_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of the body of `PUT /api/admin/config`; numbers that are clamped have no range in it."""
    properties: dict[str, object] = {}
    for key in (*FLAT_KEYS, *map(_by_path, KEYS)):
        assert key is not None
        setting = KEYS[key.path]
        declared = setting.declared
        match setting.default:
            case bool():
                schema: dict[str, object] = {"type": "boolean"}
            case int() if key.clamp is None and key.writable:
                schema = {"type": "integer", "minimum": declared.low, "maximum": declared.high}
            case int():
                schema = {"type": "integer"}
            case str():
                schema = {"type": "string", **({"enum": list(declared.choices)} if declared.choices else {})}
        also = f" From {key.clamp[0]} to {key.clamp[1]}: what is outside is moved to the nearer end." if key.clamp else ""
        also += "" if key.writable else " Only what it is already: it changes in the settings file."
        properties[key.name] = {**schema, "description": declared.doc + also}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def apply_flat(settings: Settings, changes: Mapping[str, object]) -> FlatChange | Invalid:
    """Any subset of the writable keys, and of the settings by their paths.

    A value equal to the present one changes nothing, whatever its range: what `GET` showed can be sent back, so that a
    0 (automatic) does not become 1 because the contract's clamp starts there.
    """
    accepted: dict[str, Value] = {}
    for name, value in changes.items():
        key = _BY_NAME.get(name) or _by_path(name)
        if key is None:
            known = ", ".join(_BY_NAME)
            return Invalid(what=f"there is no key {name!r}: the known ones are {known}, and every section.name", param=name)
        present = value_of(settings, key.path)
        if type(value) is type(present) and value == present:
            continue
        if not key.writable:
            why = f": {FILE_ONLY[key.path]}" if key.path in FILE_ONLY else ""
            return Invalid(what=f"{name} can only be set in the settings file ({key.path}){why}", param=name)
        if key.clamp is not None and type(value) is int:
            value = min(max(value, key.clamp[0]), key.clamp[1])
        if (problem := KEYS[key.path].problem(value)) is not None:
            return Invalid(what=problem.replace(key.path, name, 1), param=name)
        if value != present:
            accepted[key.path] = cast("Value", value)
    return FlatChange(settings=with_values(settings, accepted), changes=accepted)


def _by_path(name: str) -> FlatKey | None:
    return FlatKey(name=name, path=name, writable=name not in FILE_ONLY) if name in KEYS else None
