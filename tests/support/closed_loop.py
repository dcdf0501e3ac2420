"""A closed loop of clients over a policy, without sockets or time: each client sends its next request when the last one ended."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.routing.candidate import Policy
from tests.support.candidates import Ask, TableWorker


@dataclass
class Outcome:
    """What a run came to."""

    served: Counter[str] = field(default_factory=Counter)
    """Worker id -> requests."""
    peak: Counter[str] = field(default_factory=Counter)
    """Worker id -> most requests in flight."""
    warm: int = 0
    """Requests whose prefix the chosen worker had served before."""

    def share(self, worker: TableWorker) -> float:
        """The worker's part of all requests."""
        return self.served[worker.id] / self.served.total()


def closed_loop(
    policy: Policy,
    workers: Sequence[TableWorker],
    asks: Iterator[Ask],
    *,
    clients: int,
    requests: int,
    service_s: Callable[[TableWorker], float] = lambda worker: 1.0,
    seed: int = 1,
    prefix_of: Callable[[Ask], bytes] = lambda ask: ask.prompt,
) -> Outcome:
    """Send `requests` with `clients` in flight at any time; a request takes an exponential time of the mean `service_s`."""
    rng = random.Random(seed)
    outcome = Outcome()
    known: dict[str, set[bytes]] = {worker.id: set() for worker in workers}
    ends: list[tuple[float, int, TableWorker]] = []
    now = 0.0
    for number in range(requests):
        if number >= clients:
            now, _, done = heapq.heappop(ends)
            done.load -= 1
        ask = next(asks)
        worker = next(policy.rank(ask, workers))
        policy.chosen(ask, worker)
        worker.load += 1
        outcome.served[worker.id] += 1
        outcome.peak[worker.id] = max(outcome.peak[worker.id], worker.load)
        prefix = prefix_of(ask)
        outcome.warm += prefix in known[worker.id]
        known[worker.id].add(prefix)
        heapq.heappush(ends, (now + rng.expovariate(1.0 / service_s(worker)), number, worker))
    for _, _, worker in ends:
        worker.load -= 1
    return outcome
