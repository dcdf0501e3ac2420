"""Leader: owns the fleet of workers and the configuration in force, and keeps every serving process in step with both.

One a gateway: in the only process, or in the supervisor. Members are attached as processes come and detached as they go;
each hears every change of the workers, and each runs the version of the configuration that is in force, or none does
(transaction.py). Changes of configuration come one after the other: a second one meanwhile is refused with `conflict`, a
reload waits. A change that was begun is finished also when its caller leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from gateway.config.compare import compare
from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig, WorkerConfig
from gateway.errors import Code, ConfigError, GatewayError, Retry
from gateway.processes import transaction
from gateway.processes.member import Member
from gateway.processes.port import ApplyResult, Change, ConfigView, GatewayStatus, ProcessStatus
from gateway.processes.versions import History, Version
from gateway.shared.table import SharedTable
from gateway.telemetry.clock import wall_s
from gateway.workers.fleet import Fleet
from gateway.workers.state import WorkerState

log = logging.getLogger(__name__)


class Leader:
    """The fleet, the configuration, the members. Opened by `async with` before the first member is attached."""

    def __init__(
        self,
        config: GatewayConfig,
        source: ConfigSource,
        table: SharedTable,
        *,
        clock: Callable[[], float] = time.monotonic,
        processes: Callable[[], tuple[ProcessStatus, ...]] | None = None,
        restart: Callable[[str], None] | None = None,
    ) -> None:
        """Construct without side effects.

        Args:
            config: version 1.
            source: where a reload and a text are read.
            table: the in-flight counts.
            clock: monotonic.
            processes: what `status` says of the processes; this one alone unless given.
            restart: called with the name of a member that runs no known configuration any more.
        """
        self.draining = False
        """Set by the owner when the gateway ends, for `status`."""
        self._source = source
        self._started_s = wall_s()
        self._history = History(config, self._started_s)
        self._processes = processes if processes is not None else self._this_process
        self._restart = restart
        self._members: dict[str, Member] = {}
        self._states: tuple[WorkerState, ...] = ()
        self._last_error = ""
        self._lock = asyncio.Lock()
        self._changing = False
        self._tasks = asyncio.TaskGroup()
        self.fleet = Fleet(config, clock=clock, in_flight=table.total, publish=self._publish)

    def __repr__(self) -> str:
        return f"<Leader {self._history!r}, members {list(self._members)}, {len(self._states)} workers>"

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        try:
            await self.fleet.__aenter__()
        except BaseException:
            await self._tasks.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._members.clear()
        await self.fleet.__aexit__(kind, error, traceback)
        await self._tasks.__aexit__(None, None, None)

    # Members.

    async def attach(self, name: str, member: Member) -> None:
        """Give a new member the configuration in force and the workers, and keep it in step from now on.

        Raises:
            GatewayError: the member's own, when it cannot run the configuration; it is not attached then.
        """
        async with self._lock:
            version = self._history.current
            await member.prepare(version.number, version.config)
            await member.commit(version.number)
            member.states(self._states)
            self._members[name] = member

    def detach(self, name: str) -> None:
        """Forget a member that has ended."""
        self._members.pop(name, None)

    def _publish(self, states: tuple[WorkerState, ...]) -> None:
        self._states = states
        for member in self._members.values():
            member.states(states)

    # Workers: the fleet's own methods.

    async def workers(self) -> list[WorkerState]:
        """Return all workers."""
        return await self.fleet.workers()

    async def worker(self, worker_id: str) -> WorkerState:
        """Return one worker."""
        return await self.fleet.worker(worker_id)

    async def add_worker(self, spec: WorkerConfig, source: str = "api") -> WorkerState:
        """Add a worker."""
        return await self.fleet.add_worker(spec, source)

    async def replace_worker(self, worker_id: str, spec: WorkerConfig) -> WorkerState:
        """Replace the settings of a worker."""
        return await self.fleet.replace_worker(worker_id, spec)

    async def patch_worker(self, worker_id: str, patch: dict[str, Any]) -> WorkerState:
        """Change some settings of a worker."""
        return await self.fleet.patch_worker(worker_id, patch)

    async def drain_worker(self, worker_id: str) -> WorkerState:
        """Give a worker no new requests."""
        return await self.fleet.drain_worker(worker_id)

    async def remove_worker(self, worker_id: str) -> WorkerState:
        """Drain a worker, then let it leave."""
        return await self.fleet.remove_worker(worker_id)

    # Configuration.

    @property
    def current(self) -> Version:
        """The version in force."""
        return self._history.current

    async def config(self) -> ConfigView:
        """Return the configuration in force, secrets masked."""
        version = self._history.current
        return ConfigView(version=version.number, source=version.source, applied_s=version.applied_s, config=masked(version.config))

    async def apply_config(self, text: str, *, dry_run: bool) -> ApplyResult:
        """Apply a YAML text, or say what it would change; flags given at the start still win over it.

        Raises:
            ConfigError: the text is not valid, or a change in it needs a restart.
            GatewayError: `conflict` while another change is on its way; a member's own error, when it cannot run it.
        """
        with self._told():
            config = self._source.load_text(text)
            following = self._history.following(config, "api", wall_s())
            if dry_run:
                return ApplyResult(version=self.current.number, changes=self._difference(following.config), applied=False)
            return await self._alone(following)

    async def rollback(self) -> ApplyResult:
        """Go back to the configuration before the one in force."""
        return await self._alone(self._history.backward(wall_s()))

    async def reload(self) -> bool:
        """Load the sources again, as after SIGHUP. False, and the reason logged, when the version in force stays because of an error."""

    # Status.

    async def status(self) -> GatewayStatus:
        """Return the state of the gateway."""
        counts: dict[str, int] = {}
        for state in self._states:
            counts[str(state.status)] = counts.get(str(state.status), 0) + 1
        version = self._history.current
        return GatewayStatus(
            state="draining" if self.draining else "serving",
            started_s=self._started_s,
            config_version=version.number,
            config_source=version.source,
            workers=counts,
            processes=self._processes(),
            last_error=self._last_error,
        )

    def _this_process(self) -> tuple[ProcessStatus, ...]:
        return (
            ProcessStatus(
                index=0,
                pid=os.getpid(),
                state="draining" if self.draining else "ready" if self._members else "starting",
                since_s=self._started_s,
                version=self.current.number,
            ),
        )
