"""`swarmd config`: every setting, read and changed, in the running node where there is one, else in its file."""

from __future__ import annotations

import sys
from typing import Annotated, Final, cast

import typer
from msgspec import Struct

from swarmd.api.setting_rows import SettingRow
from swarmd.cli.client import NodeClient
from swarmd.cli.failure import NOT_RUNNING, REFUSED, USAGE, Failure
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find, flags_of, is_elsewhere, settings_of
from swarmd.cli.terminal import finish, say, say_json, show_table
from swarmd.config.contract import FLAT_KEYS
from swarmd.config.loading import Loaded, Origin, parse, save
from swarmd.config.settings import KEYS, Key, Value, value_of
from swarmd.domain.refusals import Invalid

VALUE_LIMIT: Final = 4096  # characters on stdin, as the longest path
SECRET: Final = "(set)"

_FLAT: Final = {key.path: key for key in FLAT_KEYS}
_PATHS: Final = {key.name: key.path for key in FLAT_KEYS}

Name = Annotated[
    str, typer.Argument(metavar="KEY", help="`section.name`, as `swarmd config list` shows it, or a key of the API.")
]


class SettingLine(Struct, frozen=True, kw_only=True):
    """What `config get --json` prints, and `config list --json` of each setting."""

    key: str
    value: bool | int | str | None
    """In force in the running node, else what the next start takes. null: a secret."""
    default: bool | int | str
    values: str
    """What is allowed, in words."""
    change: str
    """`live`, or `restart`."""
    source: str
    """Where the value came from: `flag` of the running node's command line, `environment`, `file` or `default`."""
    next: bool | int | str | None
    """What the next start takes where that differs from `value`; else null."""
    environment: str
    doc: str


class SettingChanged(Struct, frozen=True, kw_only=True):
    """What `config set --json` prints."""

    key: str
    value: bool | int | str | None
    """What was stored, which is not always what was asked: some numbers are moved into their range. null: a secret."""
    in_force: bool
    """The running node obeys it already."""
    sentence: str


def list_settings(
    *,
    section: Annotated[str | None, typer.Argument(metavar="SECTION", help="Only these, such as `network`.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Every setting with its value, its range, and whether a change takes a restart."""
    rows = finish(_lines(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)))
    if section is not None:
        rows = [row for row in rows if row.key.partition(".")[0] == section]
        if not rows:
            sections = ", ".join(dict.fromkeys(key.section for key in KEYS.values()))
            finish(_fails(Failure(f"there is no section {section[:40]!r}: the known ones are {sections}", exit_code=USAGE)))
    if as_json:
        say_json(rows)
        return
    cells = [(row.key, shown(row), row.change, row.source, row.values) for row in rows]
    show_table(("setting", "value", "change", "from", "allowed"), cells, spare=("allowed", "from"))


def get(
    key: Name,
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """One setting: its value alone, for scripts; --json says the rest."""
    row = finish(_one(Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file), key))
    if as_json:
        say_json(row)
    else:
        say(shown(row))


def set_(
    key: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The new value; - reads it from stdin.")],
    *,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Change a setting: at once where it can, else at the next start, and it says which. The default leaves the file."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    text = sys.stdin.read(VALUE_LIMIT + 1).strip() if value == "-" else value
    done = finish(_set(chosen, key, text))
    if as_json:
        say_json(done)
    else:
        say(done.sentence)


def where(*, data_dir: DataFolder = None, config: Config = None) -> None:
    """Print the path of the settings file, which need not exist."""
    say(str(finish(_path(data_dir, config))))


async def _path(data_dir: DataFolder, config: Config) -> str:
    return str(settings_of(flags_of(data_dir), config=config).path)


async def _fails(failure: Failure) -> None:
    raise failure


def shown(row: SettingLine) -> str:
    """The value as TOML has it, without quotes; of a setting that waits for a restart both."""
    value = SECRET if row.value is None else _text(row.value)
    return value if row.next is None else f"{value} ({_text(row.next)} after a restart)"


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def key_of(name: str) -> Key:
    """By dotted path or by the contract's flat name. Raises Failure with the nearest name."""
    path = _PATHS.get(name, name)
    if path not in KEYS:
        wrong = parse(path, "")
        assert isinstance(wrong, Invalid), "a path that is no key is refused"
        raise Failure(f"{wrong.sentence} (`swarmd config list` shows all)", exit_code=USAGE)
    return KEYS[path]


async def _one(chosen: Chosen, name: str) -> SettingLine:
    key = key_of(name)
    return next(row for row in await _lines(chosen) if row.key == key.path)


async def _lines(chosen: Chosen) -> list[SettingLine]:
    """Of all settings: the running node knows best what it was started with, else what the next start would take."""
    rows, _ = await _running(chosen)
    if rows:
        return [line_of(KEYS[path], row) for path, row in rows.items() if path in KEYS]
    loaded = settings_of(flags_of(chosen.data_dir), config=chosen.config)
    return [stored_line(key, loaded) for key in KEYS.values()]


async def _running(chosen: Chosen) -> tuple[dict[str, SettingRow], bool]:
    """The settings of the node by dotted path, and whether it is elsewhere. Nothing where none runs."""
    place = find(chosen)
    elsewhere = is_elsewhere(place.url)
    try:
        async with NodeClient(place) as node:
            return {row.key: row for row in await node.setting_rows()}, elsewhere
    except Failure as failure:
        if failure.exit_code != NOT_RUNNING or elsewhere or chosen.url is not None:
            raise
        return {}, False


def line_of(key: Key, row: SettingRow) -> SettingLine:
    """As the running node has it."""
    return _line(key, row.value, source=row.source, following=row.waiting)


def stored_line(key: Key, loaded: Loaded) -> SettingLine:
    """As the next start takes it."""
    value = value_of(loaded.settings, key.path)
    shown_value = value if not key.declared.secret else None if value else ""
    return _line(key, shown_value, source=loaded.origins[key.path].value, following=None)


def _line(key: Key, value: Value | None, *, source: str, following: Value | None) -> SettingLine:
    return SettingLine(
        key=key.path, value=value, default=key.default, values=key.range,
        change="live" if key.declared.live else "restart",
        source=source, next=following, environment=key.environment, doc=key.declared.doc,
    )  # fmt: skip


async def _set(chosen: Chosen, name: str, text: str) -> SettingChanged:
    key = key_of(name)
    value = parse(key.path, text)
    if isinstance(value, Invalid):
        raise Failure(value.sentence, exit_code=USAGE)
    loaded = settings_of(flags_of(chosen.data_dir), config=chosen.config)
    running, elsewhere = await _running(chosen)
    if running and key.path in _FLAT and _FLAT[key.path].writable:
        return await _through_the_node(chosen, key, value, loaded, elsewhere=elsewhere)
    if elsewhere:
        sentence = f"{key.path} of a node elsewhere is changed on its own machine: its API takes {', '.join(sorted(_PATHS))}"
        raise Failure(sentence, exit_code=REFUSED)
    return await _in_the_file(chosen, key, value, loaded, runs=bool(running))


async def _through_the_node(chosen: Chosen, key: Key, value: Value, loaded: Loaded, *, elsewhere: bool) -> SettingChanged:
    async with NodeClient(find(chosen)) as node:
        flat = _FLAT[key.path].name
        await node.change_setting(flat, value)
        now = (await node.settings())[flat]
    moved = "" if now == value else f", which is what is possible of {_text(value)}"
    when = "in force now" if key.declared.live else "the node takes it at its next start"
    wins = "" if elsewhere else _who_wins(loaded, key)
    return _changed(key, now, in_force=key.declared.live, sentence=f"{key.path} is {_text(now)}{moved}: {when}{wins}")


async def _in_the_file(chosen: Chosen, key: Key, value: Value, loaded: Loaded, *, runs: bool) -> SettingChanged:
    """Written here, and where a node runs it is told to read its file again."""
    try:
        refused = save(loaded.path, {key.path: value})
    except OSError as error:
        raise Failure(f"the settings file {loaded.path} cannot be written: {error.strerror or error}") from error
    if refused is not None:
        raise Failure(refused.sentence, exit_code=USAGE)
    shown_value = SECRET if key.declared.secret else _text(value)
    told = f"{key.path} is {shown_value} in {loaded.path}"
    if not runs:
        sentence = f"{told}: a node takes it when it starts{_who_wins(loaded, key)}"
        return _changed(key, value, in_force=False, sentence=sentence)
    async with NodeClient(find(chosen)) as node:
        reply = await node.reload_settings()
    live = key.path in reply.applied
    if live:
        when = "in force now"
    elif key.path in reply.restart_required:
        when = "the running node takes it at its next start"
    else:
        when = "the running node sees no difference: it has this value already, or it reads another settings file"
    return _changed(key, value, in_force=live, sentence=f"{told}: {when}{_who_wins(loaded, key)}")


def _who_wins(loaded: Loaded, key: Key) -> str:
    if loaded.origins[key.path] is not Origin.ENVIRONMENT:
        return ""
    return f"; but {key.environment} is set here, and a node that is started from here obeys that"


def _changed(key: Key, value: Value, *, in_force: bool, sentence: str) -> SettingChanged:
    told = None if key.declared.secret else cast("bool | int | str | None", value)
    return SettingChanged(key=key.path, value=told, in_force=in_force, sentence=sentence)
