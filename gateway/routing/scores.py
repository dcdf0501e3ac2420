"""Candidates by load: the one formula that every policy compares loads with.

    score = (load + e) * effective_cost        0 < e < 1, drawn anew for every decision

`load * cost` is nginx's `least_conn` (connections / weight): in the long run a worker of cost 2 has half as many requests in
flight. The fraction `e` decides where loads are equal, so that many idle workers do not all herd onto the first one. It is
exponential with rate 4: the least of several such times `cost` is worker i with probability (1/cost_i) / sum(1/cost), so that
idle workers, too, are chosen in proportion to 1/cost (Efraimidis and Spirakis 2006). At most 2 % of the draws are cut off at 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from gateway.routing.candidate import Candidate

TIE_RATE = 4.0
TIE_MAX = 1.0 - 2.0**-30
TIES = 1024
"""Fractions drawn in advance; a decision takes a random stretch of them, which costs less than drawing its own."""


class LoadScores:
    """Scores and ranks candidates by load. One a policy; keeps no worker."""

    __slots__ = ("_random", "_ties")

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self._ties = [min(rng.expovariate(TIE_RATE) + 1e-12, TIE_MAX) for _ in range(TIES)]

    def of(self, candidates: Sequence[Candidate]) -> list[float]:
        """Score every candidate, in their order; the least is the best."""
        n = len(candidates)
        ties = self._ties
        while len(ties) < 2 * n:
            ties.extend(ties)
        at = int(self._random() * (len(ties) - n))
        return [(c.load + tie) * c.effective_cost for c, tie in zip(candidates, ties[at : at + n], strict=True)]

    def least(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the candidate of the least score."""
        if len(candidates) == 1:
            return candidates[0]
        scores = self.of(candidates)
        return candidates[scores.index(min(scores))]

    def rank(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield all candidates, the least loaded first."""
        first = self.least(candidates)
        yield first
        yield from self.rest(candidates, first)

    def rest(self, candidates: Sequence[Candidate], first: Candidate) -> Iterator[Candidate]:
        """Yield all but the first, the least loaded first, by the loads of the moment in which the second one is asked for."""
        left = [c for c in candidates if c is not first]
        scores = self.of(left)
        for at in sorted(range(len(left)), key=scores.__getitem__):
            yield left[at]


class Imbalance:
    """When affinity must give way to load: both `balance_abs_threshold` and `balance_rel_threshold` are exceeded.

    Loads are compared times cost, and the absolute threshold counts requests of the least loaded one. smg asks this of the whole
    pool (largest against least); here it is asked of the one worker that affinity proposes, so that one slow worker does not
    switch affinity off for all others.
    """

    __slots__ = ("_abs", "_rel")

    def __init__(self, balance_abs_threshold: float, balance_rel_threshold: float) -> None:
        self._abs = balance_abs_threshold
        self._rel = balance_rel_threshold

    def between(self, wanted: Candidate, least: Candidate) -> bool:
        """Say whether `wanted` has so much more to do than `least` that the request goes to `least`."""
        high = wanted.load * wanted.effective_cost
        low = least.load * least.effective_cost
        return high - low > self._abs * least.effective_cost and high > self._rel * low
