"""The client's connection: uvicorn's httptools protocol, with the hot routes handed to the pipeline without ASGI.

Strategy. A request is collected whole (head and body, both bounded), then served: a POST to a path of `ENDPOINTS` becomes an
`Exchange`, everything else an ASGI cycle of uvicorn's. Requests that a client pipelines wait in order, and the connection is
not read while one is served. Time limits are not timers but a sweep (`overdue`) over all connections once a second.

Framing is llhttp's in its strict mode (RFC 9112): both a length and a transfer coding, two lengths, a bare CR, a space before
the colon or an obsolete fold end the connection with a 400, before anything of it reaches a worker.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import ClientError, Code, GatewayError
from gateway.pipeline.context import Exchange, Headers
from gateway.pipeline.endpoints import BY_PATH, dialect_of
from gateway.protocol.error_body import error_body
from gateway.protocol.field_lines import FIELD_LINES
from gateway.protocol.request_id import new_request_id

if TYPE_CHECKING:
    from gateway.server.listener import Listener

_CLOSE = b"connection: close\r\n"
_LINGER_S = 2.0
"""Time that a refused client has to notice (nginx's lingering_timeout is 5 s)."""
_SMALL_WRITE = 16 << 10
"""Pieces up to this size are joined with their framing; larger ones are written beside it and not copied."""


_SIMPLE = re.compile(rb"POST (/[\x21-\x22\x24-\x7e]*) HTTP/1\.1\r\n" + FIELD_LINES)
"""The head of a request that leaves no question open: its target, its field lines."""
_AUTHORITY = re.compile(rb"(?i:https?)://[^/?#]+")
"""What an absolute target has before its path."""
_HOST = 1
_LENGTH = 2
_CONNECTION = 3
_COMPLEX = 4
_NOTED = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"transfer-encoding": _COMPLEX,
    b"upgrade": _COMPLEX,
    b"expect": _COMPLEX,
    b"te": _COMPLEX,
    b"trailer": _COMPLEX,
}


def _simple_request(data: bytes, max_header: int, max_body: int) -> _Request | None:
    """Read a request that came whole in one piece and leaves no question of framing open; None for every other.

    What is refused here is no error: llhttp reads it. Nearly every request of an SDK passes, and saves the ten to twenty
    callbacks that llhttp makes for it.
    """
    found = _SIMPLE.match(data)
    if found is None:
        return None
    end = found.end()
    if end > max_header:
        return None
    headers: Headers = []
    hosts = 0
    length = -1
    for line in found[2].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            break  # the empty piece behind the last line end
        name = name.lower()
        value = value.strip(b" \t")
        noted = _NOTED.get(name)
        if noted is not None:
            if noted == _HOST:
                hosts += 1
            elif noted == _LENGTH:
                if length >= 0 or not value.isdigit() or len(value) > 9:
                    return None
                length = int(value)
            elif noted == _COMPLEX or value.lower() != b"keep-alive":
                return None
        headers.append((name, value))
    if hosts != 1 or length != len(data) - end or length > max_body:
        return None
    request = _Request()
    request.headers = headers
    request.method = b"POST"
    request.url = found[1]
    request.body = data[end:]
    return request


def _split_target(target: bytes) -> tuple[bytes, bytes] | None:
    """Split a request target into its path and its query, each as it came (RFC 9112, 3.2); None where it has no path."""
    if not target.startswith(b"/"):
        found = _AUTHORITY.match(target)  # the absolute form, as a client sends it to a proxy
        if found is None:
            return None
        target = target[found.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query


class _Request:
    """A request as the parser gives it."""

    url = b""
    body = b""
    method = b""
    size = 0
    keep_alive = True
    http10 = False

    def __init__(self) -> None:
        self.headers: Headers = []


class Connection(HttpToolsProtocol):
    """One connection of a client. Made by `Listener`; satisfies `pipeline.context.Client` for the exchange it serves.

    Its life: it reads and serves until `_dead`, then serves what waits, then closes. `_dead` is set by a request that wants
    the connection closed, by a broken answer, by what is not HTTP, and by a drain.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.uvicorn_config, listener.server_state, {}, listener.loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._listener = listener
        self._driver = listener.driver
        self._max_body = listener.limits.max_body_bytes
        self._max_header = listener.limits.max_header_bytes
        self._request: _Request | None = None
        """The request that is being read."""
        self._upgrading: _Request | None = None
        """A request that asks for another protocol, whose body the parser does not read."""
        self._parts: list[bytes] = []
        self._head_bytes = 0
        self._head_done = False
        self._waiting: deque[_Request] = deque()
        """Requests that came while another was served; read ahead of need by one piece of the socket at most."""
        self._exchange: Exchange | None = None
        self._serving: _Request | None = None
        self._chunked = False
        self._dead = False
        """Nothing more is read."""
        self._stalled = False
        """It has written as much as may be kept for a client that does not read, and goes on when that has gone out."""
        self._closing = False
        """Everything is written; what remains is to close in a way that the client can still read it."""
        self._idles = True
        """`since_s` tells since when it idles; set by the first sweep that finds it idle, which saves a request the clock."""
        self.since_s = 0.0
        """Since when it idles, or since when the request being read has brought nothing, or since when it is closing."""

    def __repr__(self) -> str:
        state = (
            "closing" if self._closing else "dead" if self._dead else "serving" if self._serving else "reading" if self._request else "idle"
        )
        return f"<Connection {self.client} [{state}, {len(self._waiting)} waiting]>"

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        listener = self._listener
        self.since_s = listener.loop.time()
        cells = listener.cells
        cells.connections_total += 1
        cells.connections_active += 1
        if len(self.connections) > listener.limits.max_connections:
            self._dead = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._dead = True
        self._listener.cells.connections_active -= 1
        super().connection_lost(exc)
        x, self._exchange = self._exchange, None
        self._waiting.clear()
        if x is not None:
            self._driver.client_gone(x)

    def data_received(self, data: bytes) -> None:
        if self._dead:
            return
        if (
            self._request is None
            and self._serving is None
            and (request := _simple_request(data, self._max_header, self._max_body)) is not None
        ):
            self._serve(request)
            return
        reading = self._request
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # our own mistake: the loop logs it and closes the connection
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._listener.cells.framing_errors += 1
            self._refuse(ClientError(Code.INVALID_REQUEST, "this is not a valid http request"))
            return
        if self._request is not None:
            if self._head_done:
                self.since_s = self._listener.loop.time()
            elif self._request is reading:  # else the piece may hold the end of the request before as well
                self._head_bytes += len(data)
                if self._head_bytes > self._max_header:
                    self._refuse(ClientError(Code.HEADERS_TOO_LARGE, "the request's head is too large"))

    def _without_upgrade(self, rest: bytes) -> None:
        """Read a request that asked for another protocol once more, as if it had not (RFC 9110, 7.8); it is the last one.

        `curl --http2` asks like that with every first request; the parser takes the body for the other protocol's.
        """
        request, self._upgrading = self._upgrading, None
        if request is None or self._dead:
            return
        if request.method == b"CONNECT":
            self._refuse(ClientError(Code.METHOD_NOT_ALLOWED, "the gateway is no proxy"))
            return
        lines = [b"%b: %b\r\n" % line for line in request.headers if line[0] not in (b"upgrade", b"connection")]
        version = b"1.0" if request.http10 else b"1.1"
        head = b"%b %b HTTP/%b\r\n%bconnection: close\r\n\r\n" % (request.method, request.url, version, b"".join(lines))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.data_received(head + rest)

    def eof_received(self) -> None:
        """A client that shuts down its writing side cannot be told from one that left: both are gone."""

    def pause_writing(self) -> None:
        super().pause_writing()
        x = self._exchange
        if x is not None:
            self._driver.pause(x)

    def resume_writing(self) -> None:
        super().resume_writing()
        x = self._exchange
        if x is not None:
            self._driver.resume(x)
        elif self._stalled:
            self._stalled = False
            self._next()

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = _Request()
        self._head_bytes = 0
        self._head_done = False
        if self._serving is None:
            self.since_s = self._listener.loop.time()

    def on_url(self, url: bytes) -> None:
        request = self._request
        if request is not None:
            request.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        if request is not None:
            request.headers.append((name.lower(), value.rstrip(b" \t")))  # the parser leaves what is behind a value

    def on_headers_complete(self) -> None:
        request = self._request
        if request is None or self._dead:
            return
        self._head_done = True
        parser = self.parser
        request.method = parser.get_method()
        version = parser.get_http_version()
        request.http10 = version == "1.0"
        if parser.should_upgrade():
            self._upgrading, self._request = request, None
            return
        request.keep_alive = parser.should_keep_alive() and not request.http10
        hosts = 0
        expects = False
        size = len(request.url)
        for name, value in request.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                if len(value) > 18 or int(value) > self._max_body:
                    self._refuse(ClientError(Code.PAYLOAD_TOO_LARGE, "the request's body is too large"))
                    return
            elif name == b"host":
                hosts += 1
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
        if size > self._max_header:
            self._refuse(ClientError(Code.HEADERS_TOO_LARGE, "the request's head is too large"))
        elif hosts != 1 and not (request.http10 and hosts == 0):
            self._refuse(ClientError(Code.INVALID_REQUEST, "an http/1.1 request needs one host header"))
        elif version != "1.1" and not request.http10:
            self._refuse(ClientError(Code.INVALID_REQUEST, "the gateway speaks http/1.1 and http/1.0"))
        elif b"#" in request.url:
            self._refuse(ClientError(Code.INVALID_REQUEST, "a request target has no fragment"))
        elif expects and not request.http10 and self._serving is None and not self._waiting:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._request
        if request is None or self._dead:
            return
        request.size += len(body)
        if request.size > self._max_body:
            self._refuse(ClientError(Code.PAYLOAD_TOO_LARGE, "the request's body is too large"))
            return
        if not self._listener.hold(len(body)):
            self._refuse(GatewayError(Code.OVERLOADED, "the gateway has no room for this body now, retry later", retry_after_s=1.0))
            return
        self._parts.append(body)

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        if request is None or self._dead:
            return
        parts = self._parts
        if parts:
            request.body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        if self._serving is None:
            self._serve(request)
        else:
            self._waiting.append(request)
            self.flow.pause_reading()

    # -- serving ------------------------------------------------------------------------------------------------------

    def _serve(self, request: _Request) -> None:
        self._serving = request
        if not request.keep_alive:
            self._dead = True
            self._waiting.clear()
        if request.method == b"POST":
            url = request.url
            endpoint = BY_PATH.get(url)
            query = b""
            if endpoint is None:
                split = _split_target(url)
                if split is not None:
                    endpoint = BY_PATH.get(split[0])
                    query = b"?" + split[1] if split[1] else b""
            if endpoint is not None:
                x = self._exchange = Exchange(self, self._driver, endpoint, query, request.headers, request.body)
                self._driver.begin(x)
                if self.flow.write_paused and not x.over:
                    self._driver.pause(x)
                return
        self._serve_asgi(request)

    def _serve_asgi(self, request: _Request) -> None:
        """Run one ASGI cycle over a request that is complete."""
        split = _split_target(request.url)
        if split is None or not split[0].isascii():
            self._serving = None
            self._waiting.clear()
            self._refuse(ClientError(Code.INVALID_REQUEST, "this is not a valid http request"))
            return
        raw_path, query = split
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if request.http10 else "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": request.headers,
            "state": {},
        }
        self.cycle = cycle = RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=not self._last,
            on_response=self.on_response_complete,
        )
        cycle.body = bytearray(request.body)
        cycle.more_body = False
        cycle.message_event.set()
        self._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        """Hear from uvicorn's cycle that its answer is written."""
        self._next()

    def _next(self) -> None:
        """Take the next request, or idle, or close. Until the next is taken `_serving` stays, so that none overtakes it."""
        self._chunked = False
        served = self._serving
        if served is not None and served.size:
            self._listener.let_go(served.size)
            served.size = 0
        if self.transport.is_closing():
            self._serving = None
        elif not self._waiting and (self._dead or self._listener.closing):
            self._serving = None
            self._close()
        elif self.flow.write_paused:
            self._stalled = True
            self.since_s = self._listener.loop.time()
            self.flow.pause_reading()
        elif self._waiting:
            self._listener.loop.call_soon(self._serve_waiting)
        else:
            self._serving = None
            self._idles = False
            if self._request is not None:
                self.since_s = self._listener.loop.time()
            if self.flow.read_paused:
                self.flow.resume_reading()

    def _serve_waiting(self) -> None:
        if self._waiting and not self.transport.is_closing():
            self._serve(self._waiting.popleft())

    @property
    def unread_bytes(self) -> int:
        """Bytes of complete answers that the client has not taken."""
        transport = self.transport
        if (not self._stalled and not self._closing) or transport is None:
            return 0
        size: int = transport.get_write_buffer_size()
        return size

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that came in pieces and are not served yet."""
        held = sum(request.size for request in self._waiting)
        if self._serving is not None:
            held += self._serving.size
        if self._request is not None:
            held += self._request.size
        return held

    @property
    def _last(self) -> bool:
        """The answer in hand is the last one of this connection."""
        return (self._dead or self._listener.closing) and not self._waiting

    # -- pipeline.context.Client --------------------------------------------------------------------------------------

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole answer."""
        line = STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        closing = _CLOSE if self._last else b""
        if status == 204 or status == 304:  # they end with their head, and a length would say otherwise (RFC 9110, 8.6)
            self.transport.write(b"%b%b%b\r\n" % (line, head, closing))
        elif len(body) <= _SMALL_WRITE:
            self.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (line, head, closing, len(body), body))
        else:
            self.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n" % (line, head, closing, len(body)))
            self.transport.write(body)

    def start(self, status: int, head: bytes, length: int | None) -> None:
        """Begin an answer in pieces."""
        line = STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        serving = self._serving
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif serving is not None and serving.http10:
            framing = b""  # its end is the connection's
        else:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        closing = _CLOSE if self._last else b""
        self.transport.write(b"%b%b%b%b\r\n" % (line, head, framing, closing))

    def write(self, data: bytes) -> None:
        """Send a piece."""
        if not data:
            return
        if not self._chunked:
            self.transport.write(data)
        elif len(data) <= _SMALL_WRITE:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.transport.write(b"%x\r\n" % len(data))
            self.transport.write(data)
            self.transport.write(b"\r\n")

    def chunk_writer(self) -> Callable[[bytes], None] | None:
        """What sends a piece that is framed as a chunk already; None where the answer is not chunked."""
        return self.transport.write if self._chunked else None

    def finish(self) -> None:
        """End an answer in pieces.

        The connection lives on, also behind an answer that ended in an error event: its framing is whole, and a client that
        sends its next request at once must not find the connection closing under it.
        """
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Cut the connection."""
        self._dead = True
        self._waiting.clear()
        self.transport.abort()

    def release(self) -> None:
        """Hear that the exchange is accounted for."""
        self._exchange = None
        self._next()

    # -- ends and bounds ----------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Begin to drain: an idle connection closes now, a busy one after its answer."""
        if self._serving is None and not self._waiting and self._request is None:
            self._close()

    def overdue(self, now_s: float) -> None:
        """Close the connection if it idled, or dawdled over a request or over its last answer, for too long."""
        waited_s = now_s - self.since_s
        limits = self._listener.limits
        if self._closing:
            flushed = self.transport is None or self.transport.get_write_buffer_size() == 0
            if waited_s > (_LINGER_S if flushed else limits.write_timeout_s):
                self.transport.abort()
        elif self._stalled:
            if waited_s > limits.write_timeout_s:
                self.abort()
        elif self._serving is None and not self._waiting:
            if self._request is None:
                if not self._idles:
                    self._idles = True
                    self.since_s = now_s
                elif waited_s > limits.keep_alive_timeout_s:
                    self._close()
            elif waited_s > (limits.body_timeout_s if self._head_done else limits.header_timeout_s):
                self._refuse(ClientError(Code.REQUEST_TIMEOUT, "the request did not arrive in time"))

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that was not read to its end and close; behind answers under way there is only the close."""
        if self._closing:
            return  # the parser found more to complain about in what was refused already
        self._dead = True
        request, self._request = self._request, None
        self._parts.clear()
        if self._serving is not None or self._waiting:
            return
        split = _split_target(request.url) if request is not None else None
        dialect = dialect_of(split[0]) if split is not None else None
        request_id = new_request_id()
        body = error_body(dialect, error, request_id)
        head = b"content-type: application/json\r\nx-smg-error-code: %b\r\nx-request-id: %b\r\n" % (str(error.code).encode(), request_id)
        if error.retry_after_s is not None:
            head += b"retry-after: %d\r\n" % max(1, -int(-error.retry_after_s // 1))
        self.respond(error.status, head, body)
        self._close(linger=True)

    def _close(self, *, linger: bool = False) -> None:
        """Close once everything is written.

        Bytes of the client that nobody reads would turn the close into a reset, which can destroy the answer before the client
        has read it. So where the client may still be sending (`linger`), only our side is shut down, what comes is thrown
        away, and the connection ends when the client closes it, or `_LINGER_S` later (RFC 9112, 9.6).
        """
        self._closing = self._dead = True
        self.since_s = self._listener.loop.time()
        transport = self.transport
        if transport.is_closing():
            return
        if linger and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()
