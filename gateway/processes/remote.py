"""Leader and members across a link: `RemoteLeader` in a serving process, `RemoteMember` in the leader's.

The order of a member's life, all of it calls on one link: the member asks to `join` (the leader answers only after it has
given it the configuration and the workers), says `ready` once it accepts connections, then asks and hears as it likes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway.config.model import GatewayConfig, WorkerConfig
from gateway.errors import Code, GatewayError
from gateway.processes.link import Link
from gateway.processes.member import Member
from gateway.processes.port import ApplyResult, ConfigView, GatewayStatus, LeaderPort
from gateway.processes.wire import (
    Method,
    config_to_wire,
    gateway_config_from_wire,
    worker_config_from_wire,
)
from gateway.telemetry.snapshot import Snapshot
from gateway.workers.state import WorkerState

log = logging.getLogger(__name__)

ASK_S = 10.0
"""Time for a question that the leader answers out of its memory."""
APPLY_S = 60.0
"""Time for a change of configuration in all processes."""
PREPARE_S = 20.0
"""Time a member has to build a version: two of them and a rollback fit into `APPLY_S`."""
COMMIT_S = 5.0
SNAPSHOT_S = 3.0
DRAIN_S = 86_400.0
"""The member itself keeps to `server.drain_timeout_s`, which may be as long as a day."""


class Joining(msgspec.Struct, frozen=True):
    """What a member says of itself."""

    pid: int


class Version(msgspec.Struct, frozen=True):
    """A configuration version, whole."""

    number: int
    config: bytes


class AddWorker(msgspec.Struct, frozen=True):
    """The argument of `add_worker`."""

    spec: bytes
    source: str


class ReplaceWorker(msgspec.Struct, frozen=True):
    """The argument of `replace_worker`."""

    id: str
    spec: bytes


class PatchWorker(msgspec.Struct, frozen=True):
    """The argument of `patch_worker`."""

    id: str
    patch: dict[str, Any]


class ApplyConfig(msgspec.Struct, frozen=True):
    """The argument of `apply_config`."""

    text: str
    dry_run: bool


# From a member to the leader.
JOIN: Method[Joining, None] = Method("join", Joining, None, PREPARE_S + COMMIT_S + APPLY_S)
READY: Method[None, None] = Method("ready", None, None, ASK_S)
WORKERS: Method[None, list[WorkerState]] = Method("workers", None, list[WorkerState], ASK_S)
WORKER: Method[str, WorkerState] = Method("worker", str, WorkerState, ASK_S)
ADD_WORKER: Method[AddWorker, WorkerState] = Method("add_worker", AddWorker, WorkerState, ASK_S)
REPLACE_WORKER: Method[ReplaceWorker, WorkerState] = Method("replace_worker", ReplaceWorker, WorkerState, ASK_S)
PATCH_WORKER: Method[PatchWorker, WorkerState] = Method("patch_worker", PatchWorker, WorkerState, ASK_S)
DRAIN_WORKER: Method[str, WorkerState] = Method("drain_worker", str, WorkerState, ASK_S)
REMOVE_WORKER: Method[str, WorkerState] = Method("remove_worker", str, WorkerState, ASK_S)
REPORT_FAILURE: Method[str, None] = Method("report_failure", str, None, ASK_S)
CONFIG: Method[None, ConfigView] = Method("config", None, ConfigView, ASK_S)
APPLY_CONFIG: Method[ApplyConfig, ApplyResult] = Method("apply_config", ApplyConfig, ApplyResult, APPLY_S)
ROLLBACK: Method[None, ApplyResult] = Method("rollback", None, ApplyResult, APPLY_S)
STATUS: Method[None, GatewayStatus] = Method("status", None, GatewayStatus, ASK_S)

# From the leader to a member.
PREPARE: Method[Version, None] = Method("prepare", Version, None, PREPARE_S)
COMMIT: Method[int, None] = Method("commit", int, None, COMMIT_S)
ABORT: Method[int, None] = Method("abort", int, None, COMMIT_S)
STATES: Method[tuple[WorkerState, ...], None] = Method("states", tuple[WorkerState, ...], None, ASK_S)
SNAPSHOT: Method[None, Snapshot] = Method("snapshot", None, Snapshot, SNAPSHOT_S)
DRAIN: Method[None, None] = Method("drain", None, None, DRAIN_S)
PULSE: Method[None, None] = Method("pulse", None, None, ASK_S)
"""Answered at once by a process whose event loop runs."""


class RemoteMember:
    """A `Member` at the other end of a link, in the leader's process."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<RemoteMember {self._link!r}>"

    async def prepare(self, version: int, config: GatewayConfig) -> None:
        """Let the member build a version."""
        await self._link.call(PREPARE, Version(version, config_to_wire(config)))

    async def commit(self, version: int) -> None:
        """Let the member switch."""
        await self._link.call(COMMIT, version)

    async def abort(self, version: int) -> None:
        """Let the member forget what it prepared."""
        await self._link.call(ABORT, version)

    def states(self, states: tuple[WorkerState, ...]) -> None:
        """Send the workers; a member that does not read gets the newest once it does."""
        try:
            self._link.notify(STATES, states)
        except GatewayError as error:
            log.error("%s does not hear of %d workers: %s", self._link.peer, len(states), error.message)

    async def snapshot(self) -> Snapshot:
        """Ask for the member's counts."""
        return await self._link.call(SNAPSHOT, None)

    async def drain(self) -> None:
        """Let the member finish; returns when it has."""
        await self._link.call(DRAIN, None)


class RemoteLeader:
    """The `LeaderPort` of a serving process: asks over the link, and hands what the leader says to `member`.

    When the link is gone, reads are answered from what was last heard, and changes fail with `overloaded`; the member goes
    on serving. Construct it before the link opens, so that no message is missed.
    """

    def __init__(self, link: Link, member: Member) -> None:
        self._link = link
        self._member = member
        self._states: tuple[WorkerState, ...] = ()
        self._view: ConfigView | None = None
        self._status: GatewayStatus | None = None
        link.answer(PREPARE, self._on_prepare)
        link.answer(COMMIT, member.commit)
        link.answer(ABORT, member.abort)
        link.answer(SNAPSHOT, self._on_snapshot)
        link.answer(DRAIN, self._on_drain)
        link.answer(PULSE, self._on_pulse)
        link.hear(STATES, self._on_states)

    def __repr__(self) -> str:
        return f"<RemoteLeader {len(self._states)} workers, {self._link!r}>"

    async def join(self) -> None:
        """Become a member. On return the member runs a configuration and knows the workers; an error says why it cannot."""
        await self._link.call(JOIN, Joining(os.getpid()))

    async def ready(self) -> None:
        """Say that this process accepts connections."""
        await self._link.call(READY, None)

    async def workers(self) -> list[WorkerState]:
        """Return all workers, as last heard when the leader is gone."""
        if not self._link.is_open:
            return list(self._states)
        return await self._link.call(WORKERS, None)

    async def worker(self, worker_id: str) -> WorkerState:
        """Return one worker, as last heard when the leader is gone."""
        if self._link.is_open:
            return await self._link.call(WORKER, worker_id)
        for state in self._states:
            if state.id == worker_id:
                return state
        raise GatewayError(Code.NOT_FOUND, "there is no worker of this id")

    async def add_worker(self, spec: WorkerConfig, source: str = "api") -> WorkerState:
        """Add a worker, in all processes."""
        return await self._link.call(ADD_WORKER, AddWorker(config_to_wire(spec), source))

    async def replace_worker(self, worker_id: str, spec: WorkerConfig) -> WorkerState:
        """Replace the settings of a worker."""
        return await self._link.call(REPLACE_WORKER, ReplaceWorker(worker_id, config_to_wire(spec)))

    async def patch_worker(self, worker_id: str, patch: dict[str, Any]) -> WorkerState:
        """Change some settings of a worker."""
        return await self._link.call(PATCH_WORKER, PatchWorker(worker_id, patch))

    async def drain_worker(self, worker_id: str) -> WorkerState:
        """Give a worker no new requests."""
        return await self._link.call(DRAIN_WORKER, worker_id)

    async def remove_worker(self, worker_id: str) -> WorkerState:
        """Drain a worker, then let it leave."""
        return await self._link.call(REMOVE_WORKER, worker_id)

    def report_failure(self, worker_id: str) -> None:
        """Tell the leader to check a worker."""
        self._link.notify(REPORT_FAILURE, worker_id)

    async def config(self) -> ConfigView:
        """Return the configuration in force."""
        if self._link.is_open or self._view is None:
            self._view = await self._link.call(CONFIG, None)
        return self._view

    async def apply_config(self, text: str, *, dry_run: bool) -> ApplyResult:
        """Apply a configuration, in all processes or in none."""
        return await self._link.call(APPLY_CONFIG, ApplyConfig(text, dry_run))

    async def rollback(self) -> ApplyResult:
        """Go back to the configuration before the one in force."""
        return await self._link.call(ROLLBACK, None)

    async def status(self) -> GatewayStatus:
        """Return the state of the gateway."""
        if self._link.is_open or self._status is None:
            self._status = await self._link.call(STATUS, None)
            return self._status
        return msgspec.structs.replace(self._status, state="leaderless", last_error=self._link.reason or "")

    async def _on_prepare(self, version: Version) -> None:
        await self._member.prepare(version.number, gateway_config_from_wire(version.config))

    def _on_states(self, states: tuple[WorkerState, ...]) -> None:
        self._states = states
        self._member.states(states)

    async def _on_snapshot(self, _: None) -> Snapshot:
        return await self._member.snapshot()

    async def _on_drain(self, _: None) -> None:
        await self._member.drain()

    async def _on_pulse(self, _: None) -> None:
        """Answer: that is all that is asked."""


def serve_leader(
    link: Link,
    leader: LeaderPort,
    *,
    join: Callable[[Joining], Awaitable[None]],
    ready: Callable[[None], Awaitable[None]],
) -> None:
    """Let the member at the other end of a link ask the leader. To be called before the link opens."""

    async def workers(_: None) -> list[WorkerState]:
        return await leader.workers()

    async def add_worker(argument: AddWorker) -> WorkerState:
        return await leader.add_worker(worker_config_from_wire(argument.spec), argument.source)

    async def replace_worker(argument: ReplaceWorker) -> WorkerState:
        return await leader.replace_worker(argument.id, worker_config_from_wire(argument.spec))

    async def patch_worker(argument: PatchWorker) -> WorkerState:
        return await leader.patch_worker(argument.id, argument.patch)

    async def config(_: None) -> ConfigView:
        return await leader.config()

    async def apply_config(argument: ApplyConfig) -> ApplyResult:
        return await leader.apply_config(argument.text, dry_run=argument.dry_run)

    async def rollback(_: None) -> ApplyResult:
        return await leader.rollback()

    async def status(_: None) -> GatewayStatus:
        return await leader.status()

    link.answer(JOIN, join)
    link.answer(READY, ready)
    link.answer(WORKERS, workers)
    link.answer(WORKER, leader.worker)
    link.answer(ADD_WORKER, add_worker)
    link.answer(REPLACE_WORKER, replace_worker)
    link.answer(PATCH_WORKER, patch_worker)
    link.answer(DRAIN_WORKER, leader.drain_worker)
    link.answer(REMOVE_WORKER, leader.remove_worker)
    link.hear(REPORT_FAILURE, leader.report_failure)
    link.answer(CONFIG, config)
    link.answer(APPLY_CONFIG, apply_config)
    link.answer(ROLLBACK, rollback)
    link.answer(STATUS, status)
