"""Where a command finds its node and the key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd.api.whereabouts import forget, tell
from swarmd.cli.failure import Failure
from swarmd.cli.place import Chosen, find, flags_of, settings_of, url_of
from swarmd.cli.program import program
from swarmd.config.settings import NodeSettings, Settings
from swarmd.kit.disk import Disk
from tests.cli.conftest import Cli


def test_url_and_key_come_from_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[node]\nlisten_port = 9001\n")
    (tmp_path / "api_key").write_text("k" * 64 + "\n")
    place = find(Chosen(data_dir=tmp_path))
    assert (place.url, place.key, place.key_path) == ("http://127.0.0.1:9001", "k" * 64, tmp_path / "api_key")


async def test_a_node_that_runs_on_another_port_is_found_by_its_data_folder(tmp_path: Path) -> None:
    """`run --data-dir D --port P`, then `invite --data-dir D`."""
    (tmp_path / "config.toml").write_text("[node]\nlisten_port = 9001\n")
    await tell(tmp_path, "http://127.0.0.1:9234/", disk=Disk())
    assert find(Chosen(data_dir=tmp_path)).url == "http://127.0.0.1:9234"
    assert find(Chosen(data_dir=tmp_path, url="http://other:1")).url == "http://other:1"
    await forget(tmp_path, disk=Disk())
    assert find(Chosen(data_dir=tmp_path)).url == "http://127.0.0.1:9001"


def test_without_a_key_file_there_is_no_key(tmp_path: Path) -> None:
    assert find(Chosen(data_dir=tmp_path)).key is None


def test_a_key_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no key file") as failure:
        find(Chosen(data_dir=tmp_path, key_file=tmp_path / "none"))
    assert failure.value.exit_code == 2


def test_the_key_of_the_settings_wins_over_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[api]\napi_key = "0123456789abcdef0123"\n')
    (tmp_path / "api_key").write_text("k" * 64)
    assert find(Chosen(data_dir=tmp_path)).key == "0123456789abcdef0123"


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_bytes(b"\xff\xfe")
    with pytest.raises(Failure, match="not a key"):
        find(Chosen(data_dir=tmp_path))
    (tmp_path / "api_key").write_bytes(b"k" * 5000)
    with pytest.raises(Failure, match="cannot be read"):
        find(Chosen(data_dir=tmp_path))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8800"),
        ("0.0.0.0", "http://127.0.0.1:8800"),
        ("::", "http://[::1]:8800"),
        ("192.168.1.7", "http://192.168.1.7:8800"),
        ("localhost", "http://localhost:8800"),
    ],
)
def test_the_address_to_listen_on_is_not_always_one_to_call(address: str, url: str) -> None:
    assert url_of(replace(Settings(), node=NodeSettings(listen_address=address))) == url


def test_a_url_loses_its_last_slash(tmp_path: Path) -> None:
    assert find(Chosen(url="http://node:1234/", data_dir=tmp_path)).url == "http://node:1234"


@pytest.mark.parametrize("url", ["node:8800", "http://", "ftp://x", "http://x:0", "http://x:99999", "http://[::1"])
def test_what_is_no_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not the URL") as failure:
        find(Chosen(url=url, data_dir=tmp_path))
    assert failure.value.exit_code == 2


def test_settings_that_are_refused_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[node]\nlisten_prt = 9001\n")
    with pytest.raises(Failure, match="did you mean"):
        find(Chosen(data_dir=tmp_path))


def test_a_settings_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no settings file"):
        settings_of({}, config=tmp_path / "none.toml")


def test_flags_are_dotted_and_the_folder_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    flags = flags_of(Path("here"), node__listen_port=9000, logging__level=None)
    assert flags == {"node.listen_port": 9000, "logging.level": None, "node.data_dir": str(tmp_path / "here")}
    assert settings_of(flags, config=None).settings.node.listen_port == 9000
    assert flags_of(None)["node.data_dir"] is None


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://127.0.0.1:8800", True),
        ("http://localhost:8800", True),
        ("http://[::1]:8800", True),
        ("http://192.168.1.5:8800", False),
        ("https://swarm.example", False),
        ("http://127.0.0.1.example:80", False),
    ],
)
def test_the_key_of_our_own_node_is_not_sent_elsewhere_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, sent: bool
) -> None:
    """`swarmd status --url http://stranger` would hand the stranger the key of this machine's node."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    folder = tmp_path / ".local" / "share" / "swarmd"
    folder.mkdir(parents=True)
    (folder / "api_key").write_text("k" * 64)
    place = find(Chosen(url=url))
    assert (place.key is not None, place.withheld) == (sent, not sent)
    (folder / "config.toml").write_text('[api]\napi_key = "0123456789abcdef0123"\n')
    assert (find(Chosen(url=url)).key is not None) is sent, "nor the one of the settings"
    for meant in (Chosen(url=url, data_dir=folder), Chosen(url=url, key_file=folder / "api_key")):
        assert find(meant).key is not None, "who names a key means it"
    monkeypatch.setenv("SWARMD_API_API_KEY", "fedcba9876543210fedc")
    assert find(Chosen(url=url)).key == "fedcba9876543210fedc"


def test_the_environment_can_say_which_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """Neither is a setting, and a node that is started where they are set starts all the same."""
    monkeypatch.setenv("SWARMD_URL", cli.url)
    monkeypatch.setenv("SWARMD_API_KEY_FILE", str(cli.key_file))
    asked = CliRunner().invoke(program(), ["ask", "-q", "Hi", "--data-dir", str(tmp_path / "none")])
    assert (asked.exit_code, asked.stdout) == (0, "Hello!\n"), asked.output
    assert settings_of(flags_of(tmp_path), config=None).settings.node.data_dir == str(tmp_path)
