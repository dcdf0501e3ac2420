"""Spans say what happened to a request and each of its attempts, within the client's trace."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.config.model import TraceConfig
from gateway.errors import ConfigError
from gateway.protocol.dialect import Dialect
from gateway.protocol.usage import Usage
from gateway.telemetry import trace
from gateway.telemetry.trace import Tracer
from gateway.telemetry.trace_context import parse_traceparent

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C

Make = Callable[..., tuple[Tracer, Callable[[], dict[str, list[ReadableSpan]]]]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a tracer, and what gives back its finished spans by name."""
    made: list[Tracer] = []

    def tracer(share: float = 1.0, draw: float = 0.5) -> tuple[Tracer, Callable[[], dict[str, list[ReadableSpan]]]]:
        exporter = InMemorySpanExporter()
        one = Tracer(TraceConfig(enabled=True, sample_ratio=share), exporter=exporter, draw=lambda: draw)
        made.append(one)

        def finished() -> dict[str, list[ReadableSpan]]:
            one.close(wait_s=10.0)
            spans: dict[str, list[ReadableSpan]] = {}
            for span in exporter.get_finished_spans():
                spans.setdefault(span.name, []).append(span)
            return spans

        return one, finished

    yield tracer
    for one in made:
        one.close(wait_s=10.0)


def test_a_request_and_its_attempt_are_spans_of_the_clients_trace(make: Make) -> None:
    """The worker's parent is the attempt, the attempt's the request, the request's the client."""
    tracer, finished = make()
    span = tracer.start(PARENT, b"vendor=1", Dialect.CHAT, "m", stream=True)
    assert span is not None
    line = span.traceparent_line("http://w1:8000")
    span.attempt("http://w1:8000", 200, "")
    span.end(200, "", Usage(10, 5, 4), first_token_s=0.25)
    spans = finished()
    (request,), (attempt,) = spans["chat m"], spans["smg.attempt"]
    assert request.context and attempt.context and request.parent and attempt.parent
    assert request.context.trace_id == attempt.context.trace_id == TRACE_ID
    assert request.parent.span_id == 0xB7AD6B7169203331
    assert request.context.trace_state.get("vendor") == "1"
    assert attempt.parent.span_id == request.context.span_id
    name, value = line.removesuffix(b"\r\n").split(b": ")
    assert name == b"traceparent"
    assert parse_traceparent(value) == (TRACE_ID, attempt.context.span_id, True)
    assert (request.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)


def test_attributes_are_those_of_the_conventions(make: Make) -> None:
    """Operation, model, usage, worker, status."""
    tracer, finished = make()
    span = tracer.start(None, None, Dialect.MESSAGES, "m", stream=True)
    assert span is not None
    span.traceparent_line("http://w1:8000")
    span.attempt("http://w1:8000", 200, "")
    span.end(200, "", Usage(10, 5, 4), first_token_s=0.25)
    spans = finished()
    assert dict(spans["chat m"][0].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "http.request.method": "POST",
        "smg.attempts": 1,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "http.response.status_code": 200,
    }
    assert dict(spans["smg.attempt"][0].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "http.request.method": "POST",
        "smg.worker.url": "http://w1:8000",
        "server.address": "w1",
        "server.port": 8000,
        "http.response.status_code": 200,
    }


def test_a_retry_is_a_second_attempt(make: Make) -> None:
    """The failed attempt is an error, the request that was saved is not."""
    tracer, finished = make()
    span = tracer.start(None, None, Dialect.CHAT, "m")
    assert span is not None
    span.traceparent_line("http://w1:8000")
    span.attempt("http://w1:8000", 0, "connect_failed")
    span.traceparent_line("http://w2:8000")
    span.attempt("http://w2:8000", 200, "")
    span.end(200, "")
    spans = finished()
    first, second = spans["smg.attempt"]
    assert first.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})["error.type"] == "connect_failed"
    assert second.status.status_code is StatusCode.UNSET
    assert (second.attributes or {})["http.request.resend_count"] == 1
    assert spans["chat m"][0].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("named", [True, False])
def test_a_hedge_that_lost_is_cancelled_not_an_error(make: Make, named: bool) -> None:
    """The answer ends the span of the worker that gave it."""
    tracer, finished = make()
    span = tracer.start(None, None, Dialect.CHAT, "m")
    assert span is not None
    for url in ("http://w1:8000", "http://w2:8000"):
        span.traceparent_line(url if named else "")
    span.attempt("http://w2:8000", 200, "")
    span.end(200, "")
    won, lost = finished()["smg.attempt"]
    assert (won.attributes or {})["smg.worker.url"] == "http://w2:8000"
    assert (lost.attributes or {})["error.type"] == "cancelled"
    assert lost.status.status_code is StatusCode.UNSET


def test_an_error_ends_the_request_as_one(make: Make) -> None:
    """Status and code are those of the answer."""
    tracer, finished = make()
    span = tracer.start(None, None, Dialect.EMBEDDINGS, "")
    assert span is not None
    span.end(503, "no_candidate")
    (request,) = finished()["embeddings"]
    assert request.status.status_code is StatusCode.ERROR
    assert (request.attributes or {})["error.type"] == "no_candidate"


@pytest.mark.parametrize(
    ("traceparent", "share", "draw", "sampled"),
    [
        (PARENT, 0.0, 0.5, True),
        (PARENT[:-1] + b"0", 1.0, 0.5, False),
        (None, 1.0, 0.999, True),
        (None, 0.0, 0.0, False),
        (None, 0.5, 0.49, True),
        (None, 0.5, 0.5, False),
        (b"malformed", 1.0, 0.5, True),
    ],
)
def test_the_clients_decision_holds_else_the_share(make: Make, traceparent: bytes | None, share: float, draw: float, sampled: bool) -> None:
    """A request that is not sampled has no span at all."""
    tracer, _ = make(share, draw)
    span = tracer.start(traceparent, None, Dialect.CHAT, "m")
    assert (span is not None) is sampled
    if span is not None:
        span.end(200, "")


@pytest.mark.parametrize("tracestate", [b"", b"\xff=\xff", b"a=1," * 1000, b"=,=,"])
def test_a_bad_tracestate_costs_nothing_but_itself(make: Make, tracestate: bytes) -> None:
    """The trace goes on."""
    tracer, finished = make()
    span = tracer.start(PARENT, tracestate, Dialect.CHAT, "m")
    assert span is not None
    span.end(200, "")
    assert finished()["chat m"][0].context.trace_id == TRACE_ID


class Stuck(SpanExporter):
    """A collector that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.go.wait(10.0)
        return SpanExportResult.FAILURE


def test_a_stuck_collector_costs_spans_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded, and every span is either taken or counted as dropped."""
    monkeypatch.setattr(trace, "MAX_QUEUED_SPANS", 20)
    monkeypatch.setattr(trace, "MAX_BATCH_SPANS", 10)
    exporter = Stuck()
    tracer = Tracer(TraceConfig(enabled=True), exporter=exporter)

    def request() -> None:
        span = tracer.start(None, None, Dialect.CHAT, "m")
        assert span is not None
        span.end(200, "")

    for _ in range(10):
        request()
    assert exporter.asked.wait(10.0)
    for _ in range(50):
        request()
    assert tracer.dropped == 30
    exporter.go.set()
    tracer.close(wait_s=10.0)
    assert tracer.dropped == 60


def test_close_returns_at_once_and_nothing_is_begun_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stuck collector cannot hold the event loop, nor the end of the process for long."""
    monkeypatch.setattr(trace, "CLOSE_S", 0.0)
    exporter = InMemorySpanExporter()
    tracer = Tracer(TraceConfig(enabled=True), exporter=exporter)
    span = tracer.start(None, None, Dialect.CHAT, "m")
    assert span is not None
    span.end(200, "")
    tracer.close()
    tracer.close(wait_s=10.0)
    assert exporter.get_finished_spans() == ()
    assert tracer.dropped == 1


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that cannot be used is refused with the reason."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"pip install 'smgctl\[tracing\]'"):
        Tracer(TraceConfig(enabled=True))
