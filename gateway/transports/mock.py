"""A pool without sockets: what it is asked to send it keeps, and a script or a test plays the worker.

A test looks at `MockPool.calls` and plays the worker by hand, in the order that the wire would give:

    pool = MockPool()
    ...                                   # the code under test calls pool.send(head, body, sink)
    call = pool.calls[0]
    call.head_of(200, {"content-type": "text/event-stream"})
    call.data(b"data: [DONE]\\n\\n")
    call.end()

or puts replies into `MockPool.replies`, one for each call that will come; each is played when `run` is called, or from the
event loop where the pool was given one. As on the wire, nothing reaches a sink before `send` has returned, nor after the call
was cancelled, discarded, ended or failed: what a script plays then is dropped, as a closed connection would drop it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from gateway.errors import Code, Retry, UpstreamError
from gateway.transports.http import Call, Headers, HttpPool, Sink, Target

Reply = Callable[["MockCall"], None]
"""Plays the worker for one call."""
HeaderFields = Mapping[str, str] | Sequence[tuple[bytes, bytes]]


class MockCall(Call):
    """One request that a `MockPool` was asked to send, and the worker's end of it."""

    __slots__ = ("cancelled", "discarded", "over", "played")

    def __init__(self, pool: MockPool, head: bytes, body: bytes, sink: Sink) -> None:
        super().__init__(pool, head, body, sink)
        self.cancelled = False
        """`cancel` was called before the answer was over."""
        self.discarded = False
        """`discard` was called before the answer was over."""
        self.over = False
        """The answer has ended or failed."""
        self.played: list[bytes] = []
        """Pieces of the body that reached the sink."""

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "discarded" if self.discarded else "over" if self.over else "open"
        return f"<MockCall {self.method} {self.path} {state}{' paused' if self.paused else ''}>"

    # -- what was sent ------------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """The request's method."""
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        """The request's target."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """The request's header fields, names in lower case; of fields with one name the last."""
        lines = self.head.split(b"\r\n\r\n", 1)[0].split(b"\r\n")[1:]
        fields = (line.partition(b":") for line in lines)
        return {name.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for name, _, value in fields}

    @property
    def live(self) -> bool:
        """Whether what the worker sends now still reaches the sink."""
        return not (self.over or self.cancelled or self.discarded)

    # -- for the caller -----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """A mock call is on its connection at once."""
        return self.live

    def cancel(self) -> None:
        """Note that nobody cares any more."""
        if self.live:
            self.cancelled = True

    def discard(self) -> None:
        """Note that the rest of the answer is not wanted."""
        if self.live:
            self.discarded = True

    def pause(self) -> None:
        """Note that the sink wants no data; what is played all the same reaches it, as bytes on their way would."""
        self.paused = True

    def resume(self) -> None:
        """Note that the sink wants data again."""
        self.paused = False

    # -- for the test -------------------------------------------------------------------------------------------------

    def head_of(self, status: int, headers: HeaderFields = (), length: int | None = None) -> None:
        """Play the head of an answer."""
        if self.live:
            self.sink.on_head(status, _fields(headers), length)

    def data(self, *pieces: bytes) -> None:
        """Play pieces of the body."""
        for piece in pieces:
            if self.live:
                self.played.append(piece)
                self.sink.on_data(piece)

    def chunks(self, *pieces: bytes) -> None:
        """Play pieces of the body that came as one whole chunk each."""
        for piece in pieces:
            if self.live:
                self.played.append(piece)
                self.sink.on_chunk(b"%x\r\n%b\r\n" % (len(piece), piece), piece)

    def end(self) -> None:
        """Play the end of the answer."""
        if self.live:
            self.over = True
            self.sink.on_end()

    def fail(self, error: UpstreamError | None = None) -> None:
        """Play a broken connection; without an error given, one that was lost after the request had been sent."""
        if self.live:
            self.over = True
            self.sink.on_failed(error or UpstreamError(Code.UPSTREAM_FAILED, "the worker broke off its answer"))

    def refuse(self) -> None:
        """Play a worker that takes no connections."""
        self.fail(UpstreamError(Code.CONNECT_FAILED, "the worker refuses connections", retry=Retry.SAFE))

    def answer(self, status: int, body: bytes = b"", headers: HeaderFields | None = None) -> None:
        """Play a whole answer with a content-length."""
        fields = _fields({"content-type": "application/json"} if headers is None else headers)
        fields.append((b"content-length", b"%d" % len(body)))
        self.head_of(status, fields, len(body))
        if body:
            self.data(body)
        self.end()

    def stream(self, *pieces: bytes, end: bool = True) -> None:
        """Play an event stream, chunked; without `end` it stays open."""
        self.head_of(200, [(b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked")])
        self.data(*pieces)
        if end:
            self.end()


class MockPool(HttpPool):
    """Keeps calls instead of sending them. Made by tests; needs no closing.

    Args:
        target: what it says of itself.
        loop: where replies are played soon after `send`; without one, `run` plays them.
    """

    def __init__(self, target: Target | None = None, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(target or Target("mock", 80), loop=cast(asyncio.AbstractEventLoop, loop))
        self.calls: list[MockCall] = []
        """Every call, in order."""
        self.replies: deque[Reply] = deque()
        """What answers the next calls; a call that finds none waits for the test."""
        self.raises: UpstreamError | None = None
        """What `send` raises instead of taking a call."""
        self._unplayed: deque[tuple[Reply, MockCall]] = deque()
        self._plays_itself = loop is not None

    def __repr__(self) -> str:
        return f"<MockPool {len(self.calls)} calls, {len(self.open_calls)} open>"

    @property
    def open_connections(self) -> int:
        """A connection for every open call."""
        return len(self.open_calls)

    @property
    def open_calls(self) -> list[MockCall]:
        """Calls that are not over, cancelled or discarded."""
        return [call for call in self.calls if call.live]

    def send(self, head: bytes, body: bytes, sink: Sink) -> MockCall:
        """Keep a request, or raise what the test said."""
        if self.raises is not None:
            raise self.raises
        if self.closed:
            raise UpstreamError(Code.CONNECT_FAILED, "the worker was removed", retry=Retry.SAFE)
        call = MockCall(self, head, body, sink)
        self.calls.append(call)
        if self.replies:
            reply = self.replies.popleft()
            if self._plays_itself:
                self.loop.call_soon(reply, call)
            else:
                self._unplayed.append((reply, call))
        return call

    def run(self) -> None:
        """Play the replies of all calls that have one, also of those that come meanwhile."""
        while self._unplayed:
            reply, call = self._unplayed.popleft()
            reply(call)

    def sweep(self, now: float) -> None:
        """There is nothing that idles."""

    def close(self) -> None:
        """Take no more calls; those under way go on."""
        self.closed = True

    async def aclose(self) -> None:
        """Take no more calls, and tell those under way that the pool is closed."""
        self.close()
        for call in self.open_calls:
            call.fail(UpstreamError(Code.UPSTREAM_FAILED, "the connection pool was closed"))


def _fields(headers: HeaderFields) -> Headers:
    if isinstance(headers, Mapping):
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return [(name, value) for name, value in headers]
