"""power_of_two: the better of two drawn at random."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.routing.policies.power_of_two import PowerOfTwo
from tests.support.candidates import Ask, TableWorker, fleet


class Counting(TableWorker):
    """A worker that counts how often its load was read."""

    __slots__ = ("reads",)

    @property
    def load(self) -> int:
        self.reads = getattr(self, "reads", 0) + 1
        return self._table.total(self.slot)


def test_only_two_loads_are_read() -> None:
    """The first choice reads two loads of a thousand, of two distinct workers."""
    policy = PowerOfTwo(random.Random(1))
    with fleet(1000) as plain:
        workers = tuple(Counting(worker._table, worker.slot) for worker in plain)
        for _ in range(50):
            for worker in workers:
                worker.reads = 0
            next(policy.rank(Ask(), workers))
            assert sorted(worker.reads for worker in workers)[-3:] == [0, 1, 1]


def test_the_less_loaded_of_the_two_is_taken() -> None:
    """With distinct loads, worker number k is beaten by every lighter one: it gets (n - 1 - k) of the n (n - 1) / 2 pairs."""
    policy = PowerOfTwo(random.Random(1))
    with fleet(5) as workers:
        for worker in workers:
            worker.load = worker.slot
        found = Counter(next(policy.rank(Ask(), workers)).slot for _ in range(10_000))
        for slot in range(5):
            assert found[slot] / 10_000 == pytest.approx((4 - slot) / 10, abs=0.02)


def test_two_workers_are_always_compared_with_each_other() -> None:
    """Of two workers the less loaded one is taken every time."""
    policy = PowerOfTwo(random.Random(1))
    with fleet(2) as workers:
        workers[1].load = 1
        assert {next(policy.rank(Ask(), workers)).id for _ in range(100)} == {"w0"}
