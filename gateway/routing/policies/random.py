"""random: any worker, with probability 1 / cost relative to the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from random import Random as Generator

from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.costs import Costs


class Random:
    """Takes a worker by chance, whatever its load."""

    name = "random"

    def __init__(self, clock: Callable[[], float], rng: Generator) -> None:
        self._costs = Costs(clock)
        self._rng = rng

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield all candidates in a random order, cheap ones more often early (a weighted draw without replacement)."""
        costs = self._costs
        costs.changed(candidates)
        random = self._rng.random
        n = len(candidates)
        first = int(random() * n) if costs.equal else min(bisect_right(costs.cumulative, random() * costs.weight), n - 1)
        yield candidates[first]
        rest = [c for at, c in enumerate(candidates) if at != first]
        # Exponential times of rate 1 / cost, in their order (Efraimidis and Spirakis 2006).
        times = [self._rng.expovariate(1.0) * c.effective_cost for c in rest]
        for at in sorted(range(n - 1), key=times.__getitem__):
            yield rest[at]

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Let go of the candidates seen last."""
        self._costs.forget()
