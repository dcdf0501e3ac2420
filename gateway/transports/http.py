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
import ipaddress
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from gateway.errors import Code, Retry, UpstreamError
from gateway.transports.call import Call as Call
from gateway.transports.call import Headers as Headers
from gateway.transports.call import Sink as Sink
from gateway.transports.connection import Connection
from gateway.transports.target import Target as Target

DRAIN_S = 2.0
"""Time that a discarded answer may take to its end before its connection is closed."""


class HttpPool:
    """The connections of one process to one worker. Made and closed by the worker registry; used on one event loop.

    At most `max_connections` are open; where no more may be opened further calls wait in order, at most `max_waiting` of them.
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
        self._idle: dict[Connection, None] = {}
        """Ordered by when they became idle; the youngest is used first."""
        self._draining: set[Connection] = set()
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: OrderedDict[Call, None] = OrderedDict()
        self._all_gone: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<HttpPool {self.target.host}:{self.target.port} open={len(self._open)} idle={len(self._idle)} "
            f"connecting={len(self._connecting)} waiting={len(self._waiting)}{' closed' if self.closed else ''}>"
        )

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._open)

    def send(self, head: bytes, body: bytes, sink: Sink) -> Call:
        """Send a request; its answer, or its failure, comes to `sink`, never before this returns.

        Raises:
            UpstreamError: `overloaded`, where too many calls wait for a connection already; `connect_failed`, where the pool is
                closed. Nothing was sent, and the sink hears nothing.
        """
        call = Call(self, head, body, sink)
        idle = self._idle
        while idle:
            connection = idle.popitem()[0]
            if connection.usable:
                connection.start(call)
                return call
        if self.closed:
            raise _removed(call)
        if len(self._waiting) - len(self._connecting) >= self.max_waiting and not self._may_connect():
            raise UpstreamError(Code.OVERLOADED, "too many requests wait for a connection to the worker", retry=Retry.SAFE)
        self._waiting[call] = None
        self._connect_more()
        return call

    def sweep(self, now_s: float) -> None:
        """Close connections that idled for `keep_alive_s` or drain for too long; called about every second."""
        overdue = []
        for connection in self._idle:
            if now_s - connection.idle_since_s <= self.keep_alive_s:
                break
            overdue.append(connection)
        for connection in overdue:
            del self._idle[connection]
            connection.close()
        if self._draining:
            for connection in [one for one in self._draining if now_s > one.drain_until_s]:
                self._draining.discard(connection)
                connection.close()

    def close(self) -> None:
        """Close idle connections and fail waiting calls; calls in flight go on, and their connections close after them."""
        self.closed = True
        for task in self._connecting:
            task.cancel()
        for connection in (*self._idle, *self._draining):
            connection.close()
        self._idle.clear()
        self._draining.clear()
        while self._waiting:
            call = self._waiting.popitem(last=False)[0]
            call.sink.on_failed(_removed(call))

    async def aclose(self) -> None:
        """Close everything, failing calls in flight, and wait until the sockets are closed."""
        self.close()
        for connection in tuple(self._open):
            connection.break_off(UpstreamError(Code.UPSTREAM_FAILED, "the connection to the worker was closed by the gateway"))
        pending: set[asyncio.Future[None]] = set(self._connecting)
        if self._open:
            self._all_gone = self.loop.create_future()
            pending.add(self._all_gone)
        if pending:
            await asyncio.wait(pending, timeout=5.0)

    # -- for calls and connections ------------------------------------------------------------------------------------

    def forget(self, call: Call) -> None:
        """Drop a call that waits."""
        self._waiting.pop(call, None)

    def resend(self, call: Call) -> None:
        """Take back a call whose connection was closed under it before a byte came, for a connection that is not stale."""
        if self.closed:
            call.sink.on_failed(_removed(call))
            return
        self._waiting[call] = None
        self._waiting.move_to_end(call, last=False)
        if self._idle and not self._may_connect():
            self._idle.popitem()[0].close()  # room for a fresh one, once it is gone
        self._connect_more()

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete, or a new one."""
        if self._draining:
            self._draining.discard(connection)
        if self.closed or len(self._open) > self.max_connections:
            connection.close()
        elif self._waiting:
            connection.start(self._waiting.popitem(last=False)[0])
        else:
            connection.idle_since_s = self.loop.time()
            self._idle[connection] = None

    def drain(self, connection: Connection) -> None:
        """Watch a connection that reads a discarded answer to its end."""
        connection.drain_until_s = self.loop.time() + DRAIN_S
        self._draining.add(connection)

    def not_idle(self, connection: Connection) -> None:
        """Hear that a connection is about to close, so that no call is written to it."""
        self._idle.pop(connection, None)

    def gone(self, connection: Connection) -> None:
        """Hear that a connection is closed."""
        self._open.discard(connection)
        self._draining.discard(connection)
        self._idle.pop(connection, None)
        if self._waiting:
            self._connect_more()
        if self._all_gone is not None and not self._open and not self._all_gone.done():
            self._all_gone.set_result(None)

    # -- connecting ---------------------------------------------------------------------------------------------------

    def _may_connect(self) -> bool:
        return not self.closed and len(self._open) + len(self._connecting) < self.max_connections

    def _connect_more(self) -> None:
        while len(self._connecting) < len(self._waiting) and self._may_connect():
            # A connection, not a request, is worth a task; the pool owns it and cancels it.
            task = self.loop.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        failure = "the worker refuses connections"
        connection: Connection | None = None
        try:
            connection = await self._open_connection()
        except TimeoutError:
            failure = "connecting to the worker took too long"
        except ssl.SSLCertVerificationError:
            failure = "the worker's certificate cannot be verified"
        except ssl.SSLError:
            failure = "the tls handshake with the worker failed"
        except socket.gaierror:
            failure = "the worker's host name cannot be resolved"
        except (OSError, ValueError):  # ValueError: a name that cannot be encoded
            pass
        if (task := asyncio.current_task()) is not None:
            self._connecting.discard(task)
        if connection is not None and connection.usable:
            self._open.add(connection)
            self.release(connection)
            return
        # Whoever waits longest learns it; the rest have their own connects under way, or are told by the next.
        if len(self._connecting) < len(self._waiting):
            call = self._waiting.popitem(last=False)[0]
            call.sink.on_failed(UpstreamError(Code.CONNECT_FAILED, failure, retry=_retry(call)))
        self._connect_more()

    def _connection(self) -> Connection:
        return Connection(self)

    async def _open_connection(self) -> Connection:
        """Connect to the first address that answers; each has its share of the time that is left, so that one dead is not all."""
        target, loop = self.target, self.loop
        hostname = (target.server_hostname or target.host) if target.tls is not None else None
        until_s = loop.time() + self.connect_s
        async with asyncio.timeout(self.connect_s):
            addresses = await self._addresses()
        failure: OSError | None = None
        for position, address in enumerate(addresses):
            share_s = max(0.0, until_s - loop.time()) / (len(addresses) - position)
            try:
                async with asyncio.timeout(share_s):
                    _, connection = await loop.create_connection(
                        cast(Callable[[], asyncio.Protocol], self._connection),
                        address,
                        target.port,
                        ssl=target.tls,
                        server_hostname=hostname,
                    )
                    return cast(Connection, connection)
            except OSError as cause:  # a TimeoutError too
                failure = cause
        raise failure or OSError("no address")

    async def _addresses(self) -> list[str]:
        host = self.target.host
        try:
            ipaddress.ip_address(host)
        except ValueError:
            found = await self.loop.getaddrinfo(host, self.target.port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(info[4][0]) for info in found))
        return [host]


def _retry(call: Call) -> Retry:
    """Whether a call that has no connection may go to another worker: a moved one may have been processed in part."""
    return Retry.RESEND if call.moved else Retry.SAFE


def _removed(call: Call) -> UpstreamError:
    return UpstreamError(Code.CONNECT_FAILED, "the worker was removed", retry=_retry(call))
