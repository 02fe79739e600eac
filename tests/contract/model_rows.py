"""The seed's "Model Management" and "Storage & Shards"; fields from swarmllm.md 2.2 and 2.3."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from swarmd.domain.hub import ModelOrigin
from swarmd.domain.refusals import Busy, Invalid, NoSpace, NotFound, Refusal
from swarmd.models.gguf import GgufHeader
from swarmd.models.gguf_values import text_value
from tests.contract.row import KEY, READ, Arrange, Refused, Row
from tests.fakes.rim import REPO, SPREAD, TINY, Rim, acquisition, no_coverage

SHARD = {
    "index": "int", "size_bytes": "int", "local": "bool", "holders": "int", "holder_ids": ["node"], "locked": "bool",
    "download?": {
        "state": "=Downloading|=Verifying|=Queued", "progress_pct": "num", "downloaded_bytes": "int", "total_bytes": "int"
    },
    "peer_downloads?": [{"node_id": "node", "progress_pct": "num"}],
    "layer_start": "int", "layer_end": "int",  # ours
}  # fmt: skip
MODEL = {
    "id": "str", "name": "str", "total_size_bytes": "int", "shard_count": "int", "hosted_shards": "int",
    "global_available": "int", "healthy": "bool", "status": "=loaded|=ready|=partial|=available",
    "mode": "=full|=distributed", "source": "=local|=hybrid|=network", "local": "bool", "peers_hosting": "int",
    "shards": [SHARD | {"in_vram": "bool"}],
    "trust_level": "=Discovered|=Pinned|=DemandVerified|=NetworkPopular",
    "mmproj": {"available": "bool", "local": "bool", "holders": "int", "holder_ids?": ["node"]},
    "encrypted_pipeline": "bool", "has_first_shard": "bool", "has_last_shard": "bool",
    "hf_source": ("null", {"repo_id": "str", "filename": "str"}), "has_manifest": "bool", "has_header": "bool",
    "probed": "bool", "estimated_vram_mb": "int", "acquisition": "=downloading|=failed|null",
    "acquisition_progress": (
        "null",
        {
            "downloaded_bytes": "int", "total_bytes": "int", "downloaded_shards": "int", "speed_bytes_per_sec": "int",
            "source": "str", "trigger": "str", "total_shards": "int",
        },
    ),
    "cpu_placement_reason": "str|null",
    # ours
    "architecture": "str|null", "architecture_supported": "bool", "quantization": "str|null", "layer_count": "int|null",
    "context_length": "int|null",
}  # fmt: skip
PROGRESS = {
    "state": "=pending|=downloading|=verifying|=complete|=failed", "downloaded_bytes": "int", "total_bytes": "int"
}  # fmt: skip
ACQUISITION = {
    "model_id": "str",
    "state": (
        "=awaiting_manifest|=downloading|=complete|=cancelled|=queued|=paused",  # the last two are ours
        {"failed": {"reason": "str"}},
    ),
    "total_shards": "int", "downloaded_shards": "int", "verified_shards": "int", "failed_shards": "int",
    "total_bytes": "int", "downloaded_bytes": "int", "speed_bytes_per_sec": "int", "started_at": "time", "log": ["str"],
    "shard_progress": {"*": PROGRESS}, "source": "=peers|=huggingface", "trigger": "str",
}  # fmt: skip
POLICY = {"model_id": "str", "enabled": "bool", "max_shards": "int", "prune_enabled": "bool"}
METADATA = {
    "model_id": "str",
    "general": {
        "name": "str|null", "architecture": "str|null", "architecture_supported": "bool", "file_type": "int|null",
        "quantization": "str|null",
    },
    "model": {
        "context_length": "int|null", "block_count": "int|null", "embedding_length": "int|null", "head_count": "int|null",
        "head_count_kv": "int|null", "rope_dimension_count": "int|null", "rope_freq_base": "num|null",
        "layer_norm_rms_epsilon": "num|null", "vocab_size": "int|null",
    },
    "tokenizer": {
        "model": "str|null", "pre": "str|null", "eos_token_id": "int|null", "bos_token_id": "int|null",
        "padding_token_id": "int|null",
    },
    "tensors": {"count": "int", "data_offset": "int"},
    "raw": [{"key": "str", "value": "str"}],
}  # fmt: skip
STORED = {
    "id": "str", "name": "str", "total_size_bytes": "int", "shard_count": "int", "local_shards": "int", "local_bytes": "int",
    "estimated_vram_mb": "int", "shards": [SHARD], "ready": "=ready|=downloading|=available|=incomplete",
    "all_shards_available": "bool",
}  # fmt: skip
SCHEDULE = {
    "enabled": "bool", "reduced_hours_start": "int", "reduced_hours_end": "int",
    "reduced_contribution": "=minimal|=moderate|=maximum", "prune_aggressiveness": "=normal|=aggressive|=conservative",
}  # fmt: skip
OF_SHARD = {"model_id": "str", "shard_index": "int"}

NOT_HERE = NotFound(what="not here")
IN_USE = Busy(what="a reply is being made with it")
FULL = NoSpace(needed_bytes=2, free_bytes=1)


def desk(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.desk.says = says

    return arrange


def memory(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.memory.says = says

    return arrange


def encrypted(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.encrypted.refusal = says

    return arrange


def autopilot(says: Refusal) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.autopilot.says = says

    return arrange


def fetching(state: str) -> Arrange:
    def arrange(rim: Rim) -> None:
        rim.desk.running[TINY] = acquisition(TINY, state=state)

    return arrange


def a_header(rim: Rim) -> None:
    metadata: dict[str, Any] = {"general.architecture": text_value("llama")}
    header = GgufHeader(version=3, metadata=metadata, tensors=(), alignment=32, data_offset=64)
    rim.catalog.get = lambda model: SimpleNamespace(header=header) if model == TINY else None


def at_the_hub(rim: Rim) -> None:
    """No peer has the shard, and where the hub has the model is known."""
    rim.desk.says = no_coverage()
    rim.hub.origins[SPREAD] = ModelOrigin(model=SPREAD, repo_id=REPO, filename="spread.gguf")


def shard(verb: str) -> str:
    return f"/api/admin/models/{{id}}/shards/{{index}}{verb}"



def no_index(method_verb: str) -> Refused:
    return Refused(
        status=400, when="an index that the model does not have", param="index",
        path=f"/api/admin/models/{TINY}/shards/2{method_verb}",
    )  # fmt: skip


MODELS = (
    Row(
        method="GET", path="/api/admin/models", access=READ, reply=[MODEL], live=True,
        more=[("one is being fetched", fetching("downloading"), None), ("one failed", fetching("failed"), None)],
    ),
    Row(
        method="POST", path="/api/admin/models/{id}/add", access=KEY, reply={"status": "=acquiring", "model_id": "str"},
        refused=[
            Refused(status=404, when="nobody knows the model", arrange=desk(NOT_HERE)),
            Refused(status=503, when="nobody holds a shard of it", arrange=desk(no_coverage()), code="no_coverage"),
            Refused(status=507, when="the disk is full", arrange=desk(FULL), code="no_space"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/models/{id}/status", access=READ, live=True,
        reply=(ACQUISITION, {"model_id": "str", "state": "=unknown", "message": "str"}),
        more=[(state, fetching(state), None) for state in ("awaiting_manifest", "downloading", "complete", "failed")],
    ),
    Row(
        method="DELETE", path="/api/admin/models/{id}", access=KEY,
        reply={"status": "=deleted", "model_id": "str", "files_removed": "int"},
        refused=[
            Refused(status=404, when="nobody knows the model", path="/api/admin/models/unknown"),
            Refused(status=503, when="it is in use", arrange=desk(IN_USE), code="busy"),
        ],
    ),
    Row(
        method="DELETE", path=shard(""), access=KEY, reply={"status": "=deleted"} | OF_SHARD,
        refused=[
            no_index(""),
            Refused(status=404, when="it is not held", arrange=desk(NOT_HERE)),
            Refused(status=503, when="it is in use", arrange=desk(IN_USE)),
        ],
    ),
    Row(method="GET", path="/api/admin/models/{id}/auto-manage", access=READ, reply=POLICY, live=True),
    Row(
        method="PUT", path="/api/admin/models/{id}/auto-manage", access=KEY, body={"max_shards": 2}, live=True,
        reply={"status": "=ok"} | POLICY,
        refused=[
            Refused(status=400, when="less than no shards", body={"max_shards": -1}, param="max_shards"),
            Refused(status=400, when="more than 32 bits of shards", body={"max_shards": 2**32}, param="max_shards"),
            Refused(status=400, when="a text for a switch", body={"enabled": "yes"}, param="enabled"),
            Refused(status=400, when="a number for a switch", body={"prune_enabled": 0}, param="prune_enabled"),
            Refused(status=400, when="a field too many", body={"prune": True}, param="prune"),
        ],
    ),
    Row(
        method="GET", path="/api/admin/models/{id}/encrypted-pipeline", access=READ, live=True,
        reply={
            "model_id": "str", "encrypted_pipeline": "bool", "per_model_override": "bool|null", "global_default": "bool",
            "ready": "bool", "has_first_shard": "bool", "has_last_shard": "bool", "shard_count": "int",
            "overhead_note": "str",
        },
        refused=[Refused(status=404, when="nobody knows the model", arrange=encrypted(NOT_HERE))],  # design, ruling 11
    ),
    Row(
        method="PUT", path="/api/admin/models/{id}/encrypted-pipeline", access=KEY, body={"enabled": False}, live=True,
        reply={"status": "=ok", "model_id": "str", "encrypted_pipeline": "bool", "note": "str"},
        refused=[
            Refused(status=404, when="nobody knows the model", arrange=encrypted(NOT_HERE)),
            Refused(
                status=400, when="the first or the last shard is missing", body={"enabled": True}, param="enabled",
                arrange=encrypted(Invalid(what="it needs shard 1 on this node", param="enabled")),
            ),
            Refused(status=400, when="a text for the switch", body={"enabled": "on"}, param="enabled"),
            Refused(status=400, when="no switch", body={}, param="enabled"),
            Refused(status=400, when="a field too many", body={"enabled": True, "more": 1}, param="more"),
        ],
    ),
    Row(
        method="PUT", path=shard("/lock"), access=KEY, body={"locked": True}, live=True,
        reply={"status": "=ok", "locked": "bool"} | OF_SHARD,
        refused=[
            Refused(
                status=400, when="an index that the model does not have", param="index",
                arrange=autopilot(Invalid(what="it has 2 shards", param="index")),
            ),
            Refused(status=400, when="a number for the switch", body={"locked": 1}, param="locked"),
            Refused(status=400, when="no switch", body={}, param="locked"),
        ],
    ),
)  # fmt: skip

STORAGE = (
    Row(
        method="POST", path="/api/admin/rescan-shards", access=KEY, live=True,
        reply={
            "status": "=ok", "models_updated": ["str"], "count": "int",
            "found_files": [  # ours
                {"path": "str", "size_bytes": "int", "model_id": "str|null", "problem": "str|null"}
            ],
        },
    ),
    Row(
        method="GET", path="/api/admin/models/{id}/metadata", access=READ, reply=METADATA, arrange=a_header, live=True,
        refused=[
            Refused(status=400, when="there is no header", path="/api/admin/models/spread-q8/metadata", param="model")
        ],
    ),
    Row(
        method="POST", path=shard("/download"), access=KEY,
        reply=(
            {"status": "=already_local"} | OF_SHARD,
            {"status": "=downloading", "source": "=p2p", "peer": "node"} | OF_SHARD,
            {"status": "=use_hf", "source": "=huggingface", "repo_id": "str", "filename": "str"} | OF_SHARD,
        ),
        more=[
            ("a peer has it", lambda _rim: None, f"/api/admin/models/{SPREAD}/shards/1/download"),
            ("only the hub has it", at_the_hub, f"/api/admin/models/{SPREAD}/shards/1/download"),
        ],
        refused=[
            no_index("/download"),
            Refused(
                status=400, when="nobody has it, and no place at the hub is known", param="index",
                path=f"/api/admin/models/{SPREAD}/shards/1/download", arrange=desk(no_coverage()),
            ),
            Refused(status=400, when="nobody knows the model", param="model", path="/api/admin/models/x/shards/0/download"),
            Refused(
                status=507, when="the disk is full", arrange=desk(FULL), path=f"/api/admin/models/{SPREAD}/shards/1/download"
            ),
        ],
    ),
    Row(
        method="POST", path=shard("/unload"), access=KEY,
        reply={"status": "=unloaded", "remaining_loaded": ["int"]} | OF_SHARD,
        refused=[no_index("/unload"), Refused(status=404, when="it is not held", arrange=memory(NOT_HERE)),
                 Refused(status=503, when="it is in use", arrange=memory(IN_USE))],
    ),
    Row(
        method="POST", path=shard("/load"), access=KEY, reply={"status": "=loaded", "loaded_shards": ["int"]} | OF_SHARD,
        refused=[no_index("/load"), Refused(status=404, when="it is not on the disk", arrange=memory(NOT_HERE)),
                 Refused(status=503, when="there is no room for it", arrange=memory(IN_USE))],
    ),
    Row(
        method="POST", path="/api/admin/models/{id}/unload", access=KEY, live=True,
        reply={
            "status": "=unloaded", "model_id": "str", "model_name": "str", "segments_removed": "int",
            "estimated_freed_mb": "int",
        },
        refused=[Refused(status=404, when="nobody knows the model", path="/api/admin/models/unknown/unload"),
                 Refused(status=503, when="it is in use", arrange=memory(IN_USE))],
    ),
    Row(
        method="GET", path="/api/admin/shard-storage", access=READ, live=True,
        reply={
            "models": [STORED], "total_local_bytes": "int", "disk_usage_bytes": "int", "auto_manage_enabled": "bool",
            "auto_manage_max_storage_mb": "int", "max_disk_mb": "int", "pool_vram_mb": "int|null",
            "local_vram_mb": "int|null", "peer_count": "int",
        },
    ),
    Row(
        method="GET", path="/api/admin/prune-history", access=READ, live=True,
        reply={
            "events": [
                {
                    "model_id": "str", "model_name": "str", "shard_index": "int", "reason": "str", "freed_bytes": "int",
                    "remaining_local_shards": "int", "holder_count_before": "int", "holder_count_after": "int",
                    "timestamp": "time",
                }
            ],
            "total": "int",
        },
    ),
    Row(method="GET", path="/api/admin/schedule", access=READ, reply=SCHEDULE, live=True),
    Row(
        method="PUT", path="/api/admin/schedule", access=KEY, body={"reduced_hours_start": 23}, live=True,
        reply={"status": "=ok"} | SCHEDULE,
        refused=[
            Refused(status=400, when="hour 24", body={"reduced_hours_start": 24}, param="reduced_hours_start"),
            Refused(status=400, when="hour -1", body={"reduced_hours_end": -1}, param="reduced_hours_end"),
            Refused(status=400, when="a contribution that is none", body={"reduced_contribution": "none"},
                    param="reduced_contribution"),
            Refused(status=400, when="an aggressiveness that is none", body={"prune_aggressiveness": "wild"},
                    param="prune_aggressiveness"),
            Refused(status=400, when="a text for a switch", body={"enabled": "yes"}, param="enabled"),
            Refused(status=400, when="a field too many", body={"hours": 3}, param="hours"),
        ],
    ),
)  # fmt: skip

ROWS = MODELS + STORAGE
