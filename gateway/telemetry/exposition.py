"""Exposition: a snapshot and what the leader knows of fleet and gateway, as Prometheus text format 0.0.4.

What is one series is decided here: workers under one URL are added up, and so are processes under one number.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Protocol

import msgspec

from gateway.telemetry.clock import wall_s
from gateway.telemetry.page import Page, escape
from gateway.telemetry.snapshot import Snapshot, WorkerCounts, add_worker, merge

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_ROWS_ON_LOOP = 500
"""Rows above which a page is written in a thread; a row takes about a microsecond."""

_BREAKER_VALUES = {"closed": 0, "open": 1, "half_open": 2}
_OUTCOMES = {
    "queue_full": "rejected_queue_full",
    "queue_timeout": "rejected_queue_timeout",
    "shed": "rejected_shed",
    "draining": "rejected_draining",
    "left": "client_cancelled",
}
"""Outcomes of admission under smg's names, and two more of the same kind."""


class ModelName(Protocol):
    """A model of a worker, as `workers.state.ModelInfo` is one."""

    @property
    def name(self) -> str:
        """The name that clients use."""
        ...


class FleetWorker(Protocol):
    """What the page needs of a worker, as `workers.state.WorkerState` has it."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def url(self) -> str:
        """Its URL, the label `worker`."""
        ...

    @property
    def status(self) -> str:
        """Its status as the fleet says it."""
        ...

    @property
    def engine(self) -> str:
        """Which engine."""
        ...

    @property
    def version(self) -> str:
        """The engine's version."""
        ...

    @property
    def models(self) -> Sequence[ModelName]:
        """Its models."""
        ...


class GatewayReading(msgspec.Struct, kw_only=True, frozen=True):
    """What the leader knows of the gateway as a whole."""

    started_s: float
    """Unix time of the start."""
    config_version: int = 0
    last_apply_successful: bool = True
    restarts: int = 0
    """Processes that were started again."""
    max_concurrent_requests: int | None = None
    queue_sizes: dict[str, int] = {}
    """Priority class -> room in its queue."""


class _Fleet(msgspec.Struct):
    """One worker of the page: the fleet's view, escaped."""

    worker: str
    id: str
    status: str
    engine: str
    version: str
    models: tuple[str, ...]


def render(snapshot: Snapshot, fleet: Iterable[FleetWorker] | None = None, gateway: GatewayReading | None = None) -> bytes:
    """Write the page.

    Args:
        snapshot: The counts, of all processes.
        fleet: The workers as the fleet says; without it, as the snapshot says.
        gateway: What the leader knows of the whole; its families are left out without it.
    """
    page = Page()
    workers = _by_url(snapshot.workers)
    _clients(page, snapshot)
    _models(page, snapshot)
    _workers(page, workers, _fleet_of(workers.values()) if fleet is None else _escaped(fleet))
    _admission(page, snapshot, gateway)
    _gateway(page, snapshot, gateway)
    return page.encode()


async def render_off_loop(
    parts: Collection[Snapshot], fleet: Collection[FleetWorker] | None = None, gateway: GatewayReading | None = None
) -> bytes:
    """Merge snapshots and write the page, in a thread where it is large; nobody may change `parts` meanwhile."""
    rows = sum(15 * len(part.workers) + 100 * len(part.models) for part in parts)
    if rows <= MAX_ROWS_ON_LOOP:
        return render(merge(parts), fleet, gateway)
    return await asyncio.to_thread(lambda: render(merge(parts), fleet, gateway))


def _by_url(workers: Iterable[WorkerCounts]) -> dict[str, WorkerCounts]:
    """Add up workers under one URL: one that drains and its successor are one series."""
    unique: dict[str, WorkerCounts] = {}
    for worker in workers:
        url = escape(worker.url)
        mine = unique.get(url)
        if mine is None:
            unique[url] = worker
        else:
            both: dict[str, WorkerCounts] = {}
            for one in (mine, worker):
                add_worker(both, msgspec.structs.replace(one, id=worker.id))
            unique[url] = both[worker.id]
    return unique


def _fleet_of(workers: Iterable[WorkerCounts]) -> dict[str, _Fleet]:
    return {
        (url := escape(one.url)): _Fleet(url, escape(one.id), one.status, one.engine, "", tuple(map(escape, one.models))) for one in workers
    }


def _escaped(fleet: Iterable[FleetWorker]) -> dict[str, _Fleet]:
    unique: dict[str, _Fleet] = {}
    for one in fleet:
        url = escape(one.url)
        if url in unique and unique[url].status == "ready":
            continue
        unique[url] = _Fleet(
            url,
            escape(one.id),
            str(one.status),
            str(one.engine),
            escape(one.version),
            tuple(dict.fromkeys(escape(model.name) for model in one.models)),
        )
    return unique


def _clients(page: Page, snapshot: Snapshot) -> None:
    page.plain("smg_http_requests_total", (("POST", one.path, one.requests) for one in snapshot.endpoints))
    page.histograms("smg_http_request_duration_seconds", ((("POST", one.path), one.duration) for one in snapshot.endpoints))
    page.plain(
        "smg_http_responses_total",
        ((one.path, status, code, count) for one in snapshot.endpoints for status, code, count in one.responses),
    )
    page.value("smg_http_connections_active", snapshot.connections_active)
    page.value("smg_http_connections_total", snapshot.connections_total)
    page.value("smg_http_framing_errors_total", snapshot.framing_errors)
    admitted = sum(count for _, outcome, count in snapshot.admission if outcome == "admitted")
    page.plain(
        "smg_http_rate_limit_total",
        [("allowed", "", admitted), *(("rejected", limit, count) for limit, count in snapshot.rate_limited.items())],
    )


def _models(page: Page, snapshot: Snapshot) -> None:
    rows = [
        (("http", "regular", "http", escape(one.model), one.endpoint, "true" if one.streaming else "false"), one) for one in snapshot.models
    ]
    streams = [(labels, one) for labels, one in rows if one.streaming]
    page.plain("smg_router_requests_total", ((*labels, one.requests) for labels, one in rows))
    page.histograms("smg_router_request_duration_seconds", ((labels, one.duration) for labels, one in rows))
    page.plain(
        "smg_router_request_errors_total",
        ((*labels, code, count) for labels, one in rows for code, count in one.errors.items()),
    )
    page.histograms("smg_router_ttft_seconds", ((labels, one.ttft) for labels, one in streams))
    page.histograms("smg_router_tpot_seconds", ((labels, one.tpot) for labels, one in streams))
    page.histograms("smg_router_generation_duration_seconds", ((labels, one.generation) for labels, one in streams))
    page.plain(
        "smg_router_tokens_total",
        (
            (*labels, kind, count)
            for labels, one in rows
            for kind, count in (("input", one.prompt_tokens), ("output", one.completion_tokens), ("cached", one.cached_tokens))
        ),
    )
    page.plain("smg_router_usage_missing_total", ((*labels, one.usage_missing) for labels, one in rows))
    page.plain("smg_router_hedges_total", ((*labels, one.hedges) for labels, one in rows))
    page.plain("smg_worker_retries_total", (("regular", *labels[2:], one.retries) for labels, one in rows))
    page.plain("smg_worker_retries_exhausted_total", (("regular", *labels[2:], one.retries_exhausted) for labels, one in rows))


def _workers(page: Page, workers: dict[str, WorkerCounts], fleet: dict[str, _Fleet]) -> None:
    size: dict[str, int] = {}
    available: dict[str, int] = {}
    for one in fleet.values():
        counts = workers.get(one.worker)
        free = one.status == "ready" and (counts is None or counts.breaker != "open")
        for model in one.models:
            size[model] = size.get(model, 0) + 1
            available[model] = available.get(model, 0) + free
    page.plain("smg_worker_pool_size", (("regular", "http", model, count) for model, count in size.items()))
    page.plain("smg_worker_pool_available", (("regular", "http", model, count) for model, count in available.items()))
    page.plain("smg_worker_info", ((one.worker, one.id, one.engine, one.version, 1) for one in fleet.values()))
    page.plain("smg_worker_status", ((one.worker, one.status, 1) for one in fleet.values()))
    page.plain("smg_worker_health", ((one.worker, int(one.status == "ready")) for one in fleet.values()))
    rows = workers.items()
    page.plain("smg_worker_requests_active", ((url, one.in_flight) for url, one in rows))
    page.plain("smg_worker_connections_active", (("regular", "http", url, one.open_connections) for url, one in rows))
    page.plain("smg_worker_selection_total", (("regular", "http", url, one.selections) for url, one in rows))
    page.plain(
        "smg_worker_errors_total",
        (("regular", "http", url, code, count) for url, one in rows for code, count in one.errors.items()),
    )
    page.plain(
        "smg_router_upstream_responses_total",
        (("http", url, status, count) for url, one in rows for status, count in one.responses.items()),
    )
    page.plain("smg_worker_streams_broken_total", ((url, one.streams_broken) for url, one in rows))
    page.plain("smg_worker_hedges_won_total", ((url, one.hedges_won) for url, one in rows))
    page.plain("smg_worker_cb_state", ((url, _BREAKER_VALUES.get(one.breaker, 1)) for url, one in rows))
    page.plain(
        "smg_worker_cb_transitions_total",
        ((url, old, new, count) for url, one in rows for old, new, count in one.breaker_transitions),
    )
    page.plain(
        "smg_worker_cb_outcomes_total",
        ((url, outcome, count) for url, one in rows for outcome, count in (("success", one.successes), ("failure", one.failures))),
    )


def _admission(page: Page, snapshot: Snapshot, gateway: GatewayReading | None) -> None:
    admission = snapshot.admission
    page.plain(
        "smg_scheduler_admit_total",
        ((priority, _OUTCOMES.get(outcome, outcome), count) for priority, outcome, count in admission if outcome != "queued"),
    )
    page.plain("smg_scheduler_queued_total", ((priority, count) for priority, outcome, count in admission if outcome == "queued"))
    page.histograms("smg_scheduler_queue_wait_seconds", (((priority,), one) for priority, one in snapshot.queue_wait.items()))
    page.value("smg_scheduler_inflight", snapshot.in_flight)
    page.value("smg_scheduler_waiting", snapshot.queued)
    page.plain("smg_scheduler_queue_depth", snapshot.queue_depth.items())
    if gateway is not None:
        page.plain("smg_scheduler_queue_size_limit", gateway.queue_sizes.items())
        if gateway.max_concurrent_requests is not None:
            page.value("smg_scheduler_capacity", gateway.max_concurrent_requests)
            page.value("smg_scheduler_utilization", snapshot.in_flight / gateway.max_concurrent_requests)


def _gateway(page: Page, snapshot: Snapshot, gateway: GatewayReading | None) -> None:
    page.plain("smg_build_info", ((_own_version(), platform.python_version(), 1),))
    if gateway is not None:
        page.value("smg_uptime_seconds", round(max(0.0, wall_s() - gateway.started_s), 3))
        page.value("smg_config_version", gateway.config_version)
        page.value("smg_config_last_apply_successful", int(gateway.last_apply_successful))
        page.value("smg_process_restarts_total", gateway.restarts)
    processes = {"supervisor" if one.index < 0 else str(one.index): one for one in snapshot.processes}.items()
    page.value("smg_processes", len(processes))
    page.plain("smg_process_start_time_seconds", ((name, one.started_s) for name, one in processes))
    page.plain("smg_process_resident_memory_bytes", ((name, one.memory_bytes) for name, one in processes))
    page.plain("smg_process_open_fds", ((name, one.open_fds) for name, one in processes))
    page.plain("smg_process_cpu_seconds_total", ((name, one.cpu_s) for name, one in processes))
    page.value("smg_access_log_dropped_total", snapshot.access_log_dropped)
    page.value("smg_trace_spans_dropped_total", snapshot.spans_dropped)


@cache
def _own_version() -> str:
    return version("smgctl")
