"""Costs as weights: read when the candidates change, and otherwise ten times a second."""

from __future__ import annotations

from gateway.routing.costs import FRESH_S, Costs
from tests.support.candidates import Clock, fleet


def test_costs_are_read_again_when_they_are_old() -> None:
    """A cost that moves is seen after a tenth of a second, not before, and said to have changed once."""
    clock = Clock()
    costs = Costs(clock)
    with fleet(3) as workers:
        assert costs.changed(workers)
        assert costs.equal
        workers[1].effective_cost = 4.0
        assert not costs.changed(workers)
        clock.now += FRESH_S
        assert costs.changed(workers)
        assert not costs.equal
        assert costs.values == [1.0, 4.0, 1.0]
        assert costs.cumulative == [1.0, 1.25, 2.25]
        assert costs.weight == 2.25
        clock.now += FRESH_S
        assert not costs.changed(workers)


def test_other_candidates_are_read_at_once() -> None:
    """Another tuple of workers is never answered with the costs of the one before."""
    costs = Costs(Clock())
    with fleet(4, {3: 2.0}) as workers:
        assert costs.changed(workers[:2])
        assert costs.changed(workers[2:])
        assert costs.values == [1.0, 2.0]
        last = workers[2:]
        assert costs.changed(last)
        costs.forget()
        assert costs.changed(last)
