"""The life of a worker as a pure state machine, and the record that the fleet keeps of one.

    pending --- passed `success_threshold` checks -----------> ready
    pending --- did not within `startup_timeout_s` ----------> failed
    failed ---- passed --------------------------------------> ready
    ready ----- failed `failure_threshold` checks in a row --> not_ready
    not_ready - passed `success_threshold` checks -----------> ready, `recovered`
    any ------- drained -------------------------------------> draining, where checks change nothing
    draining -- called back ---------------------------------> pending

`recovered` says that a worker served, failed and came back, so that it is given its share slowly; it is taken back once the
slow start is over, so that a process that starts later does not begin one anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from gateway.config.env import worker_api_key
from gateway.config.model import Engine, HealthConfig, WorkerConfig
from gateway.workers.identify import named
from gateway.workers.probe import Found
from gateway.workers.state import ModelInfo, Status, WorkerState

MAX_REASON_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Life:
    """Where a worker is in its life, and what its last checks said."""

    status: Status
    since_s: float
    """Monotonic time of the last change of status."""
    failures: int = 0
    """Failed checks in a row."""
    successes: int = 0
    """Passed checks in a row, while it is not ready."""
    recovered: bool = False
    reason: str = ""


def born(now_s: float, reason: str = "waits for its first answer") -> Life:
    """Begin a life."""
    return Life(Status.PENDING, now_s, reason=reason)


def passed(life: Life, now_s: float, health: HealthConfig, slow_start_s: float) -> Life:
    """Hear that a check went well."""
    match life.status:
        case Status.DRAINING:
            return life
        case Status.READY:
            over = life.recovered and now_s - life.since_s > slow_start_s
            if not (life.failures or life.reason or over):
                return life
            return replace(life, failures=0, reason="", recovered=life.recovered and not over)
        case Status.PENDING | Status.NOT_READY | Status.FAILED:
            successes = life.successes + 1
            if successes < health.success_threshold:
                reason = f"{successes} of {health.success_threshold} checks passed"
                return replace(life, failures=0, successes=successes, reason=reason)
            return Life(Status.READY, now_s, recovered=life.status is Status.NOT_READY)


def failed(life: Life, now_s: float, health: HealthConfig, why: str) -> Life:
    """Hear that a check went wrong."""
    why = why[:MAX_REASON_CHARS]
    failures = life.failures + 1
    match life.status:
        case Status.DRAINING:
            return life
        case Status.READY:
            if failures < health.failure_threshold:
                reason = f"{failures} of {health.failure_threshold} checks failed: {why}"
                return replace(life, failures=failures, reason=reason)
            return Life(Status.NOT_READY, now_s, failures=failures, reason=why)
        case Status.PENDING:
            if now_s - life.since_s >= health.startup_timeout_s:
                return Life(Status.FAILED, now_s, failures=failures, reason=f"not up within {health.startup_timeout_s:g} s: {why}")
            return replace(life, failures=failures, successes=0, reason=why)
        case Status.NOT_READY | Status.FAILED:
            return replace(life, failures=failures, successes=0, reason=why)


def unchecked(life: Life, now_s: float) -> Life:
    """Take a worker whose checks are switched off as ready."""
    if life.status in (Status.DRAINING, Status.READY):
        return life
    return Life(Status.READY, now_s, reason="its health is not checked")


def drained(life: Life, now_s: float, reason: str) -> Life:
    """Give it nothing new."""
    if life.status is Status.DRAINING:
        return replace(life, reason=reason)
    return Life(Status.DRAINING, now_s, reason=reason)


class Record:
    """All that the fleet keeps of one worker; changed by `Fleet` and `Watcher` alone, on one event loop."""

    __slots__ = (
        "_state",
        "below_500",
        "changed_s",
        "cheap_path",
        "checked_s",
        "engine",
        "full_path",
        "health",
        "held",
        "id",
        "joined",
        "leaving",
        "life",
        "listed",
        "looks",
        "models_due_s",
        "slot",
        "source",
        "spec",
        "version",
        "wake",
        "wish",
    )  # fmt: skip

    def __init__(
        self, worker_id: str, slot: int, spec: WorkerConfig, source: str, health: HealthConfig, life: Life, changed_s: float
    ) -> None:
        self.id = worker_id
        self.slot = slot
        self.spec = spec
        """Its settings now: its source's wish, and what was patched since."""
        self.wish = spec
        """What its source last asked for."""
        self.source = source
        self.health = health
        self.life = life
        self.changed_s = changed_s
        """Unix time of the last change of status."""
        self.engine = spec.engine or Engine.OPENAI
        self.version = ""
        self.listed: tuple[ModelInfo, ...] = named(spec.models, ())
        """Its models, as far as they are known."""
        self.joined = False
        """A full probe went well since the settings that it rests on last changed."""
        self.full_path = ""
        self.cheap_path = ""
        self.below_500 = False
        self.looks = 0
        """Short looks since the last at the full health route."""
        self.checked_s = float("-inf")
        """Monotonic time at which the last check began."""
        self.models_due_s = 0.0
        """Monotonic time at which its models are asked again."""
        self.held = False
        """Drained by hand: stays until it is called back."""
        self.leaving = False
        """Leaves the fleet as soon as nothing is in flight."""
        self.wake = asyncio.Event()
        """Set to have it looked at now rather than at its time."""
        self._state: WorkerState | None = None

    def __repr__(self) -> str:
        return f"<Record {self.spec.url} {self.life.status} slot={self.slot} failures={self.life.failures}>"

    def learn(self, found: Found, models_due_s: float) -> None:
        """Take over what a full probe found."""
        self.engine, self.version, self.listed = found.engine, found.version, found.models
        self.full_path, self.cheap_path, self.below_500 = found.full_path, found.cheap_path, found.below_500
        self.joined = True
        self.looks = 0
        self.models_due_s = models_due_s
        self.changed()

    def configure(self, spec: WorkerConfig, health: HealthConfig) -> None:
        """Take over new settings; those that a probe rests on call for a new one, and it goes on serving meanwhile."""
        old, self.spec, self.health = self.spec, spec, health
        if (spec.engine, spec.models, spec.api_key, spec.api_key_env, spec.ca_file, spec.verify_tls) != (
            old.engine, old.models, old.api_key, old.api_key_env, old.ca_file, old.verify_tls
        ):  # fmt: skip
            self.joined = False
            if spec.engine is not None:
                self.engine = spec.engine
            if spec.models:
                self.listed = named(spec.models, self.listed)
        self.wake.set()
        self.changed()

    def changed(self) -> None:
        """Forget the state that was made of it."""
        self._state = None

    def state(self) -> WorkerState:
        """Return what the other rooms and processes see of it; the same object until it changes."""
        if self._state is None:
            spec, life = self.spec, self.life
            self._state = WorkerState(
                id=self.id,
                slot=self.slot,
                url=spec.url,
                status=life.status,
                source=self.source,
                engine=self.engine,
                version=self.version,
                models=self.listed,
                priority=spec.priority,
                cost=spec.cost,
                labels=dict(spec.labels),
                api_key=worker_api_key(spec),
                ca_file=spec.ca_file,
                verify_tls=spec.verify_tls,
                max_connections=spec.max_connections,
                ask_usage=spec.ask_usage,
                reason=life.reason,
                since_s=self.changed_s,
                recovered=life.recovered,
            )
        return self._state
