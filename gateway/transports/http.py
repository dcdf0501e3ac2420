"""The HTTP/1.1 client towards workers: pooled connections, callbacks, no task a request.

Strategy. A `Call` is one request on its way. `HttpPool.send` puts it on an idle connection, or else queues it and opens a
connection; whichever connection is free first serves the oldest call. Answers are parsed by httptools and handed to the
call's `Sink` as they come:

    on_head -> on_data* -> on_end      a whole answer, framed rightly
    ... -> on_failed                   at any point instead, exactly once, and nothing after it

A reused connection that the worker closed just when we wrote to it (the keep-alive race) is no failure of the worker: the
call moves to another connection once, unseen by its sink. Time limits other than `connect_s` are the caller's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

import httptools

from gateway.errors import Code, Retry, UpstreamError
from gateway.transports.target import Target as Target

MAX_HEAD_BYTES = 256 << 10
"""A worker's response head above this is a broken worker (curl: 300 KiB)."""
MAX_DRAIN_BYTES = 64 << 10
"""An unwanted answer of at most this size is read to its end, so that its connection can be used again."""
STALE_S = 1.0
"""A reused connection lost within this time after the write, with no byte received, lost the keep-alive race."""

Headers = list[tuple[bytes, bytes]]


class Sink(Protocol):
    """Who hears an answer. All calls come on the event loop; after `on_end` or `on_failed` none comes."""

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        """The head; header names are lower case; `length` is the content-length, None where the body is chunked or runs to the end."""
        ...

    def on_data(self, data: bytes) -> None:
        """A piece of the body, transfer coding removed."""
        ...

    def on_end(self) -> None:
        """The answer is complete as far as its framing can tell."""
        ...

    def on_failed(self, error: UpstreamError) -> None:
        """No more will come."""
        ...


class Call:
    """One request on its way; made by `HttpPool.send`, ended by its sink's last callback or by `cancel`."""

    __slots__ = ("_connection", "_pool", "body", "head", "moved", "paused", "sink")

    def __init__(self, pool: HttpPool, head: bytes, body: bytes, sink: Sink) -> None:
        self._pool = pool
        self._connection: _Connection | None = None
        self.head = head
        self.body = body
        self.sink = sink
        self.moved = False
        self.paused = False

    @property
    def connected(self) -> bool:
        """Whether the request has been written to a connection."""
        return self._connection is not None

    def cancel(self) -> None:
        """Stop caring: the connection is closed, so that the worker notices; no callback follows."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.abandon()
        else:
            self._pool.forget(self)

    def discard(self) -> None:
        """Read the rest of the answer without telling anyone, so that the connection can be used again if it is short."""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.discard()
        else:
            self._pool.forget(self)

    def pause(self) -> None:
        """Stop reading from the worker: our client does not read."""
        self.paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if self._connection is not None:
            self._connection.resume()

    def bind(self, connection: _Connection | None) -> None:
        """Say which connection serves this call (the pool's business)."""
        self._connection = connection


class _Connection(asyncio.Protocol):
    """One connection to a worker; serves one call at a time."""

    __slots__ = (
        "_call", "_close_after", "_head_bytes", "_head_done", "_headers", "_interim", "_length", "_parser", "_pool",
        "_reading_paused", "_sent_at", "_skip", "_transport", "_until_close", "got_bytes", "idle_since", "served",
    )  # fmt: skip

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._headers: Headers = []
        self._length: int | None = None
        self._head_done = False
        self._head_bytes = 0
        self._interim = False
        self._until_close = False
        self._close_after = False
        self._reading_paused = False
        self._sent_at = 0.0
        self._skip = -1
        """Bytes that a discarded answer may still have; -1 where none is discarded."""
        self.got_bytes = False
        self.served = 0
        self.idle_since = 0.0

    # -- for the pool -------------------------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Write a call's request; the connection must be idle and open."""
        self._call = call
        call.bind(self)
        self._headers = []
        self._length = None
        self._head_done = self.got_bytes = self._until_close = self._close_after = False
        self._head_bytes = 0
        self._sent_at = self._pool.loop.time()
        self.served += 1
        transport = self._transport
        assert transport is not None
        if len(call.body) <= 65_536:
            transport.write(call.head + call.body)
        else:
            transport.write(call.head)
            transport.write(call.body)
        if call.paused:
            self.pause()

    def close(self) -> None:
        """Close, telling the call in flight nothing."""
        self._call = None
        self._skip = -1
        if self._transport is not None:
            self._transport.abort()

    # -- for the call -------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        self.close()

    def discard(self) -> None:
        self._call = None
        self._skip = MAX_DRAIN_BYTES
        if self._reading_paused:
            self.resume()
        if self._until_close or (self._length is not None and self._length > MAX_DRAIN_BYTES):
            self.close()

    def pause(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._call is None and self._skip < 0:
            self.close()  # bytes that nobody asked for: the stream cannot be trusted any more
            return
        self.got_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's answer is not valid http"))
            return
        if not self._head_done and self._call is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's response head is too large"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        pool, call = self._pool, self._call
        self._transport = None
        self._call = None
        if call is not None:
            call.bind(None)
            if self._head_done and self._until_close and exc is None:
                pool.gone(self)
                call.sink.on_end()
                return
            if self.served > 1 and not self.got_bytes and not call.moved and pool.loop.time() - self._sent_at < STALE_S:
                call.moved = True
                pool.gone(self)
                pool.resend(call)
                return
            pool.gone(self)
            if self.got_bytes:
                call.sink.on_failed(UpstreamError(Code.UPSTREAM_FAILED, "the worker broke off its answer"))
            else:
                call.sink.on_failed(UpstreamError(Code.UPSTREAM_FAILED, "the worker closed the connection without an answer"))
            return
        pool.gone(self)

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            self._interim = True
            self._headers = []
            return
        self._head_done = True
        length: int | None = None
        framed = status in (204, 304)
        for name, value in self._headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else None
                framed = True
            elif name == b"transfer-encoding":
                framed = True
        self._length = length
        self._until_close = not framed
        self._close_after = self._until_close or not parser.should_keep_alive()
        if self._call is not None:
            self._call.sink.on_head(status, self._headers, length)

    def on_body(self, body: bytes) -> None:
        if self._call is not None:
            self._call.sink.on_data(body)
        elif self._skip >= 0:
            self._skip -= len(body)
            if self._skip < 0:
                self.close()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        call, self._call = self._call, None
        if call is None and self._skip < 0:
            return
        self._skip = -1
        if call is not None:
            call.bind(None)
        if self._reading_paused:
            self.resume()
        if self._close_after:
            if self._transport is not None:
                self._transport.close()
        else:
            self._pool.release(self)
        if call is not None:
            call.sink.on_end()

    def _fail(self, error: UpstreamError) -> None:
        call, self._call = self._call, None
        self._skip = -1
        if call is not None:
            call.bind(None)
        if self._transport is not None:
            self._transport.abort()
        if call is not None:
            call.sink.on_failed(error)


class HttpPool:
    """The connections of one process to one worker. Made and closed by the worker registry; used on one event loop.

    At most `max_connections` are open; further calls wait in order, at most `max_waiting` of them.
    """

    def __init__(
        self,
        target: Target,
        *,
        loop: asyncio.AbstractEventLoop,
        max_connections: int = 1024,
        max_waiting: int = 4096,
        connect_s: float = 5.0,
        keep_alive_s: float = 4.0,
    ) -> None:
        self.target = target
        self.loop = loop
        self.max_connections = max_connections
        self.max_waiting = max_waiting
        self.connect_s = connect_s
        self.keep_alive_s = keep_alive_s
        self.closed = False
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()

    def __repr__(self) -> str:
        return (
            f"<HttpPool {self.target.host}:{self.target.port} open={len(self._open)} idle={len(self._idle)} "
            f"connecting={len(self._connecting)} waiting={len(self._waiting)}>"
        )

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._open)

    def send(self, head: bytes, body: bytes, sink: Sink) -> Call:
        """Send a request; its answer, or its failure, comes to `sink`, never before this returns.

        Raises:
            UpstreamError: `overloaded`, where too many calls wait for a connection already.
        """
        call = Call(self, head, body, sink)
        if self._idle:
            self._idle.pop().start(call)
        else:
            if len(self._waiting) >= self.max_waiting:
                raise UpstreamError(Code.OVERLOADED, "too many requests wait for a connection to the worker", retry=Retry.SAFE)
            self._waiting.append(call)
            self._connect_more()
        return call

    def resend(self, call: Call) -> None:
        """Take back a call whose connection was closed under it before a byte came."""
        if self.closed:
            call.sink.on_failed(UpstreamError(Code.CONNECT_FAILED, "the worker was removed", retry=Retry.SAFE))
            return
        if self._idle:
            # The others that idled as long are as stale: a fresh connection tells more than another guess.
            for connection in tuple(self._idle):
                connection.close()
            self._idle.clear()
        self._waiting.appendleft(call)
        self._connect_more()

    def forget(self, call: Call) -> None:
        """Drop a call that waits."""
        if call in self._waiting:
            self._waiting.remove(call)

    def release(self, connection: _Connection) -> None:
        """Take back a connection whose answer is complete."""
        if self.closed:
            connection.close()
        elif self._waiting:
            connection.start(self._waiting.popleft())
        else:
            connection.idle_since = self.loop.time()
            self._idle.append(connection)

    def gone(self, connection: _Connection) -> None:
        """Hear that a connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect_more()

    def sweep(self, now: float) -> None:
        """Close connections that idled for `keep_alive_s`; called about every second."""
        idle = self._idle
        while idle and now - idle[0].idle_since > self.keep_alive_s:
            idle.popleft().close()

    def close(self) -> None:
        """Close idle connections and fail waiting calls; calls in flight go on, and their connections close after them."""
        self.closed = True
        for connection in tuple(self._idle):
            connection.close()
        self._idle.clear()
        self._fail_waiting(UpstreamError(Code.CONNECT_FAILED, "the worker was removed", retry=Retry.SAFE))

    async def aclose(self) -> None:
        """Close everything, calls in flight included, and wait for connects under way to be cancelled."""
        self.close()
        for connection in tuple(self._open):
            connection.close()
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        if connecting:
            await asyncio.wait(connecting, timeout=5.0)

    def _connect_more(self) -> None:
        while (
            not self.closed
            and len(self._connecting) < len(self._waiting)
            and len(self._open) + len(self._connecting) < self.max_connections
        ):
            # A connection, not a request, is worth a task; the pool owns it and cancels it.
            task = self.loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        target = self.target
        failure: str | None = None
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self.connect_s):
                _, connection = await self.loop.create_connection(
                    self._new_connection, target.host, target.port, ssl=target.tls, server_hostname=target.server_hostname
                )
        except TimeoutError:
            failure = "connecting to the worker took too long"
        except ssl.SSLError:
            failure = "the tls handshake with the worker failed"
        except OSError:
            failure = "the worker refuses connections"
        if task := asyncio.current_task():
            self._connecting.discard(task)
        if connection is None:
            # Whoever waits longest learns it; the rest have their own connects under way, or are told by the next.
            if self._waiting and len(self._connecting) < len(self._waiting):
                call = self._waiting.popleft()
                call.sink.on_failed(UpstreamError(Code.CONNECT_FAILED, failure or "the worker refuses connections", retry=Retry.SAFE))
            self._connect_more()
            return
        self._open.add(connection)
        self.release(connection)

    def _new_connection(self) -> _Connection:
        return _Connection(self)

    def _fail_waiting(self, error: UpstreamError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.sink.on_failed(error)


PoolFactory = Callable[[Target], HttpPool]
