"""round_robin: each worker in turn; where costs differ, in turns as long as 1 / cost.

With equal costs a counter goes around. Otherwise each worker has a time at which it is due, the earliest one is taken, and its
next turn is `effective_cost` later (earliest deadline first, as Envoy's weighted round robin does it): a worker of cost 2 comes
half as often as one of cost 1, evenly interleaved. Each process starts elsewhere, so that several do not march in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.costs import Costs


class RoundRobin:
    """Takes workers in turn, whatever their load."""

    name = "round_robin"

    def __init__(self, clock: Callable[[], float], rng: Random) -> None:
        self._costs = Costs(clock)
        self._random = rng.random
        self._next = rng.randrange(1 << 16)
        self._now = 0.0
        self._ids: list[str] = []
        self._due: list[float] = []
        self._due_costs: list[float] = []

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the one whose turn it is, then all others from a random one on, so that a failed one's turns spread."""
        if self._costs.changed(candidates):
            self._match(candidates)
        n = len(candidates)
        if self._costs.equal:
            first = self._next % n
            self._next = first + 1
        else:
            due = self._due
            self._now = min(due)
            first = due.index(self._now)
            due[first] += self._costs.values[first]
        yield candidates[first]
        start = int(self._random() * n)
        for at in range(start, start + n):
            if at % n != first:
                yield candidates[at % n]

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Let go of the worker's turn with the next change of the candidates."""
        self._costs.forget()

    def _match(self, candidates: Sequence[Candidate]) -> None:
        """Keep the turns of those who stay, scaled to their costs now; a new one comes somewhere within its first turn."""
        now = self._now
        waits = {name: (due - now) / cost for name, due, cost in zip(self._ids, self._due, self._due_costs, strict=True)}
        self._ids = [c.id for c in candidates]
        self._due_costs = self._costs.values
        self._due = [
            now + cost * (waits[name] if name in waits else self._random()) for name, cost in zip(self._ids, self._due_costs, strict=True)
        ]
