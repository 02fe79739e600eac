"""The training text of the built-in model: reads `text/*.txt` and makes chats from it.

The text files hold *topics*. A topic is written by hand; wording is multiplied by patterns:

    == shard                      a new topic and its name
    ? what is {a shard|shards}    question patterns: {a|b|} is a choice, braces may nest
    ? $def({a shard|shards})      every frame of the family $def ("define %", "tell me about %", ...), see 00_words.txt
    ! A shard is ...              the one answer of the topic
    + More about it.              the answer to "tell me more"
    > how big is one              a follow-up that only makes sense after this topic; the next `!` line answers it
    <word> = a | b                a synonym list, used in patterns as <word>
    [word] a | b                  a thesaurus entry, used by Talker.loosen (95_loose.txt)

One answer per topic is deliberate: a model of six million parameters should spend itself on understanding the question,
and two wordings of one fact tempt it to mix them into a third that is wrong.

    python corpus.py              prints the size of the text and a few sample chats
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
TEXT = HERE / "text"

# The chat marks. Their ids are their place in this list; export.py declares them as control tokens.
PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = SPECIALS = [
    "<|pad|>",
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
]

NOTHING_MORE = "That is all I know about it. You can ask me about another part of swarmd."


NOTHING_MORE = "That is all I know about it. You can ask me about another part of swarmd."


@dataclass
class Topic:
    """One thing the model can say: the ways to ask for it and the answer."""

    name: str
    patterns: list[list[str]] = field(default_factory=list)  # each pattern, fully expanded
    answer: str = ""
    more: str = ""
    follow_ups: list[tuple[list[str], str]] = field(default_factory=list)


@dataclass(frozen=True)
class Text:
    """What the folder holds: the topics, the word lists by name, and the thesaurus."""

    topics: list[Topic]
    words: dict[str, list[str]]
    thesaurus: dict[str, list[str]]  # from a phrase to those that may stand for it

    def wordings(self) -> set[str]:
        """Every question of the text, normalised."""
        return {normalise(q) for t in self.topics for p in t.patterns for q in p}


class Grammar:
    """Expands the patterns: synonym lists, frame families and choices."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}
        self.families: dict[str, list[str]] = {}

    def expand(self, pattern: str) -> list[str]:
        """All wordings of a pattern, cleaned of the double spaces that empty branches leave."""
        out, end = self._sequence(pattern, 0, stop="")
        assert end == len(pattern), f"unbalanced: {pattern}"
        tidy = (re.sub(r" +([,?.])", r"\1", re.sub(r" {2,}", " ", text)).strip() for text in out)
        return list(dict.fromkeys(tidy))

    def _sequence(self, s: str, i: int, stop: str) -> tuple[list[str], int]:
        """Expansions of s from i up to one of the characters in `stop`."""
        out = [""]
        while i < len(s) and s[i] not in stop:
            if s[i] == "{":
                part: list[str] = []
                while s[i] != "}":
                    branch, i = self._sequence(s, i + 1, stop="|}")
                    part += branch
                i += 1
            elif s[i] == "<" and (m := re.match(r"<(\w+)>", s[i:])) and m[1] in self.words:
                part, i = self.words[m[1]], i + m.end()
            elif s[i] == "$" and (m := re.match(r"\$(\w+)\(", s[i:])):
                phrases, i = self._sequence(s, i + m.end(), stop=")")
                frames = [f for frame in self.families[m[1]] for f in self._sequence(frame, 0, stop="")[0]]
                part, i = [f.replace("%", p) for p in phrases for f in frames], i + 1
            else:
                m = re.match(r"[^{}<$|()]+|.", s[i:])
                assert m
                part, i = [m[0]], i + m.end()
            out = [a + b for a in out for b in part]
        return out, i


def load_text(folder: Path = TEXT) -> Text:
    """Reads the text files in name order, so that 00_words.txt comes before its users."""
    grammar, topics = Grammar(), []
    thesaurus: dict[str, list[str]] = {}
    pending: list[str] = []  # patterns of a follow-up whose answer is still to come
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.name}:{number}"
            if not line.strip() or line.startswith("#"):
                continue
            if m := re.match(r"<(\w+)> = (.*)", line):
                grammar.words[m[1]] = [w.strip() for w in m[2].split(" | ")]
            elif m := re.match(r"\[.*?\] (.*)", line):
                members = m[1].split(" | ")
                for member in members:
                    thesaurus.setdefault(member, []).extend(other for other in members if other != member)
            elif m := re.match(r"\$(\w+) = (.*)", line):
                grammar.families.setdefault(m[1], []).append(m[2])
            elif line.startswith("== "):
                assert not pending, where
                topics.append(Topic(line[3:].strip()))
            elif line.startswith("? "):
                topics[-1].patterns.append(grammar.expand(line[2:]))
            elif line.startswith("> "):
                pending += grammar.expand(line[2:])
            elif line.startswith("+ "):
                topics[-1].more = line[2:].strip()
            elif line.startswith("! "):
                if pending:
                    topics[-1].follow_ups.append((pending, line[2:].strip()))
                    pending = []
                else:
                    assert not topics[-1].answer, f"{where}: a second answer"
                    topics[-1].answer = line[2:].strip()
            else:
                raise ValueError(f"{where}: cannot read {line!r}")
    assert len({t.name for t in topics}) == len(topics) and all(t.answer and t.patterns for t in topics)
    return Text(topics, grammar.words, thesaurus)


def normalise(question: str) -> str:
    """A question without case, punctuation and spacing: two that agree here count as the same wording."""
    return " ".join(re.findall(r"[\w/.:<>|-]*\w", question.lower()))


def clashes(topics: list[Topic]) -> dict[str, set[str]]:
    """Wordings that two topics claim: the model cannot learn both, so there should be none."""
    owners: dict[str, set[str]] = {}
    for topic in topics:
        for pattern in topic.patterns:
            for question in pattern:
                owners.setdefault(normalise(question), set()).add(topic.name)
    return {q: names for q, names in owners.items() if len(names) > 1}


class Talker:
    """Draws chats. All randomness comes from the generator it is given, so a seed gives one text."""

    def __init__(self, text: Text, rng: random.Random, loose: float = 0.0) -> None:
        self.topics, self.words, self.thesaurus, self.rng = text.topics, text.words, text.thesaurus, rng
        self.loose = loose  # share of questions that go through `loosen`
        longest_first = sorted(self.thesaurus, key=lambda phrase: (-len(phrase), phrase))
        self.known = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")
        # A topic with many patterns covers more ground and is drawn more often; the power keeps it from drowning the
        # small ones. The off-topic nouns need room because "everything else" is the widest class of all.
        boost = {"offtopic": 6.0, "node_dies": 1.5}
        self.weights = [boost.get(t.name, 1.0) * len(t.patterns) ** 0.4 for t in self.topics]
        self.pattern_weights = {t.name: [len(p) ** 0.4 for p in t.patterns] for t in self.topics}

    def question(self, topic: Topic) -> str:
        """One wording of the topic's question as somebody would type it."""
        pattern = self.rng.choices(topic.patterns, self.pattern_weights[topic.name])[0]
        return self.type(self.rng.choice(pattern))

    def type(self, text: str) -> str:
        """Case, punctuation, courtesies and slips of the finger."""
        rng = self.rng
        bare = text
        if self.loose and rng.random() < self.loose:
            text = self.loosen(text)
        if rng.random() < 0.06:
            words = text.split()
            droppable = [i for i, w in enumerate(words) if w in self.words["droppable"]]
            if droppable and len(words) > 3:
                del words[rng.choice(droppable)]
                text = " ".join(words)
        if rng.random() < 0.12:
            text = self._slip(text)
        if len(bare) > 6 and rng.random() < 0.14:
            text = f"{rng.choice(self.words['before'])} {text}"
        if len(bare) > 6 and rng.random() < 0.12 and text[-1] not in "?.!":
            text = f"{text} {rng.choice(self.words['after'])}".replace(" ,", ",")
        if rng.random() < 0.5:
            text = re.sub(r"\bi\b", "I", text)
        if rng.random() < 0.4:
            text = " ".join(w.upper() if w.strip(",?.") in self.words["acronym"] else w for w in text.split(" "))
        if rng.random() < 0.6:
            text = text[0].upper() + text[1:]
        elif rng.random() < 0.03:
            text = text.upper()
        if text[-1].isalnum() or text[-1] == "`":
            text += rng.choices(["?", "", ".", "!", " ?", "??"], [60, 32, 5, 1, 1, 1])[0]
        return text

    def loosen(self, text: str) -> str:
        """The question in words that no pattern has: synonyms, words left out or put in, sentences around it.

        The patterns alone teach the model frames, and in a frame it never saw it then finds nothing. Loosened questions
        are clumsy, but what is left in common between them is the words that matter.
        """
        rng = self.rng
        if rng.random() < 0.6:
            other = self.thesaurus
            text = self.known.sub(lambda m: rng.choice(other[m[1]]) if rng.random() < 0.4 else m[1], text)
        if rng.random() < 0.5:
            words: list[str] = []
            keep = rng.choice([0.3, 0.6, 0.85])
            for word in text.split():
                if word not in self.words["light"] or rng.random() < keep:
                    words.append(word)
                if rng.random() < 0.08:
                    words.append(rng.choice(self.words["between"]))
            text = " ".join(words) if words else text
        if rng.random() < 0.1 and " " in text:
            # The end first, as in "a shard, what is that".
            words = text.split()
            at = rng.randrange(1, len(words))
            text = " ".join(words[at:]) + ", " + " ".join(words[:at])
        if rng.random() < 0.3:
            text = f"{rng.choice(self.words['lead'])} {text}"
        if rng.random() < 0.25 and text[-1] not in "?.!":
            text = text + rng.choice([", ", " ", ". ", "? "]) + rng.choice(self.words["tail"])
        return text

    def _slip(self, text: str) -> str:
        """One typing error inside a word of four letters or more."""
        spots = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z]{2})", text)]
        if not spots:
            return text
        i = self.rng.choice(spots)
        kind = self.rng.randrange(4)
        if kind == 0:
            return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        if kind == 1:
            return text[:i] + text[i + 1 :]
        if kind == 2:
            return text[:i] + text[i] + text[i:]
        return text[:i] + self.rng.choice("abcdefghijklmnopqrstuvwxyz") + text[i + 1 :]

    def chat(self) -> list[tuple[str, str]]:
        """One chat as (role, text) pairs; most have one turn, some have follow-ups, a few are long."""
        rng = self.rng
        turns: list[tuple[str, str]] = []
        if rng.random() < 0.12:
            turns.append(("system", rng.choice(self.words["system"])))
        count = rng.choices([1, 2, 3, 4, 6, 10], [62, 20, 8, 5, 3, 2])[0]
        while count > 0:
            topic = rng.choices(self.topics, self.weights)[0]
            turns += [("user", self.question(topic)), ("assistant", topic.answer)]
            count -= 1
            if rng.random() < (0.55 if topic.follow_ups or topic.more else 0.12):
                turns += self._follow_up(topic)
        return turns

    def _follow_up(self, topic: Topic) -> list[tuple[str, str]]:
        rng = self.rng
        if topic.follow_ups and rng.random() < 0.7:
            questions, answer = rng.choice(topic.follow_ups)
            return [("user", self.type(rng.choice(questions))), ("assistant", answer)]
        if rng.random() < 0.25:
            return [("user", self.type(rng.choice(self.words["why"]))), ("assistant", NOTHING_MORE)]
        out = [("user", self.type(rng.choice(self.words["more"]))), ("assistant", topic.more or NOTHING_MORE)]
        if topic.more and rng.random() < 0.3:
            out += [("user", self.type(rng.choice(self.words["more"]))), ("assistant", NOTHING_MORE)]
        return out

    def chats(self, count: int) -> Iterator[list[tuple[str, str]]]:
        """`count` chats, one after the other."""
        for _ in range(count):
            yield self.chat()


def render(turns: list[tuple[str, str]]) -> str:
    """The chat as the model reads it. The chat template in export.py writes the same marks."""
    return "".join(f"<|{role}|>\n{text}{END}\n" for role, text in turns)


def main() -> None:
    """Prints what there is, and fails when two topics claim one wording."""
    text = load_text()
    answers = {NOTHING_MORE}
    for topic in text.topics:
        answers |= {topic.answer, topic.more} | {answer for _, answer in topic.follow_ups}
    answers -= {""}
    length = sum(map(len, answers)) // len(answers)
    print(f"{len(text.topics)} topics, {len(text.wordings())} wordings of their questions")
    print(f"{len(answers)} answers of {length} characters on average")
    for turns in Talker(text, random.Random(1)).chats(12):
        print(render(turns))
    clash = clashes(text.topics)
    for question, names in sorted(clash.items()):
        print(f"claimed twice: {question!r} by {sorted(names)}")
    raise SystemExit(bool(clash))


if __name__ == "__main__":
    main()
