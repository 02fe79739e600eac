"""`swarmd bench`: how fast this node answers with the swarm behind it, measured from outside through its API.

Not the repository's bench/, which compares versions on machines that are still. This takes some seconds beside whatever else
runs, and says what a user would have waited for.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from msgspec import Struct

from swarmd.cli.chat import Model
from swarmd.cli.client import NodeClient, Turn
from swarmd.cli.conversation import Reply, Wishes, stream_answer
from swarmd.cli.failure import Failure
from swarmd.cli.hops import hop_count, layers_text
from swarmd.cli.network import AsJson
from swarmd.cli.place import Chosen, Config, DataFolder, KeyFile, Url, find
from swarmd.cli.terminal import errors, finish, say, say_json, show_table
from swarmd.domain.ids import SHORT_NODE_DIGITS
from swarmd.kit.world import real_world

PINGS: Final = 20  # round trips to the API: enough for a median, done in some milliseconds
TEXT: Final = (
    "A node holds some layers of a model, and the next node holds those that follow. Explain to a friend, in your own words "
    "and with an example from a kitchen, why several small machines can answer together what none of them could alone."
)
MARK_BYTES: Final = 6  # each prompt begins with as many by chance, so that no cache of earlier prompts helps


class StageLine(Struct, frozen=True, kw_only=True):
    """One node of the pipeline, over all counted replies."""

    node: str
    layers: tuple[int, int]
    """From, to; the end is not included."""
    compute_ms: float
    """Per token, median of the replies: inside the engine."""
    node_ms: float
    """Per token: from arrival at the node to departure."""


class Measured(Struct, frozen=True, kw_only=True):
    """What `bench --json` prints. Times in milliseconds; medians of the counted replies."""

    node_id: str
    model: str
    replies: int
    users: int
    """Replies at a time."""
    api_ms: float
    """Round trip of the cheapest request, GET /health."""
    warm_up_ms: float
    """First token of the first reply, which is not counted: it may have loaded the model."""
    prompt_tokens: int
    """Of one prompt."""
    reply_tokens: int
    """Of all counted replies."""
    first_token_ms: float
    first_token_worst_ms: float
    prompt_tokens_per_second: float | None
    """null: the whole prompt was in the caches, so nothing was measured."""
    tokens_per_second: float
    """Of one reply, as the client sees it: tokens after the first, by the time after the first."""
    tokens_per_second_all: float
    """Of all users together, prompts and pauses included."""
    guessed_tokens: int
    guesses_right: int
    hops: int
    hop_ms: float | None
    """One crossing between two machines, for one token; null: nothing was crossed."""
    stages: list[StageLine]


def bench(
    *,
    model: Model = "auto",
    rounds: Annotated[int, typer.Option("--rounds", "-n", min=1, max=1000, help="Counted replies of each user.")] = 3,
    tokens: Annotated[int, typer.Option("--tokens", min=2, max=4096, help="Longest reply.")] = 64,
    users: Annotated[int, typer.Option("--users", min=1, max=64, help="Replies at the same time.")] = 1,
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataFolder = None,
    config: Config = None,
    key_file: KeyFile = None,
) -> None:
    """Measure the node and its swarm through the API: first token, tokens per second, time on each node and hop."""
    chosen = Chosen(url=url, data_dir=data_dir, config=config, key_file=key_file)
    found = finish(_bench(chosen, model, rounds=rounds, tokens=tokens, users=users))
    if as_json:
        say_json(found)
        return
    for line in lines_of(found):
        say(line)
    rows = [(one.node, layers_text(one), f"{one.compute_ms:.2f} ms", f"{one.node_ms:.2f} ms") for one in found.stages]
    show_table(("node", "layers", "engine, a token", "node, a token"), rows, numbers=("engine, a token", "node, a token"))


async def _bench(chosen: Chosen, model: str, *, rounds: int, tokens: int, users: int) -> Measured:
    wishes = Wishes(max_tokens=tokens, temperature=0.0, seed=1)
    clock = asyncio.get_running_loop().time
    async with NodeClient(find(chosen)) as node:
        head = (await node.stats()).node_id
        errors().print("measuring: a first reply that is not counted, then the others ...", style="dim")
        warm_up = await _reply(node, model, wishes)
        api_ms = await _api_ms(node)
        started = clock()
        shares = await asyncio.gather(*(_user(node, model, wishes, rounds) for _ in range(users)))
        seconds = clock() - started
    replies = [one for share in shares for one in share]
    return measured(head[:SHORT_NODE_DIGITS], users, warm_up, replies, api_ms=api_ms, seconds=seconds)


async def _user(node: NodeClient, model: str, wishes: Wishes, rounds: int) -> list[Reply]:
    return [await _reply(node, model, wishes) for _ in range(rounds)]


async def _reply(node: NodeClient, model: str, wishes: Wishes) -> Reply:
    turn = Turn(role="user", content=f"{real_world().entropy.token(MARK_BYTES).hex()}. {TEXT}")
    return await stream_answer(node, model, [turn], lambda _text: None, wishes)


async def _api_ms(node: NodeClient) -> float:
    clock = asyncio.get_running_loop().time
    found: list[float] = []
    for _ in range(PINGS):
        started = clock()
        await node.health()
        found.append(1000 * (clock() - started))
    return statistics.median(found)


def measured(head: str, users: int, warm_up: Reply, replies: Sequence[Reply], *, api_ms: float, seconds: float) -> Measured:
    """Raises Failure where the replies say too little to be measured."""
    speeds = [speed for one in replies if (speed := decode_speed(one)) is not None]
    first = [1000 * one.first_s for one in replies if one.first_s is not None]
    swarms = [one.swarm for one in replies if one.swarm is not None]
    usages = [one.usage for one in replies if one.usage is not None]
    if not speeds or not first or not swarms or not usages:
        raise Failure("the model said too little to be measured: ask for more --tokens, or measure another one with --model")
    prompts = [
        1000 * (usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens) / swarm.prefill_ms
        for usage, swarm in zip(usages, swarms, strict=False)
        if swarm.prefill_ms > 0 and usage.prompt_tokens > usage.prompt_tokens_details.cached_tokens
    ]
    nodes = [stage.node for stage in swarms[-1].stages]
    hops = hop_count(head, nodes)
    # The way may change between replies; what is shown is the last one's.
    alike = [swarm for swarm in swarms if [stage.node for stage in swarm.stages] == nodes]
    total = sum(usage.completion_tokens for usage in usages)
    return Measured(
        node_id=head, model=replies[-1].model, replies=len(replies), users=users, api_ms=api_ms,
        warm_up_ms=1000 * (warm_up.first_s or warm_up.seconds), prompt_tokens=usages[-1].prompt_tokens, reply_tokens=total,
        first_token_ms=statistics.median(first), first_token_worst_ms=max(first),
        prompt_tokens_per_second=statistics.median(prompts) if prompts else None,
        tokens_per_second=statistics.median(speeds), tokens_per_second_all=total / seconds,
        guessed_tokens=sum(swarm.proposed_tokens for swarm in swarms),
        guesses_right=sum(swarm.accepted_tokens for swarm in swarms),
        hops=hops, hop_ms=statistics.median(swarm.link_ms for swarm in alike) / hops if hops else None,
        stages=[
            StageLine(
                node=stage.node, layers=stage.layers,
                compute_ms=statistics.median(swarm.stages[at].compute_ms for swarm in alike),
                node_ms=statistics.median(swarm.stages[at].node_ms for swarm in alike),
            )
            for at, stage in enumerate(swarms[-1].stages)
        ],
    )  # fmt: skip


def decode_speed(reply: Reply) -> float | None:
    """Tokens a second after the first one; None of a reply that was over with its first token."""
    if reply.first_s is None or reply.usage is None or reply.usage.completion_tokens < 2:
        return None
    rest = reply.seconds - reply.first_s
    return (reply.usage.completion_tokens - 1) / rest if rest > 0 else None


def lines_of(found: Measured) -> list[str]:
    """The same for people, without the stages."""
    prompt = found.prompt_tokens_per_second
    read = "all of it was in the caches" if prompt is None else f"{prompt:.0f} tokens/s"
    together = f", {found.tokens_per_second_all:.1f} of {found.users} users together" if found.users > 1 else ""
    hop = "none: one node answers alone" if found.hop_ms is None else f"{found.hops} for a token, {found.hop_ms:.2f} ms each"
    guesses = f"{found.guesses_right} of {found.guessed_tokens} guessed tokens were right"
    return [
        f"model        {found.model}, asked through node {found.node_id}",
        f"replies      {found.replies} with {found.reply_tokens} tokens; prompts of {found.prompt_tokens} tokens",
        f"API          {found.api_ms:.2f} ms for the cheapest request",
        f"first token  {found.first_token_ms:.0f} ms, worst {found.first_token_worst_ms:.0f} ms, "
        f"{found.warm_up_ms:.0f} ms in the reply before",
        f"prompt       {read}",
        f"reply        {found.tokens_per_second:.1f} tokens/s{together}",
        f"hops         {hop}",
        f"guesses      {guesses if found.guessed_tokens else 'none'}",
    ]
