"""sticky: a routing key stays with the worker that it went to first.

1. A new key goes to the least loaded worker, of equally loaded ones to the one with the fewest keys, both by cost.
2. It stays there whatever the load, until it was idle for `sticky_ttl_s`, or `sticky_max_keys` later keys pushed it out.
3. Where an attempt on its worker fails, the request goes on to another one and the key stays: the next request tries home again.
4. Where its worker is not among the candidates (unhealthy, breaker open, draining, gone), the key moves to the worker that takes
   the request, and does not move back: the newest part of the session's cache is there now, and a worker that just came back
   is not met by all its old sessions at once.

Without a key the least loaded worker is taken. Each process keeps its own keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from random import Random

from gateway.config.model import RoutingConfig
from gateway.routing.candidate import Candidate, RoutingRequest
from gateway.routing.scores import LoadScores

MAX_KEY_BYTES = 128
"""Longer keys are kept as their hash, so that `sticky_max_keys` bounds the memory."""
EXPIRED_AT_ONCE = 4
"""Idle keys that one request drops at most; more than one, so that they go faster than new ones come."""


class _Home:
    """A worker as keys point at it; once forgotten, none of its keys counts any more."""

    __slots__ = ("forgotten", "id", "keys")

    def __init__(self, worker_id: str) -> None:
        self.id = worker_id
        self.keys = 0
        self.forgotten = False


class Sticky:
    """Keeps sessions on their workers."""

    name = "sticky"

    def __init__(self, config: RoutingConfig, clock: Callable[[], float], rng: Random) -> None:
        self._header = config.routing_key_header.lower().encode()
        self._ttl_s = config.sticky_ttl_s
        self._max_keys = config.sticky_max_keys
        self._clock = clock
        self._scores = LoadScores(rng)
        self._random = rng.random
        self._keys: OrderedDict[bytes, tuple[_Home, float]] = OrderedDict()
        """Key -> home and time of its last use, least lately used first."""
        self._homes: dict[str, _Home] = {}
        self._seen: Sequence[Candidate] | None = None
        self._here: dict[str, Candidate] = {}

    def __len__(self) -> int:
        """Keys kept."""
        return len(self._keys)

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the key's worker where it is available, then all others by their load."""
        key = self._key(request)
        if not key:
            yield from self._scores.rank(candidates)
            return
        self._look(candidates)
        first = self._home(key)
        if first is None:
            first = self._place(candidates)
        yield first
        yield from self._scores.rest(candidates, first)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Bind the key to the worker, unless it has a home that is available."""
        key = self._key(request)
        if not key:
            return
        now = self._clock()
        bound = self._keys.get(key)
        if bound is not None and self._home(key) is None:
            self._unbind(key)
            bound = None
        if bound is None:
            home = self._homes.get(candidate.id)
            if home is None:
                home = self._homes[candidate.id] = _Home(candidate.id)
            home.keys += 1
        else:
            home = bound[0]
        self._keys[key] = home, now
        self._keys.move_to_end(key)
        self._expire(now)

    def forget(self, candidate_id: str) -> None:
        """Unbind all keys of the worker at once; their places are freed as they age."""
        home = self._homes.pop(candidate_id, None)
        if home is not None:
            home.forgotten = True
        self._seen = None
        self._here.pop(candidate_id, None)

    def _key(self, request: RoutingRequest) -> bytes | None:
        key = request.header(self._header)
        return blake2b(key, digest_size=32).digest() if key and len(key) > MAX_KEY_BYTES else key

    def _look(self, candidates: Sequence[Candidate]) -> None:
        if candidates is not self._seen:
            self._seen = candidates
            self._here = {c.id: c for c in candidates}

    def _home(self, key: bytes) -> Candidate | None:
        """The available worker of a key, if it has one."""
        bound = self._keys.get(key)
        if bound is None:
            return None
        home, used_s = bound
        if home.forgotten or self._clock() - used_s > self._ttl_s:
            return None
        return self._here.get(home.id)

    def _place(self, candidates: Sequence[Candidate]) -> Candidate:
        """Choose for a new key: `(load + keys share) * effective_cost`, where the share of most keys is just below 1."""
        homes = self._homes
        keys = [home.keys if (home := homes.get(c.id)) is not None else 0 for c in candidates]
        most = max(keys) + 1
        random = self._random
        scores = [(c.load + (k + random()) / most) * c.effective_cost for c, k in zip(candidates, keys, strict=True)]
        return candidates[scores.index(min(scores))]

    def _unbind(self, key: bytes) -> None:
        home, _ = self._keys.pop(key)
        home.keys -= 1

    def _expire(self, now: float) -> None:
        for _ in range(EXPIRED_AT_ONCE):
            key, (_, used_s) = next(iter(self._keys.items()))
            if len(self._keys) <= self._max_keys and now - used_s <= self._ttl_s:
                break
            self._unbind(key)
