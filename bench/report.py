"""Writes docs/benchmarks.md and its pictures from what the measurements left in bench/results.

    python -m bench.report

Nothing on the page is typed: figures, spreads and whether a bar is met are computed here from the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import svg
from bench.fleet import ROOT
from bench.results import Result, Round, everything

PAGE, PICTURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks"
FEW = 20  # values: up to here their range is shown, above it their quartiles

Results = Mapping[str, Result]

INTRODUCTION = """# Benchmarks

Written by `python -m bench report` from the rounds in [`bench/results`](../bench/results); nothing here is typed by hand.
`make bench` measures everything on the machine it runs on and writes this page; `python -m bench NAME` measures one thing.
Figures are medians; behind them, in brackets, the smallest and the largest of up to 20 values, of more the quartiles. What
runs in turns is compared, so that a noisy machine disturbs all alike. How things are measured in detail: the head of each
program in [`bench/`](../bench); why the figures are what they are, and what is not in this list:
[performance.md](performance.md).
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """What was asked for, what came, and whether that is enough; None: not measured."""

    asked: str
    came: str
    met: bool | None


@dataclass(slots=True)
class Section:
    title: str
    name: str
    """Of the program."""
    how: str
    lines: list[str] = field(default_factory=list[str])
    bars: list[Bar] = field(default_factory=list[Bar])
    pictures: dict[str, str] = field(default_factory=dict[str, str])
    """SVG by file name."""

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.lines += ["", "| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]

    def picture(self, name: str, drawn: str, says: str) -> None:
        self.pictures[f"{name}.svg"] = drawn
        self.lines += ["", f"![{says}](benchmarks/{name}.svg)"]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`12.31 (11.90 to 13.02)`."""
    if not values:
        return ""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) > FEW:
        low, _, high = statistics.quantiles(ordered, n=4)
    return f"{statistics.median(ordered):{form}} ({low:{form}} to {high:{form}})"


def middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def least(asked: str, value: float | None, limit: float, form: str = ".3f") -> Bar:
    """At least `limit`."""
    return Bar(asked, "not measured" if value is None else f"{value:{form}}", None if value is None else value >= limit)


def most(asked: str, value: float | None, limit: float, form: str = ".2f") -> Bar:
    """At most `limit`."""
    return Bar(asked, "not measured" if value is None else f"{value:{form}}", None if value is None else value <= limit)


def quotient(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None or below == 0 else above / below


def on(result: Result) -> str:
    """One sentence on machine and day."""
    machine = result.machine
    loads = f", load {min(result.loads):g} to {max(result.loads):g} before" if result.loads else ""
    options = ", ".join(f"{key} {value}" for key, value in result.options.items() if value is not None)
    return (
        f"*{result.made}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['kernel']}, "
        f"Python {machine['python']}{loads}. {options}.*"
    )


# -- sections: each pure, from the results to a part of the page


def decoding(results: Results, threads: int) -> Section:
    name = f"decode-{threads}"
    words = "one thread" if threads == 1 else f"{threads} threads"
    section = Section(
        f"Split against whole, {words}", "decode",
        "A random model of TinyLlama's shape (22 layers, width 2048, Q4_0, 620 MB), whole by llama.cpp in one "
        "process without a node around it, and over nodes on loopback, encrypted; every worker has as many "
        "threads as the one process. Nothing is guessed. The prompt has 512 tokens. \"Added\" is the difference "
        "to the one process, for each stage.",
    )  # fmt: skip
    result = results.get(name)
    if result is None:
        return section
    section.lines.append(on(result))
    arms = list(dict.fromkeys(one["arm"] for one in result.rounds))
    base = middle(result.values("ms", arm="one process"))
    base_prefill = middle(result.values("prefill_ms", arm="one process"))
    rows: list[list[str]] = []
    for arm in arms:
        ms, prefill = result.values("ms", arm=arm), result.values("prefill_ms", arm=arm)
        stages = int(arm[0]) if arm[0].isdigit() else 0
        ratio, reads = quotient(base, middle(ms)), quotient(base_prefill, middle(prefill))
        added = (statistics.median(ms) - base) / stages if stages and ms and base is not None else None
        rows.append([
            arm, spread(ms), "" if ratio is None else f"{ratio:.3f}", "" if added is None else f"{added:.2f}",
            *(spread(result.values(key, arm=arm)) for key in ("engines_ms", "beside_ms", "links_ms")),
            spread(prefill, ".0f"), "" if reads is None else f"{reads:.3f}",
        ])  # fmt: skip
        if arm in ("2 nodes", "3 nodes"):
            section.bars.append(most(f"{arm}: at most 1 ms added for each stage and token (aim 0.5)", added, 1.0))
            if stages == 3:
                limit = 0.95 if threads == 1 else 0.88
                section.bars.append(least(f"3 nodes: at least {limit} of one process", ratio, limit))
                rpc = quotient(middle(result.values("ms", arm="llama.cpp RPC, 3 servers")), middle(ms))
                section.bars.append(least("3 nodes: at least 2.5 times llama.cpp's RPC", rpc, 2.5, ".2f"))
            section.bars.append(least(f"{arm}: a prompt at least 0.95 as fast as in one process", reads, 0.95))
        elif stages:
            section.bars.append(least(f"{arm}: a prompt at least as fast as in one process", reads, 1.0))
    section.table(
        ("", "ms a token", "ratio", "added", "in engines", "in nodes beside", "links", "prompt, ms", "ratio"), rows
    )
    shown = {arm: values for arm in arms if (values := result.values("ms", arm=arm))}
    section.picture(name, svg.strip(f"A token, {words}", "ms", shown), f"A token, {words}: each round")
    return section


HOWS = {
    "kill": "`kill -9` of a stage", "stop": "SIGSTOP of a stage", "reset": "a line is reset",
    "silent": "a line falls silent",
}  # fmt: skip


def losing(results: Results) -> Section:
    section = Section(
        "A stage lost within a reply", "loss",
        "Three nodes have a third each of a random model of 290 million numbers, two more stand by. At token 50 "
        "of 200 at temperature 0 a stage or a line is lost; \"same\" are whole replies with the text of an "
        "undisturbed one. The pause is the longest time between two pieces of the reply; the limit is 2 s and "
        "what the tokens so far take to be computed anew.",
    )  # fmt: skip
    rows: list[list[str]] = []
    pauses: dict[str, list[float]] = {}
    for how, words in HOWS.items():
        result = results.get(f"loss-{how}")
        if result is None:
            continue
        struck = [one for one in result.rounds if one["outcome"] != "not struck"]
        count = {what: sum(one["outcome"] == what for one in struck) for what in ("same", "different", "error", "hang")}
        found = result.values("pause_s", outcome="same")
        limit = 2.0 + (middle(result.values("again_s")) or 0.0)
        rows.append([
            words, str(len(struck)), *(str(count[what]) for what in ("same", "different", "error", "hang")), spread(found),
            f"{max(found, default=0.0):.2f}", f"{limit:.2f}", spread(result.values("resumes", outcome="same"), "g"),
        ])  # fmt: skip
        pauses[words.replace("`", "")] = found
        if not section.lines:
            section.lines.append(on(result))
        rate = count["same"] / len(struck) if struck else None
        section.bars.append(least(f"{words}: at least 99 of 100 replies the same", rate, 0.99))
        section.bars.append(most(f"{words}: median pause at most {limit:.2f} s", middle(found), limit))
        section.bars.append(most(f"{words}: no hang", float(count["hang"]), 0.0, ".0f"))
        alone = sum("recovery" in one for one in result.rounds)
        section.bars.append(most(f"{words}: rounds after which the nodes did not find each other", float(alone), 0.0, ".0f"))
    if rows:
        section.table(
            ("", "rounds", "same", "different", "ended with an error", "hung", "pause, s", "longest", "limit, s", "resumes"),
            rows,
        )
        section.picture("loss", svg.strip("Pause within the reply", "s", pauses), "Pauses of each round")
    head = results.get("loss-head")
    if head is not None:
        told = sum(one["outcome"] == "error" for one in head.rounds)
        again = sum(one.get("again") == "same" for one in head.rounds)
        section.lines += [
            "",
            f"`kill -9` of the head itself, whose client loses its connection: in {told} of {len(head.rounds)} rounds the "
            f"client saw that the reply was not whole; asked again when the node was back, {again} had the same text.",
        ]
        section.bars.append(Bar("`kill -9` of the head: its client sees an error", f"{told} of {len(head.rounds)}",
                                told == len(head.rounds)))  # fmt: skip
    return section


def far(results: Results) -> Section:
    section = Section(
        "Nodes far from each other", "wan",
        "A proxy of our own makes both directions of every line late by half the stated round trip, and is the "
        "only way between the nodes, which live in network namespaces of their own. A token of n nodes takes n "
        "one-way delays: one round trip with two nodes, one and a half with three. \"Overhead\" is what a token "
        "takes beyond those and the time in the engines. New text: a random model of TinyLlama's shape at "
        "temperature 1, seeded; repetitive: the same at temperature 0, which loops; quoted: the built-in model is "
        "asked again what it has answered in the same chat. \"Guessed\" is how many times as fast the same text "
        "comes with guessing as without.",
    )  # fmt: skip
    result = results.get("wan")
    if result is None:
        return section
    section.lines.append(on(result))
    rows: list[list[str]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for nodes in sorted({one["nodes"] for one in result.rounds}, reverse=True):
        for delay in sorted({one["delay_ms"] for one in result.of(nodes=nodes)}):
            at = {"nodes": nodes, "delay_ms": delay}
            plain = result.of(arm="new text", guess=False, **at)
            over = [one["ms"] - one["engines_ms"] - one["stages"] * delay / 2 for one in plain]
            row = [f"{nodes} nodes, {delay:g} ms", spread([one["ms"] for one in plain], ".1f"), spread(over, ".1f")]
            section.bars.append(most(f"{nodes} nodes, {delay:g} ms: at most 5 ms beyond the delay", middle(over), 5.0))
            for arm in ("new text", "repetitive text", "quoted text"):
                off = result.values("ms", arm=arm, guess=False, **at)
                guessed = result.values("ms", arm=arm, guess=True, **at)
                ratio = quotient(middle(off), middle(guessed))
                proposed = sum(result.values("proposed", arm=arm, guess=True, **at))
                accepted = sum(result.values("accepted", arm=arm, guess=True, **at))
                share = f", {accepted / proposed:.0%} right" if proposed else ""
                row.append("" if ratio is None else f"{ratio:.2f}{share}")
                curves.setdefault(f"{arm}, {nodes} nodes", []).append((delay, ratio or 0.0))
                if arm == "new text":
                    words = f"{nodes} nodes, {delay:g} ms: guessing at least 0.98 on new text"
                    section.bars.append(least(words, ratio, 0.98))
                elif delay == 50:
                    words = f"{nodes} nodes, 50 ms: guessing at least 2.5 times on {arm}"
                    section.bars.append(least(words, ratio, 2.5, ".2f"))
            seen, late = middle(result.values("link_rtt_ms", **at)) or 0.0, max(result.values("proxy_late_ms", **at))
            row += [f"{seen:.1f}", f"{late:.1f}"]
            rows.append(row)
    texts = text_differences(result)
    section.bars.append(most("texts that differ between delays, node counts or with guessing", float(texts), 0.0, ".0f"))
    section.table(
        ("", "new text, ms a token", "overhead, ms", "guessed: new", "repetitive", "quoted",
         "round trip seen by the head, ms", "proxy late at most, ms"), rows,
    )  # fmt: skip
    three = {name: points for name, points in curves.items() if name.endswith("3 nodes")}
    drawn = svg.lines("What guessing brings over three nodes", [("times as fast as without", three)], "round trip, ms")
    section.picture("wan", drawn, "How many times as fast guessing is, over the round trip")
    return section


def text_differences(result: Result) -> int:
    """Replies whose text is not the one that the same question had first. New texts have a seed for each round."""
    first: dict[tuple[str, int], str] = {}
    wrong = 0
    for one in result.rounds:
        key = (one["arm"], one["round"] if one["arm"] == "new text" else 0)
        wrong += first.setdefault(key, one["text"]) != one["text"]
    return wrong


def users(results: Results) -> Section:
    section = Section(
        "Several users at once", "users",
        "The same model over three nodes; each user streams a completion of a prompt of its own. One alone, two and so on "
        "take turns; they share the steps of the workers, so this is also what a batch of each size brings. A "
        "user's fair share of the beginning is as many times one user's first token as there are users.",
    )
    result = results.get("users")
    if result is None:
        return section
    section.lines.append(on(result))
    many = result.options["users"]
    counts = sorted({one["users"] for one in result.rounds})
    firsts = {count: [max(one["first_s"]) for one in result.of(users=count)] for count in counts}
    rows = [
        [f"{count} user{'s' if count > 1 else ''}", spread(result.values("tokens_per_s", users=count), ".1f"),
         spread(firsts[count])]
        for count in counts
    ]  # fmt: skip
    section.table(("", "tokens a second, all together", "last first token, s"), rows)
    gain = quotient(middle(result.values("tokens_per_s", users=many)), middle(result.values("tokens_per_s", users=1)))
    fair = many * (middle(firsts[1]) or 0.0)
    section.bars.append(least(f"{many} users: at least 2.5 times one user's tokens", gain, 2.5, ".2f"))
    late = quotient(max(firsts[many], default=None), fair)
    section.bars.append(most("no first token later than 2 fair shares, in any round", late, 2.0))
    shown = {f"{count} users" if count > 1 else "1 user": result.values("tokens_per_s", users=count) for count in counts}
    section.picture("users", svg.strip("All together", "tokens a second", shown), "Tokens a second of each round")
    return section


def reusing(results: Results) -> Section:
    section = Section(
        "A prompt that begins like an earlier one", "prefix",
        "The same model over three nodes: a new prompt, then one with the same beginning and another end; until the first "
        "token.",
    )
    result = results.get("prefix")
    if result is None:
        return section
    section.lines.append(on(result))
    base = middle(result.values("ms", arm="new"))
    rows: list[list[str]] = []
    for arm in ("new", "begins alike"):
        ms, cached = result.values("ms", arm=arm), middle(result.values("cached", arm=arm)) or 0.0
        ratio = quotient(base, middle(ms))
        rows.append([arm, spread(ms, ".0f"), f"{cached:.0f}", "" if ratio is None else f"{ratio:.2f}"])
    section.table(("", "ms", "tokens reused", "times as fast"), rows)
    again = quotient(base, middle(result.values("ms", arm="begins alike")))
    section.bars.append(least("a prompt that begins alike is faster than a new one, times", again, 1.0, ".2f"))
    return section


def predicting(results: Results) -> Section:
    section = Section(
        "What the planner says before", "predict",
        "The plan of a request is asked for, then the request is made: tokens a second, and the memory of the workers. "
        "One, two and three nodes with the model of TinyLlama's shape; each was measured by one reply before.",
    )
    result = results.get("predict")
    if result is None:
        return section
    section.lines.append(on(result))
    rows: list[list[str]] = []
    for nodes in sorted({one["nodes"] for one in result.rounds}):
        found = result.of(nodes=nodes)
        speed = [one["predicted"] / one["measured"] for one in found]
        memory = [one["forecast_mb"] / one["rss_mb"] for one in found]
        words = f"{nodes} node{'s' if nodes > 1 else ''}"
        rows.append([
            words, spread(result.values("predicted", nodes=nodes), ".1f"),
            spread(result.values("measured", nodes=nodes), ".1f"), spread(speed),
            spread(result.values("forecast_mb", nodes=nodes), ".0f"), spread(result.values("rss_mb", nodes=nodes), ".0f"),
            spread(memory),
        ])  # fmt: skip
        off = abs(statistics.median(speed) - 1), abs(statistics.median(memory) - 1)
        section.bars.append(most(f"{words}: tokens a second within 25 %, off by", off[0], 0.25, ".0%"))
        section.bars.append(most(f"{words}: memory within 10 %, off by", off[1], 0.10, ".0%"))
    section.table(("", "tokens/s predicted", "measured", "quotient", "MB forecast", "measured", "quotient"), rows)
    return section


NAMES = "ABCD"
SURVIVORS = (0, 2)


def soaking(results: Results) -> Section:
    section = Section(
        "A soak", "soak",
        "Four nodes share the built-in model, each layer on two of them. Clients at two of them ask without a "
        "pause: chats, completions, long prompts, some hang up, some ask for nonsense, models are unloaded; "
        "meanwhile B or D is killed, nodes are stopped, lines reset or silent. Replies are compared with "
        "undisturbed ones. Another text is a near tie where some pick of the right one is so close that rounding may "
        "decide it, which long prompts beside each other allow; else it is wrong. Memory is judged on A and C, which are "
        "never killed: the median of the last quarter against that of the second.",
    )  # fmt: skip
    result = results.get("soak")
    if result is None:
        return section
    section.lines.append(on(result))
    ended = (result.of(what="ended") or [{}])[0]
    left = (result.of(what="left") or [{}])[0]
    trouble = result.of(what="trouble")
    kinds = sorted({one["kind"] for one in trouble})
    counts = sorted((key, value) for key, value in ended.items() if key != "what")
    section.table(("how requests ended", ""), [[key, str(value)] for key, value in counts])
    section.table(("trouble", "times"), [[kind, str(sum(one["kind"] == kind for one in trouble))] for kind in kinds])
    violations = [one for one in result.of(what="violation")]
    for kind in ("stuck", "lost", "wrong text"):
        section.bars.append(most(f"requests {kind}", float(sum(one["kind"] == kind for one in violations)), 0.0, ".0f"))
    others = sum(one["kind"] not in ("stuck", "lost", "wrong text") for one in violations)
    section.bars.append(most("other things that must not happen", float(others), 0.0, ".0f"))
    if left:
        streams, active, workers = float(left["streams"]), float(left["active"]), float(left["workers"])
        section.bars.append(most("streams left on the links", streams, 0.0, ".0f"))
        section.bars.append(most("requests left active", active, 0.0, ".0f"))
        section.bars.append(most("workers left after unloading", workers, 0.0, ".0f"))
        unloaded, nodes = float(left["unloaded"]), float(left["nodes"])
        section.bars.append(least("nodes that unload the model at the end", unloaded, nodes, ".0f"))
    samples = result.of(what="sample")
    for number in SURVIVORS:
        for key, words in (("node_mb", "node"), ("workers_mb", "workers")):
            growth = grown(samples, key, number)
            section.bars.append(most(f"{NAMES[number]}, {words}: memory flat within 5 %, grown by", growth, 0.05, ".1%"))
    memory = {NAMES[number]: points(samples, "node_mb", number) for number in range(4)}
    workers = {NAMES[number]: points(samples, "workers_mb", number) for number in range(4)}
    speed = [
        (after["at_s"] / 60, (after["right"] - before["right"]) / (after["at_s"] - before["at_s"]))
        for before, after in zip(samples[:-6:6], samples[6::6], strict=False)
    ]
    panels = [
        ("memory of the nodes, MB", memory), ("memory of their workers, MB", workers),
        ("right replies a second", {"": speed}),
    ]  # fmt: skip
    section.picture("soak", svg.lines("The soak", panels, "minutes"), "Memory and replies over time")
    return section


def points(samples: Sequence[Round], key: str, number: int) -> list[tuple[float, float]]:
    return [(one["at_s"] / 60, one[key][number]) for one in samples if one[key][number] is not None]


def grown(samples: Sequence[Round], key: str, number: int) -> float | None:
    """From the second quarter of the time to the last one, as a share. The first quarter warms."""
    found = points(samples, key, number)
    if len(found) < 8:
        return None
    end = found[-1][0]
    second = [value for at, value in found if end / 4 <= at < end / 2]
    last = [value for at, value in found if at >= end * 3 / 4]
    before, after = middle(second), middle(last)
    ratio = quotient(after, before)
    return None if ratio is None else ratio - 1


def answering(results: Results) -> Section:
    section = Section(
        "The API under load", "api",
        "A real node that knows 50 models and 20 peers (its links only say so), on one core; wrk and the dashboards are on "
        "another. The time of an answer is wrk's median with one connection, the rate is that of eight. \"On one core\" "
        "are the answers for each second of processor time that the node took: the rate it has with the core to itself. "
        "\"Of bare\" is that as a share of what an aiohttp server does with one handler and a body of the same size, in the "
        "same round. The first byte is what the client has later than the head of the generation has the first token.",
    )  # fmt: skip
    result = results.get("api")
    if result is None:
        return section
    section.lines.append(on(result))
    rows: list[list[str]] = []
    for path in ("stats", "models"):
        bare = {one["round"]: one["per_core"] for one in result.of(arm=f"bare, {path}")}
        shares = [one["per_core"] / bare[one["round"]] for one in result.of(arm=path) if one["round"] in bare]
        rates, times = result.values("per_core", arm=path), result.values("median_ms", arm=path)
        sizes = result.values("bytes", arm=path)
        rows.append([
            f"`GET /api/admin/{path}`", f"{sizes[0] / 1000:.0f} kB" if sizes else "", spread(times),
            spread(result.values("median_ms", arm=f"bare, {path}")),
            spread(result.values("rate", arm=path), ".0f"), spread(rates, ".0f"), spread(list(bare.values()), ".0f"),
            spread(shares),
        ])  # fmt: skip
        section.bars.append(least(f"{path}: at least 2,000 answers a second on one core", middle(rates), 2000, ".0f"))
        section.bars.append(most(f"{path}: median under 1 ms", middle(times), 1.0))
    section.table(("", "body", "ms", "bare, ms", "a second", "on one core", "bare, on one core", "of bare"), rows)
    watched = middle(result.values("core", arm="dashboards"))
    firsts = [ms for one in result.of(arm="first byte") for ms in one["ms"]]
    section.lines += [
        "", f"A hundred dashboards: {spread(result.values('core', arm='dashboards'), '.1%')} of a core; the first byte: "
        f"{spread(firsts)} ms.",
    ]  # fmt: skip
    section.bars.append(most("a hundred dashboards: at most 5 % of a core", watched, 0.05, ".1%"))
    section.bars.append(most("the first byte within 2 ms of the first token", middle(firsts), 2.0))
    return section


SECTIONS: tuple[Callable[[Results], Section], ...] = (
    lambda results: decoding(results, 2), lambda results: decoding(results, 1), users, reusing, far, losing,
    predicting, soaking, answering,
)  # fmt: skip


def render(results: Results) -> tuple[str, dict[str, str]]:
    """The page, and its pictures by file name."""
    sections = [make(results) for make in SECTIONS]
    bars = [bar for section in sections for bar in section.bars]
    met, missed = sum(bar.met is True for bar in bars), sum(bar.met is False for bar in bars)
    unknown = len(bars) - met - missed
    lines = [INTRODUCTION, f"Of {len(bars)} bars {met} are met, {missed} are missed, {unknown} are not measured."]
    pictures: dict[str, str] = {}
    for section in sections:
        lines += ["", f"## {section.title}", "", section.how, ""]
        if not section.lines:
            lines.append(f"Not measured yet: `python -m bench {section.name}`.")
            continue
        lines += section.lines
        lines += ["", "| Bar | Measured | |", "|---|--:|---|"]
        words = {True: "met", False: "**missed**", None: ""}
        lines += [f"| {bar.asked} | {bar.came} | {words[bar.met]} |" for bar in section.bars]
        pictures |= section.pictures
    return "\n".join(lines) + "\n", pictures


def write(page: Path, folder: Path, results: Results) -> None:
    text, pictures = render(results)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, drawn in pictures.items():
        (folder / name).write_text(drawn)
    page.write_text(text)


def main() -> None:
    argparse.ArgumentParser(prog="bench.report", description=__doc__).parse_args()
    write(PAGE, PICTURES, everything())
    print(f"{PAGE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
