"""Layers, refusals, and a file that keeps its owner's words."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swarmd.config.loading import Loaded, Origin, changed, default_path, diff, load, parse, platform_data_folder, save
from swarmd.config.settings import Settings, with_values
from swarmd.domain.refusals import Invalid

HOME = {"HOME": "/home/somebody"}


def loaded(path: Path, environ: dict[str, str] | None = None, **flags: object) -> Loaded:
    outcome = load(path, {**HOME, **(environ or {})}, {key.replace("__", "."): value for key, value in flags.items()})
    assert isinstance(outcome, Loaded), outcome
    return outcome


def refused(path: Path, environ: dict[str, str] | None = None, **flags: object) -> str:
    outcome = load(path, {**HOME, **(environ or {})}, {key.replace("__", "."): value for key, value in flags.items()})
    assert isinstance(outcome, Invalid), outcome
    return outcome.what


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_anything_the_defaults_hold(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    outcome = loaded(path)
    assert outcome.settings == with_values(Settings(), {"node.data_dir": "/home/somebody/.local/share/swarmd"})
    assert set(outcome.origins.values()) == {Origin.DEFAULT}


def test_later_layers_win(path: Path) -> None:
    node = '[node]\nlisten_port = 1\ncontribution = "maximum"\n'
    path.write_text(node + "[auto_manage]\nenabled = false\nmax_storage_mb = 7\n")
    outcome = loaded(
        path,
        {"SWARMD_NODE_LISTEN_PORT": "2", "SWARMD_AUTO_MANAGE_ENABLED": "Yes", "OTHER": "x"},
        node__listen_port=3,
        api__open_reads=None,
        inference__max_batch_size="4",
    )
    assert outcome.settings.node.listen_port == 3
    assert outcome.settings.node.contribution == "maximum"
    assert outcome.settings.auto_manage.enabled
    assert outcome.settings.auto_manage.max_storage_mb == 7
    assert outcome.settings.inference.max_batch_size == 4
    origins = outcome.origins
    assert origins["node.listen_port"] is Origin.FLAG
    assert origins["node.contribution"] is Origin.FILE
    assert origins["auto_manage.enabled"] is Origin.ENVIRONMENT
    assert origins["api.open_reads"] is Origin.DEFAULT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node]\nlisten_prot = 1", "there is no setting node.listen_prot: did you mean node.listen_port?"),
        ("[nodes]\nlisten_port = 1", "there is no section [nodes]: did you mean node?"),
        ("[zzz]", "the known ones are node, resources"),
        ("node = 3", "there is no section [node]"),
        ("[node]\nlisten_port = 99999", "node.listen_port cannot be 99999: it must be 1 to 65525"),
        ('[node]\nlisten_port = "8800"', "node.listen_port cannot be '8800'"),
        ("[node", "is not valid TOML"),
        ("[node]\ndata_dir = 1979-05-27", "node.data_dir cannot be"),
    ],
)
def test_a_bad_file_is_refused_by_name(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    assert words in refused(path)
    assert str(path) in refused(path)


def test_a_file_that_is_not_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refused(path)


def test_bad_environment_and_flags_are_refused(path: Path) -> None:
    assert "did you mean SWARMD_NODE_LISTEN_PORT?" in refused(path, {"SWARMD_NODE_LISTEN_PROT": "1"})
    assert "SWARMD_NODE_LISTEN_PORT: node.listen_port cannot be 'x'" in refused(path, {"SWARMD_NODE_LISTEN_PORT": "x"})
    assert "cannot be 'maybe'" in refused(path, {"SWARMD_UI_BUILTIN_MODEL": "maybe"})
    assert "there is no setting node.port" in refused(path, node__port=1)
    assert "node.listen_port cannot be -5" in refused(path, node__listen_port="-5")


def test_the_folder_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert platform_data_folder({**HOME, "XDG_DATA_HOME": "/data"}) == Path("/data/swarmd")
    assert platform_data_folder({**HOME, "XDG_DATA_HOME": "data"}) == Path("/home/somebody/.local/share/swarmd")
    monkeypatch.setattr("sys.platform", "darwin")
    assert platform_data_folder(HOME) == Path("/home/somebody/Library/Application Support/swarmd")


def test_the_file_is_in_the_data_folder_that_was_chosen() -> None:
    assert default_path({**HOME, "SWARMD_NODE_DATA_DIR": "~/a"}, {}) == Path("/home/somebody/a/config.toml")
    assert default_path({**HOME, "SWARMD_NODE_DATA_DIR": "~/a"}, {"node.data_dir": "/b"}) == Path("/b/config.toml")


def test_diff_splits_by_what_it_takes() -> None:
    new = with_values(Settings(), {"node.listen_port": 1, "inference.max_batch_size": 2, "node.contribution": "moderate"})
    changes = diff(Settings(), new)
    assert changes.live == ("node.contribution", "inference.max_batch_size")
    assert changes.restart == ("node.listen_port",)


def test_save_writes_only_what_differs_and_keeps_the_rest(path: Path) -> None:
    path.write_text("# mine\n[node]\nlisten_port = 9000  # because\n\n[inference]\nmax_batch_size = 4\n")
    assert save(path, {"inference.max_batch_size": 8, "node.contribution": "maximum", "ui.builtin_model": False}) is None
    assert path.read_text() == (
        '# mine\n[node]\nlisten_port = 9000  # because\ncontribution = "maximum"\n\n[inference]\n\n'
        "[ui]\nbuiltin_model = false\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    outcome = loaded(path)
    assert outcome.settings.inference.max_batch_size == 8
    assert outcome.origins["inference.max_batch_size"] is Origin.DEFAULT


def test_save_makes_the_file_and_never_stores_environment_or_flags(path: Path) -> None:
    before = loaded(path, {"SWARMD_INFERENCE_MAX_BATCH_SIZE": "3"}, node__listen_port=9000)
    assert save(path, {"node.contribution": "moderate"}) is None
    assert path.read_text() == '[node]\ncontribution = "moderate"\n'
    after = changed(before, {"node.contribution": "moderate"})
    assert isinstance(after, Loaded)
    assert after.settings.node.contribution == "moderate"
    assert after.settings.node.listen_port == 9000
    assert after.origins["node.contribution"] is Origin.FILE


def test_save_into_dotted_and_inline_tables(path: Path) -> None:
    path.write_text("node.listen_port = 9000\ninference = { max_batch_size = 2 }\n")
    changes = {"node.contribution": "maximum", "inference.max_batch_size": 8, "inference.context_tokens": 256}
    assert save(path, changes) is None
    settings = loaded(path).settings
    assert (settings.node.listen_port, settings.node.contribution) == (9000, "maximum")
    assert (settings.inference.max_batch_size, settings.inference.context_tokens) == (8, 256)


def test_a_broken_file_or_value_is_never_written(path: Path) -> None:
    path.write_text("[node\n")
    assert isinstance(save(path, {"node.contribution": "maximum"}), Invalid)
    assert path.read_text() == "[node\n"
    path.write_text("")
    assert isinstance(save(path, {"node.listen_port": 0}), Invalid)
    assert isinstance(changed(loaded(path), {"node.listen_port": 0}), Invalid)
    assert path.read_text() == ""


def test_a_text_is_read_as_the_environment_writes_it() -> None:
    assert [parse("node.listen_port", "9000"), parse("network.relay", "off"), parse("node.contribution", "moderate")] == [
        9000, False, "moderate",
    ]  # fmt: skip
    for path, text in (("node.listen_port", "many"), ("network.relay", "perhaps"), ("node.nothing", "1")):
        assert isinstance(parse(path, text), Invalid)


def test_variables_of_the_client_commands_are_no_settings(path: Path) -> None:
    """A node that is started where SWARMD_URL is set refused to start: it named no setting."""
    loaded(path, {"SWARMD_URL": "http://127.0.0.1:1", "SWARMD_API_KEY_FILE": "/k"})
    assert "SWARMD_URLS names no setting" in refused(path, {"SWARMD_URLS": "x"})
