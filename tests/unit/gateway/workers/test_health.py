"""When the next check comes."""

from __future__ import annotations

import logging

import pytest

from gateway.config.model import HealthConfig, WorkerConfig
from gateway.workers import record
from gateway.workers.health import FAILED_S, MAX_START_S, Watcher, pause_s
from gateway.workers.probe import Outcome
from gateway.workers.record import Life, Record
from gateway.workers.state import Status

STEADY = HealthConfig(interval_s=5, jitter=0)


def test_a_pending_worker_is_asked_soon_and_then_less_often() -> None:
    """0.2 s growing by half, to 2 s, for ever."""
    pauses = [pause_s(Life(Status.PENDING, 0.0, failures=count), STEADY, refused=True, draw=0.5) for count in range(1, 10)]
    assert pauses[:4] == pytest.approx([0.2, 0.3, 0.45, 0.675])
    assert pauses[-1] == MAX_START_S
    assert pause_s(Life(Status.PENDING, 0.0, failures=10**9), STEADY, refused=True, draw=0.5) == MAX_START_S


@pytest.mark.parametrize(
    ("life", "refused", "expected"),
    [
        (Life(Status.PENDING, 0.0, successes=1), False, 0.2),
        (Life(Status.READY, 0.0), False, 5.0),
        (Life(Status.READY, 0.0, failures=1), False, 5.0),
        (Life(Status.READY, 0.0, failures=1), True, 0.25),
        (Life(Status.NOT_READY, 0.0, failures=9), True, 5.0),
        (Life(Status.FAILED, 0.0, failures=9), True, FAILED_S),
    ],
)
def test_pauses_by_status(life: Life, refused: bool, expected: float) -> None:
    """A refused connection of a serving worker is confirmed fast, a slow answer at the usual pace; failed ones are asked seldom."""
    assert pause_s(life, STEADY, refused=refused, draw=0.3) == expected


def test_jitter_moves_each_check_both_ways() -> None:
    """The interval is moved by at most its share, and is kept on the average."""
    health = HealthConfig(interval_s=10, jitter=0.2)
    assert [pause_s(Life(Status.READY, 0.0), health, refused=False, draw=draw) for draw in (0.0, 0.5, 1.0)] == [8.0, 10.0, 12.0]


def test_a_short_interval_is_never_exceeded_by_a_confirmation() -> None:
    """Whoever asks every 50 ms is not slowed down by a failure."""
    quick = HealthConfig(interval_s=0.05, jitter=0)
    assert pause_s(Life(Status.READY, 0.0, failures=1), quick, refused=True, draw=0.5) == 0.05


def test_a_worker_that_never_answered_is_told_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever mistyped a worker's address finds the reason in the log, once for each reason and not at every check."""
    caplog.set_level(logging.INFO)
    one = Record("id", 0, WorkerConfig(url="http://w:1"), "config", STEADY, record.born(0.0), 1000.0)
    watcher = Watcher(lambda: 1.0, changed=lambda _: None, slow_start_s=lambda: 0.0)
    for reason in ("the worker refuses connections", "the worker refuses connections", "/health answers 503"):
        watcher.heard(one, Outcome(False, reason))
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "not up yet (the worker refuses connections)",
        "not up yet (/health answers 503)",
    ]
