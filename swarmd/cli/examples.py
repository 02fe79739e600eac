"""Examples of every command: the end of its `--help`, and a part of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmd.cli.terminal import output

EXAMPLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "": (
        ("swarmd run", "a node, until Ctrl-C; its dashboard is on http://127.0.0.1:8800"),
        ('swarmd ask "What is a shard?"', "one question"),
        ("swarmd help exit-codes", "what the exit codes mean"),
    ),
    "chat": (
        ("swarmd chat", "a conversation; /help lists its commands"),
        ("swarmd chat -m swarmd-builtin --temperature 0", "with one model, always the likeliest word"),
    ),
    "ask": (
        ('swarmd ask "What is a shard?"', "the reply on stdout, who computed it on stderr"),
        ('git diff | swarmd ask "What does this change?"', "stdin is the context of the question"),
        ('swarmd ask -q --json "Hi" | jq -r .reply', "for programs"),
    ),
    "responses": (
        ("swarmd responses --status queued,in_progress --watch", "what runs"),
        ("swarmd responses show resp_...", "the text of one"),
    ),
    "status": (("swarmd status --watch", "again every two seconds"), ("swarmd status --json", "for programs")),
    "bench": (
        ("swarmd bench", "three replies with the default model"),
        ("swarmd bench -m swarmd-builtin --users 4 --rounds 5", "four at a time, five each"),
    ),
    "models": (("swarmd models", "what this node knows"), ("swarmd models --json | jq -r '.[].id'", "the names alone")),
    "search": (("swarmd search qwen 0.5b", "GGUF models whose names contain both"),),
    "get": (
        ("swarmd get Qwen/Qwen2.5-0.5B-Instruct-GGUF", "the recommended variant, all of it"),
        ("swarmd get Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M --fair-share", "another variant, this node's share"),
        ("swarmd get swarmd-builtin --shards 0-2", "shards of a model that another node has"),
    ),
    "downloads": (
        ("swarmd downloads --watch", "progress, speed and source by shard"),
        ("swarmd downloads pause MODEL", "what has arrived stays"),
    ),
    "downloads move": (("swarmd downloads move MODEL 0", "before all others"),),
    "load": (("swarmd load swarmd-builtin", "the shards that are here"), ("swarmd load MODEL --shard 3", "one of them")),
    "unload": (("swarmd unload swarmd-builtin", "out of memory; the files stay"),),
    "rm": (
        ("swarmd rm MODEL", "asks first"),
        ("swarmd rm MODEL --shard 3 --shard 4 --yes", "two shards, without asking"),
    ),
    "model add": (
        ("swarmd model add ~/models/tiny.gguf", "of a split file any part, with the others beside it"),
        ("swarmd model add tiny.gguf --shard-size-mb 64", "cut into smaller shards"),
    ),
    "model fetch": (("swarmd model fetch MODEL --shard 2 --shard 3", "two shards from the nodes that have them"),),
    "adapters add": (
        ("swarmd adapters add MODEL adapter_model.safetensors --id polite", "from then on MODEL:polite answers"),
    ),
    "providers": (
        ("swarmd providers", "who can be asked, and how they answer"),
        ("swarmd providers --quick", "without asking them"),
    ),
    "providers set": (
        ("swarmd providers set openai", "asks for the key"),
        ("swarmd providers set groq < key.txt", "reads it"),
    ),
    "providers key-source": (
        ("swarmd providers key-source node", "keys of the environment do not count any more"),
        ("swarmd providers key-source auto", "both count"),
    ),
    "providers subscription": (
        ("swarmd providers subscription on", "claude-* by the claude program, once the feature is on"),
        ("swarmd providers subscription off", "by an API key again"),
    ),
    "providers add": (
        ("swarmd providers add gpu http://192.168.1.20:8000/v1", "vLLM, SGLang or llama-server; ask for gpu:MODEL"),
    ),
    "autopilot": (
        ("swarmd autopilot --all", "what it would do, and why not the rest"),
        ("swarmd autopilot on", "switch it on"),
    ),
    "lock": (("swarmd lock MODEL 3", "only a person deletes shard 3 here"),),
    "invite": (
        ("swarmd invite", "a code for one node and a day"),
        ("swarmd invite --uses 5 --life 7d --qr", "for five nodes, as a QR code too"),
        ("swarmd invite --short", "a number and two words, to be typed in the same room"),
        ("swarmd invite --list", "what became of the codes"),
    ),
    "join": (
        ("swarmd join swarm://...", "what `swarmd invite` printed on a member"),
        ("swarmd join 7-crossover-clockwork --at 192.168.1.5", "a short code, where it is not in the local network"),
    ),
    "peers": (("swarmd peers --watch", "the other nodes"), ("swarmd peers --links", "every connection and its path")),
    "members": (("swarmd members", "who belongs to the swarm, and who let it in"),),
    "revoke": (("swarmd revoke 3f0c9a1b", "asks first; the first eight digits of the id do"),),
    "credits": (
        ("swarmd credits", "the account"),
        ("swarmd credits --entries -n 20", "what it is made of"),
        ("swarmd credits --peers", "with whom"),
    ),
    "run": (
        ("swarmd run", "with the data folder of the platform"),
        ("swarmd run --data-dir /srv/swarmd --port 8900 --listen 0.0.0.0", "a second node, open to other machines"),
        ("swarmd run --peer swarm://...", "and join a swarm with an invite code"),
    ),
    "up": (("swarmd up", "in the background; it says where the node is"), ("swarmd up --port 8900", "as `run`")),
    "down": (("swarmd down", "end it"),),
    "service": (("swarmd service status", "whether it is installed, and runs"),),
    "service install": (
        ("sudo swarmd service install", "for the system, with a user of its own"),
        ("swarmd service install --user", "for you, without root"),
    ),
    "service uninstall": (("swarmd service uninstall --user", "keys, state and shards stay"),),
    "service status": (("swarmd service status", "whether it is installed, and runs"),),
    "update": (("swarmd update", "which version the node runs, and what is known of newer ones"),),
    "update check": (("swarmd update check", "look now"),),
    "update apply": (
        ("swarmd update apply", "switch, and wait until the node is back"),
        ("swarmd update apply --retry", "also to a version that was taken back"),
    ),
    "logs": (("swarmd logs -f", "the last hundred lines, then what comes"), ("swarmd logs -n 1000", "more of them")),
    "config": (("swarmd config list network", "the settings of one section"),),
    "config list": (("swarmd config list", "all of them"), ("swarmd config list resources", "one section")),
    "config get": (("swarmd config get node.contribution", "the value alone"),),
    "config set": (
        ("swarmd config set node.contribution moderate", "at once: this one is live"),
        ("swarmd config set node.listen_port 8900", "at the next start, and it says so"),
        ("swarmd config set api.api_key - < key", "a secret, from a file"),
    ),
    "doctor": (("swarmd doctor", "is this machine fit, and how fast; needs no running node"),),
    "completion": (
        ("swarmd completion bash > ~/.local/share/bash-completion/completions/swarmd", "for bash"),
        ("swarmd completion zsh > ~/.zfunc/_swarmd", "for zsh, with fpath+=~/.zfunc before compinit"),
        ("swarmd completion fish > ~/.config/fish/completions/swarmd.fish", "for fish"),
    ),
    "help": (("swarmd help exit-codes", "a topic"), ("swarmd help downloads move", "the help of a command")),
}


def say_examples(command: str) -> None:
    """Behind the help. `command`: `model add`; empty for the program itself."""
    found = EXAMPLES.get(command, ())
    if not found:
        return
    paper = output()
    paper.print("Examples", style="bold", markup=False)
    for line, what in found:
        paper.print(f"  # {what}", style="dim", markup=False, soft_wrap=True)
        paper.print(f"  {line}", markup=False, soft_wrap=True)
    paper.print()
