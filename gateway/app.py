"""Composition root: a configuration becomes a running gateway, in one process or in several. The only constructor of services.

One process: `Serving` beside the `Leader` in one event loop. Several: the supervisor holds the leader, and each serving
process is started with `MEMBER_COMMAND`, which makes the same `Serving` with a link to the leader instead.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import uvloop

from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig, ServerConfig
from gateway.control.guard import KeyGuard
from gateway.control.routes import routes
from gateway.errors import ConfigError, GatewayError
from gateway.pipeline.endpoints import ENDPOINTS
from gateway.pipeline.run import Driver
from gateway.processes import supervisor
from gateway.processes.leader import Leader
from gateway.processes.listen import bind_listeners
from gateway.processes.port import LeaderPort
from gateway.processes.remote import RemoteLeader
from gateway.processes.spawn import MemberArguments, connect_member
from gateway.runtime import Runtime
from gateway.server.app import bearer_of, data_plane
from gateway.server.listener import Listener
from gateway.server.tls import load_certificate, server_context
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.telemetry.log import setup as setup_logging

log = logging.getLogger(__name__)

_ROOT = str(Path(__file__).resolve().parent.parent)
MEMBER_COMMAND = [
    sys.executable,
    "-P",
    "-c",
    f"import sys; sys.path.insert(0, {_ROOT!r}); from gateway.app import main; sys.exit(main(sys.argv[1:]))",
]
"""A serving process runs the very code that its supervisor runs, wherever it was started from."""
_PATHS = tuple(endpoint.path for endpoint in ENDPOINTS)


class Serving:
    """The data plane and control plane of one process. `async with` opens it; it serves once `listen` was called."""

    def __init__(self, config: GatewayConfig, table: SharedTable, loop: asyncio.AbstractEventLoop) -> None:
        self.rt = Runtime(config, table, loop, _PATHS)
        self.driver = Driver(self.rt)
        self.rt.on_tick.append(self.driver.tick)
        self.rt.on_configure.append(self._configured)
        self.rt.on_prepare.append(self._check)
        self.rt.on_settle = self._settle
        self.rt.on_drain = self._drain
        self.listener: Listener | None = None

    async def __aenter__(self) -> Self:
        await self.rt.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.listener is not None:
            await self.listener.close()
        await self.rt.__aexit__(*exc)

    async def listen(self, sock: socket.socket, port: LeaderPort) -> None:
        """Take requests from a listening socket; the control plane asks `port`."""
        rt = self.rt
        config = rt.config
        guard = KeyGuard(lambda: rt.keyring, lambda: rt.config, bearer_of)
        tls = server_context(config.server.tls) if config.server.tls is not None else None
        app = data_plane(rt, routes(port, guard, load_of=self._load, breaker_of=self._breaker))
        self.listener = Listener(app, self.driver, config.server, rt.cells, rt.loop, tls)
        rt.on_sweep.append(self.listener.sweep)
        await self.listener.start(sock)

    def _load(self, slot: int) -> int:
        return self.rt.table.total(slot)

    def _breaker(self, worker_id: str) -> str | None:
        worker = self.rt.registry.workers.get(worker_id)
        return str(worker.breaker.state) if worker is not None else None

    def _check(self, config: GatewayConfig) -> None:
        if config.server.tls is not None:
            server_context(config.server.tls)

    def _configured(self, config: GatewayConfig) -> None:
        self.driver.configure(config)
        listener = self.listener
        if listener is not None:
            listener.limits = config.server
            if listener.tls is not None and config.server.tls is not None:
                try:
                    load_certificate(listener.tls, config.server.tls)
                except ConfigError as error:  # the files changed since they were checked; the old certificate goes on
                    log.error("%s", error.message)
        setup_logging(config.log.level, json_lines=config.log.json_lines)

    def _settle(self) -> None:
        if self.listener is not None:
            self.listener.say_goodbye()

    async def _drain(self) -> None:
        if self.listener is not None:
            await self.listener.drain(self.rt.config.server.drain_timeout_s)


class Signals:
    """SIGTERM and SIGINT drain, a second one stops at once, SIGHUP reloads, or does nothing where another process reloads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reload: Callable[[], Awaitable[object]] | None) -> None:
        self.drain = asyncio.Event()
        self.stop = asyncio.Event()
        self._loop = loop
        self._reload = reload
        self._reloading: asyncio.Task[None] | None = None
        self._told = False
        """SIGHUP came since the last reload began."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._hup)

    def _end(self) -> None:
        if self.drain.is_set():
            self.stop.set()
        self.drain.set()

    def _hup(self) -> None:
        self._told = True
        if self._reload is not None and (self._reloading is None or self._reloading.done()):
            self._reloading = self._loop.create_task(self._reload_while_told(self._reload))

    async def _reload_while_told(self, reload: Callable[[], Awaitable[object]]) -> None:
        while self._told:
            self._told = False
            try:
                await reload()
            except GatewayError as error:
                log.error("%s", error.message)

    async def aclose(self) -> None:
        """Cancel a reload that is under way."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait([self._reloading], timeout=5.0)


async def until_ended(signals: Signals, drain: Callable[[], Awaitable[object]]) -> None:
    """Wait for the first signal, then drain, or stop draining at the second."""
    await signals.drain.wait()
    log.info("draining; a second signal stops at once")
    draining = asyncio.ensure_future(drain())  # noqa: TID251 - owned and cancelled here
    stopping = asyncio.ensure_future(signals.stop.wait())  # noqa: TID251 - owned and cancelled here
    await asyncio.wait((draining, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, stopping):
        task.cancel()
    await asyncio.wait((draining, stopping))


async def run_alone(config: GatewayConfig, source: ConfigSource) -> int:
    """Run the whole gateway in this process until a signal ends it; returns the exit code."""
    loop = asyncio.get_running_loop()
    table = SharedTable(1, COLUMNS)
    (sock,) = bind_listeners(config.server.host, config.server.port, 1)
    async with AsyncExitStack() as stack:
        stack.callback(table.close)
        stack.callback(sock.close)
        leader = await stack.enter_async_context(Leader(config, source, table))
        serving = await stack.enter_async_context(Serving(config, table, loop))
        signals = Signals(loop, leader.reload)
        stack.push_async_callback(signals.aclose)
        serving.rt.report_failure = leader.fleet.report_failure
        await leader.attach("this process", serving.rt)
        await serving.listen(sock, leader)
        await stack.enter_async_context(supervisor.metrics_port(config.server, leader))
        assert serving.listener is not None
        announce(config.server, serving.listener.address)
        settle_memory()

        async def drain() -> None:
            leader.draining = True
            await serving.rt.drain()

        await until_ended(signals, drain)
    log.info("stopped")
    return 0


def announce(server: ServerConfig, address: tuple[str, int]) -> None:
    """Say where the gateway listens."""
    scheme = "https" if server.tls is not None else "http"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    log.info("ready on %s://%s:%d", scheme, host, address[1])


async def run_member(arguments: MemberArguments) -> int:
    """Serve as one of several processes, until the supervisor says drain or is gone; returns the exit code."""
    loop = asyncio.get_running_loop()
    table, link, sock = connect_member(arguments)
    async with AsyncExitStack() as stack:
        stack.callback(table.close)
        stack.callback(sock.close)
        serving = await stack.enter_async_context(Serving(GatewayConfig(), table, loop))
        leader = RemoteLeader(link, serving.rt)
        await stack.enter_async_context(link)
        signals = Signals(loop, None)
        await leader.join()
        serving.rt.report_failure = leader.report_failure
        await serving.listen(sock, leader)
        await leader.ready()
        settle_memory()
        await until_ended(signals, serving.rt.drain)
    return 0


def settle_memory() -> None:
    """Take what start-up made out of the garbage collector's sight, and let it look less often.

    The request path makes no reference circles, so that a collection every 700 allocations finds nothing; it cost 8 % of the
    time. Measured with `tests/bench`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def serve(config: GatewayConfig, source: ConfigSource) -> int:
    """Run a gateway until a signal ends it.

    Returns:
        The exit code: 0 after a drain, 1 when it could not go on, 2 when the configuration cannot be used here.
    """
    setup_logging(config.log.level, json_lines=config.log.json_lines)
    try:
        if config.server.processes > 1:
            return supervisor.run(config, source, MEMBER_COMMAND)
        return uvloop.run(run_alone(config, source))
    except ConfigError as error:
        log.error("%s", error.message)
        for problem in error.problems:
            log.error("%s", problem)
        return 2


def main(argv: list[str]) -> int:
    """Run a serving process; what the supervisor starts."""
    setup_logging("info", json_lines=False)
    try:
        return uvloop.run(run_member(MemberArguments.from_argv(argv)))
    except GatewayError as error:
        log.error("%s", error.message)
        return 1
