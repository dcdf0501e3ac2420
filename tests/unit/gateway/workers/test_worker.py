"""A worker in one process: its load, its cost, and the head of requests to it."""

from __future__ import annotations

import os

import pytest

from gateway.config.model import BreakerConfig
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.transports.mock import MockPool
from gateway.workers.breaker import Breaker
from gateway.workers.state import Status
from gateway.workers.worker import SLOW_START_COST, Worker
from tests.support.exchange import Rig, state


def test_load_is_that_of_all_processes() -> None:
    """A process writes its own count and reads the sum."""
    with Rig(2) as rig:
        worker = rig.workers[1]
        worker.enter()
        worker.enter()
        worker.leave()
        assert worker.load == 1 and rig.workers[0].load == 0
    table = SharedTable(2, COLUMNS)
    other = SharedTable(2, COLUMNS, row=1, fd=os.dup(table.fd))
    try:
        pool = MockPool()
        ours, theirs = (Worker(state(3), pool.target, pool, Breaker(BreakerConfig(), lambda: 0.0), one) for one in (table, other))
        ours.enter()
        theirs.enter()
        theirs.enter()
        assert ours.load == theirs.load == 3
        ours.leave()
        assert (theirs.load, table.own[3], other.own[3]) == (2, 0, 2)
    finally:
        other.close()
        table.close()


def test_a_slow_start() -> None:
    """A worker that came back costs ten times as much, falling to its own cost over the time of the slow start."""
    with Rig([state(0, cost=2.0)]) as rig:
        (worker,) = rig.workers
        worker.begin_slow_start(100.0, 10.0)
        assert worker.effective_cost == pytest.approx(2.0 * SLOW_START_COST) and worker.cost == 2.0
        seen = []
        for now_s in (101.0, 102.5, 105.0, 109.0):
            worker.ramp(now_s, 10.0)
            seen.append(worker.effective_cost)
        assert seen == pytest.approx([20.0, 8.0, 4.0, 2.0 / 0.9])
        worker.ramp(110.0, 10.0)
        assert worker.effective_cost == 2.0 and not worker.slow_until_s
        worker.ramp(111.0, 10.0)


def test_a_slow_start_that_is_switched_off() -> None:
    """Without a slow start there is none; one that runs ends at once."""
    with Rig(1) as rig:
        (worker,) = rig.workers
        worker.begin_slow_start(100.0, 0.0)
        assert worker.effective_cost == 1.0 and not worker.slow_until_s
        worker.begin_slow_start(100.0, 10.0)
        worker.ramp(101.0, 0.0)
        assert worker.effective_cost == 1.0 and not worker.slow_until_s


def test_a_new_state_is_taken_over() -> None:
    """Cost and status change at once; while it starts slowly, the cost follows with the next step."""
    with Rig(1) as rig:
        (worker,) = rig.workers
        worker.update(state(0, cost=3.0))
        assert (worker.cost, worker.effective_cost, worker.ready) == (3.0, 3.0, True)
        worker.begin_slow_start(100.0, 10.0)
        worker.update(state(0, cost=1.0, status=Status.DRAINING))
        assert worker.effective_cost == 30.0 and not worker.ready
        worker.ramp(105.0, 10.0)
        assert worker.effective_cost == 2.0


def test_the_head_of_its_requests() -> None:
    """Host and key are made once; a key cannot break out of its line."""
    with Rig([state(0, url="https://w0/base"), state(1, api_key="a\r\nx-evil: 1")]) as rig:
        plain, keyed = rig.workers
        assert plain.request_head == b" HTTP/1.1\r\nhost: w0\r\n" and not plain.own_key
        assert keyed.request_head == b" HTTP/1.1\r\nhost: w1:8000\r\nauthorization: Bearer ax-evil: 1\r\n" and keyed.own_key
        assert repr(plain).startswith("<Worker https://w0/base ready load=0 breaker=closed")
