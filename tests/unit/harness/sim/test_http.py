"""The HTTP side of an engine, fed from memory: whole, byte by byte, pipelined, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sim.http import MAX_HEAD_BYTES, MAX_PIPELINED, Connection, Exchange

POST = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h\r\nX-Odd: v\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"


class Transport:
    """Takes bytes, remembers what was done to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.written += data

    def close(self) -> None:
        """Close."""
        self.closed = True

    def is_closing(self) -> bool:
        """Tell whether it is closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Stop reading."""
        self.reading = False

    def resume_reading(self) -> None:
        """Read again."""
        self.reading = True

    def get_extra_info(self, name: str) -> None:
        """Return nothing: there is no socket."""

    abort = close


class Host:
    """Keeps what it is asked to serve."""

    def __init__(self) -> None:
        self.keep_alive_s = 5.0
        self.connections: set[Connection] = set()
        self.frozen = False
        self.exchanges: list[Exchange] = []

    def serve(self, exchange: Exchange) -> None:
        """Keep it."""
        self.exchanges.append(exchange)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that only gives timers."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def connected(loop: asyncio.AbstractEventLoop) -> tuple[Host, Transport, Connection]:
    """Return a connection in memory."""
    host, transport = Host(), Transport()
    connection = Connection(host, loop)
    connection.connection_made(cast(Any, transport))
    return host, transport, connection


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_is_the_same_in_any_pieces(loop: asyncio.AbstractEventLoop, size: int) -> None:
    """Method, target, headers in their case, and body come out whole however the bytes came."""
    host, _, connection = connected(loop)
    for start in range(0, len(POST), size):
        connection.data_received(POST[start : start + size])
    request = host.exchanges[0].request
    assert (request.method, request.target, request.path, request.body) == ("POST", b"/v1/x?y=1", "/v1/x", b"hello")
    assert (b"X-Odd", b"v") in request.headers
    assert request.header(b"x-odd") == "v"
    connection.connection_lost(None)


def test_pipelined_requests_wait_their_turn(loop: asyncio.AbstractEventLoop) -> None:
    """The second request is served when the first is answered; too many stop the reading."""
    host, transport, connection = connected(loop)
    connection.data_received(GET * (MAX_PIPELINED + 1))
    assert (len(host.exchanges), transport.reading) == (1, False)
    host.exchanges[0].respond(200, [("content-length", "2")], b"ok")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (len(host.exchanges), transport.reading) == (2, True)
    assert transport.written.endswith(b"\r\n\r\nok")
    connection.connection_lost(None)


def test_chunks_and_end(loop: asyncio.AbstractEventLoop) -> None:
    """A chunked answer is framed; an empty chunk is not sent, for it would be the end."""
    host, transport, connection = connected(loop)
    connection.data_received(GET)
    exchange = host.exchanges[0]
    exchange.start(200, [("content-type", "x")], "Transfer-Encoding")
    for data in (b"abc", b"", b"d" * 20):
        exchange.chunk(data)
    exchange.end()
    exchange.chunk(b"late")
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.endswith(b"content-type: x\r\nTransfer-Encoding: chunked")
    assert body == b"3\r\nabc\r\n14\r\n" + b"d" * 20 + b"\r\n0\r\n\r\n"
    connection.connection_lost(None)


def test_a_client_that_leaves_is_told_once(loop: asyncio.AbstractEventLoop) -> None:
    """Leaving before the end is told; leaving after it is not."""
    left: list[int] = []
    for answered in (False, True):
        host, _, connection = connected(loop)
        connection.data_received(GET)
        host.exchanges[0].on_gone = lambda: left.append(1)
        if answered:
            host.exchanges[0].respond(200, [("content-length", "0")], b"")
        connection.connection_lost(None)
        assert host.connections == set()
    assert left == [1]


def test_connection_close_is_kept(loop: asyncio.AbstractEventLoop) -> None:
    """A client that asks for the end of the connection gets it, and is told so."""
    host, transport, connection = connected(loop)
    connection.data_received(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    host.exchanges[0].respond(200, [("content-length", "0")], b"")
    assert b"connection: close\r\n" in transport.written
    assert transport.closed
    connection.connection_lost(None)


def test_giant_heads_are_refused(loop: asyncio.AbstractEventLoop) -> None:
    """A head beyond the limit is answered 431 and closed."""
    host, transport, connection = connected(loop)
    connection.data_received(b"GET / HTTP/1.1\r\n")
    while not transport.closed:
        connection.data_received(b"x: " + b"y" * 60_000 + b"\r\n")
        assert len(transport.written) < MAX_HEAD_BYTES
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert host.exchanges == []
    connection.connection_lost(None)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([GET, POST, POST[:40], b"\r\n\r\n", b"HTTP/1.1\r\n"]), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_served_or_refused(pieces: list[bytes]) -> None:
    """Whatever comes, nothing is raised, and what is refused is answered 4xx and closed."""
    loop = asyncio.new_event_loop()
    try:
        _, transport, connection = connected(loop)
        for piece in pieces:
            if not transport.closed:
                connection.data_received(piece)
        assert not transport.closed or transport.written.startswith(b"HTTP/1.1 4")
        connection.connection_lost(None)
    finally:
        loop.close()
