"""`swarmd get` and `swarmd downloads`."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from swarmd.api.download_shapes import SHARDS_MAX, DownloadRow
from swarmd.api.download_views import download_rows
from swarmd.cli import downloads
from swarmd.cli.downloads import GOES_ON, NOTHING, downloads_table, parse_shards
from swarmd.cli.failure import Failure
from swarmd.domain.ids import ModelId
from swarmd.domain.refusals import HubForbidden
from swarmd.domain.shards import Acquisition, Transfer, TransferState
from tests.cli.conftest import Cli
from tests.fakes.rim import PEER, REPO, SPREAD, acquisition

FILE = "tiny.Q4_K_M.gguf"
MODEL = ModelId("tiny.q4-k-m")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LOOK_S", 0.01)


def ends(cli: Cli, state: str, *, looks: int = 3) -> None:
    """What is being fetched ends so, after some looks at it."""
    seen = 0
    real = cli.rim.desk.acquisitions

    def acquisitions() -> tuple[Acquisition, ...]:
        nonlocal seen
        seen += 1
        if seen > looks:
            for model in cli.rim.desk.running:
                ended = acquisition(model, state=state, done=5_000_000)
                transfers = (replace(ended.transfers[0], state=TransferState.COMPLETE),)
                cli.rim.desk.running[model] = replace(ended, transfers=transfers)
        return real()

    cli.rim.desk.acquisitions = acquisitions  # type: ignore[method-assign]


def fetched(cli: Cli) -> list[tuple[object, ...]]:
    return [asked[1:] for asked in cli.rim.hub.asked if asked[0] == "fetch"]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((REPO,), (REPO, FILE, None, False, None)),
        ((REPO.lower(),), (REPO, FILE, None, False, None)),
        ((f"{REPO}:q8_0",), (REPO, "tiny.Q8_0.gguf", None, False, None)),
        ((f"{REPO}/sub/x.Q4.gguf",), (REPO, "sub/x.Q4.gguf", None, False, None)),
        ((REPO, "--shards", "1,0"), (REPO, FILE, (0, 1), False, None)),
        ((REPO, "--fair-share"), (REPO, FILE, None, True, None)),
    ],
)
def test_get_asks_for_what_was_meant(cli: Cli, arguments: tuple[str, ...], asked: tuple[object, ...]) -> None:
    ends(cli, "complete")
    result = cli("get", *arguments)
    assert result.exit_code == 0, result.output
    assert fetched(cli) == [asked]
    assert "1 shard arrived, each verified" in result.stdout


def test_get_without_waiting(cli: Cli) -> None:
    result = cli("get", REPO, "--no-wait")
    assert (result.exit_code, "swarmd downloads --watch" in result.stdout) == (0, True)
    assert "fetching all of tiny.q4-k-m (668.0 MB in 2 shards)" in result.stdout
    assert cli.rim.desk.running[MODEL].state == "downloading"


def test_get_of_some_shards_says_the_size_of_those_and_not_of_the_whole(cli: Cli) -> None:
    def coming() -> tuple[Acquisition, ...]:
        one = acquisition(MODEL)
        return (replace(one, transfers=tuple(replace(one.transfers[0], index=at) for at in (0, 1))),)

    cli.rim.desk.acquisitions = coming  # type: ignore[method-assign]
    some = cli("get", REPO, "--shards", "1", "--no-wait").stdout
    assert "fetching 1 shard of tiny.q4-k-m (1 of 2 shards, 5.0 MB of 668.0 MB)" in some
    share = cli("get", REPO, "--fair-share", "--no-wait").stdout
    assert "fetching this node's share of tiny.q4-k-m (2 of 2 shards, 10.0 MB of 668.0 MB)" in share
    cli.rim.desk.acquisitions = tuple  # type: ignore[method-assign]
    assert "fetching 1 shard of tiny.q4-k-m (2 shards in all)" in cli("get", REPO, "--shards", "1", "--no-wait").stdout


def test_get_of_what_is_here(cli: Cli) -> None:
    ends(cli, "complete", looks=0)
    real = cli.rim.desk.acquisitions
    cli.rim.desk.acquisitions = lambda: tuple(replace(one, transfers=()) for one in real())  # type: ignore[method-assign]
    assert "here already" in cli("get", REPO).stdout


def test_get_shows_a_bar_on_a_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=120, file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(downloads, "output", lambda: screen)
    ends(cli, "complete")
    assert cli("get", REPO).exit_code == 0
    assert isinstance(screen.file, io.StringIO)
    drawn = screen.file.getvalue()
    assert "2.0 MB of 5.0 MB" in drawn and PEER[:16] in drawn
    assert "\x1b[2K" in drawn, "it is wiped off at the end"


@pytest.mark.parametrize(("state", "words"), [("failed", "could not be fetched: no peer"), ("cancelled", "was cancelled")])
def test_get_that_fails_says_why(cli: Cli, state: str, words: str) -> None:
    ends(cli, state)
    result = cli("get", REPO)
    assert (result.exit_code, words in result.stderr) == (1, True)


def test_get_gives_up_when_nobody_fetches(cli: Cli) -> None:
    cli.rim.desk.acquisitions = tuple  # type: ignore[method-assign]
    result = cli("get", REPO)
    assert (result.exit_code, "nothing fetches tiny.q4-k-m any more" in result.stderr) == (1, True)


def test_ctrl_c_leaves_the_download_running_and_says_so(cli: Cli) -> None:
    def pressed() -> tuple[Acquisition, ...]:
        os.kill(os.getpid(), signal.SIGINT)  # taken by the main thread, where the command runs
        return (acquisition(MODEL),)

    cli.rim.desk.acquisitions = pressed  # type: ignore[method-assign]
    result = cli("get", REPO)
    assert result.exit_code == 130
    assert GOES_ON in result.stdout
    assert cli.rim.desk.running[MODEL].state == "downloading"


def test_get_refuses_before_it_begins(cli: Cli) -> None:
    outside = cli("get", REPO, "--shards", "0-2")
    assert (outside.exit_code, "2 shards, from 0 on: there is no shard 2" in outside.stderr) == (6, True)
    cli.rim.hub.supported = False
    unknown = cli("get", REPO)
    assert (unknown.exit_code, "not rwkv" in unknown.stderr) == (5, True)
    assert cli("get", REPO, "--shards", "x").exit_code == 2
    both = cli("get", REPO, "--shards", "0", "--fair-share")
    assert (both.exit_code, "one at a time" in both.stderr) == (2, True), "wrong usage"
    cli.rim.hub.says = HubForbidden(repo_id=REPO, has_token=False)
    assert "HF_TOKEN" in cli("get", f"{REPO}/x.gguf").stderr
    assert not fetched(cli)


# -- the list


def rich_one() -> Acquisition:
    def transfer(index: int, state: TransferState, done: int, **more: object) -> Transfer:
        made = Transfer(index=index, state=state, done_bytes=done, total_bytes=100_000_000, source=None)
        return replace(made, **more)  # type: ignore[arg-type]

    transfers = (
        transfer(0, TransferState.COMPLETE, 100_000_000, source=PEER),
        transfer(1, TransferState.DOWNLOADING, 25_000_000, hub=True, bytes_per_second=1_000_000.0),
        transfer(2, TransferState.DOWNLOADING, 50_000_000, source=PEER, bytes_per_second=2_000_000.0),
        transfer(3, TransferState.PENDING, 0),
    )
    return replace(acquisition(SPREAD), transfers=transfers, bytes_per_second=3_000_000.0)


def drawn(row: DownloadRow) -> list[str]:
    console = Console(width=160, file=io.StringIO())
    console.print(downloads_table([row]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_list_has_a_line_for_each_shard_that_moves(cli: Cli) -> None:
    cli.rim.desk.running[SPREAD] = rich_one()
    lines = cli("downloads").stdout.splitlines()
    assert len(lines) == 4
    whole, first, second = lines[1:]
    assert all(part in whole for part in ("spread-q8", "downloading", "44 %", "175.0 MB of 400.0 MB", "3.0 MB/s", "hub"))
    assert "1 min" in whole, "225 MB at 3 MB/s"
    assert all(part in first for part in ("1", "25 %", "25.0 MB of 100.0 MB", "1.0 MB/s", "1 min", "hub"))
    assert all(part in second for part in ("2", "50 %", "2.0 MB/s", "25 s", PEER[:16]))


def test_what_is_over_has_one_line_and_its_reason() -> None:
    failed = replace(rich_one(), state="failed", reason="[red]the hub[/red] hung up\x1b[2J")
    lines = drawn(download_rows([failed], known={})[0])
    assert len(lines) == 2
    assert "failed: [red]the hub[/red] hung up" in lines[1], "what others wrote is no markup"
    assert "\x1b" not in lines[1]


def test_of_many_shards_the_first_are_shown() -> None:
    moving = replace(rich_one().transfers[1], state=TransferState.VERIFYING)
    many = replace(rich_one(), transfers=tuple(replace(moving, index=at) for at in range(100)))
    assert len(drawn(download_rows([many], known={})[0])) == 2 + downloads.SHARDS_SHOWN


def test_for_programs_and_when_there_is_nothing(cli: Cli) -> None:
    assert NOTHING in cli("downloads").stdout
    cli.rim.desk.running[SPREAD] = rich_one()
    found = json.loads(cli("downloads", "--json").stdout)
    assert (found["total"], found["downloads"][0]["model_id"]) == (1, SPREAD)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_behind_the_list_is_a_sentence(cli: Cli, options: tuple[str, ...]) -> None:
    cli.rim.desk.running[SPREAD] = rich_one()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "swarmd", "downloads", *options, "--url", cli.url, "--data-dir", str(cli.folder)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "swarmd: the output cannot be written: No space left on device\n")


def test_it_can_be_watched(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    seen: list[str] = []

    async def look(draw: Callable[[], Awaitable[Table | str]], *, every_s: float) -> None:
        shown = await draw()
        seen.append(shown if isinstance(shown, str) else f"{shown.row_count} rows every {every_s:g} s")

    monkeypatch.setattr(downloads, "watch", look)
    assert cli("downloads", "--watch").exit_code == 0
    cli.rim.desk.running[SPREAD] = rich_one()
    cli("downloads", "--watch")
    assert seen == [NOTHING, "3 rows every 2 s"]
    both = cli("downloads", "--watch", "--json")
    assert (both.exit_code, "one at a time" in both.stderr) == (2, True)


def test_pause_resume_cancel(cli: Cli) -> None:
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD)
    for verb, state in (("pause", "paused"), ("resume", "resumed"), ("cancel", "cancelled")):
        result = cli("downloads", verb, SPREAD)
        assert (result.exit_code, result.stdout) == (0, f"the download of spread-q8 is {state}\n")
    refused = cli("downloads", "cancel", SPREAD)
    assert (refused.exit_code, "nothing is being fetched" in refused.stderr) == (5, True), "the contract has no 404 for it"
    assert cli("downloads", "pause", "../etc").exit_code == 2
    assert cli("downloads", "no-such-verb", SPREAD).exit_code == 2


def test_a_download_is_moved_to_another_place(cli: Cli) -> None:
    for model in (ModelId("first"), SPREAD):
        cli.rim.desk.running[model] = acquisition(model)
    result = cli("downloads", "move", SPREAD, "0")
    assert (result.exit_code, result.stdout) == (0, "the download of spread-q8 is at place 0 now; 0 is the first\n")
    assert "at place 1 now" in cli("downloads", "move", SPREAD, "99").stdout, "the end of the queue"
    unknown = cli("downloads", "move", "unknown", "0")
    assert (unknown.exit_code, "nothing is being fetched" in unknown.stderr) == (6, True)
    for wrong in (("move", SPREAD), ("move", SPREAD, "-1"), ("move", SPREAD, "256"), ("move", "../x", "0")):
        assert cli("downloads", *wrong).exit_code == 2, wrong


def test_options_before_the_verb_are_not_lost_in_silence(cli: Cli) -> None:
    cli.rim.desk.running[SPREAD] = acquisition(SPREAD)
    result = cli("downloads", "--json", "cancel", SPREAD)
    assert (result.exit_code, "behind the verb" in result.stderr) == (2, True)
    assert cli.rim.desk.running[SPREAD].state == "downloading"


# -- lists of shards


def test_lists_of_shards() -> None:
    assert parse_shards("7, 0-3,2") == (0, 1, 2, 3, 7)
    assert parse_shards(f"0-{SHARDS_MAX - 1}") == tuple(range(SHARDS_MAX))


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "1,", "-1", "1-", "3-1", "a", "1.5", "1--2", "0x1", "²", "٣", "0-256", "0-9999999999", "9" * 11, "1 2",
        ",".join(str(at) for at in range(257)), "0\n1",
    ],
)  # fmt: skip
def test_what_is_no_list_of_shards(text: str) -> None:
    with pytest.raises(Failure) as failure:
        parse_shards(text)
    assert failure.value.exit_code == 2
    assert len(str(failure.value)) < 250


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 20)), min_size=1, max_size=20))
def test_a_list_is_its_ranges(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    assert parse_shards(text) == tuple(sorted({at for first, more in ranges for at in range(first, first + more + 1)}))


@given(st.text(alphabet="0123456789-, ", max_size=40))
def test_any_text_is_a_short_list_or_a_failure(text: str) -> None:
    try:
        found = parse_shards(text)
    except Failure:
        return
    assert 1 <= len(found) <= SHARDS_MAX and list(found) == sorted(set(found))
