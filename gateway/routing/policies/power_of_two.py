"""power_of_two: the less loaded of two workers drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.scores import LoadScores


class PowerOfTwo:
    """Draws two distinct workers and takes the one of the lower score `(load + e) * effective_cost` (Mitzenmacher 2001).

    Needs two loads, however many workers there are, and does not herd when loads are seen late.
    """

    name = "power_of_two"

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self._scores = LoadScores(rng)

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the better of two, then all others by their load."""
        n = len(candidates)
        if n == 1:
            yield candidates[0]
            return
        one = int(self._random() * n)
        other = int(self._random() * (n - 1))
        if other >= one:
            other += 1
        first = self._scores.least((candidates[one], candidates[other]))
        yield first
        yield from self._scores.rest(candidates, first)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Keep nothing."""
