"""The repository speaks of swarmd alone: no path of one machine, no registry, no download address."""

from __future__ import annotations

import re

from tests.meta.sources import ROOT, tracked_files

MERGES = re.compile(r"^(?:" + "<" * 7 + "|" + ">" * 7 + ") ")
BINARY = {".gguf", ".png", ".ico", ".woff2", ".bin", ".npz"}
# Written in pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile("|".join([r"(?<![\w./])/wor" + "k/", r"(?<![\w./])/roo" + "t/", r"/tmp/" + "plan"]))
REGISTRIES = re.compile(
    "|".join(
        re.escape("".join(parts))
        for parts in (
            ("py", "pi.org"),
            ("python", "hosted.org"),
            ("np", "mjs.org"),
            ("crates", ".io"),
            ("proxy.go", "lang.org"),
            ("conda", ".anaconda"),
            ("--index", "-url"),
            ("--extra-index", "-url"),
            ("--find", "-links"),
        )
    )
)
DOWNLOADS = re.compile(r"https?://\S+\.(?:wh" + r"l|tar\.gz|tgz|zip|gguf|safetensors|deb|sh)\b")


def found(pattern: re.Pattern[str]) -> list[str]:
    places: list[str] = []
    for path in tracked_files():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if (match := pattern.search(line)) is not None:
                places.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    return places


def test_no_path_of_one_machine() -> None:
    assert not found(MACHINE_PATHS)


def test_no_registry() -> None:
    assert not found(REGISTRIES)


def test_no_download_address() -> None:
    """Weights come from where the user says; tests make their own."""
    assert not found(DOWNLOADS)


def test_no_merge_was_left_half_done() -> None:
    assert not found(MERGES)


def test_the_check_sees_what_it_should() -> None:
    assert MACHINE_PATHS.search("open('/wor" + "k/x')")
    assert not MACHINE_PATHS.search("see docs/wor" + "k/x")
    assert MERGES.search("<" * 7 + " HEAD")
    assert REGISTRIES.search("py" + "pi.org/simple")
    assert DOWNLOADS.search("https://example.org/a.wh" + "l")
