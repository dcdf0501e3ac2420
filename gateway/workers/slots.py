"""Hands out the columns of the shared table to workers; no two live workers have the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.shared.layout import WORKER_SLOTS


class Slots:
    """The free slots of the shared table. One a fleet.

    A slot that was given back comes last, and not before nothing is in flight on it: requests that outlived the drain of its
    last worker would count as load of the next one.
    """

    def __init__(self, in_flight: Callable[[int], int], count: int = WORKER_SLOTS) -> None:
        self._in_flight = in_flight
        self._free = deque(range(count))

    def __repr__(self) -> str:
        return f"<Slots {len(self._free)} free>"

    def take(self) -> int | None:
        """Return a free slot; None where there is none."""
        for _ in range(len(self._free)):
            slot = self._free.popleft()
            if self._in_flight(slot) == 0:
                return slot
            self._free.append(slot)
        return None

    def give(self, slot: int) -> None:
        """Take back a slot whose worker has left."""
        self._free.append(slot)
