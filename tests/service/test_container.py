"""The container file: what it copies exists, nothing runs as root, and data, ports and health are declared."""

from __future__ import annotations

import json
import re
import shlex

from swarmd.config.settings import KEYS, PEER_PORT_OFFSET
from tests.meta.sources import ROOT

KNOWN = {
    "FROM",
    "WORKDIR",
    "COPY",
    "RUN",
    "ENV",
    "USER",
    "VOLUME",
    "EXPOSE",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def the(word: str) -> str:
    """Of the last stage, which is the image."""
    return [rest for one, rest in instructions() if one == word][-1]


def test_every_line_is_an_instruction_and_the_first_one_a_base_with_a_version() -> None:
    found = instructions()
    assert {word for word, _ in found} <= KNOWN and found[0][0] == "FROM"
    for _, rest in (one for one in found if one[0] == "FROM"):
        assert re.match(r"docker\.io/library/python:3\.1[1-9]-slim-\w+( AS \w+)?$", rest), (
            "no tag that moves to another Python"
        )


def test_what_it_copies_exists_and_is_what_the_wheel_needs() -> None:
    copied: set[str] = set()
    for _, rest in (one for one in instructions() if one[0] == "COPY"):
        words = shlex.split(rest)
        if words[0].startswith("--from="):
            continue
        copied |= set(words[:-1])
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "swarmd", "systemd"} <= copied, "pyproject.toml names these"


def test_it_is_not_root_and_what_it_keeps_is_a_volume() -> None:
    words = [word for word, _ in instructions()]
    assert the("USER") == "swarmd" and words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")
    assert json.loads(the("VOLUME")) == ["/var/lib/swarmd"]


def test_its_settings_are_settings() -> None:
    environ = dict(one.split("=", 1) for one in shlex.split(the("ENV")))
    names = {key.environment: key for key in KEYS.values()}
    ours = {name: text for name, text in environ.items() if name.startswith("SWARMD_")}
    assert ours and set(ours) <= set(names)
    assert ours["SWARMD_NODE_LISTEN_ADDRESS"] == "0.0.0.0", "else nobody outside reaches it"
    assert all(names[name].problem(text) is None for name, text in ours.items() if names[name].kind == "text")


def test_ports_health_and_command() -> None:
    port = KEYS["node.listen_port"].default
    assert isinstance(port, int)
    assert the("EXPOSE").split() == [str(port), str(port + PEER_PORT_OFFSET)]
    health = the("HEALTHCHECK")
    command = json.loads(health[health.index("CMD") + 4 :])
    assert f":{port}/health/ready" in command[-1]
    compile(command[-1], "healthcheck", "exec")
    assert [json.loads(the("ENTRYPOINT")), json.loads(the("CMD"))] == [["swarmd"], ["run"]]
