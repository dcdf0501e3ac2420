"""A process that has counted something in every cell, and the fleet and gateway to go with it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.telemetry.cells import ProcessCells, WorkerCells
from gateway.telemetry.exposition import GatewayReading
from gateway.telemetry.process import ProcessReading
from gateway.telemetry.snapshot import Snapshot, WorkerReading, take

PATH = "/v1/chat/completions"


@dataclass
class Model:
    """A model of a worker, as the fleet has it."""

    name: str


@dataclass
class FleetMember:
    """A worker, as the fleet has it."""

    url: str
    id: str = "w"
    status: str = "ready"
    engine: str = "vllm"
    version: str = "0.32"
    models: tuple[Model, ...] = (Model("m"),)


def worker_cells() -> WorkerCells:
    """Cells with something in each."""
    cells = WorkerCells()
    cells.selections, cells.successes, cells.failures, cells.streams_broken, cells.hedges_won = 9, 6, 3, 1, 1
    cells.responses = {200: 6, 500: 2}
    cells.errors = {"upstream_failed": 2, "stream_broken": 1}
    cells.breaker_transitions = {("closed", "open"): 1, ("open", "half_open"): 1}
    return cells


def worker(url: str = "http://w1:8000", *, models: tuple[str, ...] = ("m",)) -> WorkerReading:
    """Return the reading of one worker."""
    return WorkerReading(id=url, url=url, models=models, engine="vllm", cells=worker_cells(), in_flight=2, open_connections=3)


def process_cells() -> ProcessCells:
    """Cells with something in each."""
    cells = ProcessCells()
    cells.connections_active, cells.connections_total, cells.framing_errors = 3, 10, 1
    cells.rate_limited = {"requests_per_minute": 4}
    cells.admission = {("default", "admitted"): 7, ("default", "queued"): 2, ("bulk", "queue_full"): 1}
    cells.waited("default", 0.2)
    endpoint = cells.endpoint(PATH)
    endpoint.requests = 8
    endpoint.duration.observe(0.02)
    endpoint.responses = {(200, ""): 7, (502, "upstream_failed"): 1}
    for streaming in (False, True):
        model = cells.model("m", PATH, streaming)
        model.requests, model.retries, model.retries_exhausted, model.hedges, model.usage_missing = 4, 2, 1, 1, 1
        model.prompt_tokens, model.completion_tokens, model.cached_tokens = 100, 50, 25
        model.errors = {"upstream_failed": 1}
        for histogram in (model.duration, model.ttft, model.tpot, model.generation):
            histogram.observe(0.3)
    return cells


def process(index: int = 0, *, pid: int = 100, started_s: float = 1000.0) -> ProcessReading:
    """Return the reading of a process."""
    return ProcessReading(index=index, pid=pid, started_s=started_s, memory_bytes=50 << 20, open_fds=20, cpu_s=1.5)


def snapshot(index: int = 0, *, pid: int = 100) -> Snapshot:
    """Return a snapshot with something in every field."""
    return take(
        process_cells(),
        [worker(), worker("http://w2:8000")],
        process=process(index, pid=pid),
        in_flight=2,
        queued=1,
        queue_depth={"default": 1},
        access_log_dropped=1,
        spans_dropped=2,
    )


def fleet() -> list[FleetMember]:
    """Return the workers of `snapshot`, and one that no process has used."""
    return [
        FleetMember("http://w1:8000", "w1"),
        FleetMember("http://w2:8000", "w2", status="not_ready"),
        FleetMember("http://w3:8000", "w3", status="pending", models=()),
    ]


def gateway() -> GatewayReading:
    """Return a gateway with everything said of it."""
    return GatewayReading(
        started_s=1000.0, config_version=3, last_apply_successful=False, restarts=1, max_concurrent_requests=8, queue_sizes={"default": 512}
    )
