"""bucket: prompts by their length, each worker a range of lengths with an equal share of the work.

Short prompts do not wait behind long ones. Work is counted by length in classes of one eighth of a power of two; a request's
work is its prompt's bytes and a constant for its answer. The line of all work, sorted by length, is cut into one piece a worker
in proportion to 1 / effective_cost. A request falls on a random point of its class on that line: a class that is wider than
one worker's piece spreads over all whose pieces it covers. The line is drawn anew every `bucket_interval_s`, and early when the
work seen has doubled since; what was seen counts half after each interval. Where the piece's worker is imbalanced against the
least loaded (`balance_abs_threshold` and `balance_rel_threshold`), or there is no prompt, the least loaded takes the request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from random import Random

from gateway.config.model import RoutingConfig
from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.costs import Costs
from gateway.routing.scores import Imbalance, LoadScores

ANSWER_BYTES = 1024
"""Work of a request besides its prompt: an answer of about 256 tokens."""
CLASSES = 256
PRIOR_BYTES = 1.0
"""Work that every class of usual prompts is given before anything is known: lengths spread evenly by their logarithm."""


class Bucket:
    """Separates short prompts from long ones."""

    name = "bucket"

    def __init__(self, config: RoutingConfig, clock: Callable[[], float], rng: Random) -> None:
        self._clock = clock
        self._interval_s = config.bucket_interval_s
        self._random = rng.random
        self._scores = LoadScores(rng)
        self._imbalance = Imbalance(config.balance_abs_threshold, config.balance_rel_threshold)
        self._costs = Costs(clock)
        usual = range(length_class(64), length_class(128 << 10) + 1)
        self._work = [PRIOR_BYTES if at in usual else 0.0 for at in range(CLASSES)]
        self._seen_work = sum(self._work)
        self._line: list[float] = []
        self._drawn_work = 0.0
        self._due_s = 0.0
        self._draw()
        self._due_s = clock() + self._interval_s

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the worker of the prompt's length, then all others by their load."""
        first = self._first(len(request.prompt), candidates)
        yield first
        yield from self._scores.rest(candidates, first)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Let go of the candidates seen last."""
        self._costs.forget()

    def _first(self, length: int, candidates: Sequence[Candidate]) -> Candidate:
        least = self._scores.least(candidates)
        if not length or len(candidates) == 1:
            return least
        at = length_class(length)
        work = length + ANSWER_BYTES
        self._work[at] += work
        self._seen_work += work
        if self._seen_work > 2 * self._drawn_work:
            self._draw()
        elif self._clock() >= self._due_s:
            self._due_s = self._clock() + self._interval_s
            self._draw()
            self._work = [seen / 2 for seen in self._work]
            self._seen_work /= 2
        line = self._line
        costs = self._costs
        costs.changed(candidates)
        point = (line[at] + (line[at + 1] - line[at]) * self._random()) / line[-1]
        wanted = candidates[min(bisect_right(costs.cumulative, point * costs.weight), len(candidates) - 1)]
        return least if wanted is not least and self._imbalance.between(wanted, least) else wanted

    def _draw(self) -> None:
        self._line = list(accumulate(self._work, initial=0.0))
        self._drawn_work = self._seen_work


def length_class(length: int) -> int:
    """Class of a length: eight to each doubling."""
    scaled = length + 8
    octave = scaled.bit_length() - 4
    return min(octave << 3 | scaled >> octave & 7, CLASSES - 1)
