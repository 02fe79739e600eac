"""Rows of downloads; the fields themselves are checked where the endpoints are."""

from __future__ import annotations

from dataclasses import replace

from swarmd.api import download_views as views
from swarmd.api.views import acquisition_status
from swarmd.domain.ids import NodeId
from swarmd.domain.shards import Acquisition, ModelView, Transfer, TransferState
from tests.fakes.rim import OWN, PEER, SPREAD, TINY, acquisition, hub_source, model_view, ranked


def transfer(index: int, state: TransferState, done: int, **changes: object) -> Transfer:
    made = Transfer(index=index, state=state, done_bytes=done, total_bytes=1000, source=None)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_download_that_stands_still_has_no_end_in_sight() -> None:
    still: Acquisition = replace(acquisition(SPREAD), bytes_per_second=0.4)
    assert views.download_row(still, name="x").eta_secs is None
    empty: Acquisition = replace(still, transfers=(), state="awaiting_manifest")
    assert views.download_row(empty, name="x").overall_pct == 0.0


def test_shards_say_where_they_come_from() -> None:
    transfers = (
        transfer(0, TransferState.COMPLETE, 1000, source=PEER),
        transfer(1, TransferState.DOWNLOADING, 333, hub=True, bytes_per_second=99.6, log=("a", "b")),
        transfer(2, TransferState.VERIFYING, 1000, hub=True),
        transfer(3, TransferState.FAILED, 10),
    )
    row = views.download_row(replace(acquisition(SPREAD), transfers=transfers), name="x")
    assert row.source == "huggingface"
    assert [one.source for one in row.shard_details] == [PEER[:16], "huggingface", "huggingface", None]
    assert (row.total_shards, row.downloaded_shards, row.verified_shards, row.failed_shards) == (4, 2, 1, 1)
    second = row.shard_details[1]
    assert (second.progress_pct, second.speed_bytes_per_sec, second.log) == (33.3, 100, ["b", "a"])
    assert views.download_row(acquisition(SPREAD), name="x").source == "network"


def test_logs_show_the_last_ten_lines_newest_first() -> None:
    row = views.download_row(replace(acquisition(SPREAD), log=tuple(str(at) for at in range(50))), name="x")
    assert row.log == [str(at) for at in range(49, 39, -1)]


def of_the_hub(*holders: tuple[NodeId, ...]) -> ModelView:
    view = model_view(SPREAD, *holders)
    assert view.manifest is not None
    return replace(view, manifest=replace(view.manifest, source=hub_source()))


def test_a_queued_download_that_only_the_hub_can_bring_is_not_of_the_network() -> None:
    waiting = tuple(transfer(index, TransferState.PENDING, 0) for index in (0, 1))
    queued = replace(acquisition(SPREAD, state="queued"), transfers=waiting)

    def source(one: Acquisition, view: ModelView | None) -> str:
        return views.download_row(one, name="x", view=view).source

    assert source(queued, of_the_hub((), ())) == "huggingface"
    assert source(queued, of_the_hub((), (PEER,))) == "network", "a peer has a part"
    assert source(queued, model_view(SPREAD, (), ())) == "network", "no hub is known"
    assert source(queued, None) == "network"
    from_peer = (replace(waiting[0], source=PEER), waiting[1])
    assert source(replace(queued, transfers=from_peer), of_the_hub((), ())) == "network", "a peer sent some"
    here = (replace(waiting[0], state=TransferState.COMPLETE), waiting[1])
    assert source(replace(queued, transfers=here), of_the_hub((OWN,), ())) == "huggingface"


def test_shards_of_a_cancelled_download_have_not_failed() -> None:
    transfers = (transfer(0, TransferState.COMPLETE, 1000), transfer(1, TransferState.FAILED, 10))
    cancelled = replace(acquisition(SPREAD, state="cancelled"), transfers=transfers)
    row = views.download_row(cancelled, name="x")
    assert (row.failed_shards, [one.state for one in row.shard_details]) == (0, ["complete", "pending"])
    status = acquisition_status(cancelled)
    assert (status.failed_shards, status.shard_progress["1"].state) == (0, "pending")
    failed = replace(cancelled, state="failed")
    assert (views.download_row(failed, name="x").failed_shards, acquisition_status(failed).failed_shards) == (1, 1)


def test_names_come_from_the_acquisition_else_from_the_registry_else_from_the_id() -> None:
    rows = views.download_rows(
        [replace(acquisition(TINY), name="Tiny"), replace(acquisition(SPREAD), place=1)],
        known={TINY: model_view(TINY), SPREAD: replace(model_view(SPREAD), name="Spread")},
    )
    assert [row.model_name for row in rows] == ["Tiny", "Spread"]
    assert views.download_rows([acquisition(TINY)], known={})[0].model_name == TINY


def test_a_tick_has_what_runs_and_the_latest_of_what_is_over() -> None:
    over = [replace(acquisition(SPREAD, state="complete"), started_at=float(at)) for at in range(100)]
    running = [replace(acquisition(TINY, state="paused"), place=at) for at in range(100)]
    shown = views.for_the_tick([*over, *running])
    assert [one for one in shown if one.state == "paused"] == running
    assert [one.started_at for one in shown if one.state == "complete"] == [float(99 - at) for at in range(views.OVER_SHOWN)]


def test_of_many_tags_the_first_are_shown() -> None:
    hit = ranked()
    many = replace(hit, repo=replace(hit.repo, tags=tuple(str(at) for at in range(1000)), gated=True))
    row = views.repo_rows([many])[0]
    assert (len(row.task_tags), row.gated) == (views.TAGS_SHOWN, True)
