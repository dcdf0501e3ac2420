"""How much extra load failures may make: the retry budget, the backoff, and the allowance for hedges."""

from __future__ import annotations

import random

from gateway.config.model import RetryConfig

_BUCKETS = 10


class Window:
    """A count over a sliding window of ten buckets. `tick` turns it, so that counting costs two additions and no clock."""

    __slots__ = ("_at", "_bucket_s", "_counts", "total")

    def __init__(self, window_s: float, now_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._counts = [0] * _BUCKETS
        self._at = int(now_s / self._bucket_s)
        self.total = 0
        """What was counted within the window, as of the last tick."""

    def add(self) -> None:
        """Count one."""
        self._counts[self._at % _BUCKETS] += 1
        self.total += 1

    def tick(self, now_s: float) -> None:
        """Forget what left the window; called at least once a bucket."""
        at = int(now_s / self._bucket_s)
        for passed in range(max(self._at + 1, at - _BUCKETS + 1), at + 1):
            slot = passed % _BUCKETS
            self.total -= self._counts[slot]
            self._counts[slot] = 0
        self._at = max(at, self._at)


class RetryBudget:
    """Retries may add `budget_ratio` of the requests of a window, and always a few a second.

    This is Finagle's retry budget (its guide, "Retries"): without one, a slow fleet is asked several times over and falls.
    """

    __slots__ = ("_config", "_retries", "requests")

    def __init__(self, config: RetryConfig, now_s: float) -> None:
        self._config = config
        self.requests = Window(config.budget_window_s, now_s)
        self._retries = Window(config.budget_window_s, now_s)

    def take(self) -> bool:
        """Take one retry out of the budget, if one is left."""
        config = self._config
        allowed = config.budget_min_per_s * config.budget_window_s + config.budget_ratio * self.requests.total
        if self._retries.total >= allowed:
            return False
        self._retries.add()
        return True

    def tick(self, now_s: float) -> None:
        """Move the window on."""
        self.requests.tick(now_s)
        self._retries.tick(now_s)


class HedgeAllowance:
    """Hedges may be at most a share of the requests of the last ten seconds; one is always allowed."""

    __slots__ = ("_hedges", "_ratio", "requests")

    def __init__(self, ratio: float, now_s: float) -> None:
        self._ratio = ratio
        self.requests = Window(10.0, now_s)
        self._hedges = Window(10.0, now_s)

    def take(self) -> bool:
        """Take one hedge, if one is left."""
        if self._hedges.total >= max(1.0, self._ratio * self.requests.total):
            return False
        self._hedges.add()
        return True

    def tick(self, now_s: float) -> None:
        """Move the window on."""
        self.requests.tick(now_s)
        self._hedges.tick(now_s)


def backoff_s(config: RetryConfig, attempt: int, rng: random.Random) -> float:
    """Return the wait before the attempt after `attempt` (1 is the first): exponential, capped, moved down by the jitter."""
    delay_s = min(config.max_backoff_s, config.initial_backoff_s * config.multiplier ** (attempt - 1))
    return delay_s * (1.0 - config.jitter * rng.random())
