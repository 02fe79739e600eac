"""The page of benchmarks, from made-up results."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import svg
from bench.report import grown, render, spread, write
from bench.results import Record, Result, Round, read

MACHINE = {"cpu": "A chip", "cores": 2, "memory_gb": 16, "kernel": "Linux 6", "python": "3.11.7"}


def result(name: str, rounds: list[Round], **options: object) -> Result:
    return Result(name=name, made="2026-12-01", machine=MACHINE, options=dict(options), rounds=rounds, loads=[0.5])


def decoded(three_ms: float) -> Result:
    arms = {"one process": 10.0, "3 nodes": three_ms, "llama.cpp RPC, 3 servers": 40.0}
    rounds = [
        {"arm": arm, "round": number, "ms": ms + number / 100, "prefill_ms": 500.0}
        for number in (1, 2, 3) for arm, ms in arms.items()
    ]  # fmt: skip
    return result("decode-2", rounds, tokens=64, threads=2)


def lost(how: str, outcomes: list[str]) -> Result:
    rounds = [
        {"how": how, "round": number, "outcome": outcome, "again_s": 0.3, "pause_s": 1.0, "resumes": 1}
        for number, outcome in enumerate(outcomes, 1)
    ]
    return result(f"loss-{how}", rounds)


def asked(arm: str, *, guess: bool, ms: float, text: str = "t", delay: float = 50.0) -> Round:
    return {
        "arm": arm, "guess": guess, "nodes": 3, "delay_ms": delay, "round": 1, "ms": ms, "engines_ms": 10.0, "stages": 3,
        "proposed": 20 if guess else 0, "accepted": 15 if guess else 0, "text": text, "link_rtt_ms": delay,
        "proxy_late_ms": 0.4,
    }  # fmt: skip


def line_with(page: str, words: str) -> str:
    (found,) = (line for line in page.splitlines() if words in line)
    return found


def page_of(*results: Result) -> str:
    return render({one.name: one for one in results})[0]


def test_what_is_not_there_is_said_to_be_missing() -> None:
    page, pictures = render({})
    assert "Not measured yet: `python -m bench soak`" in page
    assert "Of 0 bars 0 are met" in page
    assert pictures == {}


def test_whether_a_bar_is_met_is_computed() -> None:
    bar = "3 nodes: at least 0.88 of one process"
    assert line_with(page_of(decoded(11.0)), bar).endswith("| 0.909 | met |")
    assert line_with(page_of(decoded(12.0)), bar).endswith("| 0.834 | **missed** |")
    page = page_of(decoded(11.0))
    assert line_with(page, "llama.cpp's RPC |").endswith("| 3.63 | met |")
    assert line_with(page, "at most 1 ms added").endswith("| 0.33 | met |")
    assert "Of 4 bars 4 are met, 0 are missed, 0 are not measured." in page


def test_a_figure_has_its_spread_and_its_machine() -> None:
    page = page_of(decoded(11.0))
    assert "| one process | 10.02 (10.01 to 10.03) |" in page
    assert "2026-12-01: A chip, 2 cores, 16 GB, Linux 6, Python 3.11.7, load 0.5 to 0.5 before." in page
    assert "tokens 64, threads 2.*" in page


def test_an_arm_that_was_not_run_leaves_its_bar_open() -> None:
    without = decoded(11.0)
    without.rounds = [one for one in without.rounds if "RPC" not in one["arm"]]
    assert line_with(page_of(without), "llama.cpp's RPC |").endswith("| not measured |  |")


def test_of_many_values_the_quartiles_are_shown() -> None:
    assert spread([1.0, 2.0, 9.0]) == "2.00 (1.00 to 9.00)"
    assert spread([0.0, *[float(value) for value in range(1, 30)], 1000.0]) == "15.00 (7.00 to 23.00)"


def test_losses_are_counted_and_rounds_without_one_left_out() -> None:
    page = page_of(lost("kill", ["same"] * 99 + ["different", "not struck"]), lost("stop", ["same"] * 98 + ["hang"] * 2))
    assert line_with(page, "| `kill -9` of a stage | 100 | 99 | 1 | 0 | 0 |")
    assert line_with(page, "`kill -9` of a stage: at least 99 of 100").endswith("| 0.990 | met |")
    assert line_with(page, "SIGSTOP of a stage: at least 99 of 100").endswith("**missed** |")
    assert line_with(page, "SIGSTOP of a stage: no hang").endswith("| 2 | **missed** |")


def test_the_delay_is_taken_off_and_texts_are_compared() -> None:
    arms = ("new text", "repetitive text", "quoted text")
    rounds = [asked(arm, guess=guess, ms=30.0 if guess else 90.0) for arm in arms for guess in (False, True)]
    page = page_of(result("wan", rounds))
    assert line_with(page, "at most 5 ms beyond the delay").endswith("| 5.00 | met |")  # 90 - 3 * 25 - 10
    assert line_with(page, "2.5 times on repetitive text").endswith("| 3.00 | met |")
    assert "3.00, 75% right" in page
    assert line_with(page, "texts that differ").endswith("| 0 | met |")
    rounds.append(asked("quoted text", guess=True, ms=30.0, text="other"))
    assert line_with(page_of(result("wan", rounds)), "texts that differ").endswith("| 1 | **missed** |")


def test_the_last_of_eight_users_is_judged_in_its_worst_round() -> None:
    rounds: list[Round] = []
    for number, last in ((1, 1.0), (2, 1.7)):
        rounds.append({"users": 1, "round": number, "tokens_per_s": 10.0, "first_s": [0.1]})
        rounds.append({"users": 8, "round": number, "tokens_per_s": 30.0, "first_s": [0.2] * 7 + [last]})
    page = page_of(result("users", rounds, users=8))
    assert line_with(page, "first token later").endswith("| 2.12 | **missed** |")
    assert line_with(page, "at least 2.5 times one user's").endswith("| 3.00 | met |")


def sample(at_s: float, mb: float) -> Round:
    return {"what": "sample", "at_s": at_s, "right": int(at_s), "node_mb": [mb, mb, mb, None], "workers_mb": [50.0] * 4}


def test_a_leak_and_what_is_left_are_seen_in_a_soak() -> None:
    samples = [sample(at * 10.0, 100.0 + at) for at in range(60)]
    left = {"what": "left", "streams": 1, "active": 0, "unloaded": 4, "workers": 0, "nodes": 4}
    stuck = {"what": "violation", "kind": "stuck", "at_s": 3.0}
    page = page_of(result("soak", [*samples, stuck, {"what": "ended", "right": 7}, left]))
    assert line_with(page, "A, node: memory flat").endswith("**missed** |")
    assert line_with(page, "A, workers: memory flat").endswith("| 0.0% | met |")
    assert line_with(page, "| requests stuck |").endswith("| 1 | **missed** |")
    assert line_with(page, "streams left").endswith("| 1 | **missed** |")
    assert grown(samples[:4], "node_mb", 0) is None, "too short to be judged"


def test_a_prediction_is_judged_by_how_far_it_is_off() -> None:
    rounds = [{"nodes": 1, "round": 1, "predicted": 14.0, "measured": 10.0, "forecast_mb": 95.0, "rss_mb": 100.0}]
    page = page_of(result("predict", rounds))
    assert line_with(page, "tokens a second within 25 %").endswith("| 40% | **missed** |")
    assert line_with(page, "memory within 10 %").endswith("| 5% | met |")


def test_pictures_are_documents_for_light_and_dark_pages(tmp_path: Path) -> None:
    write(tmp_path / "page.md", tmp_path / "pictures", {"decode-2": decoded(11.0)})
    (picture,) = (tmp_path / "pictures").iterdir()
    root = ET.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme: dark" in picture.read_text()
    assert len([one for one in root.iter() if one.tag.endswith("circle")]) == 9
    assert "](benchmarks/decode-2.svg)" in (tmp_path / "page.md").read_text()
    write(tmp_path / "page.md", tmp_path / "pictures", {})
    assert not list((tmp_path / "pictures").iterdir()), "a picture of nothing stays nowhere"


@pytest.mark.parametrize("high", [0.0, 0.03, 1.0, 7.3, 99.0, 100_000.0])
def test_an_axis_has_a_few_round_steps_and_reaches_the_top(high: float) -> None:
    found = svg.ticks(high)
    assert found[0] == 0.0 and found[-1] >= high * (1 - 1e-9)
    assert 3 <= len(found) <= 10


def test_names_in_pictures_are_escaped() -> None:
    drawn = svg.lines("a < b", [("x & y", {"<i>": [(0.0, 1.0), (2.0, 3.0)]})], "ms")
    assert "&lt;i&gt;" in drawn
    ET.fromstring(drawn)


def test_an_interrupted_measurement_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))
    first = Record("thing", {"tokens": 8}, fresh=False)
    first.add({"arm": "a", "round": 1, "ms": 1.23456789}, {"arm": "b", "round": 1, "ms": 2.0})
    assert Record("thing", {"tokens": 8}, fresh=False).count(arm="a") == 1
    assert Record("thing", {"tokens": 9}, fresh=False).count() == 0, "other options, other figures"
    assert Record("thing", {"tokens": 8}, fresh=True).count() == 0
    kept = read(tmp_path / "thing.json")
    assert kept is not None and kept.values("ms", arm="a") == [1.23457]


def test_the_api_is_compared_with_a_bare_server_of_the_same_round() -> None:
    def loaded(arm: str, number: int, rate: float, ms: float = 0.5) -> Round:
        return {"arm": arm, "round": number, "bytes": 81_000, "median_ms": ms, "rate": rate / 2, "per_core": rate}

    rounds = [
        loaded("models", 1, 3000.0), loaded("bare, models", 1, 6000.0), loaded("models", 2, 1500.0),
        loaded("bare, models", 2, 3000.0), loaded("stats", 1, 1000.0, 1.5), loaded("bare, stats", 1, 2000.0),
        {"arm": "dashboards", "round": 1, "count": 100, "idle": 0.01, "core": 0.02},
        {"arm": "first byte", "round": 1, "ms": [1.0, 1.5, 9.0]},
    ]  # fmt: skip
    page = page_of(result("api", rounds, seconds=2.0))
    assert "| 0.50 (0.50 to 0.50) |" in line_with(page, "| `GET /api/admin/models`")
    assert line_with(page, "models: at least 2,000").endswith("| 2250 | met |")
    assert line_with(page, "stats: at least 2,000").endswith("| 1000 | **missed** |")
    assert line_with(page, "stats: median under").endswith("| 1.50 | **missed** |")
    assert line_with(page, "hundred dashboards: at most").endswith("| 2.0% | met |")
    assert line_with(page, "the first byte within").endswith("| 1.50 | met |")
