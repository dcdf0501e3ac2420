"""round_robin: in turn, by cost."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.routing.costs import FRESH_S
from gateway.routing.policies.round_robin import RoundRobin
from tests.support.candidates import Ask, Clock, fleet


def take(policy: RoundRobin, workers: tuple, count: int) -> list[str]:
    return [next(policy.rank(Ask(), workers)).id for _ in range(count)]


def test_equal_workers_take_turns() -> None:
    """Any n requests in a row go to n different workers, whatever the loads."""
    policy = RoundRobin(Clock(), random.Random(1))
    with fleet(5) as workers:
        workers[2].load = 50
        taken = take(policy, workers, 50)
        assert all(len({*taken[at : at + 5]}) == 5 for at in range(45))


def test_turns_are_interleaved_by_cost() -> None:
    """With costs 1, 1 and 2, every stretch of five turns holds one of the dear worker and two of each cheap one, give or take one."""
    policy = RoundRobin(Clock(), random.Random(1))
    with fleet(3, {2: 2.0}) as workers:
        taken = take(policy, workers, 500)
        counts = Counter(taken)
        assert counts["w2"] == pytest.approx(100, abs=2)
        assert counts["w0"] == pytest.approx(200, abs=2)
        assert all(taken[at : at + 5].count("w2") <= 2 for at in range(495))


def test_a_cost_that_falls_is_followed() -> None:
    """A worker whose cost falls from 1000 to 1 is not left waiting for the turn it was given at the old cost."""
    clock = Clock()
    policy = RoundRobin(clock, random.Random(1))
    with fleet(3, {0: 1000.0}) as workers:
        assert take(policy, workers, 300).count("w0") <= 1
        workers[0].effective_cost = 1.0
        workers[1].effective_cost = 1.5
        clock.now += FRESH_S
        assert take(policy, workers, 80).count("w0") == pytest.approx(30, abs=2)


def test_a_worker_that_joins_does_not_get_a_burst() -> None:
    """A new worker starts at the turn of the moment: it owes nobody the turns before it came."""
    policy = RoundRobin(Clock(), random.Random(1))
    with fleet(4, {0: 2.0}) as workers:
        take(policy, workers[:3], 400)
        taken = take(policy, workers, 14)
        assert taken.count("w3") <= 5


def test_processes_start_at_different_workers() -> None:
    """Sixteen processes that all get one request do not send them to one worker."""
    with fleet(4) as workers:
        first = Counter(take(RoundRobin(Clock(), random.Random(seed)), workers, 1)[0] for seed in range(16))
        assert len(first) == 4
