"""The circuit breaker: when it opens, how it probes, what it forgets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.config.model import BreakerConfig
from gateway.workers.breaker import BUCKETS, Breaker, BreakerState


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock | None = None, **config: Any) -> tuple[Breaker, Clock, list[tuple[str, str]]]:
    clock = clock or Clock()
    one = Breaker(BreakerConfig(**config), clock)
    changes: list[tuple[str, str]] = []
    one.on_change = lambda old, new: changes.append((str(old), str(new)))
    return one, clock, changes


def send(one: Breaker, outcomes: str) -> None:
    """One attempt after the other: `.` succeeds, `x` fails."""
    for outcome in outcomes:
        assert one.acquire()
        if outcome == "x":
            one.failure()
        else:
            one.success()


def opened(**config: Any) -> tuple[Breaker, Clock, list[tuple[str, str]]]:
    one, clock, changes = breaker(**config)
    send(one, "x" * one._config.min_requests)
    assert one.state is BreakerState.OPEN
    return one, clock, changes


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("xxxx", "closed"),
        ("xxxxx", "open"),
        ("..xxx", "open"),
        ("...xx", "closed"),
        ("...xxx", "open"),
        ("xx..x", "open"),
        ("....", "closed"),
        ("..." + "." * 40 + "xxxxx", "closed"),
    ],
)
def test_opens_when_the_share_of_failures_is_reached(outcomes: str, state: str) -> None:
    """Half of at least five outcomes must have failed."""
    one, _, _ = breaker(min_requests=5, failure_ratio=0.5)
    for outcome in outcomes:
        one.failure() if outcome == "x" else one.success()
    assert one.state == state
    assert one.admits is one.available is (state == "closed")


@pytest.mark.parametrize(("ratio", "failures", "total"), [(0.55, 11, 20), (0.1, 1, 10), (0.7, 7, 10), (1.0, 6, 6)])
def test_a_share_that_is_met_exactly_opens(ratio: float, failures: int, total: int) -> None:
    """Rounding of floats does not keep a breaker closed."""
    one, _, _ = breaker(min_requests=total, failure_ratio=ratio)
    send(one, "." * (total - failures) + "x" * failures)
    assert one.state is BreakerState.OPEN


def test_old_outcomes_leave_the_window() -> None:
    """Failures of a window ago do not count, and successes of a window ago do not excuse."""
    one, clock, _ = breaker(window_s=30, min_requests=5)
    send(one, "xxxx")
    clock.now_s += 31
    send(one, "x")
    assert one.state is BreakerState.CLOSED
    clock.now_s += 31
    send(one, "." * 100)
    clock.now_s += 31
    send(one, "xxxxx")
    assert one.state is BreakerState.OPEN


def test_the_window_slides() -> None:
    """Outcomes are forgotten part by part, not all at once."""
    one, clock, _ = breaker(window_s=30, min_requests=5)
    send(one, "xx")
    clock.now_s += 20
    send(one, "xx")
    clock.now_s += 12
    send(one, "xx")
    assert one.state is BreakerState.CLOSED
    assert "4 of 4" in repr(one)
    send(one, "x")
    assert one.state is BreakerState.OPEN


def test_open_lets_nothing_through_until_its_time_is_over() -> None:
    """An open breaker becomes half-open by `tick`, at its time and not before."""
    one, clock, changes = opened(open_s=10)
    assert not one.acquire()
    clock.now_s += 9.9
    one.tick(clock.now_s)
    assert one.state is BreakerState.OPEN
    clock.now_s += 0.1
    one.tick(clock.now_s)
    assert one.state is BreakerState.HALF_OPEN
    assert changes == [("closed", "open"), ("open", "half_open")]


def test_half_open_lets_a_bounded_number_of_probes_through() -> None:
    """No more probes at once than configured; one that ended without verdict gives its slot to the next."""
    one, clock, _ = opened(open_s=10, half_open_probes=2, success_threshold=2)
    clock.now_s += 10
    one.tick(clock.now_s)
    assert [one.acquire() for _ in range(4)] == [True, True, False, False]
    assert not one.admits
    assert one.available
    one.release()
    assert one.admits
    assert [one.acquire(), one.acquire()] == [True, False]
    one.success()
    assert one.state is BreakerState.HALF_OPEN
    one.success()
    assert one.state is BreakerState.CLOSED


def test_open_time_doubles_while_probes_fail_and_starts_again_after_a_recovery() -> None:
    """10 s, 20 s, 40 s, then at most `max_open_s`; 10 s again once it had closed."""
    one, clock, _ = opened(open_s=10, max_open_s=50, success_threshold=1)
    times = []
    for _ in range(5):
        since_s = clock.now_s
        while one.state is BreakerState.OPEN:
            clock.now_s += 1
            one.tick(clock.now_s)
        times.append(clock.now_s - since_s)
        send(one, "x")
    assert times == [10, 20, 40, 50, 50]
    clock.now_s += 50
    one.tick(clock.now_s)
    send(one, ".")
    assert one.state is BreakerState.CLOSED
    send(one, "xxxxx")
    clock.now_s += 10
    one.tick(clock.now_s)
    assert one.state is BreakerState.HALF_OPEN


def test_closing_forgets_the_failures_of_before() -> None:
    """The window is empty after a recovery."""
    one, clock, _ = opened(open_s=1, window_s=1000, success_threshold=1)
    clock.now_s += 1
    one.tick(clock.now_s)
    send(one, ".")
    send(one, "xxxx")
    assert one.state is BreakerState.CLOSED


def test_late_outcomes_of_before_do_not_count_as_probes() -> None:
    """A stream that was sent before the breaker opened neither closes it, nor opens it, nor frees a probe's slot."""
    one, clock, _ = breaker(open_s=10)
    assert one.acquire()
    early = one.epoch
    send(one, "xxxxx")
    one.failure(early)
    clock.now_s += 10
    one.tick(clock.now_s)
    assert one.acquire()
    for late in (one.success, one.success, one.failure, one.release):
        late(early)
    assert one.state is BreakerState.HALF_OPEN
    assert not one.admits
    one.success(one.epoch)
    assert one.acquire()
    one.success(one.epoch)
    assert one.state is BreakerState.CLOSED


def test_a_disabled_breaker_never_opens() -> None:
    """`enabled: false` lets everything through for ever."""
    one, _, changes = breaker(enabled=False)
    send(one, "x" * 100)
    assert one.admits
    assert not changes


def test_answers_too_many_do_no_harm() -> None:
    """Outcomes of attempts that another breaker let through leave the number of slots right."""
    one, clock, _ = opened(open_s=1, half_open_probes=1, success_threshold=9)
    one.success()
    one.failure()
    one.release()
    clock.now_s += 1
    one.tick(clock.now_s)
    one.release()
    one.success()
    assert [one.acquire(), one.acquire()] == [True, False]


class BreakerMachine(RuleBasedStateMachine):
    """Any order of attempts, outcomes and time, against a model that remembers every outcome with its time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.config = BreakerConfig(
            window_s=10, min_requests=3, failure_ratio=0.5, open_s=2, max_open_s=7, half_open_probes=2, success_threshold=2
        )
        self.one = Breaker(self.config, self.clock)
        self.one.on_change = self.changed
        self.states = [BreakerState.CLOSED]
        self.flying: list[int] = []
        """Epochs of attempts in flight."""
        self.outcomes: list[tuple[float, bool]] = []
        """(time, failed) since the breaker closed."""
        self.opened_s = 0.0

    def changed(self, old: BreakerState, new: BreakerState) -> None:
        assert old is self.states[-1]
        assert (old, new) in {
            (BreakerState.CLOSED, BreakerState.OPEN),
            (BreakerState.OPEN, BreakerState.HALF_OPEN),
            (BreakerState.HALF_OPEN, BreakerState.OPEN),
            (BreakerState.HALF_OPEN, BreakerState.CLOSED),
        }
        self.states.append(new)
        if new is BreakerState.OPEN:
            self.opened_s = self.clock.now_s
        if new is BreakerState.CLOSED:
            self.outcomes.clear()

    @rule()
    def attempt(self) -> None:
        admitted = self.one.admits
        assert self.one.acquire() is admitted
        if admitted:
            self.flying.append(self.one.epoch)

    @precondition(lambda self: self.flying)
    @rule(outcome=st.sampled_from("ssffr"), index=st.integers(0, 1000))
    def end(self, outcome: str, index: int) -> None:
        epoch = self.flying.pop(index % len(self.flying))
        counted = epoch == self.one.epoch and self.one.state is BreakerState.CLOSED and outcome != "r"
        if counted:
            self.outcomes.append((self.clock.now_s, outcome == "f"))
        {"s": self.one.success, "f": self.one.failure, "r": self.one.release}[outcome](epoch)
        if not counted:
            return
        if self.one.state is BreakerState.OPEN:
            # A window between nine and ten parts long must justify it.
            assert any(self.justified(self.config.window_s * part / (10 * BUCKETS)) for part in range(10 * (BUCKETS - 1), 10 * BUCKETS + 1))
        else:
            assert not all(
                self.justified(self.config.window_s * part / (10 * BUCKETS)) for part in range(10 * (BUCKETS - 1), 10 * BUCKETS + 1)
            )

    def justified(self, window_s: float) -> bool:
        inside = [failed for at_s, failed in self.outcomes if at_s > self.clock.now_s - window_s - 1e-6]
        return len(inside) >= 3 and sum(inside) * 2 >= len(inside)

    @rule(passed_s=st.sampled_from([0.1, 0.5, 1.0, 1.7, 3.0, 12.0]))
    def time(self, passed_s: float) -> None:
        self.clock.now_s += passed_s
        was_open = self.one.state is BreakerState.OPEN
        self.one.tick(self.clock.now_s)
        waited_s = self.clock.now_s - self.opened_s
        if was_open and waited_s < 2 - 1e-6:
            assert self.one.state is BreakerState.OPEN
        if was_open and waited_s >= 7 + 1e-6:
            assert self.one.state is BreakerState.HALF_OPEN

    @invariant()
    def bounded(self) -> None:
        probes = sum(1 for epoch in self.flying if epoch == self.one.epoch)
        if self.one.state is BreakerState.HALF_OPEN:
            assert probes <= 2
            assert self.one.admits is (probes < 2)
        else:
            assert self.one.admits is (self.one.state is BreakerState.CLOSED)
        assert self.one.available is (self.one.state is not BreakerState.OPEN)


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
