"""The workers of one serving process: follows what the fleet says, and keeps the objects that requests use.

Strategy. The fleet sends the whole tuple of states at every change; `update` makes, updates and retires `Worker`s to match,
then tells its listener (the routing engine) once. A worker whose way of connecting changed is a new worker to us: requests
in flight finish on the old object.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.config.model import BreakerConfig, TimeoutConfig, UpstreamConfig
from gateway.errors import ConfigError
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import WorkerCells
from gateway.transports.http import HttpPool
from gateway.transports.target import target_of
from gateway.workers.breaker import Breaker
from gateway.workers.state import Status, WorkerState
from gateway.workers.worker import Worker

log = logging.getLogger(__name__)


class Registry:
    """All workers that this process knows. One a process, on one event loop; closed by the runtime."""

    def __init__(
        self,
        table: SharedTable,
        loop: asyncio.AbstractEventLoop,
        *,
        breaker: BreakerConfig,
        upstream: UpstreamConfig,
        timeouts: TimeoutConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.on_change: Callable[[], None] = _nobody
        """Called after every change of the workers or of what a breaker lets through."""
        self._table = table
        self._loop = loop
        self._clock = clock
        self._breaker = breaker
        self._upstream = upstream
        self._timeouts = timeouts
        self._retired: set[Worker] = set()
        """Gone from the fleet, with requests in flight."""

    def configure(self, breaker: BreakerConfig, upstream: UpstreamConfig, timeouts: TimeoutConfig) -> None:
        """Use new limits: connections' at once, breakers' with fresh windows where they changed."""
        changed = breaker != self._breaker
        self._breaker, self._upstream, self._timeouts = breaker, upstream, timeouts
        for worker in self.workers.values():
            worker.http.max_connections = worker.state.max_connections or upstream.max_connections
            worker.http.max_waiting = upstream.max_waiting
            worker.http.connect_s = timeouts.connect_s
            worker.http.keep_alive_s = upstream.keep_alive_s
            if changed:
                worker.breaker = self._new_breaker(worker)
        if changed:
            self.on_change()

    def update(self, states: tuple[WorkerState, ...]) -> None:
        """Match what the fleet says."""
        seen: set[str] = set()
        for state in states:
            seen.add(state.id)
            worker = self.workers.get(state.id)
            if worker is not None and _same_way(worker.state, state):
                was = worker.state
                worker.update(state)
                if state.status is Status.READY and was.status is not Status.READY and state.recovered:
                    worker.begin_slow_start(self._clock(), self._upstream.slow_start_s)
                    worker.breaker = self._new_breaker(worker)
                continue
            cells = worker.cells if worker is not None else None
            if worker is not None:
                self._retire(worker)
            try:
                self.workers[state.id] = self._new_worker(state, cells)
            except ConfigError as error:
                log.error("worker %s cannot be used: %s", state.url, error.message)
                self.workers.pop(state.id, None)
        for gone in [known for known in self.workers if known not in seen]:
            self._retire(self.workers.pop(gone))
        self.on_change()

    def tick(self, now_s: float) -> None:
        """Move breakers and slow starts on; called about four times a second."""
        for worker in self.workers.values():
            worker.breaker.tick(now_s)
            if worker.slow_until_s:
                worker.ramp(now_s, self._upstream.slow_start_s)

    def sweep(self, now_s: float) -> None:
        """Close idle connections; called about every second."""
        for worker in self.workers.values():
            worker.http.sweep(now_s)
        for worker in [one for one in self._retired if not one.http.open_connections]:
            self._retired.discard(worker)

    async def aclose(self) -> None:
        """Close every connection."""
        for worker in (*self.workers.values(), *self._retired):
            await worker.http.aclose()
        self.workers.clear()
        self._retired.clear()

    def _retire(self, worker: Worker) -> None:
        worker.http.close()
        if worker.http.open_connections:
            self._retired.add(worker)

    def _new_worker(self, state: WorkerState, cells: WorkerCells | None) -> Worker:
        target = target_of(state.url, ca_file=state.ca_file, verify_tls=state.verify_tls)
        http = HttpPool(
            target,
            loop=self._loop,
            max_connections=state.max_connections or self._upstream.max_connections,
            max_waiting=self._upstream.max_waiting,
            connect_s=self._timeouts.connect_s,
            keep_alive_s=self._upstream.keep_alive_s,
        )
        worker = Worker(state, target, http, Breaker(self._breaker, self._clock), self._table)
        if cells is not None:
            worker.cells = cells  # the same worker to whoever reads its counters
        worker.breaker = self._new_breaker(worker)
        if state.recovered and state.status is Status.READY:
            worker.begin_slow_start(self._clock(), self._upstream.slow_start_s)
        return worker

    def _new_breaker(self, worker: Worker) -> Breaker:
        breaker = Breaker(self._breaker, self._clock)
        breaker.epoch = worker.breaker.epoch + 1  # attempts that the old one let through say nothing to the new one
        transitions = worker.cells.breaker_transitions

        def changed(old: str, new: str) -> None:
            key = (str(old), str(new))
            transitions[key] = transitions.get(key, 0) + 1
            log.log(logging.INFO if new == "closed" else logging.WARNING, "breaker of %s: %s -> %s", worker.url, old, new)
            self.on_change()

        breaker.on_change = changed
        return breaker


def _same_way(old: WorkerState, new: WorkerState) -> bool:
    """Whether the objects made for `old` serve `new`."""
    return (
        old.url == new.url
        and old.slot == new.slot
        and old.api_key == new.api_key
        and old.ca_file == new.ca_file
        and old.verify_tls == new.verify_tls
        and old.max_connections == new.max_connections
    )


def _nobody() -> None:
    """Nobody listens yet."""
