"""consistent_hashing: a key of the request, hashed onto a ring with bounded loads.

The first of these that a request has decides:

1. `x-smg-target-worker`: the worker itself, by id, by URL, or by its number among those available (0 is the first). It is
   taken whatever its load; where there is no such worker, the next rule decides, and the request is not refused.
2. `x-smg-routing-key` (`routing_key_header`).
3. `authorization`, the first address of `x-forwarded-for`, `cookie`: one user's requests stay together without any key.
4. Nothing: the least loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from gateway.config.model import RoutingConfig
from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.hash_ring import BoundedRing
from gateway.routing.scores import LoadScores

TARGET_HEADER = b"x-smg-target-worker"


class ConsistentHashing:
    """Sends equal keys to one worker, as long as it has room; a worker that leaves moves its own keys only."""

    name = "consistent_hashing"

    def __init__(self, config: RoutingConfig, clock: Callable[[], float], rng: Random) -> None:
        self._key_header = config.routing_key_header.lower().encode()
        self._ring = BoundedRing(config.load_factor, clock)
        self._scores = LoadScores(rng)

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the worker asked for, if any, and the others clockwise from the key, those with room first."""
        key = self._key(request)
        ranked = self._ring.rank(key, candidates) if key else self._scores.rank(candidates)
        value = request.header(TARGET_HEADER)
        target = _target(value, candidates) if value else None
        if target is None:
            return ranked
        return _first(target, ranked)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Take the worker off the ring."""
        self._ring.forget(candidate_id)

    def _key(self, request: RoutingRequest) -> bytes | None:
        header = request.header
        key = header(self._key_header) or header(b"authorization")
        if key:
            return key
        key = header(b"x-forwarded-for")
        if key:
            return key.partition(b",")[0].strip() or None
        return header(b"cookie")


def _target(value: bytes, candidates: Sequence[Candidate]) -> Candidate | None:
    text = value.decode("latin-1").strip()
    if text.isdecimal() and len(text) < 6 and int(text) < len(candidates):
        return candidates[int(text)]
    return next((c for c in candidates if text in (c.id, c.url)), None)


def _first(target: Candidate, ranked: Iterator[Candidate]) -> Iterator[Candidate]:
    yield target
    for candidate in ranked:
        if candidate is not target:
            yield candidate
