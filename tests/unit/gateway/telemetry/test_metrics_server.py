"""The metrics port answers each request line as HTTP says, without a socket in between."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.metrics_server import MetricsServer


async def page() -> bytes:
    """A page."""
    return b"smg_x 1\n"


async def broken() -> bytes:
    """A page that cannot be made."""
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("line", "status", "end"),
    [
        (b"GET /metrics HTTP/1.1", 200, b"\r\n\r\nsmg_x 1\n"),
        (b"GET /metrics?name=x HTTP/1.0", 200, b"smg_x 1\n"),
        (b"HEAD /metrics HTTP/1.1", 200, b"\r\n\r\n"),
        (b"GET /health HTTP/1.1", 200, b'{"status":"ok"}'),
        (b"HEAD /health HTTP/1.1", 200, b"\r\n\r\n"),
        (b"POST /metrics HTTP/1.1", 405, b"405 method not allowed\n"),
        (b"GET / HTTP/1.1", 404, b"404 not found\n"),
        (b"GET /metrics", 400, b"400 bad request\n"),
        (b"GET /metrics SPDY/3", 400, b"400 bad request\n"),
        (b"", 400, b"400 bad request\n"),
    ],
)
async def test_a_request_line_has_its_answer(line: bytes, status: int, end: bytes) -> None:
    """Path and method decide; the length is that of the body."""
    answer = await MetricsServer("127.0.0.1", 0, page)._respond(line + b"\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(end)
    head, body = answer.split(b"\r\n\r\n", 1)
    if not line.startswith(b"HEAD"):
        assert b"content-length: %d\r\n" % len(body) in head


@given(head=st.binary(max_size=200))
def test_any_head_has_an_answer(head: bytes) -> None:
    """Whatever is sent, the answer is HTTP, whole, and closes the connection."""
    answer = asyncio.run(MetricsServer("127.0.0.1", 0, page)._respond(head + b"\r\n\r\n"))
    top, body = answer.split(b"\r\n\r\n", 1)
    assert re.match(rb"HTTP/1\.1 (200|400|404|405) ", top)
    assert top.endswith(b"connection: close")
    assert b"content-length: %d\r\n" % len(body) in top or head.startswith(b"HEAD ")


async def test_a_page_that_cannot_be_made_is_500(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is in the log, not in the answer."""
    answer = await MetricsServer("127.0.0.1", 0, broken)._respond(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"RuntimeError" not in answer
    assert "RuntimeError" in caplog.text
