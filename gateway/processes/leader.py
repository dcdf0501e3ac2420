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
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from gateway.config.compare import compare, needs_restart
from gateway.config.load import ConfigSource
from gateway.config.mask import masked
from gateway.config.model import GatewayConfig, PriorityClass, WorkerConfig
from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes import transaction
from gateway.processes.member import Member
from gateway.processes.port import ApplyResult, ConfigView, GatewayStatus, ProcessStatus
from gateway.processes.versions import History, Version
from gateway.shared.table import SharedTable
from gateway.telemetry.clock import wall_s
from gateway.telemetry.exposition import GatewayReading, render_off_loop
from gateway.telemetry.snapshot import Ledger
from gateway.workers.fleet import Fleet
from gateway.workers.state import WorkerState

log = logging.getLogger(__name__)

COLLECT_S = 5.0
"""Time between two looks at the counts of every process: what one counted since is lost when it is killed."""


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
        self._alone = processes is None
        self._processes = processes if processes is not None else self._this_process
        self._restart = restart
        self._members: dict[str, Member] = {}
        self._states: tuple[WorkerState, ...] = ()
        self._ledger = Ledger()
        self._ledger_keys: dict[str, int] = {}
        self._last_error = ""
        self._changes = asyncio.Lock()
        """Held by one change of configuration at a time."""
        self._in_step = asyncio.Lock()
        """Held while members switch, or one is brought to the version in force."""
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()
        self.fleet = Fleet(config, clock=clock, in_flight=table.total, publish=self._publish)

    def __repr__(self) -> str:
        return f"<Leader {self._history!r}, members {list(self._members)}, {len(self._states)} workers>"

    async def __aenter__(self) -> Self:
        """Begin with the configured workers.

        Raises:
            ConfigError: a worker or a discovery source cannot be used; nothing runs then.
        """
        await self.fleet.__aenter__()
        await self._tasks.__aenter__()
        if not self._alone:
            self._spawn(self._collect_again_and_again())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._members.clear()
        for task in self._running:
            task.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self.fleet.__aexit__(kind, error, traceback)

    # Members.

    async def attach(self, name: str, member: Member) -> None:
        """Give a new member the configuration in force and the workers, and keep it in step from now on.

        Raises:
            GatewayError: the member's own, when it cannot run the configuration; it is not attached then.
        """
        async with self._in_step:
            version = self._history.current
            await member.prepare(version.number, version.config)
            await member.commit(version.number)
            member.states(self._states)
            self._members[name] = member

    def detach(self, name: str) -> None:
        """Forget a member that has ended, but for its counts."""
        self._members.pop(name, None)
        self._ledger.retire(self._ledger_key(name))

    def _ledger_key(self, name: str) -> int:
        return self._ledger_keys.setdefault(name, len(self._ledger_keys))

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

    def report_failure(self, worker_id: str) -> None:
        """Let a worker be checked at once."""
        self.fleet.report_failure(worker_id)

    # Configuration.

    @property
    def current(self) -> Version:
        """The version in force."""
        return self._history.current

    async def config(self) -> ConfigView:
        """Return the configuration in force, secrets masked."""
        version = self.current
        return ConfigView(version=version.number, source=version.source, applied_s=version.applied_s, config=masked(version.config))

    async def apply_config(self, text: str, *, dry_run: bool) -> ApplyResult:
        """Apply a YAML text, or say what it would change; flags given at the start still win over it.

        Raises:
            ConfigError: the text is not valid, or a change in it needs a restart.
            GatewayError: `conflict` while another change is on its way; a member's own error, when it cannot run it.
        """
        if dry_run:
            config = await asyncio.to_thread(self._source.load_text, text)
            changes = compare(self.current.config, config)
            restart = tuple(change.path for change in needs_restart(changes))
            return ApplyResult(version=self.current.number, changes=changes, applied=False, needs_restart=restart)
        self._refuse_a_second_change()

        async def change() -> ApplyResult:
            config = await asyncio.to_thread(self._source.load_text, text)
            return await self._switch(self._history.following(config, "api", wall_s()))

        return await self._finished(change)

    async def rollback(self) -> ApplyResult:
        """Go back to the configuration before the one in force.

        Raises:
            GatewayError: as `apply_config`; `conflict` also when there is none to go back to.
        """
        self._refuse_a_second_change()

        async def change() -> ApplyResult:
            return await self._switch(self._history.backward(wall_s()))

        return await self._finished(change)

    async def reload(self) -> bool:
        """Load the source again, as after SIGHUP. False when an error keeps the version in force; the log says every mistake."""

        async def change() -> ApplyResult:
            config = await asyncio.to_thread(self._source.load)
            return await self._switch(self._history.following(config, "reload", wall_s()))

        try:
            result = await self._finished(change)
        except GatewayError as error:
            log.error("the configuration stays at version %d: %s", self.current.number, error.message)
            if isinstance(error, ConfigError):
                for problem in error.problems:
                    log.error("  %s", problem)
            return False
        if not result.applied:
            log.info("the configuration stays at version %d: nothing has changed", result.version)
        return True

    def _refuse_a_second_change(self) -> None:
        if self._changes.locked():
            raise GatewayError(Code.CONFLICT, "another change of the configuration is on its way, try again", retry_after_s=1)

    async def _finished(self, change: Callable[[], Coroutine[Any, Any, ApplyResult]]) -> ApplyResult:
        """Run a change after the one before, to its end also when the caller is cancelled; keep its error for `status`."""

        async def alone() -> ApplyResult | GatewayError:
            async with self._changes:
                try:
                    result = await change()
                except GatewayError as error:
                    self._last_error = error.message
                    return error
                except Exception:
                    log.exception("a change of the configuration failed")
                    self._last_error = "it failed unexpectedly, see the log"
                    return GatewayError(Code.INTERNAL, self._last_error)
                self._last_error = ""
                return result

        outcome: ApplyResult | GatewayError = await asyncio.shield(self._spawn(alone()))
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def _switch(self, version: Version) -> ApplyResult:
        """Bring a version into force everywhere, or leave the one before in force everywhere."""
        async with self._in_step:
            before = self.current
            changes = compare(before.config, version.config)
            if not changes:
                if before.config.server.tls is not None:  # files under the same names may be others now
                    await self._renew(before)
                return ApplyResult(version=before.number, changes=(), applied=False)
            restart = needs_restart(changes)
            if restart:
                paths = ", ".join(change.path for change in restart)
                raise ConfigError(
                    f"only a restart brings {paths} into force; nothing was changed",
                    tuple(f"{change.path}: {change.before!r} -> {change.after!r} needs a restart" for change in restart),
                )
            members = dict(self._members)
            await transaction.prepare_all(members, version)
            try:
                await transaction.commit_all(members, version)
                await self.fleet.apply(version.config)
            except BaseException:
                await self._return_to(before, members)
                raise
            self._history.advance(version)
        for one in changes:
            log.info("configuration version %d: %s: %r -> %r", version.number, one.path, one.before, one.after)
        return ApplyResult(version=version.number, changes=changes, applied=True)

    async def _renew(self, version: Version) -> None:
        """Let every member read the files of the version in force again."""
        members = dict(self._members)
        await transaction.prepare_all(members, version)
        try:
            await transaction.commit_all(members, version)
        except BaseException:
            await self._return_to(version, members)
            raise
        log.info("certificate and key of the gateway were read again")

    async def _return_to(self, version: Version, members: dict[str, Member]) -> None:
        try:
            await transaction.restore(members, version)
        except transaction.Astray as error:
            log.error("%s cannot be brought back to version %d", error, version.number)
            for name in error.names:
                if self._restart is not None:
                    self._restart(name)
        await self.fleet.apply(version.config)

    # Status and metrics.

    async def status(self) -> GatewayStatus:
        """Return the state of the gateway."""
        counts: dict[str, int] = {}
        for state in self._states:
            counts[str(state.status)] = counts.get(str(state.status), 0) + 1
        version = self.current
        return GatewayStatus(
            state="draining" if self.draining else "serving",
            started_s=self._started_s,
            config_version=version.number,
            config_source=version.source,
            workers=counts,
            processes=self._processes(),
            discovery=self.fleet.problems(),
            last_error=self._last_error,
        )

    async def metrics(self) -> bytes:
        """Return the metrics page of the whole gateway; a process that does not answer counts as when it last did."""
        await self._collect()
        version = self.current
        admission = version.config.admission
        reading = GatewayReading(
            started_s=self._started_s,
            config_version=version.number,
            last_apply_successful=not self._last_error,
            restarts=sum(process.restarts for process in self._processes()),
            max_concurrent_requests=admission.max_concurrent_requests,
            queue_sizes={str(name): getattr(admission, name).queue_size for name in PriorityClass},
        )
        return await render_off_loop(self._ledger.parts({state.id for state in self._states}), self._states, reading)

    async def _collect(self) -> None:
        """Take the counts of every member."""
        members = dict(self._members)
        snapshots = await asyncio.gather(*(member.snapshot() for member in members.values()), return_exceptions=True)
        for (name, member), snapshot in zip(members.items(), snapshots, strict=True):
            if isinstance(snapshot, GatewayError):
                log.warning("%s does not say its counts: %s", name, snapshot.message)
            elif isinstance(snapshot, BaseException):
                log.error("%s does not say its counts", name, exc_info=snapshot)
            elif self._members.get(name) is member:
                self._ledger.put(self._ledger_key(name), snapshot)

    async def _collect_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_S)
            await self._collect()

    def _this_process(self) -> tuple[ProcessStatus, ...]:
        state = "draining" if self.draining else "ready" if self._members else "starting"
        return (ProcessStatus(index=0, pid=os.getpid(), state=state, since_s=self._started_s, version=self.current.number),)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task
