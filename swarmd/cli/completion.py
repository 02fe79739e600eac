"""`swarmd completion SHELL`: what TAB does in bash, zsh and fish, written from the parser.

Commands, options and fixed values stand in the script, so a TAB on them starts no program. Names of models, downloads,
adapters and so on are asked of the node (`names.py`) when a TAB wants them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final

import typer

from swarmd.cli.help_topics import TOPICS
from swarmd.cli.names import WORD
from swarmd.cli.outline import CommandLine, OptionLine, outline_of
from swarmd.cli.terminal import say
from swarmd.config.settings import KEYS, SECTIONS

FILES: Final = "file"
NAMES: Final = "names:"
WORDS: Final = "words:"

ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "load": (f"{NAMES}models",),
    "unload": (f"{NAMES}models",),
    "rm": (f"{NAMES}models",),
    "get": (f"{NAMES}models",),
    "lock": (f"{NAMES}models",),
    "unlock": (f"{NAMES}models",),
    "model add": (FILES,),
    "model fetch": (f"{NAMES}models",),
    "model remove": (f"{NAMES}models",),
    "downloads pause": (f"{NAMES}downloads",),
    "downloads resume": (f"{NAMES}downloads",),
    "downloads cancel": (f"{NAMES}downloads",),
    "downloads move": (f"{NAMES}downloads",),
    "responses show": (f"{NAMES}responses",),
    "responses cancel": (f"{NAMES}responses",),
    "responses rm": (f"{NAMES}responses",),
    "adapters add": (f"{NAMES}models", FILES),
    "adapters rm": (f"{NAMES}adapters",),
    "providers set": (f"{NAMES}providers",),
    "providers remove": (f"{NAMES}providers",),
    "revoke": (f"{NAMES}members",),
    "config get": (f"{WORDS}{' '.join(KEYS)}",),
    "config set": (f"{WORDS}{' '.join(KEYS)}",),
    "config list": (f"{WORDS}{' '.join(SECTIONS)}",),
}
"""What the first, the second ... argument of a command may be, where the parser does not say it."""

OPTIONS: Final[Mapping[str, str]] = {
    "--model": f"{NAMES}models",
    "-m": f"{NAMES}models",
    "--cancel": f"{NAMES}invites",
    "--role": f"{WORDS}member inviter",
    "--log-level": f"{WORDS}debug info warning error",
}
"""The same of the values of options."""


class Shell(StrEnum):
    """For which a script can be written."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(help="Which one you use: `echo $SHELL` says it.")]
) -> None:
    """Print the script that makes TAB complete commands, options, models and settings."""
    say(script(outline_of(context.find_root().command), shell), end="")


def script(root: CommandLine, shell: Shell) -> str:
    """For the commands of `root`."""
    return {Shell.BASH: bash, Shell.ZSH: zsh, Shell.FISH: fish}[shell](root)


def value_of(option: OptionLine) -> str:
    """What its value may be: FILES, or NAMES or WORDS with what follows, or nothing that could be completed."""
    known = next((OPTIONS[name] for name in option.names if name in OPTIONS), None)
    if known is not None:
        return known
    if option.choices:
        return WORDS + " ".join(option.choices)
    return FILES if option.is_path else ""


def arguments_of(command: CommandLine, root: CommandLine) -> tuple[str, ...]:
    """What each of its arguments may be; the last one holds for all that follow."""
    if command.name in ARGUMENTS:
        return ARGUMENTS[command.name]
    if command.name == "help":
        return (WORDS + " ".join([*TOPICS, *(child.path[-1] for child in root.children)]),)
    return tuple(WORDS + " ".join(one.choices) if one.choices else FILES if one.is_path else "" for one in command.arguments)


def _valued(command: CommandLine) -> list[tuple[str, str]]:
    """Options that take a value, by each of their names, and what it may be."""
    return [(name, value_of(one)) for one in command.options if one.metavar is not None for name in one.names]


def _quoted(text: str) -> str:
    """As one word of any of the three shells."""
    return "'" + text.replace("'", "’") + "'"  # noqa: RUF001 - a typographic one needs no escape in any of them


HEAD: Final = "# What TAB does behind `swarmd`. Written by `swarmd completion {shell}`: write it anew after an update.\n"

_BASH: Final = r"""
_swarmd_reply() {
    case "$1" in
        file) compopt -o filenames 2>/dev/null; COMPREPLY=( $(compgen -f -- "$cur") ) ;;
        words:*) COMPREPLY=( $(compgen -W "${1#words:}" -- "$cur") ) ;;
        names:*) COMPREPLY=( $(compgen -W "$(swarmd @WORD@ "${1#names:}" "${words[@]}" 2>/dev/null)" -- "$cur") ) ;;
    esac
}

_swarmd() {
    local cur prev words cword at="" count=0 skip="" i word subs options valued kinds
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n =: cur prev words cword
    else
        words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur="${words[cword]}"; prev="${words[cword-1]}"
    fi
    COMPREPLY=()
    _swarmd_at ""
    for ((i = 1; i < cword; i++)); do
        word="${words[i]}"
        if [[ -n "$skip" ]]; then skip=""; continue; fi
        if [[ "$word" == -* ]]; then
            [[ "$valued" == *" $word="* ]] && skip=1
        elif [[ "$count" == 0 && "$subs" == *" $word "* ]]; then
            at="${at:+$at }$word"; _swarmd_at "$at"
        else
            count=$((count + 1))
        fi
    done
    if [[ -n "$skip" ]]; then
        _swarmd_value "$prev"
    elif [[ "$cur" == -* ]]; then
        COMPREPLY=( $(compgen -W "$options" -- "$cur") )
    elif [[ "$count" == 0 && -n "${subs// /}" ]]; then
        COMPREPLY=( $(compgen -W "$subs" -- "$cur") )
    elif [[ "${#kinds[@]}" -gt 0 ]]; then
        [[ "$count" -ge "${#kinds[@]}" ]] && count=$((${#kinds[@]} - 1))
        _swarmd_reply "${kinds[count]}"
    fi
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
    return 0
}

complete -F _swarmd swarmd
"""


def bash(root: CommandLine) -> str:
    """Also for the old one of macOS, which has no associative arrays."""
    lines = [HEAD.format(shell="bash"), "_swarmd_at() {", '    case "$1" in']
    for command in root.walk():
        subs = " ".join(child.path[-1] for child in command.children)
        options = " ".join(name for one in command.options for name in one.names)
        valued = " ".join(f"{name}=" for name, _ in _valued(command))
        kinds = " ".join(map(_quoted, arguments_of(command, root)))
        lines.append(
            f"        {_quoted(command.name)}) subs={_quoted(f' {subs} ')}; options={_quoted(options)}; "
            f"valued={_quoted(f' {valued} ')}; kinds=({kinds}) ;;"
        )
    lines += ["    esac", "}", "", "_swarmd_value() {", '    case "$1" in']
    lines += [f"        {name}) _swarmd_reply {_quoted(kind)} ;;" for name, kind in _values(root)]
    return "\n".join([*lines, "    esac", "}"]) + _BASH.replace("@WORD@", WORD)


_ZSH: Final = r"""
_swarmd_reply() {
    local -a found
    case "$1" in
        file) _files ;;
        words:*) found=(${=1#words:}); compadd -a found ;;
        names:*) found=(${(f)"$(swarmd @WORD@ "${1#names:}" "${words[@]}" 2>/dev/null)"}); compadd -a found ;;
    esac
}

_swarmd() {
    local at="" skip="" word i
    local -a subs options kinds valued names
    integer count=0
    _swarmd_at ""
    for ((i = 2; i < CURRENT; i++)); do
        word="${words[i]}"
        if [[ -n "$skip" ]]; then skip=""; continue; fi
        names=(${subs%%:*})
        if [[ "$word" == -* ]]; then
            (( ${valued[(Ie)$word]} )) && skip=1
        elif (( count == 0 && ${names[(Ie)$word]} )); then
            at="${at:+$at }$word"; _swarmd_at "$at"
        else
            (( count += 1 ))
        fi
    done
    if [[ -n "$skip" ]]; then
        _swarmd_value "${words[CURRENT-1]}"
    elif [[ "${words[CURRENT]}" == -* ]]; then
        _describe -o option options
    elif (( count == 0 && ${#subs} )); then
        _describe command subs
    elif (( ${#kinds} )); then
        (( count >= ${#kinds} )) && count=$((${#kinds} - 1))
        _swarmd_reply "${kinds[count+1]}"
    fi
}

if [[ "${funcstack[1]}" == _swarmd ]]; then _swarmd "$@"; else compdef _swarmd swarmd; fi
"""


def zsh(root: CommandLine) -> str:
    """With what each command and option does. To be autoloaded as `_swarmd`, or sourced."""
    lines = ["#compdef swarmd", HEAD.format(shell="zsh"), "_swarmd_at() {", '    case "$1" in']
    for command in root.walk():
        subs = " ".join(_quoted(f"{child.path[-1]}:{_short(child.help)}") for child in command.children)
        options = " ".join(_quoted(f"{name}:{_short(one.help)}") for one in command.options for name in one.names)
        valued = " ".join(name for name, _ in _valued(command))
        kinds = " ".join(map(_quoted, arguments_of(command, root)))
        lines.append(
            f"        {_quoted(command.name)}) subs=({subs}); options=({options}); valued=({valued}); kinds=({kinds}) ;;"
        )
    lines += ["    esac", "}", "", "_swarmd_value() {", '    case "$1" in']
    lines += [f"        {name}) _swarmd_reply {_quoted(kind)} ;;" for name, kind in _values(root)]
    return "\n".join([*lines, "    esac", "}"]) + _ZSH.replace("@WORD@", WORD)


_FISH: Final = r"""
function __swarmd_where
    set -l at ""
    set -l count 0
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            contains -- "$at $word" $__swarmd_valued; and set skip 1
        else if test $count = 0; and contains -- (string trim -- "$at $word") $__swarmd_paths
            set at (string trim -- "$at $word")
        else
            set count (math $count + 1)
        end
    end
    echo $at
    echo $count
end

function __swarmd_at -a wanted least most
    set -l found (__swarmd_where)
    test "$found[1]" = "$wanted"; or return 1
    test $found[2] -ge $least; and test $found[2] -le $most
end

complete -c swarmd -f
"""
_MANY: Final = 1_000_000  # arguments: of a command that takes any number


def fish(root: CommandLine) -> str:
    """With what each command and option does."""
    paths = " ".join(_quoted(command.name) for command in root.walk() if command.path)
    valued = " ".join(_quoted(f"{command.name} {name}") for command in root.walk() for name, _ in _valued(command))
    head = f"{HEAD.format(shell='fish')}\nset -g __swarmd_paths {paths}\nset -g __swarmd_valued {valued}\n"
    return head + _FISH + "".join(f"{line}\n" for command in root.walk() for line in _fish_lines(command, root))


def _fish_lines(command: CommandLine, root: CommandLine) -> Iterator[str]:
    here = _fish_at(command, 0, _MANY)
    for child in command.children:
        yield f"{_fish_at(command, 0, 0)} -a {child.path[-1]} -d {_quoted(_short(child.help))}"
    for one in command.options:
        named = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in one.names)
        value = "" if one.metavar is None else f" -r{_fish_value(value_of(one))}"
        yield f"{here} {named}{value} -d {_quoted(_short(one.help))}"
    kinds = arguments_of(command, root)
    for at, kind in enumerate(kinds):
        if kind:
            last = _MANY if at == len(kinds) - 1 else at
            yield f"{_fish_at(command, at, last)}{_fish_value(kind)}"


def _fish_at(command: CommandLine, least: int, most: int) -> str:
    """The beginning of a line that holds behind so many arguments of the command."""
    where = f'__swarmd_at "{command.name}" {least} {most}'
    return f"complete -c swarmd -n {_quoted(where)}"


def _fish_value(kind: str) -> str:
    if kind == FILES:
        return " -F"
    if kind.startswith(WORDS):
        return f" -a {_quoted(kind.removeprefix(WORDS))}"
    if kind.startswith(NAMES):
        return f" -a {_quoted(f'(swarmd {WORD} {kind.removeprefix(NAMES)} (commandline -opc) 2>/dev/null)')}"
    return ""


def _values(root: CommandLine) -> list[tuple[str, str]]:
    """Of all options whose values can be completed. One name means one kind, whichever command has it."""
    found = {name: kind for command in root.walk() for name, kind in _valued(command) if kind}
    return list(found.items())


def _short(text: str) -> str:
    """The first sentence, without what the shells' lists of `name:description` would take for their own."""
    return text.split(". ")[0].split("; ")[0].rstrip(".").replace(":", ",").replace("`", "").replace("$", "")
