"""Consistent hashing: a ring of virtual nodes, and the bounded walk around it.

The ring keeps every worker until it is forgotten, whether available or not: a worker that fails for a while hands each of its
keys to the next one clockwise, and gets exactly those back. Points come from the worker's URL, so that all processes and all
gateways draw the same ring.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b, shake_128
from itertools import chain

from gateway.routing.candidate import Candidate
from gateway.routing.costs import Costs

VNODES = 150
"""Points of a worker of cost 1 (smg: 150): shares within about 8 % of each other."""
MIN_VNODES = 15
MAX_VNODES = 600

_OWNER = 0xFFFF
"""The low bits of a point say whose it is; the high 48 bits are its place."""


def point_of(key: bytes) -> int:
    """Place of a key on the ring; the same in every process."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") & ~_OWNER


class HashRing:
    """Points of up to 65536 owners, sorted. An owner is a small number that the ring gives to a name."""

    __slots__ = ("_counts", "_free", "_points", "owners")

    def __init__(self) -> None:
        self._points = array("Q")
        self.owners: dict[str, int] = {}
        """Name -> owner number."""
        self._counts: dict[str, int] = {}
        self._free: list[int] = []

    def __repr__(self) -> str:
        return f"<HashRing {len(self.owners)} owners, {len(self._points)} points>"

    def set(self, members: Sequence[tuple[str, str, float]]) -> None:
        """Add or re-weigh members (name, seed of its points, weight), in one sort however many they are."""
        fresh = []
        for name, seed, weight in members:
            count = min(max(round(VNODES * weight), MIN_VNODES), MAX_VNODES)
            if self._counts.get(name) == count:
                continue
            if name in self.owners:
                self.remove(name)
            owner = self._free.pop() if self._free else len(self.owners)
            self.owners[name] = owner
            self._counts[name] = count
            places = struct.unpack(f"<{count}Q", shake_128(seed.encode()).digest(8 * count))
            fresh += [place & ~_OWNER | owner for place in places]
        if fresh:
            self._points = array("Q", sorted([*self._points, *fresh]))

    def remove(self, name: str) -> None:
        """Take a member's points away; everybody else's stay where they are."""
        owner = self.owners.pop(name, None)
        if owner is None:
            return
        del self._counts[name]
        self._free.append(owner)
        self._points = array("Q", [point for point in self._points if point & _OWNER != owner])

    def walk(self, point: int) -> Iterator[int]:
        """Yield owners clockwise from a point, each once."""
        points = self._points
        start = bisect_left(points, point)
        seen = set()
        for at in chain(range(start, len(points)), range(start)):
            owner = points[at] & _OWNER
            if owner not in seen:
                seen.add(owner)
                yield owner


class BoundedRing:
    """Ranks candidates for a key: clockwise, those with room first.

    Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018): with m requests in flight, a worker has
    room while its load is below `load_factor * (m + 1) * w / W`, where w = 1 / effective_cost and W is the sum of all w. Since
    `load_factor` is at least 1, some worker always has room.
    """

    __slots__ = ("_costs", "_factor", "_here", "_ring", "_stale")

    def __init__(self, load_factor: float, clock: Callable[[], float]) -> None:
        self._factor = load_factor
        self._costs = Costs(clock)
        self._ring = HashRing()
        self._here: dict[int, Candidate] = {}
        self._stale = True

    def rank(self, key: bytes, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield all candidates: those with room clockwise from the key, then the others clockwise."""
        if self._costs.changed(candidates) or self._stale:
            self._match(candidates)
        here = self._here
        budget = self._factor * (sum([c.load for c in candidates]) + 1) / self._costs.weight
        left = len(candidates)
        full: list[Candidate] = []
        for owner in self._ring.walk(point_of(key)):
            candidate = here.get(owner)
            if candidate is None:
                continue
            left -= 1
            if candidate.load * candidate.effective_cost < budget:
                yield candidate
            else:
                full.append(candidate)
            if not left:
                break
        yield from full

    def forget(self, name: str) -> None:
        """Take a worker off the ring."""
        self._ring.remove(name)
        self._costs.forget()
        self._stale = True

    def _match(self, candidates: Sequence[Candidate]) -> None:
        self._ring.set([(c.id, c.url, 1.0 / c.cost) for c in candidates])
        owners = self._ring.owners
        self._here = {owners[c.id]: c for c in candidates}
        self._stale = False
