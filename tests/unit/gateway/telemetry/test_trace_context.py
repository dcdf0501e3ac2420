"""The traceparent header is read as the W3C specification says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.telemetry.trace_context import TraceContext, format_traceparent, parse_traceparent

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"


def test_a_header_is_read() -> None:
    """Ids and the sampled flag, other flags ignored."""
    expected = TraceContext(int(TRACE, 16), int(SPAN, 16), True)
    assert parse_traceparent(b"00-%b-%b-01" % (TRACE, SPAN)) == expected
    assert parse_traceparent(b"00-%b-%b-03" % (TRACE, SPAN)) == expected
    assert parse_traceparent(b"00-%b-%b-00" % (TRACE, SPAN)) == expected._replace(sampled=False)


def test_a_later_version_may_have_more() -> None:
    """A version that is not known yet is read as far as it is known."""
    assert parse_traceparent(b"cc-%b-%b-01-what-ever" % (TRACE, SPAN)) is not None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01-more" % (TRACE, SPAN),
        b"00-%b-%b-01 " % (TRACE, SPAN),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"cc-%b-%b-01more" % (TRACE, SPAN),
    ],
)
def test_what_is_malformed_is_absent(value: bytes) -> None:
    """The specification says to begin a new trace then."""
    assert parse_traceparent(value) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_failing(value: bytes) -> None:
    """A header comes from anywhere."""
    parse_traceparent(value)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read_back_and_by_opentelemetry_too(trace_id: int, span_id: int, sampled: bool) -> None:
    """Our header means the same to OpenTelemetry's own propagator."""
    value = format_traceparent(trace_id, span_id, sampled)
    assert parse_traceparent(value) == (trace_id, span_id, sampled)
    context = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": value.decode()})).get_span_context()
    assert (context.trace_id, context.span_id, context.trace_flags.sampled) == (trace_id, span_id, sampled)
