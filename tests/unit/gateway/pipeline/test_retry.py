"""Budgets and backoff."""

from __future__ import annotations

import random

import pytest

from gateway.config.model import RetryConfig
from gateway.pipeline.retry import HedgeAllowance, RetryBudget, Window, backoff_s


def test_a_window_forgets() -> None:
    """What was counted leaves the window after its length, a bucket at a time, whatever the gaps between ticks."""
    window = Window(10.0, 100.0)
    window.add()
    window.add()
    window.tick(105.0)
    window.add()
    assert window.total == 3
    window.tick(109.9)
    assert window.total == 3
    window.tick(110.0)
    assert window.total == 1
    window.tick(114.9)
    assert window.total == 1
    window.tick(115.0)
    assert window.total == 0
    window.add()
    window.tick(1e6)
    assert window.total == 0
    window.add()
    window.tick(1e6 - 50)
    assert window.total == 1, "a clock that jumps back forgets nothing"


@pytest.mark.parametrize("step_s", [0.1, 0.37, 1.0, 3.0])
def test_a_window_counts_what_a_list_would(step_s: float) -> None:
    """For any traffic the total is that of the last nine to ten buckets."""
    rng = random.Random(7)
    window = Window(10.0, 0.0)
    seen: list[float] = []
    now_s = 0.0
    for _ in range(500):
        now_s += step_s
        window.tick(now_s)
        for _ in range(rng.randrange(3)):
            window.add()
            seen.append(now_s)
        first = int(now_s) - 9
        assert window.total == sum(int(at) >= first for at in seen)


def test_the_retry_budget() -> None:
    """A share of the window's requests and a floor; what was taken comes back with the window."""
    budget = RetryBudget(RetryConfig(budget_ratio=0.5, budget_min_per_s=0.2, budget_window_s=10), 0.0)
    for _ in range(4):
        budget.requests.add()
    assert [budget.take() for _ in range(5)] == [True] * 4 + [False]
    budget.tick(5.0)
    assert not budget.take()
    budget.tick(20.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_no_budget_at_all() -> None:
    """Without ratio and floor nothing is retried."""
    assert not RetryBudget(RetryConfig(budget_ratio=0, budget_min_per_s=0), 0.0).take()


def test_the_hedge_allowance() -> None:
    """One hedge always, and then a share of the requests."""
    hedges = HedgeAllowance(0.1, 0.0)
    assert hedges.take() and not hedges.take()
    for _ in range(30):
        hedges.requests.add()
    assert [hedges.take() for _ in range(3)] == [True, True, False]
    hedges.tick(11.0)
    assert hedges.take() and not hedges.take()


def test_backoff() -> None:
    """It grows by the multiplier up to its cap, and jitter only takes from it."""
    config = RetryConfig(initial_backoff_s=0.1, multiplier=2, max_backoff_s=0.5, jitter=0)
    rng = random.Random(1)
    assert [backoff_s(config, attempt, rng) for attempt in (1, 2, 3, 4, 20)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    config = config.model_copy(update={"jitter": 0.5})
    waits = [backoff_s(config, 2, rng) for _ in range(1000)]
    assert 0.1 <= min(waits) < 0.11 and 0.19 < max(waits) <= 0.2
    assert backoff_s(config.model_copy(update={"initial_backoff_s": 0}), 3, rng) == 0
