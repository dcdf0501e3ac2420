"""What counting, logging and exposing cost: cells per request, a line of the access log, a page of 1000 workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.config.model import TraceConfig
from gateway.protocol.usage import Usage
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.cells import ProcessCells
from gateway.telemetry.exposition import render
from gateway.telemetry.metrics import METRICS
from gateway.telemetry.snapshot import Snapshot, merge, take
from gateway.telemetry.trace import Tracer
from tests.support import telemetry as sample

pytestmark = pytest.mark.bench

WORKERS = 1000
Benchmark = Callable[..., Any]


@pytest.fixture
def large() -> Snapshot:
    """A thousand workers, twenty models."""
    cells = sample.process_cells()
    for number in range(20):
        for streaming in (False, True):
            model = cells.model(f"model-{number}", sample.PATH, streaming)
            for histogram in (model.duration, model.ttft, model.tpot, model.generation):
                histogram.observe(0.3)
    return take(cells, [sample.worker(f"http://10.0.{number // 250}.{number % 250}:8000") for number in range(WORKERS)])


def test_cells_of_one_streamed_request(benchmark: Benchmark) -> None:
    """All that is counted for one stream: two tables, four histograms, tokens, a worker's outcome."""
    process = ProcessCells()
    endpoint = process.endpoint(sample.PATH)
    model = process.model("m", sample.PATH, True)
    worker = sample.worker_cells()

    def request() -> None:
        endpoint.requests += 1
        endpoint.duration.observe(1.5)
        key = (200, "")
        endpoint.responses[key] = endpoint.responses.get(key, 0) + 1
        model.requests += 1
        model.duration.observe(1.5)
        model.prompt_tokens += 100
        model.completion_tokens += 20
        model.cached_tokens += 50
        model.ttft.observe(0.1)
        model.generation.observe(1.4)
        model.tpot.observe(0.07)
        worker.selections += 1
        worker.successes += 1
        worker.responses[200] = worker.responses.get(200, 0) + 1

    benchmark(request)
    assert endpoint.requests == sum(model.ttft.counts) > 0


@pytest.fixture
def sink() -> Iterator[int]:
    """A descriptor that takes everything at once."""
    fd = os.open(os.devnull, os.O_WRONLY)
    yield fd
    os.close(fd)


def test_an_access_log_line_on_the_request_path(benchmark: Benchmark, sink: int) -> None:
    """What a request pays for its line; the thread's part runs beside it."""
    log = AccessLog(fd=sink, max_lines=1 << 30)
    usage = Usage(100, 20, 50)

    def request() -> None:
        log.write(
            request_id="chatcmpl-0123456789", path=sample.PATH, model="m", status=200, code="", source="", worker="http://w1:8000",
            attempts=1, stream=True, usage=usage, ttft_s=0.1, duration_s=1.5, tenant="acme", bytes_out=4096,
        )  # fmt: skip

    benchmark(request)
    log.close(wait_s=60.0)
    assert log.dropped == 0


def test_a_traced_request_with_one_attempt(benchmark: Benchmark) -> None:
    """Two spans from start to end, sampled."""
    exporter = InMemorySpanExporter()
    tracer = Tracer(TraceConfig(enabled=True), exporter=exporter)

    def request() -> None:
        span = tracer.start(None, None, "chat", "m", stream=True)
        assert span is not None
        span.traceparent_line("http://w1:8000")
        span.attempt("http://w1:8000", 200, "")
        span.end(200, "", Usage(100, 20, 50), first_token_s=0.1)

    benchmark(request)
    tracer.close(wait_s=10.0)


def test_a_request_that_is_not_sampled(benchmark: Benchmark) -> None:
    """The decision alone."""
    tracer = Tracer(TraceConfig(enabled=True, sample_ratio=0.0), exporter=InMemorySpanExporter())
    assert benchmark(tracer.start, None, None, "chat", "m") is None
    tracer.close(wait_s=10.0)


def test_taking_a_snapshot_of_1000_workers(benchmark: Benchmark) -> None:
    """What the event loop pays for a scrape."""
    cells = sample.process_cells()
    workers = [sample.worker(f"http://w{number}:80") for number in range(WORKERS)]
    assert len(benchmark(take, cells, workers).workers) == WORKERS


def test_merging_four_processes_of_1000_workers(benchmark: Benchmark, large: Snapshot) -> None:
    """What the leader's thread pays for a scrape of four processes."""
    assert len(benchmark(merge, [large] * 4).workers) == WORKERS


def test_a_page_of_1000_workers(benchmark: Benchmark, large: Snapshot) -> None:
    """Our own writer."""
    assert benchmark(render, large).count(b"\n") > 15 * WORKERS


class _Custom(Collector):
    """The workers' families alone, the way prometheus_client has it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for name, field in (
            ("smg_worker_requests_active", "in_flight"),
            ("smg_worker_selection_total", "selections"),
            ("smg_worker_streams_broken_total", "streams_broken"),
            ("smg_worker_hedges_won_total", "hedges_won"),
        ):
            metric = METRICS[name]
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.help, labels=["worker"])
            for worker in self._snapshot.workers:
                family.add_metric([worker.url], getattr(worker, field))
            yield family


def test_four_families_of_1000_workers_by_prometheus_client(benchmark: Benchmark, large: Snapshot) -> None:
    """A quarter of the same page by prometheus_client, for comparison: why the writer is our own."""
    registry = CollectorRegistry()
    registry.register(_Custom(large))
    assert benchmark(generate_latest, registry).count(b"\n") > 4 * WORKERS
