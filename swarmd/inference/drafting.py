"""Guesses of what comes next, taken from the text itself, and whether they pay.

Prompt lookup: where the last few tokens stood before, what followed them then is proposed (Saxena, "Prompt Lookup
Decoding", 2023). The pipeline computes the proposal in one traversal and the tail picks a token behind each of its rows; it
picks what it would have picked anyway, since its randomness is keyed by position: a wrong guess costs time and changes no
token.

Whether a guess would have been right is seen for free: the proposal is compared with what came, also while nothing is sent.
Only when guesses come true often enough for what more rows cost are they sent; on new text they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LONGEST, SHORTEST = 4, 2
"""Tokens that have to have stood before. One alone proposes something nearly everywhere, and is nearly never right."""
MOST: Final = 24
"""Tokens of a proposal: with the last token of the reply 25 rows, below the 32 within which bits stay the same."""
WEIGHT: Final = 0.15  # of a new observation: some ten proposals of memory
PAYS: Final = 1.1  # tokens for each of a plain step's time that a longer step must bring: below, noise decides
COST_GUESS: Final = 0.1
"""Of a further row, in plain steps' times, until it is measured: between 0.03 on a slow link and 0.3 on two cores."""
FORGETS: Final = 0.01  # of a high cost with each plain step, since it may have been a moment's noise
FIRST_PLAIN: Final = 4  # steps whose time is measured before any longer one


class Lookup:
    """Finds what followed the last tokens when they stood before. Memory: a number for each token and length."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}
        """Where each run of tokens last ended, the last token of all not counted."""
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._remember()
            self._tokens.append(token)

    def _remember(self) -> None:
        end = len(self._tokens)
        for length in range(SHORTEST, min(LONGEST, end) + 1):
            self._ends[tuple(self._tokens[end - length : end])] = end

    def propose(self, most: int) -> list[int]:
        """At most `most` tokens; none when the last ones never stood before."""
        tokens = self._tokens
        for length in range(min(LONGEST, len(tokens)), SHORTEST - 1, -1):
            end = self._ends.get(tuple(tokens[-length:]))
            if end is not None:
                # A text that repeats itself goes on doing so beyond its end.
                period = len(tokens) - end
                return [tokens[end + at % period] for at in range(most)]
        return []


class Payoff:
    """How many tokens to propose, from how often proposals come true and what rows cost. Times in seconds."""

    def __init__(self) -> None:
        self._hit = 0.0
        """Chance that the next proposed token is right, given those before it are."""
        self._seen = 0
        self._plain_s = 0.0
        self._plain_steps = 0
        self._row: float | None = None
        """What a further row costs, in plain steps' times."""

    def observed(self, right: int, wrong: bool) -> None:
        """So many proposed tokens came true in a row; `wrong`: then one did not."""
        self._seen += 1
        for _ in range(min(right, MOST)):
            self._hit += WEIGHT * (1.0 - self._hit)
        if wrong:
            self._hit -= WEIGHT * self._hit

    def took(self, rows: int, seconds: float) -> None:
        """A step of so many rows."""
        if rows == 1:
            weight = WEIGHT if self._plain_steps else 1.0
            self._plain_s += weight * (seconds - self._plain_s)
            self._plain_steps += 1
            if self._row is not None and self._row > COST_GUESS:
                self._row += FORGETS * (COST_GUESS - self._row)
        elif self._plain_s > 0:
            cost = max(0.0, (seconds / self._plain_s - 1) / (rows - 1))
            self._row = cost if self._row is None else self._row + WEIGHT * (cost - self._row)

    def length(self) -> int:
        """Tokens to propose now; 0: it does not pay."""
        if self._plain_steps < FIRST_PLAIN or not self._seen:
            return 0
        cost = COST_GUESS if self._row is None else self._row
        best, best_length, expected, chance = PAYS, 0, 1.0, 1.0
        for length in range(1, MOST + 1):
            chance *= self._hit
            expected += chance
            gain = expected / (1 + cost * length)
            if gain > best:
                best, best_length = gain, length
        return best_length


class Drafter:
    """Of one generation."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._lookup = Lookup(prompt)
        self._payoff = Payoff()
        self._guess: list[int] = []
        self.proposed = self.accepted = 0
        """Tokens that were sent, and those of them that came."""

    def begin(self, tokens: Sequence[int]) -> None:
        """What came at the end of the prompt."""
        self._lookup.extend(tokens)

    def draft(self, most: int) -> list[int]:
        """What to send behind the last token; nothing where it would not pay. To be followed by `came`."""
        self._guess = self._lookup.propose(MOST)
        sent = self._guess[: max(0, min(most, self._payoff.length()))]
        self.proposed += len(sent)
        return sent

    def came(self, tokens: Sequence[int], *, sent: int, seconds: float) -> None:
        """What the step brought: at most one token more than were sent."""
        self._payoff.took(sent + 1, seconds)
        guess, right = self._guess, 0
        while right < min(len(guess), len(tokens)) and guess[right] == tokens[right]:
            right += 1
        if guess:
            self._payoff.observed(right, wrong=right < len(tokens) and right < len(guess))
        self.accepted += min(right, sent)
        self._lookup.extend(tokens)
