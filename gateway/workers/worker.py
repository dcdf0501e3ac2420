"""A worker inside one serving process: its connections, its breaker, its counters, and what policies see of it."""

from __future__ import annotations

from gateway.shared.table import SharedTable
from gateway.telemetry.cells import WorkerCells
from gateway.transports.http import HttpPool, Target
from gateway.workers.breaker import Breaker
from gateway.workers.state import Status, WorkerState

SLOW_START_COST = 10.0
"""Factor on the cost of a worker that just came back; it falls to 1 over `upstream.slow_start_s` (Envoy's slow start
begins at 10 % of the weight)."""


class Worker:
    """One worker as a process uses it. Made and closed by `Registry`; satisfies `routing.candidate.Candidate`.

    It lives as long as its id, URL and way of connecting stay the same; `update` takes over everything else.
    """

    __slots__ = (
        "_own", "_table", "breaker", "cells", "cost", "effective_cost", "http", "id", "own_key", "request_head", "slot", "slow_until_s",
        "state", "target", "url",
    )  # fmt: skip

    def __init__(self, state: WorkerState, target: Target, http: HttpPool, breaker: Breaker, table: SharedTable) -> None:
        self.id = state.id
        self.url = state.url
        self.slot = state.slot
        self.target = target
        self.http = http
        self.breaker = breaker
        self.cells = WorkerCells()
        self._table = table
        self._own = table.own
        self.slow_until_s = 0.0
        """Monotonic time at which a worker that came back has its full share."""
        self.effective_cost = state.cost
        self.cost = state.cost
        self.state = state
        self.own_key = state.api_key is not None
        """The gateway signs in at this worker; a 401 or 403 of it is then no answer for a client."""
        self.request_head = _request_head(state, target)
        """What follows the request target in the head of every request to it."""

    def __repr__(self) -> str:
        return f"<Worker {self.url} {self.state.status} load={self.load} breaker={self.breaker.state} {self.http!r}>"

    @property
    def load(self) -> int:
        """Requests in flight on it, over all processes."""
        return self._table.total(self.slot)

    @property
    def ready(self) -> bool:
        """The fleet says that it takes requests."""
        return self.state.status is Status.READY

    def enter(self) -> None:
        """Count a request that is sent to it."""
        self._own[self.slot] += 1

    def leave(self) -> None:
        """Count it no longer."""
        self._own[self.slot] -= 1

    def update(self, state: WorkerState) -> None:
        """Take over a new state of the same worker."""
        self.state = state
        self.cost = state.cost
        if not self.slow_until_s:
            self.effective_cost = state.cost

    def begin_slow_start(self, now_s: float, slow_start_s: float) -> None:
        """Give it its share slowly from now on, since it was away."""
        if slow_start_s > 0:
            self.slow_until_s = now_s + slow_start_s
            self.ramp(now_s, slow_start_s)

    def ramp(self, now_s: float, slow_start_s: float) -> None:
        """Set the effective cost for this moment of a slow start."""
        if not self.slow_until_s:
            return
        left = self.slow_until_s - now_s
        if left <= 0 or slow_start_s <= 0:
            self.slow_until_s = 0.0
            self.effective_cost = self.cost
            return
        share = max(1.0 / SLOW_START_COST, 1.0 - left / slow_start_s)
        self.effective_cost = self.cost / share


def _request_head(state: WorkerState, target: Target) -> bytes:
    head = b" HTTP/1.1\r\nhost: " + target.authority + b"\r\n"
    if state.api_key is not None:
        key = state.api_key.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
        head += b"authorization: Bearer " + key + b"\r\n"
    return head
