"""Every fact has a row, and what it says is fit for people."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from swarmd.api import live_shapes
from swarmd.api.relay import ROWS, SILENT, activity
from swarmd.domain import events
from swarmd.domain.events import FACTS, Fact
from swarmd.domain.ids import ModelId, NetworkId, NodeId, RequestId, ShardRef
from swarmd.domain.peers import Endpoint
from tests.fakes.rim import PEER

MODEL, REF, NETWORK = ModelId("tiny-q8"), ShardRef(ModelId("tiny-q8"), 2), NetworkId("c" * 64)
CATEGORIES = {"network", "model", "download", "inference", "auto_manage", "pool", "system", "provider", "security"}
SAMPLES: list[Fact] = [
    events.NodeStarted(node=PEER, version="1"),
    events.NetworkFounded(network=NETWORK),
    events.NetworkJoined(network=NETWORK, inviter=PEER),
    events.MemberAdmitted(node=PEER),
    events.ShortCodeEnded(nameplate=7, burnt=True),
    events.MemberRevoked(node=PEER),
    events.IdentityCloned(node=PEER, at=Endpoint("10.0.0.7", 8810)),
    events.IdentityCloned(node=PEER, at=None),
    events.IdentityCloned(node=PEER, at=None, told_by=PEER),
    events.PeerCloned(node=PEER),
    events.PeerConnected(node=PEER),
    events.PeerDisconnected(node=PEER, reason="timeout"),
    events.ModelDiscovered(model=MODEL, name="Tiny"),
    events.ModelRemoved(model=MODEL),
    events.HubProbeStarted(repo_id="owner/name", filename="tiny.Q8_0.gguf"),
    events.DownloadStarted(model=MODEL, shards=(0, 1), hub=True),
    events.DownloadProgressed(model=MODEL, percent=25),
    events.DownloadEnded(model=MODEL, state="complete"),
    events.ShardDownloadStarted(shard=REF, source=PEER),
    events.ShardDownloadStarted(shard=REF, source=None),
    events.ShardStored(shard=REF, size_bytes=1, source=PEER),
    events.ShardRejected(shard=REF, source=PEER, reason="hash"),
    events.AdapterRegistered(adapter="style", model=MODEL),
    events.AdapterRemoved(adapter="style", model=MODEL),
    events.AdapterRejected(source=PEER, reason="hash"),
    events.ShardDropped(shard=REF),
    events.ShardsWanted(model=MODEL, shards=(1, 2), reason="1 of 2 copies are there"),
    events.ShardPruned(
        shard=REF, reason="3 copies are there and 2 are needed", freed_bytes=7, remaining_local_shards=1, holders_before=3,
        holders_after=2,
    ),
    events.ShardLocked(shard=REF, locked=True),
    events.AutopilotInstructed(about="policy", model=MODEL),
    events.WorkerReady(model=MODEL, shards=(0, 1)),
    events.WorkerDied(model=MODEL, how="crashed"),
    events.WorkerStopped(model=MODEL),
    events.GenerationStarted(request=RequestId("r"), model=MODEL, nodes=(PEER,)),
    events.GenerationResumed(request=RequestId("r"), model=MODEL, nodes=(PEER,), lost=PEER),
    events.GenerationFinished(request=RequestId("r"), model=MODEL, completion_tokens=5, duration_ms=1500.0, outcome="stop"),
    events.StageServed(model=MODEL, head=PEER, tokens=5),
    events.ServeFailed(model=MODEL, head=PEER, reason="its worker crashed"),
    events.UpdateAvailable(
        current_version="0.1.0", latest_version="0.2.0", changelog="- more", published_at=None, downloaded=False
    ),
    events.SettingsChanged(keys=("a.b",)),
    events.ProvidersChanged(providers=("openai",)),
    events.SubscriptionSwitched(enabled=True),
]


def test_every_fact_has_a_row() -> None:
    assert set(ROWS) == set(FACTS.values())


def test_every_row_that_speaks_is_sampled_below() -> None:
    assert {type(fact) for fact in SAMPLES} == {fact for fact, row in ROWS.items() if row is not SILENT}


@pytest.mark.parametrize("fact", SAMPLES, ids=lambda fact: fact.kind)
def test_what_is_said(fact: Fact) -> None:
    said = activity(fact, now=1_700_000_000.0)
    assert said is not None
    assert said.kind and said.message
    assert said.category in CATEGORIES
    assert said.toast_level in (None, "info", "success", "warning", "error")
    assert said.timestamp == "2023-11-14T22:13:20.000Z"
    assert PEER not in said.message, "people see the first 16 digits"
    assert said.node_id in (None, PEER[:16])


def test_shards_are_counted_from_one_for_people_and_from_zero_in_json() -> None:
    said = activity(events.ShardDropped(shard=REF), now=0.0)
    assert said is not None
    assert "shard 3 of tiny-q8" in said.message
    assert (said.shard_index, said.model_id) == (2, MODEL)


def test_outcomes_tell_kinds_apart() -> None:
    def kind(fact: Fact) -> str:
        said = activity(fact, now=0.0)
        assert said is not None
        return said.kind

    finished = {
        outcome: kind(
            events.GenerationFinished(
                request=RequestId("r"), model=MODEL, completion_tokens=0, duration_ms=0.0, outcome=outcome
            )
        )
        for outcome in ("stop", "failed", "cancelled")
    }
    assert finished == {"stop": "inference_completed", "failed": "inference_failed", "cancelled": "inference_completed"}
    assert kind(events.ShardStored(shard=REF, size_bytes=1, source=None)) == "shard_verified"
    assert kind(events.ShardStored(shard=REF, size_bytes=1, source=NodeId("d" * 64))) == "shard_p2p_complete"
    assert kind(events.ShardStored(shard=REF, size_bytes=1, source=None, hub=True)) == "shard_download_complete"


@pytest.mark.parametrize(
    ("state", "hub", "kind", "toast"),
    [
        ("complete", False, "model_download_complete", "success"),
        ("complete", True, "hf_download_complete", "success"),
        ("failed", False, "shard_download_failed", "error"),
        ("failed", True, "hf_download_failed", "error"),
        ("cancelled", True, "download_cancelled", "info"),
    ],
)
def test_how_a_download_ended(state: str, hub: bool, kind: str, toast: str) -> None:
    reason = "the hub hung up" if state == "failed" else None
    said = activity(events.DownloadEnded(model=MODEL, state=state, reason=reason, hub=hub), now=0.0)
    assert said is not None
    assert (said.kind, said.toast_level, said.model_id) == (kind, toast, MODEL)
    assert (reason or "tiny-q8") in said.message
    assert said.detail_str == (UNSET if reason is None else reason)


def test_a_download_speaks_at_its_start_and_murmurs_at_its_quarters() -> None:
    started = activity(events.DownloadStarted(model=MODEL, shards=(0, 1), hub=False), now=0.0)
    quarter = activity(events.DownloadProgressed(model=MODEL, percent=25), now=0.0)
    assert started is not None and quarter is not None
    assert ("2 shards" in started.message, started.toast_level) == (True, "info")
    assert (quarter.detail_num, quarter.toast_level) == (25, None)


def said(fact: Fact, **known: Any) -> live_shapes.Activity:
    found = activity(fact, now=0.0, **known)
    assert found is not None
    return found


def test_a_download_that_came_from_peers_alone_does_not_end_as_one_of_the_hub() -> None:
    ended = events.DownloadEnded(model=MODEL, state="complete", hub=True)  # the hub would have been asked
    assert said(ended, from_hub=False).kind == "model_download_complete"
    assert said(ended, from_hub=True).kind == said(ended).kind == "hf_download_complete"
    failed = events.DownloadEnded(model=MODEL, state="failed", reason="no", hub=True)
    assert said(failed, from_hub=False).kind == "hf_download_failed", "it should have come from there"


def test_a_shard_that_left_the_memory_is_not_a_model_that_was_loaded() -> None:
    now = events.WorkerReady(model=MODEL, shards=(0,))
    unloaded = said(now, loaded_before=frozenset({0, 2}))
    assert (unloaded.kind, unloaded.category, unloaded.shard_index) == ("shard_unloaded_memory", "model", 2)
    assert unloaded.message == "shard 3 of tiny-q8 was unloaded, 1 shard stays loaded"
    two = said(now, loaded_before=frozenset({0, 1, 2}))
    assert two.kind == "shard_unloaded_memory"
    assert two.message == "shards 2 and 3 of tiny-q8 were unloaded, 1 shard stays loaded"
    loaded = said(now, loaded_before=frozenset({0}))
    assert (loaded.kind, loaded.message) == ("model_loaded", "tiny-q8 is loaded (1 shard)")
    assert said(events.WorkerReady(model=MODEL, shards=(0, 1))).message == "tiny-q8 is loaded (2 shards)"


def test_a_file_that_was_put_here_by_hand_was_not_cut_here() -> None:
    assert said(events.ShardStored(shard=REF, size_bytes=1, source=None)).message == (
        "shard 3 of tiny-q8 came from a file of this machine"
    )


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("chunk 0 of shard 3 of tiny-q8 has the wrong hash", "chunk 0 has the wrong hash"),
        ("shard 3 of tiny-q8 has the wrong hash as a whole", "it has the wrong hash as a whole"),
        ("the peer hung up", "the peer hung up"),
    ],
)
def test_one_message_does_not_count_one_shard_in_two_ways(reason: str, shown: str) -> None:
    rejected = said(events.ShardRejected(shard=REF, source=PEER, reason=reason))
    assert rejected.message == f"shard 3 of tiny-q8 was refused: {shown}"
    assert (rejected.detail_str, rejected.shard_index) == (shown, 2)


def test_a_burnt_short_code_is_a_warning_and_a_cancelled_one_is_none() -> None:
    said = [activity(events.ShortCodeEnded(nameplate=7, burnt=burnt), now=0.0) for burnt in (True, False)]
    assert [one.toast_level for one in said if one is not None] == ["warning", None]


def test_a_fact_that_is_not_ours_is_silent() -> None:
    assert activity(Fact(), now=0.0) is None


def test_silence_is_silent() -> None:
    silent = [fact for fact, row in ROWS.items() if row is SILENT]
    assert silent == [
        events.ShortCodeMade, events.SummaryReceived, events.SummaryRejected, events.SummaryForgotten,
        events.StageUsed, events.ShardsSeeded, events.CircuitRelayed,
    ]  # fmt: skip


def test_shards_that_join_others_in_memory_are_no_model_that_is_loaded() -> None:
    one = said(events.WorkerReady(model=MODEL, shards=(0, 2)), loaded_before=frozenset({0}))
    assert (one.kind, one.shard_index) == ("shard_loaded_memory", 2) and "shard 3 of tiny-q8 is loaded" in one.message
    two = said(events.WorkerReady(model=MODEL, shards=(0, 1, 2)), loaded_before=frozenset({0}))
    assert (two.kind, two.shard_index) == ("shard_loaded_memory", UNSET) and "shards 2 and 3" in two.message
    same = said(events.WorkerReady(model=MODEL, shards=(0,)), loaded_before=frozenset({0}))
    assert same.kind == "model_loaded"
