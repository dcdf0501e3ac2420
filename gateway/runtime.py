"""Runtime: everything in a serving process that outlives a request, opened and closed as one.

It is a `processes.member.Member`: the leader tells it the configuration in two phases and the workers whenever they change.
What requests read is plain attributes, replaced as a whole by `commit`, so that a request sees one configuration or the
other and never a mixture within one phase.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from gateway.admission.admission import Admission
from gateway.admission.keyring import Keyring
from gateway.config.model import GatewayConfig
from gateway.errors import Code, GatewayError
from gateway.routing.engine import Router
from gateway.shared.layout import CONCURRENCY, QUEUED
from gateway.shared.table import SharedTable
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.cells import EndpointCells, ProcessCells
from gateway.telemetry.clock import wall_s
from gateway.telemetry.process import ProcessProbe
from gateway.telemetry.snapshot import Snapshot, WorkerReading, take
from gateway.workers.registry import Registry
from gateway.workers.state import WorkerState

if TYPE_CHECKING:
    from gateway.telemetry.trace import Tracer

log = logging.getLogger(__name__)

FORWARD: Final = 1
"""It travels on to the worker."""
CREDENTIAL: Final = 2
API_KEY: Final = 3
TRACEPARENT: Final = 4
CONTENT_TYPE: Final = 5
PRIORITY: Final = 6
TENANT: Final = 7
FIRST_RANK: Final = 100
"""From here to `MAX_RANK`: it may hold the request id, the lowest rank wins."""
MAX_RANK: Final = 200

_HEADER_KINDS = {
    b"authorization": CREDENTIAL,
    b"x-api-key": API_KEY,
    b"traceparent": TRACEPARENT,
    b"content-type": CONTENT_TYPE,
    b"x-smg-priority": PRIORITY,
    b"tracestate": FORWARD,
    b"accept": FORWARD,
    b"anthropic-version": FORWARD,
    b"anthropic-beta": FORWARD,
    b"endpoint-load-metrics-format": FORWARD,
}

_NEVER_FORWARDED = frozenset(
    (
        b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer",
        b"upgrade", b"expect",
    )
)  # fmt: skip
"""Framing and hop-by-hop lines, whatever the configuration says: a second length would let a client speak for the gateway."""

TICK_S = 0.1
"""How often time limits are looked at: a limit is kept to within this."""
_BREAKER_TICKS = 3
_SWEEP_TICKS = 10


@dataclass(slots=True)
class _Prepared:
    version: int
    config: GatewayConfig
    keyring: Keyring
    access_log: AccessLog | None
    tracer: Tracer | None


class Runtime:
    """The services of one process. `async with` opens it; on leaving, all that it opened is closed, also after a failure."""

    def __init__(
        self,
        config: GatewayConfig,
        table: SharedTable,
        loop: asyncio.AbstractEventLoop,
        endpoint_paths: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.version = 0
        """Version of the configuration in force; 0 before the first."""
        self.table = table
        self.loop = loop
        self.time = clock
        """uvloop's own time has a resolution of a millisecond; the base is the same."""
        self.started_unix_s = int(wall_s())
        self.cells = ProcessCells()
        self.endpoint_cells: dict[str, EndpointCells] = {path: self.cells.endpoint(path) for path in endpoint_paths}
        self.registry = Registry(table, loop, breaker=config.breaker, upstream=config.upstream, timeouts=config.timeouts, clock=clock)
        self.router = Router(self.registry.workers.values, config.routing, config.models, self.time)
        self.registry.on_change = self._availability_changed
        self.keyring = Keyring(config.auth)
        self.admission = Admission(config.admission, table, self.time, loop, self.cells)
        self.access_log: AccessLog | None = None
        self.tracer: Tracer | None = None
        self.probe = ProcessProbe(table.index)
        self.draining = False
        self.on_tick: list[Callable[[float], None]] = []
        """Called ten times a second with the monotonic time."""
        self.on_sweep: list[Callable[[float], None]] = []
        """Called once a second."""
        self.on_configure: list[Callable[[GatewayConfig], None]] = []
        """Called by `commit` with the new configuration; they must not fail."""
        self.on_prepare: list[Callable[[GatewayConfig], None]] = []
        """Called by `prepare`; they raise `ConfigError` where the new configuration cannot be used, and change nothing."""
        self.on_settle: Callable[[], None] | None = None
        """Called when a drain begins, while connections are still taken."""
        self.on_drain: Callable[[], Awaitable[None]] | None = None
        self.report_failure: Callable[[str], None] = _nobody
        """Tells the fleet that a worker refused a connection."""
        self._prepared: _Prepared | None = None
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._use(config)

    def __repr__(self) -> str:
        return f"<Runtime version={self.version} {len(self.registry.workers)} workers{' draining' if self.draining else ''}>"

    async def __aenter__(self) -> Self:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.admission.close()
        await self.abort(0)
        await self.registry.aclose()
        if self.access_log is not None:
            self.access_log.close()
        if self.tracer is not None:
            self.tracer.close()

    # -- processes.member.Member --------------------------------------------------------------------------------------

    async def prepare(self, version: int, config: GatewayConfig) -> None:
        """Build what a version needs, beside what serves now."""
        await self.abort(0)
        for check in self.on_prepare:
            check(config)
        access_log = self.access_log
        if (config.log != self.config.log or access_log is None) and config.log.access:
            access_log = AccessLog(json_lines=config.log.json_lines)
        elif not config.log.access:
            access_log = None
        tracer = self.tracer
        if config.trace.enabled and (tracer is None or config.trace != self.config.trace):
            from gateway.telemetry.trace import Tracer  # the extra is needed only where traces are wanted

            tracer = Tracer(config.trace)
        elif not config.trace.enabled:
            tracer = None
        self._prepared = _Prepared(version, config, Keyring(config.auth), access_log, tracer)

    async def commit(self, version: int) -> None:
        """Switch to the prepared version.

        Raises:
            GatewayError: it was not prepared; nothing has changed.
        """
        new = self._prepared
        if new is None or new.version != version:
            raise GatewayError(Code.INTERNAL, f"version {version} was never prepared here, still at {self.version}")
        self._prepared = None
        old_log, old_tracer = self.access_log, self.tracer
        config = new.config
        self.registry.configure(config.breaker, config.upstream, config.timeouts)
        self.router.configure(config.routing, config.models)
        self.admission.reconfigure(config.admission)
        self.keyring = new.keyring
        self.access_log = new.access_log
        self.tracer = new.tracer
        self.config = config
        self.version = version
        self._use(config)
        for listener in self.on_configure:
            listener(config)
        if old_log is not None and old_log is not new.access_log:
            old_log.close()
        if old_tracer is not None and old_tracer is not new.tracer:
            old_tracer.close()

    async def abort(self, version: int) -> None:
        """Forget what was prepared."""
        new, self._prepared = self._prepared, None
        if new is None:
            return
        if new.access_log is not None and new.access_log is not self.access_log:
            new.access_log.close()
        if new.tracer is not None and new.tracer is not self.tracer:
            new.tracer.close()

    def states(self, states: tuple[WorkerState, ...]) -> None:
        """Hear all workers there are."""
        self.registry.update(states)

    async def snapshot(self) -> Snapshot:
        """Return the counts of this process."""
        own = self.table.own
        return take(
            self.cells,
            [
                WorkerReading(
                    id=worker.id,
                    url=worker.url,
                    models=tuple(info.name for info in worker.state.models),
                    status=str(worker.state.status),
                    engine=str(worker.state.engine),
                    cells=worker.cells,
                    in_flight=own[worker.slot],
                    breaker=str(worker.breaker.state),
                    open_connections=worker.http.open_connections,
                )
                for worker in self.registry.workers.values()
            ],
            process=self.probe.read(),
            in_flight=own[CONCURRENCY],
            queued=own[QUEUED],
            queue_depth=self.admission.queue.depth(),
            access_log_dropped=self.access_log.dropped if self.access_log is not None else 0,
            spans_dropped=self.tracer.dropped if self.tracer is not None else 0,
        )

    async def drain(self) -> None:
        """Stop taking connections, return when the last request has ended or the drain time is over."""
        self.draining = True
        if self.on_settle is not None:
            self.on_settle()
        if self.config.server.drain_settle_s:
            await asyncio.sleep(self.config.server.drain_settle_s)
        if self.on_drain is not None:
            await self.on_drain()

    # -- within the process -------------------------------------------------------------------------------------------

    def _use(self, config: GatewayConfig) -> None:
        """Derive what the request path reads from a configuration."""
        kinds = dict.fromkeys((name.encode() for name in config.upstream.forward_headers), FORWARD)
        kinds[config.routing.routing_key_header.lower().encode()] = FORWARD
        ids = [name.lower().encode() for name in config.server.request_id_headers]
        kinds |= {name: FIRST_RANK + rank for rank, name in enumerate(ids[: MAX_RANK - FIRST_RANK])}
        if config.auth.trust_tenant_header:
            kinds[config.auth.tenant_header.lower().encode()] = TENANT
        self.header_kinds = {name: kind for name, kind in (kinds | _HEADER_KINDS).items() if name not in _NEVER_FORWARDED}
        """What a request header means to the gateway, by its lower-case name; the others mean nothing to it."""
        self.hands_credentials_on = not config.auth.keys
        """Without keys of its own the gateway passes the client's credential to workers that it has none for."""

    def _availability_changed(self) -> None:
        self.router.refresh()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        now_s = self.time()
        self._ticks += 1
        due = list(self.on_tick)
        if self._ticks % _BREAKER_TICKS == 0:
            due += (self.registry.tick, self.admission.tick)
        if self._ticks % _SWEEP_TICKS == 0:
            due += (self.registry.sweep, *self.on_sweep)
        for call in due:
            try:
                call(now_s)
            except Exception:  # a failed one must stop neither the clock of the whole process nor the others
                log.exception("a periodic task failed")


def _nobody(worker_id: str) -> None:
    """Nobody listens yet."""
