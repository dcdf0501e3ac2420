"""least_load: the worker with the fewest requests in flight, by cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.scores import LoadScores


class LeastLoad:
    """Takes the lowest score `(load + e) * effective_cost` of all; equal ones by chance."""

    name = "least_load"

    def __init__(self, rng: Random) -> None:
        self._scores = LoadScores(rng)

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield all candidates, the least loaded first."""
        return self._scores.rank(candidates)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Keep nothing."""
