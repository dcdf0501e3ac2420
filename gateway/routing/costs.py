"""Costs of the candidates as weights, read again at most ten times a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from gateway.routing.candidate import Candidate

FRESH_S = 0.1
"""Age at which costs are read again; the ramp of a slow start moves them a few times a second."""


class Costs:
    """What the candidates cost, for policies that do not look at every candidate in each decision."""

    __slots__ = ("_clock", "_due_s", "_seen", "cumulative", "equal", "values", "weight")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: Sequence[Candidate] | None = None
        self._due_s = 0.0
        self.values: list[float] = []
        """Effective costs, in the order of the candidates."""
        self.equal = True
        self.cumulative: list[float] = []
        """Running sums of 1 / effective cost."""
        self.weight = 1.0
        """Sum of 1 / effective cost."""

    def changed(self, candidates: Sequence[Candidate]) -> bool:
        """Bring the costs up to date, and say whether the candidates or their costs differ from those of the call before."""
        now = self._clock()
        same = candidates is self._seen
        if same and now < self._due_s:
            return False
        self._due_s = now + FRESH_S
        values = [c.effective_cost for c in candidates]
        if same and values == self.values:
            return False
        self._seen = candidates
        self.values = values
        self.equal = values.count(values[0]) == len(values)
        self.cumulative = list(accumulate([1.0 / value for value in values]))
        self.weight = self.cumulative[-1]
        return True

    def forget(self) -> None:
        """Let go of the candidates seen last."""
        self._seen = None
