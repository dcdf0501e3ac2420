"""The fleet: every worker of the gateway, from the moment somebody asks for it until it has left.

Strategy. Sources (the configuration, discovery, the API) say which workers there should be; `Wishes` merges them, and
`_settle` makes the records match: new ones are added, those that nobody asks for any more drain and leave. Each record has
one loop, which checks it (health.py) and, once it drains, waits for its requests. Every change is published as the whole
tuple of states: at once where somebody asked for it, at most every 50 ms where checks found it.

Invariants.

1. A worker that leaves is published as draining first, and gone only when nothing is in flight on it or the drain's time is
   over; its slot is given to another worker after that alone.
2. The id of a worker follows from its URL: the same after a restart, and for whoever asks for it.
3. A source that fails, and a worker that cannot be used, change nothing for the others.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from gateway.config.model import GatewayConfig, HealthConfig, WorkerConfig
from gateway.config.url import identity
from gateway.errors import ClientError, Code, GatewayError
from gateway.telemetry.clock import wall_s
from gateway.workers import changes, record
from gateway.workers.health import Watcher, sleep
from gateway.workers.record import Life, Record
from gateway.workers.slots import Slots
from gateway.workers.sources import Sources, prepare
from gateway.workers.state import Status, WorkerState
from gateway.workers.wishes import API, CONFIG, Wishes

log = logging.getLogger(__name__)

NAMESPACE: Final = uuid.UUID("6f1d3c0e-6a55-5c0f-9b1e-7a0c2f6f6d67")
"""Of worker ids; a constant, so that they stay the same over restarts and versions."""
PUBLISH_GAP_S: Final = 0.05
DRAIN_LOOK_S: Final = 0.1
DRAIN_SETTLE_S: Final = 0.25
"""Time in which every process hears that a worker drains, before an empty one is taken as empty."""
FAULT_PAUSE_S: Final = 5.0


class Fleet:
    """All workers. One a gateway, on the leader's event loop; opened and closed as an async context manager."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        clock: Callable[[], float],
        in_flight: Callable[[int], int],
        publish: Callable[[tuple[WorkerState, ...]], None],
    ) -> None:
        """Construct without side effects.

        Args:
            config: the first configuration.
            clock: monotonic.
            in_flight: slot -> requests in flight on it, over all processes.
            publish: hears all states after every change.
        """
        self._config = config
        self._clock = clock
        self._in_flight = in_flight
        self._publish = publish
        self._wishes = Wishes()
        self._slots = Slots(in_flight)
        self._records: dict[str, Record] = {}
        self._sources = Sources(self._spawn, self._heard, self._withdrawn)
        self._watcher = Watcher(clock, self._changed, lambda: self._config.upstream.slow_start_s)
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._published_s = float("-inf")
        self._closed = False

    def __repr__(self) -> str:
        return f"<Fleet {len(self._records)} workers, {self._sources!r}>"

    async def __aenter__(self) -> Self:
        """Begin with the configured workers and sources.

        Raises:
            ConfigError: as `apply`; nothing runs then.
        """
        sources = prepare(self._config.discovery)
        changes.check_config(self._config.workers)
        await self._tasks.__aenter__()
        self._wishes.ask(CONFIG, self._config.workers)
        self._settle()
        self._sources.apply(sources)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End every check and every source; workers are not drained."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)

    # What the control plane asks.

    async def workers(self) -> list[WorkerState]:
        """Return all workers, in the order in which they came."""
        return [one.state() for one in self._records.values()]

    async def worker(self, worker_id: str) -> WorkerState:
        """Return one worker.

        Raises:
            ClientError: `not_found`.
        """
        return self._record(worker_id).state()

    async def add_worker(self, spec: WorkerConfig, source: str = API) -> WorkerState:
        """Add a worker; it is `pending` until it has answered.

        Raises:
            ClientError: `conflict` if there is one of this URL, `invalid_request` or `unsupported_feature` for its settings.
            GatewayError: `overloaded`, where every slot is taken.
        """
        changes.check(spec)
        existing = self._records.get(_id_of(identity(spec.url)))
        if existing is not None:
            how = "is draining; wait until it has left" if existing.leaving else f"is there already, as {existing.id}"
            raise ClientError(Code.CONFLICT, f"the worker {spec.url} {how}", param="url")
        one = self._add(identity(spec.url), source, spec)
        self._wishes.add(source, spec)
        self._publish_now()
        return one.state()

    async def replace_worker(self, worker_id: str, spec: WorkerConfig) -> WorkerState:
        """Replace the settings of a worker; one that was drained by hand is called back.

        Raises:
            ClientError: `not_found`; `conflict` while it leaves; `invalid_request` for its settings, or another URL.
        """
        one = self._record(worker_id)
        changes.check(spec)
        if identity(spec.url) != identity(one.spec.url):
            raise ClientError(Code.INVALID_REQUEST, "the url of a worker cannot change; add another worker", param="url")
        if one.leaving:
            raise ClientError(Code.CONFLICT, f"the worker {one.spec.url} is draining and leaves")
        self._configure(one, spec)
        if one.held:
            self._call_back(one)
        self._publish_now()
        return one.state()

    async def patch_worker(self, worker_id: str, patch: dict[str, Any]) -> WorkerState:
        """Change some of `priority`, `cost`, `labels`, `api_key` and `health`; a null api_key or health takes it away.

        Raises:
            ClientError: `not_found`; `invalid_request` with the key at fault.
        """
        one = self._record(worker_id)
        self._configure(one, changes.patched(one.spec, patch, self._config.health))
        self._publish_now()
        return one.state()

    async def drain_worker(self, worker_id: str) -> WorkerState:
        """Give a worker no new requests; it stays in the list until it is replaced or removed.

        Raises:
            ClientError: `not_found`.
        """
        one = self._record(worker_id)
        if not one.leaving and not one.held:
            one.held = True
            self._drain(one, "drained by hand")
            self._publish_now()
        return one.state()

    async def remove_worker(self, worker_id: str) -> WorkerState:
        """Drain a worker, then let it leave; returns as soon as it drains, and does no more for one that already leaves.

        Raises:
            ClientError: `not_found`.
        """
        one = self._record(worker_id)
        self._wishes.dismiss(identity(one.spec.url))
        self._leave(one, "removed by hand")
        self._publish_now()
        return one.state()

    def report_failure(self, worker_id: str) -> None:
        """Hear that a request met a refused connection: the worker is checked at once. Any number of calls is fine."""
        one = self._records.get(worker_id)
        if one is not None:
            self._watcher.report(one)

    def problems(self) -> dict[str, str]:
        """Return the discovery sources by name, each with why it cannot look at the moment; empty where it can."""
        return self._sources.problems()

    # Configuration.

    async def apply(self, config: GatewayConfig) -> None:
        """Take over the workers, discovery and health of a new configuration. Workers of the API stay.

        Raises:
            ConfigError: a source cannot be made, or a worker cannot be used; nothing has changed then.
        """
        sources = prepare(config.discovery)
        changes.check_config(config.workers)
        old, self._config = self._config, config
        if config.health != old.health:
            for one in self._records.values():
                if one.spec.health is None:
                    one.configure(one.spec, config.health)
        self._wishes.ask(CONFIG, config.workers, anew=True)
        self._sources.apply(sources)
        self._settle()

    def _heard(self, name: str, specs: list[WorkerConfig]) -> None:
        if not self._closed:
            self._wishes.ask(name, specs)
            self._settle()

    def _withdrawn(self, names: list[str]) -> None:
        for name in names:
            self._wishes.withdraw(name)
        self._settle()

    # Records.

    def _settle(self) -> None:
        """Make the records match the wishes."""
        wanted = self._wishes.merged()
        keys = {_id_of(key): key for key in wanted}
        for worker_id, one in self._records.items():
            key = keys.get(worker_id)
            if key is None:
                self._leave(one, f"no longer asked for by {one.source}")
                continue
            source, spec = wanted[key]
            if spec != one.wish or source != one.source:
                if spec != one.wish:
                    one.wish = spec
                    self._configure(one, spec)
                one.source = source
                one.changed()
            if one.leaving:
                self._call_back(one)
        for worker_id, key in keys.items():
            if worker_id not in self._records:
                source, spec = wanted[key]
                try:
                    self._add(key, source, spec)
                except GatewayError as error:
                    log.error("worker %s of %s: %s", spec.url, source, error.message)
        self._publish_now()

    def _add(self, key: str, source: str, spec: WorkerConfig) -> Record:
        slot = self._slots.take()
        if slot is None:
            raise GatewayError(Code.OVERLOADED, "there is no room for another worker; remove some first", retry_after_s=10.0)
        one = Record(_id_of(key), slot, spec, source, self._health_of(spec), record.born(self._clock()), wall_s())
        if not one.health.enabled:
            one.life = record.unchecked(one.life, self._clock())
        self._records[one.id] = one
        log.info("worker %s: added by %s", spec.url, source)
        self._spawn(lambda: self._keep(one), f"worker {spec.url}")
        return one

    def _configure(self, one: Record, spec: WorkerConfig) -> None:
        one.configure(spec, self._health_of(spec))

    def _health_of(self, spec: WorkerConfig) -> HealthConfig:
        return spec.health or self._config.health

    def _record(self, worker_id: str) -> Record:
        one = self._records.get(worker_id)
        if one is None:
            raise ClientError(Code.NOT_FOUND, "no such worker; `smgctl worker list` shows them")
        return one

    def _drain(self, one: Record, reason: str) -> None:
        self._move(one, record.drained(one.life, self._clock(), reason))

    def _leave(self, one: Record, reason: str) -> None:
        if not one.leaving:
            one.leaving = True
            self._drain(one, reason)

    def _call_back(self, one: Record) -> None:
        one.leaving = one.held = one.joined = False
        self._move(one, record.born(self._clock(), "called back"))

    def _move(self, one: Record, life: Life) -> None:
        before, one.life = one.life, life
        self._watcher.moved(one, before)
        one.wake.set()

    async def _keep(self, one: Record) -> None:
        """Check a worker until it has left."""
        while True:
            if one.life.status is not Status.DRAINING:
                await self._watcher.turn(one)
            elif not one.leaving:
                one.wake.clear()
                await one.wake.wait()
            elif await self._drained(one):
                del self._records[one.id]
                self._slots.give(one.slot)
                log.info("worker %s: left", one.spec.url)
                self._publish_now()
                return

    async def _drained(self, one: Record) -> bool:
        """Wait until nothing is in flight on a worker that leaves; False if it was called back."""
        begin_s = self._clock()
        limit_s = self._config.server.drain_timeout_s
        while one.leaving:
            waited_s = self._clock() - begin_s
            count = self._in_flight(one.slot)
            if waited_s >= DRAIN_SETTLE_S and count <= 0:
                return True
            if waited_s >= max(limit_s, DRAIN_SETTLE_S):
                log.warning("worker %s: leaves with %d requests in flight after %g s", one.spec.url, count, limit_s)
                return True
            one.wake.clear()
            await sleep(one.wake, DRAIN_LOOK_S)
        return False

    # Publishing and tasks.

    def _changed(self, one: Record) -> None:
        """Publish what a check found, together with what others find within a moment."""
        if self._timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._published_s + PUBLISH_GAP_S - loop.time()), self._publish_now)

    def _publish_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._closed:
            self._published_s = asyncio.get_running_loop().time()
            self._publish(tuple(one.state() for one in self._records.values()))

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(self._kept(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _kept(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run something that a fault of its own must not take the rest of the fleet down with."""
        while True:
            try:
                await work()
                return
            except Exception:
                log.exception("%s: an error of the gateway; goes on in %g s", name, FAULT_PAUSE_S)
                await asyncio.sleep(FAULT_PAUSE_S)


def _id_of(key: str) -> str:
    """Return the id of the worker with this identity of its URL."""
    return str(uuid.uuid5(NAMESPACE, key))
