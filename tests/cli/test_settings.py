"""`swarmd config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmd.api.setting_rows import SettingRow
from swarmd.cli.program import program
from swarmd.cli.settings import line_of, shown
from swarmd.config.settings import KEYS
from tests.cli.conftest import Cli


def run(*arguments: str, input: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(program(), ["config", *arguments], input=input)
    return done.exit_code, done.stdout, done.stderr.replace("\n", " ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a node that does not run: nobody listens on port 1."""
    (tmp_path / "config.toml").write_text('[node]\nlisten_port = 1\n[api]\napi_key = "0123456789abcdef0123"\n')
    return tmp_path


def test_without_a_node_the_file_is_read_and_written(folder: Path) -> None:
    where = ("--data-dir", str(folder))
    code, out, _ = run("list", "--json", *where)
    rows = {row["key"]: row for row in json.loads(out)}
    assert code == 0 and set(rows) == set(KEYS)
    assert (rows["node.listen_port"]["value"], rows["node.listen_port"]["source"]) == (1, "file")
    assert (rows["network.max_peers"]["change"], rows["network.relay"]["change"]) == ("restart", "live")
    assert rows["api.api_key"]["value"] is None, "secrets are not shown"
    assert run("get", "node.contribution", *where)[1] == "minimal\n"
    code, out, _ = run("set", "node.contribution", "moderate", *where)
    assert code == 0 and "a node takes it when it starts" in out
    assert run("get", "contribution", *where)[1] == "moderate\n", "the API's name does as well"
    assert run("path", *where)[1] == f"{folder / 'config.toml'}\n"
    assert "moderate" in (folder / "config.toml").read_text()


def test_secrets_come_from_stdin_and_are_never_printed(folder: Path) -> None:
    where = ("--data-dir", str(folder))
    secret = "fedcba9876543210fedc"
    code, out, err = run("set", "api.api_key", "-", *where, input=secret + "\n")
    assert code == 0 and secret not in out + err and "(set)" in out
    assert secret in (folder / "config.toml").read_text()
    shown = run("list", *where)[1] + run("get", "api.api_key", *where)[1]
    assert secret not in shown and "(set)" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("get", "node.listen_prot"), "did you mean node.listen_port?"),
        (("set", "node.nothing", "1"), "there is no setting node.nothing"),
        (("set", "node.listen_port", "99999"), "it must be 1 to 65525"),
        (("set", "network.relay", "perhaps"), "it must be true or false"),
        (("list", "nothing"), "the known ones are node"),
    ],
)
def test_wrong_names_and_values_are_wrong_usage(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    before = (folder / "config.toml").read_text()
    code, out, err = run(*arguments, "--data-dir", str(folder))
    assert (code, out) == (2, "") and says in err
    assert (folder / "config.toml").read_text() == before


def test_a_running_node_is_asked_and_told(cli: Cli) -> None:
    assert cli("config", "get", "node.contribution").stdout == "minimal\n"
    row = json.loads(cli("config", "get", "node.contribution", "--json").stdout)
    assert (row["source"], row["next"]) == (str(cli.rim.settings.origin("node.contribution").value), None)
    done = json.loads(cli("config", "set", "node.contribution", "moderate", "--json").stdout)
    assert (done["value"], done["in_force"]) == ("moderate", True)
    assert cli.rim.settings.current().node.contribution == "moderate"


def test_a_number_that_the_node_moves_into_its_range_is_said(cli: Cli) -> None:
    result = cli("config", "set", "resources.max_bandwidth_mbps", "16000000")
    if result.exit_code == 0:
        assert "100000, which is what is possible" in result.stdout
    else:
        assert result.exit_code == 2, result.output


def test_where_a_value_of_the_running_node_comes_from(cli: Cli) -> None:
    """Seen: a node that was started with --port 22000 had `22000 (then 8800)`, from `running`, like most others."""
    listed = json.loads(cli("config", "list", "--json").stdout)
    rows = {row["key"]: row for row in listed}
    assert set(rows) == set(KEYS)
    assert {row["source"] for row in listed} <= {"default", "file", "environment", "flag"}
    assert rows["node.listen_port"]["next"] is None
    assert rows["api.api_key"]["value"] in (None, "")


def test_a_value_that_waits_is_shown_beside_the_one_in_force() -> None:
    key = KEYS["inference.context_tokens"]
    row = SettingRow(
        key=key.path, section=key.section, name=key.name, type="number", range=key.range, low=256, high=8192, choices=[],
        default=8192, value=8192, waiting=4096, source="file", live=False, writable=True, why_not=None, secret=False, doc="",
        environment=key.environment,
    )  # fmt: skip
    assert shown(line_of(key, row)) == "8192 (4096 after a restart)"


def test_a_setting_that_waits_for_a_restart_says_so(cli: Cli) -> None:
    result = cli("config", "set", "inference.context_tokens", "4096")
    assert result.exit_code in (0, 6), result.output
    if result.exit_code == 0:
        assert "next start" in result.stdout or "sees no difference" in result.stdout
