"""The answers of the control plane as values. Unknown fields are left out: an older client reads a newer gateway."""

from __future__ import annotations

from typing import Any

import msgspec


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the gateway sees it now."""

    id: str
    url: str
    status: str
    """pending, ready, not_ready, draining or failed."""
    engine: str = ""
    version: str = ""
    models: list[Any] = []
    """Names, or objects with a `name`."""
    priority: int = 50
    cost: float = 1.0
    labels: dict[str, str] = {}
    load: int = 0
    """Requests in flight, over all processes of the gateway."""
    breaker: str | None = None
    """closed, open or half_open, in the process that answered."""
    source: str = ""
    """config, api, or the discovery source that found it."""
    reason: str = ""
    is_healthy: bool = False

    @property
    def known_engine(self) -> str:
        """The engine; empty before the worker has said what it is, when the gateway reports `openai` for want of better."""
        return "" if self.status in ("pending", "failed") and self.engine == "openai" and not self.models else self.engine

    @property
    def model_names(self) -> list[str]:
        """The names of its models."""
        return [str(model.get("name") or model.get("id") or "") if isinstance(model, dict) else str(model) for model in self.models]


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """All workers, in the order in which they came."""

    workers: list[Worker]
    total: int = 0
    stats: dict[str, Any] = {}


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a worker that the gateway has taken on."""

    worker_id: str = ""
    url: str = ""
    status: str = ""
    location: str = ""
    message: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two configurations, secrets masked."""

    path: str
    before: Any = None
    after: Any = None


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply or a rollback did, or would do."""

    version: int
    applied: bool
    changes: list[Change] = []
    needs_restart: list[str] = []
    """Paths that only a restart brings into force; applying them is refused."""


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force, secrets masked."""

    version: int
    source: str = ""
    applied_s: float = 0.0
    """Unix time at which it came into force."""
    config: dict[str, Any] = {}


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway."""

    index: int
    """Its number; -1 is the supervisor."""
    pid: int
    state: str
    restarts: int = 0
    since_s: float = 0.0
    version: int = 0
    """The configuration version it runs."""
    reason: str = ""


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the whole gateway."""

    state: str
    started_s: float = 0.0
    config_version: int = 0
    config_source: str = ""
    workers: dict[str, int] = {}
    """Status -> number of workers."""
    processes: list[ProcessStatus] = []
    discovery: dict[str, str] = {}
    """Discovery source -> why it cannot look at the moment."""
    last_error: str = ""
    """Why the last change of configuration was refused."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a health route: `ok` by its status, `detail` its body."""

    ok: bool
    detail: dict[str, Any] = {}
