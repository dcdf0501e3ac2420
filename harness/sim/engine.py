"""One simulated engine on one port: listens, applies faults, keeps the record, hands requests to its application.

Life: `async with running(...)` opens it; leaving closes every connection. A crash closes it from inside; `restart` listens
again on the same port with an empty KV cache.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from harness.sim import control
from harness.sim.app import App
from harness.sim.driver import Driver
from harness.sim.faults import Fault, Faults, Kind
from harness.sim.http import Connection, Exchange
from harness.sim.job import Job
from harness.sim.settings import SimSettings
from harness.sim.state import SeenRequest, SimState

MAX_PATHS = 64
MAX_KEPT_BYTES = 4 << 20
"""Of each body that `state` keeps; the rest of a longer one is forgotten."""
CRASH_EXIT = 70
"""Exit code of a process whose engine crashed on demand (EX_SOFTWARE)."""


class SimEngine:
    """A running simulated engine. All methods belong to the loop on which it was started."""

    def __init__(self, settings: SimSettings) -> None:
        self.settings = settings
        self.keep_alive_s = settings.keep_alive_s
        self.connections: set[Connection] = set()
        self.frozen = False
        self.port = 0
        self.host = "127.0.0.1"
        self.armed = Faults(settings.seed)
        self._ssl: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._driver: Driver | None = None
        self._app: App | None = None
        self._held: deque[Exchange] = deque()
        """Requests that came while the engine was frozen; no more than there are connections."""
        self._late: deque[Callable[[], None]] = deque()
        """Callbacks that were due meanwhile."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._last: deque[SeenRequest] = deque(maxlen=settings.history)
        self._paths: dict[str, int] = {}
        self._statuses: dict[str, int] = {}
        self._requests = 0
        self._aborted = 0
        self._connections_total = 0
        self._dead = False

    def __repr__(self) -> str:
        state = "dead" if self._dead else "frozen" if self.frozen else "up"
        return f"<SimEngine {self.settings.flavour} {self.url} [{state}, {self._requests} requests, {self.armed!r}]>"

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return f"{'https' if self._ssl else 'http'}://{self.host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen.

        Raises:
            OSError: when the port is taken; nothing is left open.
        """
        loop = asyncio.get_running_loop()
        self._ssl, self.host = tls, host
        self._driver = Driver(self.settings, loop)
        self._app = App(self.settings, self._driver, self)
        self._server = await loop.create_server(lambda: self._connection(loop), host, port, ssl=tls, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        self._dead = False

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        self._die(reset=False)
        for _ in range(100):
            if not self.connections:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def restart(self) -> None:
        """Come back on the same port, with an empty cache and no faults, after a crash or not."""
        await self.close()
        self.clear_faults()
        await self.start(self.host, self.port, self._ssl)

    def crash(self) -> None:
        """Die at once: the whole process where `crash_exits`, else this engine alone, its connections reset."""
        if self.settings.crash_exits:
            os._exit(CRASH_EXIT)
        self._die(reset=True)

    def faults(self, **fault: Any) -> None:
        """Arm a fault; the arguments are the fields of `Fault`: `faults(kind="stall", after_events=3, times=1)`.

        Raises:
            msgspec.ValidationError: when a field is unknown or wrong.
        """
        self.arm(msgspec.convert(fault, Fault))

    def arm(self, fault: Fault) -> None:
        """Arm a fault."""
        self.armed.arm(fault)
        self._apply_engine_wide()

    def clear_faults(self) -> None:
        """Disarm all faults; a frozen engine goes on."""
        self.armed.clear()
        self._apply_engine_wide()

    def state(self) -> SimState:
        """Return a snapshot."""
        driver = self._driver
        assert driver is not None
        scheduler = driver.scheduler
        return SimState(
            flavour=self.settings.flavour,
            model=self.settings.model,
            port=self.port,
            requests=self._requests,
            paths=dict(self._paths),
            statuses=dict(self._statuses),
            aborted=self._aborted,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            finished=scheduler.counters.finished,
            connections=len(self.connections),
            connections_total=self._connections_total,
            slow_clients=sum(connection.write_paused for connection in self.connections),
            kv_used_tokens=scheduler.pool.used * self.settings.block_size,
            cached_tokens=scheduler.counters.cached_tokens,
            prompt_tokens=scheduler.counters.prompt_tokens,
            generated_tokens=scheduler.counters.generated_tokens,
            fault_hits=self.armed.hits,
            faults=[msgspec.structs.replace(fault) for fault in self.armed.armed],
            last=list(self._last),
        )

    def serve(self, exchange: Exchange) -> None:
        """Take a request from a connection."""
        request = exchange.request
        if request.path.startswith(control.PREFIX):
            control.answer(self, exchange)
            return
        if self.frozen:
            self._held.append(exchange)
            return
        self._requests += 1
        path = request.path if request.path in self._paths or len(self._paths) < MAX_PATHS else "other"
        self._paths[path] = self._paths.get(path, 0) + 1
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        self._last.append(SeenRequest(request.method, request.target.decode("latin-1"), headers, request.body[:MAX_KEPT_BYTES]))
        exchange.on_gone = self._client_gone
        fault = self.armed.strike(request.method, request.path)
        if fault is None:
            self._answer(exchange, None)
        else:
            self._answer_badly(exchange, fault)

    def abandon(self, job: Job) -> None:
        """Abort a job."""
        if self._driver is not None:
            self._driver.abort(job)

    def gone(self, job: Job) -> None:
        """Abort a job whose client left, and count it."""
        self.abandon(job)
        self._client_gone()

    def answered(self, status: int) -> None:
        """Count an answer."""
        key = str(status)
        self._statuses[key] = self._statuses.get(key, 0) + 1

    def later(self, delay_s: float, exchange: Exchange, call: Callable[[], None]) -> None:
        """Call back after a while, unless the exchange is over or the engine closed by then."""

        def due() -> None:
            self._timers.discard(handle)
            if self.frozen:
                self._late.append(due)
            elif not exchange.over:
                call()

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(handle)

    def _connection(self, loop: asyncio.AbstractEventLoop) -> Connection:
        self._connections_total += 1
        return Connection(self, loop)

    def _client_gone(self) -> None:
        self._aborted += 1

    def _answer(self, exchange: Exchange, fault: Fault | None) -> None:
        assert self._app is not None
        self._app.handle(exchange, fault)

    def _answer_badly(self, exchange: Exchange, fault: Fault) -> None:
        assert self._app is not None
        match fault.kind:
            case Kind.LATENCY:
                self.later(fault.delay_s or 0.0, exchange, lambda: self._answer(exchange, None))
            case Kind.ERROR:
                self._app.refuse(exchange, fault.status, "InternalServerError", "simulated failure")
            case Kind.RATE_LIMIT:
                self._app.refuse(exchange, 429, "RateLimitError", "simulated rate limit", [("retry-after", str(fault.retry_after_s))])
            case Kind.GARBAGE:
                exchange.raw(b"\x00\x01smg-sim garbage, not HTTP\r\n\r\n")
                exchange.close()
            case Kind.CRASH if not fault.after_events:
                self.crash()
            case Kind.RESET if not fault.after_events:
                exchange.reset()
            case _:
                self._answer(exchange, fault)

    def _apply_engine_wide(self) -> None:
        frozen = self.armed.active(Kind.FREEZE)
        if frozen == self.frozen or self._driver is None:
            return
        self.frozen = frozen
        if frozen:
            self._driver.freeze()
            return
        self._driver.thaw()
        late, self._late = self._late, deque()
        for call in late:
            call()
        held, self._held = self._held, deque()
        for exchange in held:
            if not exchange.over:
                self.serve(exchange)

    def _die(self, *, reset: bool) -> None:
        self._dead = True
        if self._driver is not None:
            self._driver.close()
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
        self._held.clear()
        self._late.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            if reset:
                connection.reset()
            else:
                connection.abort()


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return a server context of a PEM certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@asynccontextmanager
async def running(
    *, host: str = "127.0.0.1", port: int = 0, tls_cert: str | None = None, tls_key: str | None = None, **settings: Any
) -> AsyncIterator[SimEngine]:
    """Run a simulated engine on the current loop.

    Args:
        host: Address to listen on.
        port: 0 takes a free one; see `SimEngine.url`.
        tls_cert: PEM file; with `tls_key` the engine speaks HTTPS.
        tls_key: PEM file.
        settings: Fields of `SimSettings`.
    """
    engine = SimEngine(SimSettings(**settings))
    tls = tls_context(tls_cert, tls_key) if tls_cert and tls_key else None
    await engine.start(host, port, tls)
    try:
        yield engine
    finally:
        await engine.close()
