"""Asks the built-in model the questions of questions.toml through llama.cpp, greedily, and prints the answers.

    python ask.py [--model FILE.gguf] [--all] [--questions unseen.toml]
    python ask.py --topics                                 one wording of every topic of the text, drawn at random
    python ask.py "What is a shard?" "How big is one?"     one chat with these turns

Exits with 1 if an answer lacks a phrase it must have. Without --all only wrong answers and a summary are printed.
"""

import argparse
import random
import tomllib
from pathlib import Path

from corpus import ASSISTANT, HERE, Talker, load_text, render
from llama_cpp import Llama

MODEL = HERE.parent.parent / "swarmd" / "builtin" / "swarmd-builtin.gguf"


def converse(model: Llama, questions: list[str]) -> list[str]:
    """The answers of one chat."""
    turns: list[tuple[str, str]] = []
    answers: list[str] = []
    for question in questions:
        turns.append(("user", question))
        answers.append(model.greedy(render(turns) + f"{ASSISTANT}\n"))
        turns.append(("assistant", answers[-1]))
    return answers


def faults(question: dict, answer: str) -> list[str]:
    """What is wrong with an answer; empty when it passes."""
    low = answer.lower()
    missing = [f"lacks {p!r}" for p in question["must"] if p.lower() not in low]
    return missing + [f"has {p!r}" for p in question.get("never", []) if p.lower() in low]


def ask_topics(model: Llama) -> None:
    """Asks one wording of every topic and counts the answers that are the text's, letter by letter."""
    text = load_text()
    talker = Talker(text, random.Random(5))
    right = 0
    for topic in text.topics:
        question = talker.question(topic)
        answer = converse(model, [question])[0]
        right += answer == topic.answer
        if answer != topic.answer:
            print(f"> {question}   ({topic.name})\n{answer}\n")
    print(f"{right} of {len(text.topics)} topics are answered with their own words")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("turns", nargs="*")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--questions", type=Path, default=HERE / "questions.toml")
    parser.add_argument("--topics", action="store_true")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    model = Llama(args.model)
    if args.turns:
        for question, answer in zip(args.turns, converse(model, args.turns), strict=True):
            print(f"> {question}\n{answer}\n")
        return
    if args.topics:
        ask_topics(model)
        return
    questions = tomllib.loads(args.questions.read_text(encoding="utf-8"))["question"]
    failed = 0
    for question in questions:
        asked = [question["ask"]] + ([question["then"]] if "then" in question else [])
        answer = converse(model, asked)[-1]
        wrong = faults(question, answer)
        failed += bool(wrong)
        if wrong or args.all:
            print(f"> {' / '.join(asked)}{' (held out)' if question.get('held_out') else ''}\n{answer}")
            print("".join(f"  WRONG: {w}\n" for w in wrong))
    print(f"{len(questions) - failed} of {len(questions)} answers are right")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
