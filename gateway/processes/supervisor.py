"""Supervisor: the process that holds the leader, starts the serving processes, and starts them again when they die.

- All share one port; each has a listening socket of its own that the supervisor keeps open over its restarts (listen.py).
- A process that died: its link closes, its member is detached, its row of the shared table is cleared, it starts again, at
  once if it had served for a while, else after a growing delay. New connections go to the others meanwhile.
- A process whose link broke but that lives is drained and replaced: it would serve an old configuration for ever.
- A process that lives but does not answer (pulse.py) gets no new connections, and is killed and replaced when it goes on so.
- When no process has ever become ready and one dies `EARLY_DEATHS` times in a row, the supervisor gives up with code 1.
- SIGTERM or SIGINT: all drain, then it ends with 0. A second one: all stop now. SIGHUP: the configuration is loaded again.
- When the supervisor itself dies, the kernel tells its processes (spawn.py), and they drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import uvloop

from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig, ServerConfig
from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes.child import Child
from gateway.processes.leader import Leader
from gateway.processes.link import Link
from gateway.processes.listen import Steering, bind_listeners
from gateway.processes.port import ProcessStatus
from gateway.processes.pulse import Patience, watch
from gateway.processes.remote import Joining, RemoteMember, serve_leader
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.telemetry.clock import wall_s
from gateway.telemetry.metrics_server import MetricsServer

START_S: Final = 60.0
"""Time a process has to become ready."""
LINK_GRACE_S: Final = 2.0
"""Time between a link's end and its process's, after which the process counts as cut off."""
STOP_S: Final = 3.0
"""Time a process has to end when it is told to stop now."""
DRAIN_MARGIN_S: Final = 10.0
"""Time beyond its own limits that a draining process gets."""

log = logging.getLogger(__name__)


def run(
    config: GatewayConfig,
    source: ConfigSource,
    command: Sequence[str],
    *,
    on_ready: Callable[[str, int], None] | None = None,
    patience: Patience | None = None,
) -> int:
    """Serve with `config.server.processes` processes until told to stop; return the exit code.

    Args:
        config: what to run.
        source: where a reload reads it again.
        command: the serving process, without the arguments of `spawn.MemberArguments`.
        on_ready: called with host and port when every process serves for the first time.
        patience: with processes that do not answer.

    Raises:
        ConfigError: the port cannot be had; nothing was started.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Supervisor(config, source, command, on_ready=on_ready, patience=patience).run())


@asynccontextmanager
async def metrics_port(server: ServerConfig, leader: Leader) -> AsyncIterator[None]:
    """Serve `/metrics` meanwhile, unless it is switched off; a default port that is taken is said, and done without.

    Raises:
        ConfigError: the port that was asked for cannot be had.
    """
    if server.metrics_port is None:
        yield
        return
    host = server.metrics_host or "127.0.0.1"
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(MetricsServer(host, server.metrics_port, leader.metrics))
        except ConfigError as error:
            if "metrics_port" in server.model_fields_set:
                raise
            log.warning("%s; going on without it, choose another with --metrics-port", error.message)
        yield


class Supervisor:
    """Used once: construct, `await run()`."""

    def __init__(
        self,
        config: GatewayConfig,
        source: ConfigSource,
        command: Sequence[str],
        *,
        on_ready: Callable[[str, int], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._config = config
        self._patience = patience or Patience()
        self._command = tuple(command)
        self._on_ready = on_ready
        self._started_s = wall_s()
        self._announced = False
        self._gave_up = ""
        self._signals = 0
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._reload = asyncio.Event()
        self._children: list[Child] = []
        self._steering: Steering | None = None
        self._table = SharedTable(config.server.processes, COLUMNS)
        self._leader = Leader(config, source, self._table, processes=self.processes, restart=self._restart)
        self._tasks = asyncio.TaskGroup()

    def __repr__(self) -> str:
        return f"<Supervisor pid {os.getpid()} {self._children}>"

    def processes(self) -> tuple[ProcessStatus, ...]:
        """Describe the supervisor and its processes."""
        version = self._leader.current.number
        own = ProcessStatus(
            index=-1,
            pid=os.getpid(),
            state="draining" if self._stop.is_set() else "ready" if self._announced else "starting",
            since_s=self._started_s,
            version=version,
        )
        return own, *(child.status(version) for child in self._children)

    async def run(self) -> int:
        """Start everything, keep it running, return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        server = self._config.server
        try:
            listeners = bind_listeners(server.host, server.port, server.processes)
            self._steering = Steering(listeners)
            self._children = [Child(index, listener) for index, listener in enumerate(listeners)]
            async with self._leader, metrics_port(self._config.server, self._leader), asyncio.TaskGroup() as owned:
                reloads = owned.create_task(self._reload_when_told())
                async with self._tasks:
                    for child in self._children:
                        self._tasks.create_task(self._keep(child))
                    self._tasks.create_task(self._end_children())
                reloads.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            for child in self._children:
                child.kill_now()
            self._close_listeners()
            self._table.close()
        return 1 if self._gave_up else 0

    # The life of one process.

    async def _keep(self, child: Child) -> None:
        """Run one process again and again until the gateway stops."""
        while not self._stop.is_set():
            served_s = await self._live(child)
            if self._stop.is_set():
                break
            delay_s = child.rule.died(served_s)
            log.warning("%s ended: %s; it is started again in %.1f s", child.name, child.reason, delay_s)
            if child.rule.hopeless and not self._announced:
                self._give_up(f"{child.name} ended again and again before it was ready, the last time: {child.reason}")
                break
            child.move("restarting")
            await _elapse(self._stop, delay_s)
            child.restarts += 1
        child.move("stopped")

    async def _live(self, child: Child) -> float | None:
        """Run one process until it ends; return how long it was ready, None if it never was."""
        loop = asyncio.get_running_loop()
        ready_at: float | None = None
        up = asyncio.Event()

        async def join(joining: Joining) -> None:
            if self._stop.is_set():
                raise GatewayError(Code.DRAINING, "the gateway is ending")
            await self._leader.attach(child.name, RemoteMember(link))

        async def ready(_: None) -> None:
            nonlocal ready_at
            ready_at = loop.time()
            starting.cancel()
            if self._stop.is_set():
                return
            child.move("ready")
            log.info("%s (pid %d) is ready", child.name, child.pid)
            up.set()
            self._became_ready()

        try:
            ours = child.start(self._command, rows=self._table.rows, table_fd=self._table.fd)
        except OSError as error:
            child.reason = f"it cannot be started: {error.strerror}"
            return None
        link = Link(ours, child.name)
        serve_leader(link, self._leader, join=join, ready=ready)
        try:
            async with link, asyncio.TaskGroup() as tasks:
                starting = tasks.create_task(self._mind_start(child))
                linked = tasks.create_task(self._mind_link(child, link))
                answering = tasks.create_task(self._mind_pulse(child, link, up))
                code = await child.wait()
                starting.cancel()
                linked.cancel()
                answering.cancel()
        finally:
            self._leader.detach(child.name)
            self._table.clear_row(child.index)
            child.move("stopped")
            self._steer()
        child.reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return None if ready_at is None else loop.time() - ready_at

    async def _mind_start(self, child: Child) -> None:
        await asyncio.sleep(START_S)
        log.error("%s (pid %d) is not ready after %g s", child.name, child.pid, START_S)
        child.send(signal.SIGKILL)

    async def _mind_link(self, child: Child, link: Link) -> None:
        reason = await link.wait_closed()
        await asyncio.sleep(LINK_GRACE_S)
        if self._stop.is_set():
            return
        log.error("%s (pid %d) is cut off (%s), it is drained and replaced", child.name, child.pid, reason)
        child.move("draining")
        self._steer()
        await child.end(self._drain_limit_s())

    async def _mind_pulse(self, child: Child, link: Link, up: asyncio.Event) -> None:
        def silent() -> None:
            if child.state == "ready":
                log.warning("%s (pid %d) does not answer, new connections go to the others", child.name, child.pid)
                child.move("hung")
                self._steer()

        def heard() -> None:
            if child.state == "hung":
                log.info("%s (pid %d) answers again", child.name, child.pid)
                child.move("ready")
                self._steer()

        await up.wait()
        if await watch(link, self._patience, silent=silent, heard=heard):
            log.error("%s (pid %d) still does not answer and is killed", child.name, child.pid)
            child.send(signal.SIGKILL)

    def _restart(self, name: str) -> None:
        """Replace a process by another, because it runs no known configuration any more."""
        for child in self._children:
            if child.name == name and child.alive and child.state != "draining":
                child.move("draining")
                self._steer()
                self._tasks.create_task(child.end(self._drain_limit_s()))

    def _became_ready(self) -> None:
        if not self._announced and all(child.state == "ready" for child in self._children):
            self._announced = True
            host, port = self._children[0].listener.getsockname()[:2]
            scheme = "https" if self._config.server.tls is not None else "http"
            shown = f"[{host}]" if ":" in host else host
            log.info("ready on %s://%s:%d, %d processes", scheme, shown, port, len(self._children))
            if self._on_ready is not None:
                self._on_ready(host, port)
        self._steer()

    def _steer(self) -> None:
        """Keep new connections from processes that do not serve; during the first start every socket waits for its own."""
        if self._announced and not self._stop.is_set() and self._steering is not None:
            self._steering.steer(child.index for child in self._children if child.state == "ready")

    # The end, and reloads.

    def _on_stop_signal(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            self._stop_now.set()

    def _give_up(self, reason: str) -> None:
        log.error("the gateway gives up: %s", reason)
        self._gave_up = reason
        self._stop.set()

    async def _end_children(self) -> None:
        """Wait for the word to stop; let every process drain; stop those that still run at a second word."""
        await self._stop.wait()
        self._leader.draining = True
        self._close_listeners()  # The processes hold theirs: what they close now is closed for good.
        for child in self._children:
            if child.alive:
                child.move("draining")
        async with asyncio.TaskGroup() as ending:
            drains = [ending.create_task(child.end(self._drain_limit_s())) for child in self._children if child.alive]
            hurry = ending.create_task(self._hurry())
            if drains:
                await asyncio.wait(drains)
            hurry.cancel()

    async def _hurry(self) -> None:
        await self._stop_now.wait()
        log.warning("told a second time to end: requests in flight are cut off")
        async with asyncio.TaskGroup() as ending:
            for child in self._children:
                if child.alive:
                    ending.create_task(child.end(STOP_S, at_once=True))

    async def _reload_when_told(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            if self._stop.is_set():
                return
            await self._leader.reload()

    def _drain_limit_s(self) -> float:
        server = self._leader.current.config.server
        return server.drain_settle_s + server.drain_timeout_s + DRAIN_MARGIN_S

    def _close_listeners(self) -> None:
        for child in self._children:
            child.listener.close()


async def _elapse(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
