"""What is known of a worker, as the fleet says it and every process hears it: one frozen value, sent as JSON."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.config.model import Engine


class Status(StrEnum):
    """The life of a worker. Only a `ready` one gets requests."""

    PENDING = "pending"
    """Added, not yet answered."""
    READY = "ready"
    NOT_READY = "not_ready"
    """Failed its last health checks; comes back by itself."""
    DRAINING = "draining"
    """Finishes what it has, gets nothing new."""
    FAILED = "failed"
    """Did not answer within its start-up time; still checked, slowly."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a worker."""

    name: str
    context_length: int | None = None
    """Tokens, prompt and answer together."""
    parent: str | None = None
    """The base model of a LoRA adapter."""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the fleet sees it. `slot` is its column in the shared table, never shared by two live workers."""

    id: str
    slot: int
    url: str
    status: Status
    source: str
    """Who brought it: `config`, `api`, or the name of a discovery source."""
    engine: Engine = Engine.OPENAI
    version: str = ""
    models: tuple[ModelInfo, ...] = ()
    priority: int = 50
    cost: float = 1.0
    labels: dict[str, str] = {}
    api_key: str | None = None
    """Bearer token for the worker; never shown or logged."""
    ca_file: str | None = None
    verify_tls: bool = True
    max_connections: int | None = None
    ask_usage: bool = True
    reason: str = ""
    """Why it is in this status, in a few words for an operator."""
    since_s: float = 0.0
    """Unix time of the last change of status."""
    recovered: bool = False
    """It came back after a failure: its share of traffic grows over `upstream.slow_start_s`."""

    def __repr__(self) -> str:
        return f"<WorkerState {self.url} {self.status} {self.engine} models={[m.name for m in self.models]}>"
