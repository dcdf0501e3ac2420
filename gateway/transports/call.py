"""One request on its way to a worker, and who hears its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import UpstreamError

if TYPE_CHECKING:
    from gateway.transports.connection import Connection
    from gateway.transports.http import HttpPool

Headers = list[tuple[bytes, bytes]]


class Sink(Protocol):
    """Who hears an answer. All calls come on the event loop; after `on_end` or `on_failed` none comes."""

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        """The head; header names are lower case; `length` is that of the body, None where it is chunked or runs to the end."""
        ...

    def on_data(self, data: bytes) -> None:
        """A piece of the body, transfer coding removed."""
        ...

    def on_chunk(self, framed: bytes, data: bytes) -> None:
        """A piece of the body that came as one whole chunk, with (`framed`) and without its framing: `on_data(data)`, told with
        what a sink needs that sends chunks itself."""
        ...

    def on_end(self) -> None:
        """The answer is complete as far as its framing can tell."""
        ...

    def on_failed(self, error: UpstreamError) -> None:
        """No more will come."""
        ...


class Call:
    """One request on its way; made by `HttpPool.send`, ended by its sink's last callback or by `cancel`."""

    __slots__ = ("_pool", "body", "connection", "head", "moved", "paused", "sink")

    def __init__(self, pool: HttpPool, head: bytes, body: bytes, sink: Sink) -> None:
        self._pool = pool
        self.connection: Connection | None = None
        """The connection that serves it; None while it waits, and when it is over."""
        self.head = head
        self.body = body
        self.sink = sink
        self.moved = False
        """It was written to a connection that was lost, and will be, or was, sent again."""
        self.paused = False

    @property
    def connected(self) -> bool:
        """Whether the request has been written to a connection."""
        return self.connection is not None

    def cancel(self) -> None:
        """Stop caring: the connection is closed, so that the worker notices; no callback follows."""
        connection = self.connection
        if connection is not None:
            self.connection = None
            connection.close()
        else:
            self._pool.forget(self)

    def discard(self) -> None:
        """Read the rest of the answer without telling anyone, so that the connection can be used again if it is short."""
        connection = self.connection
        if connection is not None:
            self.connection = None
            connection.discard()
        else:
            self._pool.forget(self)

    def pause(self) -> None:
        """Stop reading from the worker: our client does not read. What was read already may still come."""
        self.paused = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if self.connection is not None:
            self.connection.resume()
