"""LeaderPort: what a process may ask of the one that holds the fleet and the configuration, and the values of its answers.

`Leader` answers in the same process, `RemoteLeader` over a link; a caller cannot tell them apart but by the time it takes.
Every failure is a `GatewayError`; over a link it keeps its code, message, source, retry rule, `Retry-After` and parameter.
Nothing here holds a secret except `WorkerState.api_key`, which callers must not show.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from gateway.config.compare import Change as Change
from gateway.config.model import WorkerConfig
from gateway.workers.state import WorkerState


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that is in force, secrets masked."""

    version: int
    """1 at the start, one more with every change that was applied."""
    source: str
    """Where it came from: `start`, `reload`, `api`, or `rollback to N`."""
    applied_s: float
    """Unix time at which it came into force."""
    config: dict[str, Any]


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply or a rollback did, or would do."""

    version: int
    """The version in force now; unchanged where `applied` is false."""
    changes: tuple[Change, ...]
    applied: bool
    """False for a dry run, and where there was nothing to change."""
    needs_restart: tuple[str, ...] = ()
    """A dry run names the paths here that only a restart brings into force; applying them is refused."""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway."""

    index: int
    """Its number, and its row of the shared table; -1 is the supervisor."""
    pid: int
    state: str
    """`starting`, `ready`, `hung`, `draining`, `restarting` or `stopped`."""
    restarts: int = 0
    since_s: float = 0.0
    """Unix time of the last change of state."""
    version: int = 0
    """The configuration version it runs; 0 before its first."""
    reason: str = ""
    """Why it last ended, in a few words for an operator."""


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the whole gateway, for `/status`."""

    state: str
    """`serving` or `draining`; `leaderless` where the process that answers has lost the leader, the rest is then as last heard."""
    started_s: float
    """Unix time of the start."""
    config_version: int
    config_source: str
    workers: dict[str, int]
    """Status -> number of workers."""
    processes: tuple[ProcessStatus, ...]
    discovery: dict[str, str] = {}
    """Discovery source -> why it cannot look at the moment; empty where it can."""
    last_error: str = ""
    """Why the last reload or apply was refused; empty once one succeeds."""


class LeaderPort(Protocol):
    """What the control plane asks of the leader. Any method may raise `GatewayError`.

    Codes: `not_found` for a worker that does not exist, `conflict` for a URL that exists, `config_invalid` for a
    configuration that cannot be used (nothing has changed then, anywhere), `overloaded` when the leader does not answer.
    """

    async def workers(self) -> list[WorkerState]:
        """Return all workers, in the order in which they came."""
        ...

    async def worker(self, worker_id: str) -> WorkerState:
        """Return one worker."""
        ...

    async def add_worker(self, spec: WorkerConfig, source: str = "api") -> WorkerState:
        """Add a worker; it is `pending` until it has answered."""
        ...

    async def replace_worker(self, worker_id: str, spec: WorkerConfig) -> WorkerState:
        """Replace the settings of a worker; its URL must stay."""
        ...

    async def patch_worker(self, worker_id: str, patch: dict[str, Any]) -> WorkerState:
        """Change some of `priority`, `cost`, `labels`, `api_key` and `health`."""
        ...

    async def drain_worker(self, worker_id: str) -> WorkerState:
        """Give a worker no new requests; it stays in the list."""
        ...

    async def remove_worker(self, worker_id: str) -> WorkerState:
        """Drain a worker, then let it leave; returns as soon as it drains."""
        ...

    def report_failure(self, worker_id: str) -> None:
        """Hear that a request met a refused connection: the worker is checked at once. Costs little, never raises."""
        ...

    async def config(self) -> ConfigView:
        """Return the configuration in force."""
        ...

    async def apply_config(self, text: str, *, dry_run: bool) -> ApplyResult:
        """Take a YAML text as the new configuration, in all processes or in none."""
        ...

    async def rollback(self) -> ApplyResult:
        """Go back to the configuration before the one in force (again: one further back)."""
        ...

    async def status(self) -> GatewayStatus:
        """Return the state of the gateway and its processes."""
        ...
