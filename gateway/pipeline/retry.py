"""How much extra load failures may make: the retry budget, the backoff, and the allowance for hedges."""

from __future__ import annotations

import random

from gateway.config.model import RetryConfig

_BUCKETS = 10


class Window:
    """A count over a sliding window of ten buckets; costs one comparison and one addition a call."""

    __slots__ = ("_at", "_bucket_s", "_counts", "_total")

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._counts = [0] * _BUCKETS
        self._at = -1
        self._total = 0

    def add(self, now_s: float) -> None:
        """Count one."""
        at = int(now_s / self._bucket_s)
        if at != self._at:
            self._turn(at)
        self._counts[at % _BUCKETS] += 1
        self._total += 1

    def total(self, now_s: float) -> int:
        """What was counted within the window."""
        at = int(now_s / self._bucket_s)
        if at != self._at:
            self._turn(at)
        return self._total

    def _turn(self, at: int) -> None:
        for passed in range(max(self._at + 1, at - _BUCKETS + 1), at + 1):
            slot = passed % _BUCKETS
            self._total -= self._counts[slot]
            self._counts[slot] = 0
        self._at = at


class RetryBudget:
    """Retries may add `budget_ratio` of the requests of a window, and always a few a second.

    This is Finagle's retry budget (its guide, "Retries"): without one, a slow fleet is asked several times over and falls.
    """

    __slots__ = ("_config", "_requests", "_retries")

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._requests = Window(config.budget_window_s)
        self._retries = Window(config.budget_window_s)

    def request(self, now_s: float) -> None:
        """Count a request."""
        self._requests.add(now_s)

    def take(self, now_s: float) -> bool:
        """Take one retry out of the budget, if one is left."""
        config = self._config
        allowed = config.budget_min_per_s * config.budget_window_s + config.budget_ratio * self._requests.total(now_s)
        if self._retries.total(now_s) >= allowed:
            return False
        self._retries.add(now_s)
        return True


class HedgeAllowance:
    """Hedges may be at most a share of the requests of the last ten seconds; one is always allowed."""

    __slots__ = ("_hedges", "_ratio", "_requests")

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._requests = Window(10.0)
        self._hedges = Window(10.0)

    def request(self, now_s: float) -> None:
        """Count a request."""
        self._requests.add(now_s)

    def take(self, now_s: float) -> bool:
        """Take one hedge, if one is left."""
        if self._hedges.total(now_s) >= max(1.0, self._ratio * self._requests.total(now_s)):
            return False
        self._hedges.add(now_s)
        return True


def backoff_s(config: RetryConfig, attempt: int, rng: random.Random) -> float:
    """Return the wait before the attempt after `attempt` (1 is the first): exponential, capped, moved down by the jitter."""
    delay_s = min(config.max_backoff_s, config.initial_backoff_s * config.multiplier ** (attempt - 1))
    return delay_s * (1.0 - config.jitter * rng.random())
