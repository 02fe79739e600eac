from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.downloads.access import DEFAULT_ENDPOINT, TOKEN_LIMIT, hub_endpoint, hub_token_now
from swarmd.kit.disk import Disk


@pytest.mark.parametrize(
    ("setting", "environ", "endpoint"),
    [
        ("", {}, DEFAULT_ENDPOINT),
        ("", {"HF_ENDPOINT": " http://mirror/ "}, "http://mirror"),
        ("http://mine:1/", {"HF_ENDPOINT": "http://mirror"}, "http://mine:1"),
        ("", {"HF_ENDPOINT": ""}, DEFAULT_ENDPOINT),
    ],
)
def test_the_setting_goes_before_the_environment(setting: str, environ: dict[str, str], endpoint: str) -> None:
    assert hub_endpoint(setting, environ) == endpoint


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    disk, home, cache = Disk(), tmp_path / "home", tmp_path / "hf"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    cache.mkdir()
    (home / ".cache" / "huggingface" / "token").write_text("hf_home\n")
    (cache / "token").write_text(" hf_cache ")
    (tmp_path / "else").write_text("hf_else")
    environ = {"HOME": str(home)}
    assert hub_token_now(environ, disk) == "hf_home"
    environ["HF_HOME"] = str(cache)
    assert hub_token_now(environ, disk) == "hf_cache"
    environ["HF_TOKEN_PATH"] = str(tmp_path / "else")
    assert hub_token_now(environ, disk) == "hf_else"
    environ["HF_TOKEN"] = " hf_said\n"
    assert hub_token_now(environ, disk) == "hf_said"


def test_without_a_token_there_is_none(tmp_path: Path) -> None:
    assert hub_token_now({}, Disk()) is None
    assert hub_token_now({"HOME": str(tmp_path), "HF_TOKEN": " "}, Disk()) is None
    for content in (b"", b"\n", b"\xff\xfe", b"x" * (TOKEN_LIMIT + 1)):
        (tmp_path / "token").write_bytes(content)
        assert hub_token_now({"HF_TOKEN_PATH": str(tmp_path / "token")}, Disk()) is None
