"""`swarmd search`, and how people name a model of the hub."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.api.download_views import repo_rows
from swarmd.cli.failure import Failure
from swarmd.cli.search import Wanted, fits_text, parse_wanted, repo_cells
from swarmd.domain.hub import HubVariant
from swarmd.domain.refusals import HubFailed
from tests.cli.conftest import Cli
from tests.fakes.rim import REPO, ranked


def test_the_table_says_what_to_take_and_where_it_fits(cli: Cli) -> None:
    hit = ranked("big/Huge-GGUF", score=10.0, fit=0.1, fits_swarm=False)
    cli.rim.hub.found = [ranked(), ranked("mid/Some-GGUF", score=20.0, fit=0.6), hit]
    result = cli("search", "tiny", "llama")
    assert result.exit_code == 0, result.output
    assert cli.rim.hub.asked == [("search", "tiny llama")]
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "fits here" in lines[REPO] and "Q4_K_M" in lines[REPO] and "668.0 MB" in lines[REPO]
    assert "Q2_K 400.0 MB, Q8_0 1.1 GB" in lines[REPO]
    assert "fits the swarm" in lines["mid/Some-GGUF"] and "does not fit" in lines["big/Huge-GGUF"]
    assert "swarmd get" in result.stdout


def test_for_programs_for_nothing_and_for_failures(cli: Cli) -> None:
    assert json.loads(cli("search", "x", "--json").stdout)[0]["repo_id"] == REPO
    cli.rim.hub.found = []
    assert "other words" in cli("search", "no such thing").stdout
    assert cli("search", "x" * 257).exit_code == 5
    cli.rim.hub.says = HubFailed(what="the hub has had enough of this address", retry_after_s=20.0)
    failed = cli("search", "x")
    assert (failed.exit_code, "try again in 20 s" in failed.stderr) == (1, True)


def test_a_line_stays_readable() -> None:
    hit = ranked()
    many = tuple(HubVariant(filename=f"{at}.gguf", size_bytes=at, quant="" if at else "Q1") for at in range(20))
    gated = replace(hit, repo=replace(hit.repo, variants=many, gated=True), recommended="Q1", recommended_filename="0.gguf")
    cells = repo_cells(repo_rows([gated])[0])
    assert cells[0] == f"{REPO} (gated)"
    assert cells[-1].endswith("6.gguf 0.0 MB, and 13 more")


def test_a_part_that_fits_here_is_no_model_that_fits_here() -> None:
    row = repo_rows([ranked(fit=0.6, fits_swarm=False)])[0]
    assert (row.fits_shard, fits_text(row)) == (True, "does not fit")


def test_what_people_write() -> None:
    assert parse_wanted("a/b") == Wanted(repo_id="a/b")
    assert parse_wanted(" a/b:q4_k_m ") == Wanted(repo_id="a/b", quant="q4_k_m")
    assert parse_wanted("a/b/c/d.Q8_0.gguf") == Wanted(repo_id="a/b", filename="c/d.Q8_0.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a/", "/b", "a/b:", "a/b/", "a/b/c", "a/b/../c.gguf", "a/b/c.gguf:Q4", "a/b:Q4:Q5", "a/b:Q 4", "a b/c",
        "a/b:../x", "a/" + "b" * 200, "a/b:" + "Q" * 41, "https://hub/a/b", "a\n/b", "a/b//c.gguf",
    ],
)  # fmt: skip
def test_what_nobody_can_mean(text: str) -> None:
    with pytest.raises(Failure) as failure:
        parse_wanted(text)
    assert failure.value.exit_code == 2


@given(st.text(max_size=60) | st.from_regex(r"[a/.:-]{0,12}(\.gguf)?", fullmatch=True))
def test_any_text_is_a_model_or_a_failure(text: str) -> None:
    try:
        wanted = parse_wanted(text)
    except Failure:
        return
    assert wanted.repo_id.count("/") == 1 and not wanted.repo_id.startswith(("/", "."))
    assert wanted.filename is None or (wanted.filename.endswith(".gguf") and ".." not in wanted.filename)
    assert wanted.quant is None or wanted.filename is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("no/such", "shows no repository no/such"),
        (f"{REPO}:Q5_K_M", "has no Q5_K_M: it has Q2_K, Q4_K_M, Q8_0"),
        (f"{REPO}:Q8_0", "2 files of Q8_0: name one, such as owner/Tiny-GGUF/tiny.Q8_0.gguf"),
    ],
)
def test_what_the_hub_does_not_have(cli: Cli, wanted: str, words: str) -> None:
    if "Q8_0" in wanted:
        hit = ranked()
        variants = (*hit.repo.variants, HubVariant(filename="other.Q8_0.gguf", size_bytes=1, quant="Q8_0"))
        cli.rim.hub.found = [replace(hit, repo=replace(hit.repo, variants=variants))]
    result = cli("get", wanted)
    assert result.exit_code == (1 if "Q8_0" in wanted else 6)
    assert words in result.stderr.replace("\n", " ")
    assert all(asked[0] == "search" for asked in cli.rim.hub.asked)


SPLIT = "parts-00001-of-00004.gguf"


@pytest.mark.parametrize("variant", [SPLIT, f"deep/{'x' * 60}.gguf", f"{'x' * 60}.gguf"])
def test_a_variant_without_a_quantisation_is_named_by_its_file_as_search_shows_it(cli: Cli, variant: str) -> None:
    hit = ranked()
    unnamed = HubVariant(filename=f"deep/{'x' * 60}.gguf", size_bytes=2, quant="")
    variants = (*hit.repo.variants, HubVariant(filename=SPLIT, size_bytes=1, quant=""), unnamed)
    cli.rim.hub.found = [replace(hit, repo=replace(hit.repo, variants=variants))]
    cli("get", f"{REPO}:{variant}", "--no-wait")
    asked = next(asked for asked in cli.rim.hub.asked if asked[0] == "fetch")
    assert asked[2] == (SPLIT if variant == SPLIT else unnamed.filename)


@pytest.mark.parametrize("wanted", [REPO, f"{REPO}:Q4_K_M"])
def test_a_repository_in_which_nothing_can_be_fetched_is_told_so(cli: Cli, wanted: str) -> None:
    hit = ranked()
    cli.rim.hub.found = [
        replace(hit, repo=replace(hit.repo, variants=()), recommended="", recommended_filename="")
    ]
    result = cli("get", wanted)
    assert result.exit_code == 1
    assert "nothing in owner/Tiny-GGUF can be fetched: " in result.stderr
    assert "parts" in result.stderr and "reading the header" not in result.stdout
