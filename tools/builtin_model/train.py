"""Trains the built-in model with torch on the CPU. Development only: nothing of this runs in a node.

    python train.py --out FOLDER [--steps N] [--threads 2]
    python train.py --out FOLDER --second FIRST/checkpoint.pt
    python train.py --new-tokenizer        writes tokenizer.json beside this file, and ends

The first part learns the answers and the plain wordings; the second goes on from its checkpoint with loosened wordings
(corpus.Talker.loosen). Writes `checkpoint.pt` (regularly) and `log.txt` to FOLDER; export.py makes the GGUF from the
checkpoint.
The recipe with the measured figures is in README.md.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import BEGIN, HERE, SPECIALS, Talker, load_text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

SEED = 20
# The tokenizer is a file of its own, not made anew with each training: the token ids stay when the text changes.
TOKENIZER = HERE / "tokenizer.json"
TOKENIZER_CHATS = 20_000  # every answer about 80 times: their words become whole tokens, and a reply about 35 of them
# What a token counts in the loss. Which answer to give is decided in its first words, and the rest is recited: at equal
# weights the model learnt to recite long before it looked at the question. A little weight on the words of the question
# makes it learn what they mean.
OPENING, OPENING_WEIGHT, ANSWER_WEIGHT, QUESTION_WEIGHT = 6, 4.0, 1.0, 0.1


@dataclass(frozen=True)
class Shape:
    """llama architecture. 8 layers, so that it can be split over up to 8 nodes; 6.4 M weights are 6.8 MB as Q8_0."""

    vocab: int = 1024
    layers: int = 8
    width: int = 256
    heads: int = 8
    kv_heads: int = 4
    ff: int = 704  # 2.75 times the width, a multiple of the Q8_0 block of 32
    context: int = 1024
    rope_base: float = 10000.0
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The learning rate is high because the model is small."""

    steps: int = 2600
    tokens_per_batch: int = 4096  # padded; about 45 chats
    longest: int = 640  # longer chats are left out: fewer than one in a hundred
    peak_rate: float = 2e-3
    final_rate: float = 4e-5
    warmup: int = 150
    weight_decay: float = 0.05
    loose: float = 0.0  # share of questions that are loosened
    noise: float = 0.02  # share of question tokens replaced by random ones, so that one odd word derails nothing


# Loosened wordings come second because half of them are hard to read: learnt from the start, they hide the plain ones.
SECOND = Schedule(steps=900, peak_rate=1e-3, warmup=50, loose=0.5)


class RMSNorm(nn.Module):
    """Root mean square norm with a gain, as llama has it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Block(nn.Module):
    """One layer: attention with grouped keys, then a gated feed-forward net."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s, self.head = s, s.width // s.heads
        kv = self.head * s.kv_heads
        self.attn_norm, self.ffn_norm = RMSNorm(s.width, s.norm_eps), RMSNorm(s.width, s.norm_eps)
        self.attn_q = nn.Linear(s.width, s.width, bias=False)
        self.attn_k = nn.Linear(s.width, kv, bias=False)
        self.attn_v = nn.Linear(s.width, kv, bias=False)
        self.attn_output = nn.Linear(s.width, s.width, bias=False)
        self.ffn_gate = nn.Linear(s.width, s.ff, bias=False)
        self.ffn_up = nn.Linear(s.width, s.ff, bias=False)
        self.ffn_down = nn.Linear(s.ff, s.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(b, t, -1, self.head), cos, sin).transpose(1, 2)
        k = rotate(self.attn_k(h).view(b, t, -1, self.head), cos, sin).transpose(1, 2)
        v = self.attn_v(h).view(b, t, -1, self.head).transpose(1, 2)
        groups = self.s.heads // self.s.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        # Attention in float32: its backward pass on the CPU takes four times as long in bfloat16.
        with torch.autocast("cpu", enabled=False):
            a = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        x = x + self.attn_output(a.transpose(1, 2).reshape(b, t, -1))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on neighbouring pairs (2i, 2i+1), as the GGUF llama architecture has them."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Model(nn.Module):
    """The whole model; module names follow the GGUF tensor names."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.token_embd = nn.Embedding(s.vocab, s.width)
        self.blk = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.output_norm = RMSNorm(s.width, s.norm_eps)
        self.output = nn.Linear(s.width, s.vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                # Small outputs of each residual branch at the start keep eight layers stable at the high learning rate.
                branch = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * s.layers) if branch else 0.04)
        head = s.width // s.heads
        angle = torch.outer(torch.arange(s.context).float(), s.rope_base ** (-torch.arange(0, head, 2).float() / head))
        self.cos, self.sin = angle.cos()[:, None, :], angle.sin()[:, None, :]

    def hidden(self, tokens: Tensor) -> Tensor:
        x = self.token_embd(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.hidden(tokens))


def train_tokenizer(talker: Talker, size: int) -> Tokenizer:
    """Byte-level BPE with the splitting of GPT-2, which llama.cpp knows as `gpt-2`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for turns in talker.chats(TOKENIZER_CHATS) for _, text in turns), trainer)
    assert tokenizer.get_vocab_size() == size
    assert [tokenizer.token_to_id(t) for t in SPECIALS] == list(range(len(SPECIALS)))
    return tokenizer


@dataclass
class Encoded:
    """A chat as tokens, with what each token counts in the loss when the model has to predict it."""

    tokens: list[int]
    weights: list[float]


def encode(tokenizer: Tokenizer, chats: list[list[tuple[str, str]]], rng: random.Random) -> list[Encoded]:
    """Tokens and weights of chats."""
    out: list[Encoded] = []
    heads = {role: tokenizer.encode(f"<|{role}|>\n").ids for role in ("system", "user", "assistant")}
    end, newline = tokenizer.encode("<|end|>\n").ids
    texts = iter(tokenizer.encode_batch([text for turns in chats for _, text in turns]))
    for turns in chats:
        # One chat in ten begins with the begin mark, so that a program that adds it does no harm.
        tokens = [SPECIALS.index(BEGIN)] if rng.random() < 0.1 else []
        weights = [0.0] * len(tokens)
        for role, _ in turns:
            body = next(texts).ids
            tokens += [*heads[role], *body, end, newline]
            if role == "assistant":
                first = min(OPENING, len(body))
                counted = [OPENING_WEIGHT] * first + [ANSWER_WEIGHT] * (len(body) - first + 1)
            else:
                counted = [QUESTION_WEIGHT if role == "user" else 0.0] * len(body) + [0.0]
            weights += [0.0] * len(heads[role]) + counted + [0.0]
        out.append(Encoded(tokens, weights))
    return out


Triple = tuple[Tensor, Tensor, Tensor]  # tokens, the tokens that follow them, what those count


def collate(group: list[Encoded]) -> Triple:
    """Chats side by side, padded at the end: the zeros are the pad token and count nothing."""
    length = max(len(e.tokens) for e in group)
    tokens = torch.zeros(len(group), length, dtype=torch.long)
    weights = torch.zeros(len(group), length)
    for row, e in enumerate(group):
        tokens[row, : len(e.tokens)] = torch.tensor(e.tokens)
        weights[row, : len(e.tokens)] = torch.tensor(e.weights)
    return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]


def batches(tokenizer: Tokenizer, talker: Talker, s: Shape, plan: Schedule, rng: random.Random) -> Iterator[Triple]:
    """Endless batches of chats of similar length."""
    specials = len(SPECIALS)
    while True:
        pool = encode(tokenizer, list(talker.chats(4000)), rng)
        pool = sorted((e for e in pool if len(e.tokens) <= plan.longest), key=lambda e: len(e.tokens))
        groups: list[list[Encoded]] = [[]]
        for e in pool:
            if (len(groups[-1]) + 1) * len(e.tokens) > plan.tokens_per_batch:
                groups.append([])
            groups[-1].append(e)
        rng.shuffle(groups)
        for group in groups:
            tokens, target, weights = collate(group)
            # A token's own weight stands one place to the left in `weights`; the first token is always a mark.
            question = F.pad(weights, (1, 0))[:, :-1] == QUESTION_WEIGHT
            noisy = (torch.rand(tokens.shape) < plan.noise) & question & (tokens >= specials)
            yield torch.where(noisy, torch.randint(specials, s.vocab, tokens.shape), tokens), target, weights


def rate(step: int, plan: Schedule) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    if step < plan.warmup:
        return plan.peak_rate * (step + 1) / plan.warmup
    x = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    return plan.final_rate + (plan.peak_rate - plan.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, x)))


def loss_of(model: Model, batch: Triple) -> Tensor:
    """Weighted mean cross-entropy. Products in bfloat16 (a step takes half the time), the loss in float32."""
    tokens, target, weights = batch
    chosen = weights > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.output(model.hidden(tokens)[chosen])
    each = F.cross_entropy(logits.float(), target[chosen], reduction="none")
    return (each * weights[chosen]).sum() / weights.sum()


@torch.no_grad()
def answer_loss(model: Model, chats: list[Encoded]) -> float:
    """Nats per answer token, all counted alike, on chats that training did not draw."""
    total, count = 0.0, 0
    for i in range(0, len(chats), 40):
        tokens, target, weights = collate(chats[i : i + 40])
        chosen = weights >= ANSWER_WEIGHT
        logits = model.output(model.hidden(tokens)[chosen])
        total += F.cross_entropy(logits, target[chosen], reduction="sum").item()
        count += int(chosen.sum())
    return total / count


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--second", type=Path, help="checkpoint of the first part")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--new-tokenizer", action="store_true")
    args = parser.parse_args()
    if not args.new_tokenizer and args.out is None:
        parser.error("--out is needed")
    return args


def main() -> None:
    """Trains and writes checkpoints."""
    args = arguments()
    text = load_text()
    s, plan = Shape(), SECOND if args.second else Schedule()
    plan = replace(plan, steps=args.steps or plan.steps)
    if args.new_tokenizer:
        train_tokenizer(Talker(text, random.Random(SEED)), s.vocab).save(str(TOKENIZER))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    seed = SEED + 100 if args.second else SEED  # another text than the first part has seen
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    judge_rng = random.Random(SEED + 1)
    judged = encode(tokenizer, list(Talker(text, judge_rng, plan.loose).chats(400)), judge_rng)
    model = Model(s)
    if args.second:
        model.load_state_dict(torch.load(args.second, weights_only=True)["model"])
    # Norm gains are few and have no reason to be small, so only the matrices decay.
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    started, seen, total, count = time.monotonic(), 0, 0.0, 0
    source = batches(tokenizer, Talker(text, rng, plan.loose), s, plan, rng)
    for step in range(1, plan.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step - 1, plan)
        batch = next(source)
        loss = loss_of(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen, total, count = seen + batch[0].numel(), total + loss.item(), count + 1
        due = step % args.every == 0 or step == plan.steps
        if step % 50 == 0 or due:
            record = {"step": step, "loss": round(total / count, 4), "tokens": seen}
            record["seconds"] = round(time.monotonic() - started)
            if due:
                record["answer_loss"] = round(answer_loss(model, judged), 4)
                part = args.out / "checkpoint.part"
                torch.save({"shape": asdict(s), "step": step, "model": model.state_dict()}, part)
                part.replace(args.out / "checkpoint.pt")
            with (args.out / "log.txt").open("a") as log:
                print(json.dumps(record), file=log)
            total, count = 0.0, 0


if __name__ == "__main__":
    main()
