"""The HTTP/1.1 side of a simulated engine: httptools in, bytes out, callbacks only.

A `Connection` parses requests and gives them one after the other, as `Exchange`s, to the engine. An exchange is answered whole
(`respond`) or in chunks (`start`, `chunk`, `end`), or broken on purpose (`reset`, `raw`, `close`). Heads are written as uvicorn
writes them: date, server, then the engine's headers in the engine's order and case.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol, cast

import httptools

Headers = list[tuple[str, str]]

MAX_BODY_BYTES = 256 << 20
MAX_HEAD_BYTES = 256 << 10
MAX_PIPELINED = 16
"""Requests waiting on one connection; reading stops above it."""
REASONS = {status.value: status.phrase for status in HTTPStatus}
_date: tuple[int, str] = (0, "")


def date_now() -> str:
    """Return the current HTTP date, made once a second."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]


def head(status: int, headers: Headers, extra: str = "") -> bytes:
    """Return a response head; `extra` holds whole header lines after the others."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    text = f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\ndate: {date_now()}\r\nserver: uvicorn\r\n{lines}{extra}\r\n"
    return text.encode("latin-1", "replace")


class Request:
    """A whole request, as it came."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "target")

    def __init__(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, keep_alive: bool) -> None:
        self.method = method
        self.target = target
        self.path = target.split(b"?", 1)[0].decode("latin-1")
        self.headers = headers
        """Names in the case in which they came."""
        self.body = body
        self.keep_alive = keep_alive

    def header(self, name: bytes) -> str | None:
        """Return the first header of this (lower-case) name."""
        for found, value in self.headers:
            if found.lower() == name:
                return value.decode("latin-1")
        return None


class Host(Protocol):
    """Who the connections belong to."""

    keep_alive_s: float
    connections: set[Connection]
    frozen: bool

    def serve(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""


class Exchange:
    """One request and its answer on a connection."""

    __slots__ = ("arrived_s", "connection", "on_gone", "on_writable", "over", "request", "started", "status")

    def __init__(self, connection: Connection, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.status = 0
        self.started = False
        self.over = False
        self.on_gone: Callable[[], None] | None = None
        """Called once if the client leaves before the answer is over."""
        self.on_writable: Callable[[], None] | None = None
        """Called when a slow client takes bytes again."""
        self.arrived_s = time.monotonic()

    @property
    def writable(self) -> bool:
        """Whether the client keeps up."""
        return not self.connection.write_paused

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer whole; `headers` hold content-length already."""
        if self.over:
            return
        self.status = status
        sent = b"" if self.request.method == "HEAD" else body
        self.connection.write(head(status, headers, self._close_line()) + sent)
        self._finish()

    def start(self, status: int, headers: Headers, chunk_header: str = "transfer-encoding") -> None:
        """Begin a chunked answer."""
        if self.over or self.started:
            return
        self.status = status
        self.started = True
        self.connection.write(head(status, headers, self._close_line() + f"{chunk_header}: chunked\r\n"))

    def chunk(self, data: bytes) -> None:
        """Send one chunk; an empty one would end the answer and is not sent."""
        if data and not self.over:
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """End a chunked answer cleanly."""
        if not self.over:
            self.connection.write(b"0\r\n\r\n")
            self._finish()

    def raw(self, data: bytes) -> None:
        """Write bytes that need not be HTTP."""
        if not self.over:
            self.connection.write(data)

    def close(self) -> None:
        """Close the connection after what was written (FIN)."""
        self.over = True
        self.connection.close()

    def reset(self) -> None:
        """Close the connection with RST; what was written and not yet sent is lost."""
        self.over = True
        self.connection.reset()

    def _close_line(self) -> str:
        return "" if self.request.keep_alive else "connection: close\r\n"

    def _finish(self) -> None:
        self.over = True
        self.connection.exchange_over(self.request.keep_alive)


class Connection(asyncio.Protocol):
    """One client connection. Created by the listening socket, gone from `Host.connections` when lost."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._waiting: deque[Request] = deque()
        self._current: Exchange | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.write_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange in flight that its client left."""
        self._host.connections.discard(self)
        self._cancel_idle()
        self._transport = None
        self._waiting.clear()
        exchange, self._current = self._current, None
        if exchange is not None:
            was_over, exchange.over = exchange.over, True
            if not was_over and exchange.on_gone is not None:
                exchange.on_gone()

    def data_received(self, data: bytes) -> None:
        """Parse; a request that is no HTTP gets uvicorn's plain 400 and a close."""
        self._cancel_idle()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, b"Unsupported upgrade request.")
        except httptools.HttpParserError:
            self._refuse(400, b"Invalid HTTP request received.")

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.write_paused = False
        if self._current is not None and self._current.on_writable is not None:
            self._current.on_writable()

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, b"Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """Answer `Expect: 100-continue`."""
        for name, value in self._headers:
            if name.lower() == b"expect" and value.lower() == b"100-continue" and not self._host.frozen:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse(413, b"Content Too Large")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the request on, or queue it behind the one in flight."""
        if self._transport is None or self._transport.is_closing():
            return
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, self._target, self._headers, b"".join(self._body), self._parser.should_keep_alive())
        self._target, self._headers, self._body = b"", [], []
        self._head_bytes = self._body_bytes = 0
        if self._current is None:
            self._serve(request)
            return
        self._waiting.append(request)
        if len(self._waiting) >= MAX_PIPELINED:
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        """Write if the connection is still there."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Flush and close."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with RST (SO_LINGER of zero)."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def exchange_over(self, keep_alive: bool) -> None:
        """Go on with the next request, or close."""
        self._current = None
        if not keep_alive:
            self.close()
        elif self._waiting:
            if len(self._waiting) >= MAX_PIPELINED and self._transport is not None:
                self._transport.resume_reading()
            self._loop.call_soon(self._next)
        elif self._transport is not None:
            self._idle = self._loop.call_later(self._host.keep_alive_s, self.close)

    def _next(self) -> None:
        if self._current is None and self._waiting:
            self._serve(self._waiting.popleft())

    def _serve(self, request: Request) -> None:
        self._current = Exchange(self, request)
        self._host.serve(self._current)

    def _refuse(self, status: int, message: bytes) -> None:
        headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(message))), ("connection", "close")]
        self.write(head(status, headers) + message)
        self.close()

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
