"""Circuit breaker of one worker in one process: a sliding window of outcomes, and a bounded number of probes.

    closed ----- ratio of failures in the window reached ----> open
    open ------- its time is over (`tick`) ------------------> half_open
    half_open -- one probe failed ---------------------------> open, for twice as long, at most `max_open_s`
    half_open -- `success_threshold` probes succeeded -------> closed, with an empty window

Rules.

1. Every `acquire` that returned true is answered by exactly one of `success`, `failure`, `release`. An answer too many
   does no harm; one too few keeps a probe slot, so callers answer on every path.
2. An attempt that was sent before the last change of state says nothing about the state now. A caller that keeps
   `epoch` at the time of `acquire` and hands it back has such late outcomes ignored; without it they count as current.
3. The window is a ring of `BUCKETS` parts: an outcome counts for `window_s`, at most a tenth less.

Plain calls, one event loop, no lock. `admits` and `available` are attributes, so a look costs one attribute read.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from gateway.config.model import BreakerConfig

BUCKETS: Final = 10
"""Parts of the window (Hystrix and resilience4j take ten)."""


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """A bounded number of probes."""


_CLOSED = BreakerState.CLOSED
_OPEN = BreakerState.OPEN
_HALF_OPEN = BreakerState.HALF_OPEN


class Breaker:
    """The breaker of one worker. Made by `Registry`, moved on by its `tick`, used by the pipeline."""

    __slots__ = (
        "_bucket", "_bucket_end_s", "_bucket_s", "_clock", "_config", "_due_s", "_failed", "_failures", "_open_s", "_probes",
        "_succeeded", "_total", "_totals", "admits", "available", "epoch", "on_change", "state",
    )  # fmt: skip

    def __init__(self, config: BreakerConfig, clock: Callable[[], float]) -> None:
        self.state = BreakerState.CLOSED
        self.admits = True
        """Closed, or half-open with a free probe slot. Changes with every probe."""
        self.available = True
        """Not open. Changes only where `on_change` is called, so that it may be kept by whoever hears that."""
        self.epoch = 0
        """Rises by one with every change of state."""
        self.on_change: Callable[[BreakerState, BreakerState], None] | None = None
        """Called after every change of state, with the old one and the new one."""
        self._config = config
        self._clock = clock
        self._open_s = config.open_s
        self._due_s = 0.0
        """Time at which an open breaker becomes half-open."""
        self._probes = 0
        """Probes in flight."""
        self._succeeded = 0
        """Probes that succeeded since half-open."""
        self._bucket_s = config.window_s / BUCKETS
        self._totals = [0] * BUCKETS
        self._failed = [0] * BUCKETS
        self._total = 0
        self._failures = 0
        self._bucket = 0
        self._bucket_end_s = clock() + self._bucket_s

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._failures} of {self._total} failed, {self._probes} probes>"

    def acquire(self) -> bool:
        """Say whether an attempt may be sent now; in half-open it takes a probe slot."""
        if self.state is _CLOSED:
            return True
        if not self.admits:
            return False
        self._probes += 1
        self.admits = self._probes < self._config.half_open_probes
        return True

    def success(self, epoch: int | None = None) -> None:
        """Hear that an attempt succeeded."""
        if epoch is not None and epoch != self.epoch:
            return
        if self.state is _CLOSED:
            if self._config.enabled:
                self._record(0)
        elif self.state is _HALF_OPEN:
            self._end_probe()
            self._succeeded += 1
            if self._succeeded >= self._config.success_threshold:
                self._open_s = self._config.open_s
                self._become(BreakerState.CLOSED)

    def failure(self, epoch: int | None = None) -> None:
        """Hear that an attempt failed by the worker's fault."""
        if epoch is not None and epoch != self.epoch:
            return
        if self.state is _CLOSED:
            if self._config.enabled:
                self._record(1)
        elif self.state is _HALF_OPEN:
            self._open_s = min(self._open_s * 2.0, max(self._config.max_open_s, self._config.open_s))
            self._become(BreakerState.OPEN)

    def release(self, epoch: int | None = None) -> None:
        """Hear that an attempt ended without a verdict; a probe gives its slot back."""
        if self.state is _HALF_OPEN and (epoch is None or epoch == self.epoch):
            self._end_probe()

    def tick(self, now_s: float) -> None:
        """Let an open breaker whose time is over become half-open."""
        if self.state is _OPEN and now_s >= self._due_s:
            self._become(BreakerState.HALF_OPEN)

    def _end_probe(self) -> None:
        if self._probes:
            self._probes -= 1
        self.admits = self._probes < self._config.half_open_probes

    def _record(self, failures: int) -> None:
        now_s = self._clock()
        if now_s >= self._bucket_end_s:
            self._turn(now_s)
        self._total += 1
        self._totals[self._bucket] += 1
        if failures:
            self._failures += 1
            self._failed[self._bucket] += 1
        config = self._config
        if self._failures and self._total >= config.min_requests and self._failures >= config.failure_ratio * self._total - 1e-9:
            self._become(BreakerState.OPEN)

    def _turn(self, now_s: float) -> None:
        """Move on to the bucket of this moment, and forget the outcomes of those that it passes."""
        passed = int((now_s - self._bucket_end_s) / self._bucket_s) + 1
        self._bucket_end_s += passed * self._bucket_s
        for _ in range(min(passed, BUCKETS)):
            self._bucket = (self._bucket + 1) % BUCKETS
            self._total -= self._totals[self._bucket]
            self._failures -= self._failed[self._bucket]
            self._totals[self._bucket] = self._failed[self._bucket] = 0

    def _become(self, state: BreakerState) -> None:
        old = self.state
        self.state = state
        self.epoch += 1
        self._probes = self._succeeded = 0
        self.available = self.admits = state is not BreakerState.OPEN
        now_s = self._clock()
        if state is _OPEN:
            self._due_s = now_s + self._open_s
        elif state is _CLOSED:
            self._totals = [0] * BUCKETS
            self._failed = [0] * BUCKETS
            self._total = self._failures = self._bucket = 0
            self._bucket_end_s = now_s + self._bucket_s
        if self.on_change is not None:
            self.on_change(old, state)
