"""A member that keeps what it hears, and fails where it is told to."""

from __future__ import annotations

import asyncio

from gateway.config.model import GatewayConfig
from gateway.telemetry.snapshot import Snapshot
from gateway.workers.state import WorkerState


class RecordingMember:
    """A whole `Member` without a server behind it; `calls` are those it heard, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.version = 0
        self.config: GatewayConfig | None = None
        self.workers: tuple[WorkerState, ...] = ()
        self.heard = asyncio.Event()
        """Set at every `states`; for the test to clear and wait on."""
        self.fail_prepare: Exception | None = None
        self.fail_commit: Exception | None = None
        self.gate: asyncio.Event | None = None
        """When set to an event, `prepare` waits for it."""
        self.snapshots: list[Snapshot] = []
        """What `snapshot` returns, one after the other, the last for ever."""
        self._prepared: tuple[int, GatewayConfig] | None = None

    async def prepare(self, version: int, config: GatewayConfig) -> None:
        self.calls.append(f"prepare {version}")
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_prepare is not None:
            raise self.fail_prepare
        self._prepared = version, config

    async def commit(self, version: int) -> None:
        self.calls.append(f"commit {version}")
        if self.fail_commit is not None:
            raise self.fail_commit
        assert self._prepared is not None, "commit without prepare"
        assert self._prepared[0] == version, f"commit of {version}, prepared is {self._prepared[0]}"
        self.version, self.config = self._prepared
        self._prepared = None

    async def abort(self, version: int) -> None:
        self.calls.append(f"abort {version}")
        self._prepared = None

    def states(self, states: tuple[WorkerState, ...]) -> None:
        self.workers = states
        self.heard.set()

    async def snapshot(self) -> Snapshot:
        self.calls.append("snapshot")
        return self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]

    async def drain(self) -> None:
        self.calls.append("drain")
