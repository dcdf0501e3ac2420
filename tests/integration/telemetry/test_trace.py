"""Traces reach a collector over OTLP/HTTP as protobuf, and a collector in trouble costs spans, never time."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gateway.config.model import TraceConfig
from gateway.protocol.dialect import Dialect
from gateway.protocol.usage import Usage
from gateway.telemetry import trace
from gateway.telemetry.trace import Tracer
from tests.support.collector import Collector, attributes

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that takes everything."""
    with Collector() as one:
        yield one


def request(tracer: Tracer, *, code: str = "") -> None:
    """One streamed request with one attempt."""
    span = tracer.start(PARENT, b"vendor=1", Dialect.CHAT, "m", stream=True)
    assert span is not None
    span.traceparent_line("http://w1:8000")
    span.attempt("http://w1:8000", 200, code)
    span.end(200, code, Usage(10, 5, 4), first_token_s=0.25)


def test_a_collector_gets_both_spans(collector: Collector) -> None:
    """What arrives is one trace: client, request, attempt; named and attributed by the conventions."""
    tracer = Tracer(TraceConfig(enabled=True, endpoint=collector.endpoint, service_name="front"))
    request(tracer)
    request(tracer, code="stream_broken")
    tracer.close(wait_s=10.0)
    assert tracer.dropped == 0
    assert collector.paths == {"/v1/traces"}
    assert collector.resource["service.name"] == "front"
    requests = [span for span in collector.spans if span.name == "chat m"]
    attempts = [span for span in collector.spans if span.name == "smg.attempt"]
    assert (len(requests), len(attempts)) == (2, 2)
    assert {span.trace_id.hex() for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {span.parent_span_id.hex() for span in requests} == {"b7ad6b7169203331"}
    assert {span.parent_span_id for span in attempts} == {span.span_id for span in requests}
    assert {span.trace_state for span in requests} == {"vendor=1"}
    assert {span.kind for span in requests} == {ProtoSpan.SPAN_KIND_SERVER}
    assert {span.kind for span in attempts} == {ProtoSpan.SPAN_KIND_CLIENT}
    good, bad = requests
    assert attributes(good)["gen_ai.usage.input_tokens"] == 10
    assert attributes(good)["gen_ai.request.stream"] is True
    assert good.status.code == Status.STATUS_CODE_UNSET
    assert attributes(bad)["error.type"] == "stream_broken"
    assert bad.status.code == Status.STATUS_CODE_ERROR
    assert attributes(attempts[0])["server.port"] == 8000


def test_spans_are_sent_while_the_gateway_runs(collector: Collector) -> None:
    """Nobody has to close anything to see a trace."""
    tracer = Tracer(TraceConfig(enabled=True, endpoint=collector.endpoint), batch_s=0.05)
    request(tracer)
    end_s = time.monotonic() + 10.0
    while not collector.spans and time.monotonic() < end_s:
        time.sleep(0.01)
    assert collector.spans
    tracer.close(wait_s=10.0)


@pytest.mark.parametrize("trouble", ["away", "refuses", "stalls"])
def test_a_collector_in_trouble_costs_spans_not_time(
    collector: Collector, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests go on at once, close is bounded, and every span is counted as dropped."""
    monkeypatch.setattr(trace, "EXPORT_S", 0.3)
    monkeypatch.setattr(trace, "CLOSE_S", 0.3)
    endpoint = collector.endpoint
    if trouble == "away":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces"
    elif trouble == "refuses":
        collector.status = 503
    else:
        collector.go.clear()
    tracer = Tracer(TraceConfig(enabled=True, endpoint=endpoint), batch_s=0.01)
    for _ in range(100):
        request(tracer)
    began_s = time.monotonic()
    tracer.close()
    assert time.monotonic() - began_s < 0.25
    tracer.close(wait_s=10.0)
    assert time.monotonic() - began_s < 9.0
    collector.go.set()
    assert tracer.dropped == 200
    assert len(collector.spans) in (0, 200)


def test_the_end_of_a_process_sends_what_is_left(collector: Collector) -> None:
    """A process that closes its tracer without waiting and ends loses nothing."""
    program = f"""
from gateway.config.model import TraceConfig
from gateway.telemetry.trace import Tracer
tracer = Tracer(TraceConfig(enabled=True, endpoint={collector.endpoint!r}))
span = tracer.start(None, None, "chat", "m")
span.end(200, "")
tracer.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert [span.name for span in collector.spans] == ["chat m"]
