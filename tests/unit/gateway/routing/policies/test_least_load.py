"""least_load: the fewest requests in flight."""

from __future__ import annotations

import random

from gateway.routing.policies.least_load import LeastLoad
from tests.support.candidates import Ask, fleet


def test_loads_fill_level() -> None:
    """Requests that do not end are laid out so that loads never differ by more than one."""
    policy = LeastLoad(random.Random(1))
    with fleet(7) as workers:
        for _ in range(100):
            next(policy.rank(Ask(), workers)).load += 1
            assert max(w.load for w in workers) - min(w.load for w in workers) <= 1


def test_loads_fill_by_cost() -> None:
    """Requests that do not end are laid out in proportion to 1 / cost."""
    policy = LeastLoad(random.Random(1))
    with fleet(3, {1: 2.0, 2: 4.0}) as workers:
        for _ in range(700):
            next(policy.rank(Ask(), workers)).load += 1
        assert [abs(w.load - share) <= 2 for w, share in zip(workers, (400, 200, 100), strict=True)] == [True] * 3


def test_loads_of_all_processes_count() -> None:
    """A request that another process sent is seen in the shared table."""
    policy = LeastLoad(random.Random(1))
    with fleet(2, rows=2) as workers:
        workers[0].load = 1
        assert {next(policy.rank(Ask(), workers)).id for _ in range(20)} == {"w1"}
