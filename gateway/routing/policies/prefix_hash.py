"""prefix_hash: the first bytes of the prompt, hashed onto a ring with bounded loads; without a prompt the least loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from gateway.config.model import RoutingConfig
from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.hash_ring import BoundedRing
from gateway.routing.scores import LoadScores


class PrefixHash:
    """Sends prompts that share their first `prefix_bytes` to one worker, as long as it has room.

    Keeps nothing of the requests, so that all processes and all gateways agree. Takes the raw bytes of the prompt: no tokens needed.
    """

    name = "prefix_hash"

    def __init__(self, config: RoutingConfig, clock: Callable[[], float], rng: Random) -> None:
        self._prefix_bytes = config.prefix_bytes
        self._ring = BoundedRing(config.load_factor, clock)
        self._scores = LoadScores(rng)

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the candidates clockwise from the prefix, those with room first."""
        prefix = request.prompt[: self._prefix_bytes]
        if not prefix:
            return self._scores.rank(candidates)
        return self._ring.rank(prefix, candidates)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Take the worker off the ring."""
        self._ring.forget(candidate_id)
