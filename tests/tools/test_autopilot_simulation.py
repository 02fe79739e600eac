"""A small swarm that looks after itself for some hours; and the picture of it."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.autopilot_simulation import Terms, picture, report, simulate


def test_a_small_swarm_through_churn() -> None:
    terms = Terms(
        nodes=8, models=4, hours=7, churn_from_h=1.5, churn_to_h=3, away_for_good=2, away_for_a_while=1, joining=1,
        shards=(2, 5), seed=3,
    )  # fmt: skip
    verdict = simulate(terms)
    assert verdict.failures == [], report(verdict)
    assert len(verdict.events) == 4 and verdict.fetches > 20 and verdict.drops > 0
    assert all(sample.covered == 1 for sample in verdict.samples)
    assert verdict.samples[-1].safe == 1 and verdict.samples[-1].least >= 2
    assert verdict.calm_moves == 0 and verdict.most_moves <= 60
    drawn = ElementTree.fromstring(picture(verdict, terms))
    assert drawn.tag.endswith("svg") and len(drawn.findall("{*}polyline")) == 4


def test_the_checks_see_what_they_should() -> None:
    """With stewards that do nothing a node that leaves takes copies along, and that is said."""
    from unittest.mock import patch

    from swarmd.economy.steward import Steward

    async def idle(self: Steward) -> float:
        return self._world.clock.monotonic() + 1e9

    terms = Terms(
        nodes=5, models=3, hours=3, churn_from_h=1, churn_to_h=2, away_for_good=2, away_for_a_while=0, joining=0,
        shards=(2, 3),
    )  # fmt: skip
    with patch.object(Steward, "look", idle):
        verdict = simulate(terms)
    assert any("copies" in sentence or "nobody" in sentence for sentence in verdict.failures)
    assert verdict.fetches == 0
