"""cache_aware: the worker that has seen the longest beginning of the prompt, unless it has much more to do than another.

1. Score all candidates by load.
2. Find who holds the longest beginning of the prompt, at least `cache_threshold` of it; of several the least loaded.
3. Take it, unless it is imbalanced against the least loaded candidate (`balance_abs_threshold` and `balance_rel_threshold`).
   A hot beginning, one that many prompts share, gives way at an eighth of the absolute threshold: a conversation that moves
   pays for its whole prefill again, while a copy of a hot prefix is paid for once and serves all that follow.
4. Otherwise, and without a prompt, take the least loaded.

Whoever is chosen holds the prompt from then on. So a hot prefix is copied to one more worker each time its holders fall behind,
and its requests spread over all holders evenly: affinity cannot pull the traffic onto one worker while others stand idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from gateway.config.model import RoutingConfig
from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.radix_tree import RadixTree
from gateway.routing.scores import Imbalance, LoadScores

HOT_PART = 0.125
"""Part of `balance_abs_threshold` that counts for a hot prefix (chosen on simulated engines, see choose-a-policy.md)."""


class CacheAware:
    """Follows the prefix caches of the engines by remembering which prompts went where."""

    name = "cache_aware"

    def __init__(self, config: RoutingConfig, rng: Random) -> None:
        self.tree = RadixTree(config.max_tree_bytes)
        self._share = config.cache_threshold
        self._imbalance = Imbalance(config.balance_abs_threshold, config.balance_rel_threshold)
        self._hot_imbalance = Imbalance(config.balance_abs_threshold * HOT_PART, config.balance_rel_threshold)
        self._scores = LoadScores(rng)
        self._seen: Sequence[Candidate] | None = None
        self._at: dict[int, int] = {}
        """Bit of a candidate in the tree -> its place among the candidates."""
        self._among = 0

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the one to follow, then all others by their load."""
        first = self._first(request.prompt, candidates)
        yield first
        yield from self._scores.rest(candidates, first)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Note that the worker has the prompt from now on."""
        self.tree.add(request.prompt, candidate.id)

    def forget(self, candidate_id: str) -> None:
        """Drop the worker from the tree."""
        self.tree.forget(candidate_id)
        self._seen = None

    def _first(self, prompt: bytes, candidates: Sequence[Candidate]) -> Candidate:
        scores = self._scores.of(candidates)
        least = scores.index(min(scores))
        if not prompt:
            return candidates[least]
        if candidates is not self._seen:
            self._match(candidates)
        held, hot = self.tree.holders(prompt, self._among, self._share)
        if not held:
            return candidates[least]
        wanted = self._at.get(held, -1)
        if wanted < 0:
            wanted = min([at for bit, at in self._at.items() if held & bit], key=scores.__getitem__)
        imbalance = self._hot_imbalance if hot else self._imbalance
        if wanted != least and imbalance.between(candidates[wanted], candidates[least]):
            return candidates[least]
        return candidates[wanted]

    def _match(self, candidates: Sequence[Candidate]) -> None:
        self._at = {self.tree.bit(c.id): at for at, c in enumerate(candidates)}
        self._among = sum(self._at)
        self._seen = candidates
