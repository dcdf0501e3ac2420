"""Traces over OTLP/HTTP with the GenAI conventions: a span a request, a span below it for each attempt.

Strategy.

1. Off is free: there is no `Tracer` then, and the client's `traceparent` reaches the worker as it came.
2. The decision to sample is made here, before anything is built: a client's own decision holds, else the configured share
   is drawn. A request that is not sampled has no span (`start` returns None) and its context is passed on unchanged.
3. Spans are sent in batches by the SDK's own thread, off the event loop. What does not fit into the queue, and what the
   collector does not take in time, is dropped and counted; requests never wait for it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.config.model import TraceConfig
from gateway.errors import ConfigError
from gateway.protocol.usage import Usage
from gateway.telemetry import semconv
from gateway.telemetry.trace_context import TraceContext, format_traceparent, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span as OtelSpan

MAX_QUEUED_SPANS = 8192
"""Spans that may wait for the collector; at about 2 KB a span 16 MB."""
MAX_BATCH_SPANS = 512
BATCH_S = 1.0
"""Longest time that a span waits for its batch."""
EXPORT_S = 5.0
"""Time the collector has to take a batch, retries and all."""
CLOSE_S = 3.0
"""Time after `close` within which a further batch is begun."""

_MAX_MODEL_CHARS = 128
_MAX_TRACESTATE_BYTES = 512
"""What the specification asks everybody to pass on at least."""


class Tracer:
    """Makes the spans of one process. Owns a thread from its construction to some seconds after `close`.

    Args:
        config: Where to, which share, under which name.
        exporter: Takes the spans instead of an OTLP exporter.
        draw: Uniform random number in [0, 1), for sampling.
        batch_s: Longest time that a span waits for its batch.

    Raises:
        ConfigError: the `tracing` extra is not installed; nothing is running then.
    """

    def __init__(
        self,
        config: TraceConfig,
        *,
        exporter: SpanExporter | None = None,
        draw: Callable[[], float] = random.random,
        batch_s: float = BATCH_S,
    ) -> None:
        try:
            from opentelemetry import trace as api
            from opentelemetry.trace.propagation import set_span_in_context
        except ImportError as error:
            raise ConfigError("trace.enabled needs the tracing extra: pip install 'smgctl[tracing]'") from error
        self._share = config.sample_ratio
        self._draw = draw
        self.api = api
        self.in_context = set_span_in_context
        self._counts = _Counts()
        self._provider = _provider(config, exporter, self._counts, batch_s)
        self.otel = self._provider.get_tracer("smgctl", version("smgctl"))
        self._closer: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Tracer {self._counts.ended} spans, {self.dropped} dropped{', closed' if self._closer else ''}>"

    @property
    def dropped(self) -> int:
        """Spans that no collector got."""
        return self._counts.overflowed + self._counts.failed

    def start(
        self,
        traceparent: bytes | None,
        tracestate: bytes | None,
        dialect: str,
        model: str,
        *,
        stream: bool = False,
        start_ns: int | None = None,
    ) -> Span | None:
        """Begin the span of a request, or return None where it is not sampled.

        Args:
            traceparent: The client's header, as it came.
            tracestate: The client's, passed on within the trace.
            dialect: The client's dialect, which names the operation.
            model: The model as the client named it.
            stream: Whether it asked for a stream.
            start_ns: Unix time at which the request came; now unless given.
        """
        parent = parse_traceparent(traceparent) if traceparent is not None else None
        if not (parent.sampled if parent is not None else self._draw() < self._share):
            return None
        name = model[:_MAX_MODEL_CHARS]
        operation = semconv.OPERATIONS.get(dialect, dialect)
        span = self.otel.start_span(
            f"{operation} {name}" if name else operation,
            context=None if parent is None else self._remote(parent, tracestate),
            kind=self.api.SpanKind.SERVER,
            attributes={
                semconv.OPERATION_NAME: operation,
                semconv.PROVIDER_NAME: semconv.PROVIDERS.get(dialect, "openai"),
                semconv.REQUEST_MODEL: name,
                semconv.REQUEST_STREAM: stream,
                semconv.HTTP_REQUEST_METHOD: "POST",
            },
            start_time=start_ns,
        )
        return Span(self, span, operation, name)

    def close(self, wait_s: float = 0.0) -> None:
        """Send what is left, then end the thread; both go on by themselves for at most `CLOSE_S` and one export.

        Args:
            wait_s: Time to wait here until that is done; 0 on an event loop. The end of the process waits in any case.
        """
        if self._closer is None:
            self._counts.deadline_s = time.monotonic() + CLOSE_S
            self._closer = threading.Thread(target=self._provider.shutdown, name="smg-trace-close")
            self._closer.start()
        if wait_s:
            self._closer.join(wait_s)

    def _remote(self, parent: TraceContext, tracestate: bytes | None) -> Context:
        api = self.api
        state = None
        if tracestate is not None and len(tracestate) <= _MAX_TRACESTATE_BYTES:
            state = api.TraceState.from_header([tracestate.decode("latin-1")])
        context = api.SpanContext(parent.trace_id, parent.span_id, True, api.TraceFlags(api.TraceFlags.SAMPLED), state)
        return self.in_context(api.NonRecordingSpan(context))


class Span:
    """The span of one request, with one below it for each attempt. Used on the event loop; ended exactly once."""

    __slots__ = ("_attempts", "_context", "_model", "_open", "_operation", "_otel", "_tracer")

    def __init__(self, tracer: Tracer, otel: OtelSpan, operation: str, model: str) -> None:
        self._tracer = tracer
        self._otel = otel
        self._operation = operation
        self._model = model
        self._context = tracer.in_context(otel)
        self._attempts = 0
        self._open: list[tuple[str, OtelSpan]] = []
        """Attempts under way: one, or two while a hedge runs."""

    def __repr__(self) -> str:
        return f"<Span {self.traceparent().decode()} {self._attempts} attempts, {len(self._open)} open>"

    def traceparent(self) -> bytes:
        """The request's own place in the trace, as a header value."""
        return _traceparent(self._otel)

    def traceparent_line(self, worker_url: str = "") -> bytes:
        """Begin the span of an attempt, and return the header line that tells the worker of it."""
        attributes: dict[str, str | int] = {
            semconv.OPERATION_NAME: self._operation,
            semconv.REQUEST_MODEL: self._model,
            semconv.HTTP_REQUEST_METHOD: "POST",
        }
        if worker_url:
            attributes |= _address(worker_url)
        if self._attempts:
            attributes[semconv.HTTP_REQUEST_RESEND_COUNT] = self._attempts
        span = self._tracer.otel.start_span(
            semconv.ATTEMPT_SPAN, context=self._context, kind=self._tracer.api.SpanKind.CLIENT, attributes=attributes
        )
        self._attempts += 1
        self._open.append((worker_url, span))
        return b"traceparent: " + _traceparent(span) + b"\r\n"

    def attempt(self, worker_url: str, status: int, code: str) -> None:
        """End the span of the attempt on a worker: the answer's status (0 without one) and the error's code, or empty."""
        for place, (url, span) in enumerate(self._open):
            if url in (worker_url, ""):
                del self._open[place]
                if not url:
                    span.set_attributes(_address(worker_url))
                self._end(span, status, code)
                return

    def end(self, status: int, code: str, usage: Usage | None = None, *, first_token_s: float | None = None) -> None:
        """End the span of the request; attempts that are still open were cancelled."""
        for _, span in self._open:
            self._end(span, 0, semconv.CANCELLED)
        self._open.clear()
        otel = self._otel
        otel.set_attribute(semconv.ATTEMPTS, self._attempts)
        if usage is not None:
            otel.set_attribute(semconv.INPUT_TOKENS, usage.prompt_tokens)
            otel.set_attribute(semconv.OUTPUT_TOKENS, usage.completion_tokens)
            if usage.cached_tokens:
                otel.set_attribute(semconv.CACHE_READ_INPUT_TOKENS, usage.cached_tokens)
        if first_token_s is not None:
            otel.set_attribute(semconv.TIME_TO_FIRST_CHUNK, round(first_token_s, 6))
        self._end(otel, status, code)

    def _end(self, span: OtelSpan, status: int, code: str) -> None:
        if status:
            span.set_attribute(semconv.HTTP_RESPONSE_STATUS_CODE, status)
        if code:
            span.set_attribute(semconv.ERROR_TYPE, code)
            if code != semconv.CANCELLED:
                span.set_status(self._tracer.api.StatusCode.ERROR)
        span.end()


class _Counts:
    """How many spans went where; each number has one thread that writes it."""

    def __init__(self) -> None:
        self.ended = 0
        self.overflowed = 0
        self.taken = 0
        self.failed = 0
        self.deadline_s = float("inf")
        """Monotonic time after which no batch is begun."""


def _provider(config: TraceConfig, exporter: SpanExporter | None, counts: _Counts, batch_s: float) -> TracerProvider:
    """Return a provider whose spans go through a bounded queue to the exporter."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise ConfigError("trace.enabled needs the tracing extra: pip install 'smgctl[tracing]'") from error

    target = OTLPSpanExporter(endpoint=config.endpoint, timeout=EXPORT_S) if exporter is None else exporter

    class Counted(SpanExporter):
        """Counts what the collector got, and begins nothing after the deadline."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            counts.taken += len(spans)
            result = SpanExportResult.FAILURE
            try:
                if time.monotonic() < counts.deadline_s:
                    result = target.export(spans)
            finally:
                if result is not SpanExportResult.SUCCESS:
                    counts.failed += len(spans)
            return result

        def shutdown(self) -> None:
            target.shutdown()

    class Bounded(SpanProcessor):
        """Keeps the queue below its bound, so that the newest span is dropped and counted, never silently the oldest."""

        def __init__(self) -> None:
            self._batches = BatchSpanProcessor(
                Counted(),
                max_queue_size=MAX_QUEUED_SPANS,
                max_export_batch_size=MAX_BATCH_SPANS,
                schedule_delay_millis=batch_s * 1000,
                export_timeout_millis=EXPORT_S * 1000,
            )

        def on_end(self, span: ReadableSpan) -> None:
            counts.ended += 1
            if counts.ended - counts.overflowed - counts.taken > MAX_QUEUED_SPANS or counts.deadline_s != float("inf"):
                counts.overflowed += 1
            else:
                self._batches.on_end(span)

        def shutdown(self) -> None:
            self._batches.shutdown()  # type: ignore[no-untyped-call]

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return self._batches.force_flush(timeout_millis)

    resource = Resource.create({"service.name": config.service_name, "service.version": version("smgctl")})
    limits = SpanLimits(max_span_attributes=32, max_events=16, max_links=1)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(Bounded())
    return provider


def _traceparent(span: OtelSpan) -> bytes:
    context = span.get_span_context()
    return format_traceparent(context.trace_id, context.span_id, True)


@lru_cache(maxsize=4096)
def _split(worker_url: str) -> tuple[str, int | None]:
    parts = urlsplit(worker_url)
    return parts.hostname or "", parts.port


def _address(worker_url: str) -> dict[str, Any]:
    host, port = _split(worker_url)
    address: dict[str, Any] = {semconv.WORKER_URL: worker_url, semconv.SERVER_ADDRESS: host}
    if port is not None:
        address[semconv.SERVER_PORT] = port
    return address
