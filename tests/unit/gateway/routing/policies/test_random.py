"""random: chance, weighted by 1 / cost."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.routing.policies.random import Random
from tests.support.candidates import Ask, Clock, fleet


@pytest.mark.parametrize(("costs", "expected"), [({}, [1 / 3] * 3), ({1: 2.0, 2: 4.0}, [4 / 7, 2 / 7, 1 / 7])])
def test_shares_are_one_over_cost(costs: dict[int, float], expected: list[float]) -> None:
    """Each worker's probability is (1 / cost) / sum, whatever the loads."""
    policy = Random(Clock(), random.Random(1))
    with fleet(3, costs) as workers:
        workers[0].load = 10
        found = Counter(next(policy.rank(Ask(), workers)).slot for _ in range(6000))
        assert [found[slot] / 6000 for slot in range(3)] == pytest.approx(expected, abs=0.03)


def test_the_second_choice_is_weighted_too() -> None:
    """Where the first attempt failed, the cheap one of the others is more likely."""
    policy = Random(Clock(), random.Random(1))
    with fleet(3, {1: 1.0, 2: 3.0}) as workers:
        ranked = [list(policy.rank(Ask(), workers)) for _ in range(6000)]
        second = Counter(order[1].slot for order in ranked if order[0] is workers[0])
        assert second[1] / second.total() == pytest.approx(0.75, abs=0.03)


def test_a_seed_gives_the_same_run() -> None:
    """The same generator gives the same choices."""
    with fleet(8) as workers:
        runs = [[next(policy.rank(Ask(), workers)).id for _ in range(30)] for policy in (Random(Clock(), random.Random(4)) for _ in "ab")]
        assert runs[0] == runs[1]
