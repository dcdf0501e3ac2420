"""The load score: order by load and cost, equal ones by chance."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.scores import Imbalance, LoadScores
from tests.support.candidates import fleet


@given(loads=st.lists(st.integers(0, 50), min_size=1, max_size=30), seed=st.integers(0, 100))
def test_with_equal_costs_the_order_is_the_order_of_loads(loads: list[int], seed: int) -> None:
    """Chance decides between equal loads only: a higher load never goes before a lower one."""
    scores = LoadScores(random.Random(seed))
    with fleet(len(loads)) as workers:
        for worker, load in zip(workers, loads, strict=True):
            worker.load = load
        assert [worker.load for worker in scores.rank(workers)] == sorted(loads)


@given(load=st.integers(0, 50), cost=st.floats(0.01, 100), seed=st.integers(0, 20))
def test_a_score_lies_between_load_and_load_plus_one_times_cost(load: int, cost: float, seed: int) -> None:
    """The fraction that breaks ties never outweighs one request."""
    scores = LoadScores(random.Random(seed))
    with fleet(1, {0: cost}) as (worker,):
        worker.load = load
        assert load * cost < scores.of([worker])[0] < (load + 1) * cost


@pytest.mark.parametrize(("costs", "expected"), [({}, [1 / 3] * 3), ({0: 1.0, 1: 2.0, 2: 4.0}, [4 / 7, 2 / 7, 1 / 7])])
def test_idle_workers_are_taken_in_proportion_to_one_over_cost(costs: dict[int, float], expected: list[float]) -> None:
    """Ties fall by chance, weighted by 1 / cost."""
    scores = LoadScores(random.Random(1))
    with fleet(3, costs) as workers:
        found = Counter(scores.least(workers).id for _ in range(6000))
        for worker, share in zip(workers, expected, strict=True):
            assert found[worker.id] / 6000 == pytest.approx(share, abs=0.03)


def test_more_workers_than_fractions() -> None:
    """A pool that is larger than the fractions drawn in advance is ranked all the same."""
    scores = LoadScores(random.Random(1))
    with fleet(3000) as workers:
        ranked = list(scores.rank(workers))
        assert len(set(ranked)) == 3000
        assert len({scores.least(workers).id for _ in range(40)}) > 20


def test_the_rest_is_ranked_by_the_loads_of_its_moment() -> None:
    """A retry sees the loads as they are when it is made, not those of the first attempt."""
    scores = LoadScores(random.Random(1))
    with fleet(3) as workers:
        workers[1].load, workers[2].load = 1, 2
        ranked = scores.rank(workers)
        assert next(ranked) is workers[0]
        workers[1].load = 9
        assert next(ranked) is workers[2]


@pytest.mark.parametrize(
    ("wanted", "least", "costs", "expected"),
    [
        (8, 0, (1, 1), False),
        (9, 0, (1, 1), True),
        (30, 21, (1, 1), False),
        (32, 21, (1, 1), True),
        (9, 0, (10, 10), True),
        (8, 0, (10, 10), False),
        (1, 0, (10, 1), True),
        (12, 0, (1, 2), False),
    ],
)
def test_imbalance_needs_both_thresholds(wanted: int, least: int, costs: tuple[float, float], expected: bool) -> None:
    """Load wins above 8 requests and one and a half times the least, counted by cost in requests of the least loaded."""
    with fleet(2, dict(enumerate(costs))) as (one, other):
        one.load, other.load = wanted, least
        assert Imbalance(8, 1.5).between(one, other) is expected
