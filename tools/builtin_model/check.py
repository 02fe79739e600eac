"""Compares an exported GGUF with the checkpoint it came from, in llama.cpp. Development only: needs torch.

    python check.py --run FOLDER [--model FILE.gguf]

Four checks: llama.cpp cuts the whole text into the tokens of the training tokenizer; the chat template writes what
corpus.render writes; the logits of both agree but for the rounding of Q8_0; held-out questions are not in the text.
"""

import argparse
import random
import tomllib
from pathlib import Path

import gguf
import jinja2
import numpy as np
import torch
from ask import MODEL
from corpus import ASSISTANT, HERE, Talker, Text, load_text, normalise, render
from export import CHAT_TEMPLATE
from llama_cpp import Llama
from tokenizers import Tokenizer
from train import TOKENIZER, Model, Shape

CHATS = 3000  # about 350,000 tokens: every answer many times, and every kind of slip the text makes
# Bytes outside ASCII, spaces in odd places, numbers, contractions: what users type and the text hardly has.
ODD_TEXTS = (
    "  two  spaces\n\n\nand lines \t tab ",
    "don't WE'LL it's 1234567 3.14 http://localhost:8800/v1?x=1&y=2",
    "Grüße, señor! Ελλάδα 日本語 🙂👩‍🚀 \u200b\u00a0x",
    "`code` $(x) {a|b} <|notamark|> <|user |> %%%___---===",
)
LOGIT_ERROR = 0.05  # of the spread of the logits; Q8_0 rounds weights by at most 1/254 of the largest of a block


def same_tokens(model: Llama, tokenizer: Tokenizer, text: Text) -> None:
    """llama.cpp against the training tokenizer, text by text and chat by chat."""
    chats = [render(turns) for turns in Talker(text, random.Random(7)).chats(CHATS)]
    questions = [q for t in text.topics for p in t.patterns for q in p[:20]]
    total = 0
    for piece in (*chats, *questions, *ODD_TEXTS):
        ours, theirs = tokenizer.encode(piece).ids, model.tokens(piece, special=True)
        assert ours == theirs, f"{piece!r}: {ours} is not {theirs}"
        total += len(ours)
        assert tokenizer.decode(ours, skip_special_tokens=False) == piece
    print(f"tokens: {len(chats) + len(questions) + len(ODD_TEXTS)} texts, {total} tokens, all the same")


def same_template() -> None:
    """The Jinja template against corpus.render."""
    template = jinja2.Environment().from_string(CHAT_TEMPLATE)
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "What is a shard?")]
    messages = [{"role": role, "content": f" {text} "} for role, text in turns]
    assert template.render(messages=messages, add_generation_prompt=True) == render(turns) + f"{ASSISTANT}\n"
    assert template.render(messages=messages, add_generation_prompt=False) == render(turns)
    print("chat template: the same text")


def dequantized(path: Path, shape: Shape) -> Model:
    """The torch model with the rounded weights of the file."""
    model = Model(shape)
    weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    return model.eval()


@torch.no_grad()
def same_logits(llama: Llama, path: Path, run: Path, text: Text) -> None:
    """Logits of 40 chats, once against the exact weights and once against the weights as the file has them."""
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    shape = Shape(**checkpoint["shape"])
    exact = Model(shape).eval()
    exact.load_state_dict(checkpoint["model"])
    rounded = dequantized(path, shape)
    worst = {"exact": 0.0, "rounded": 0.0}
    spread, agree, count = 0.0, 0, 0
    for turns in Talker(text, random.Random(8)).chats(40):
        tokens = llama.tokens(render(turns), special=True)[: shape.context]
        llama.clear()
        theirs = llama.logits(tokens, 0)
        for name, model in (("exact", exact), ("rounded", rounded)):
            ours = model(torch.tensor([tokens]))[0].numpy()
            worst[name] = max(worst[name], float(np.sqrt(np.mean((ours - theirs) ** 2))))
            if name == "exact":
                spread = max(spread, float(theirs.std()))
                agree, count = agree + int((ours.argmax(1) == theirs.argmax(1)).sum()), count + len(tokens)
    print(f"logits, largest root mean square difference of a chat, at a spread of {spread:.2f}:")
    print(f"  against exact weights {worst['exact']:.4f}, against the rounded weights {worst['rounded']:.4f}")
    print(f"  the best token is the same at {agree} of {count} positions")
    assert worst["exact"] < LOGIT_ERROR * spread


def held_out(text: Text) -> None:
    """No held-out question may occur in the text, in any case or punctuation."""
    wordings = text.wordings()
    questions = tomllib.loads((HERE / "questions.toml").read_text(encoding="utf-8"))["question"]
    kept = [q["ask"] for q in questions if q.get("held_out")]
    found = [q for q in kept if normalise(q) in wordings]
    assert not found, found
    print(f"held out: none of {len(kept)} questions is among {len(wordings)} wordings of the text")


def main() -> None:
    """Runs all checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    args = parser.parse_args()
    text, llama = load_text(), Llama(args.model)
    held_out(text)
    same_template()
    same_tokens(llama, Tokenizer.from_file(str(TOKENIZER)), text)
    same_logits(llama, args.model, args.run, text)


if __name__ == "__main__":
    main()
