"""One HTTP/1.1 connection to a worker: writes a request, reads its answer strictly, says when it can be used again.

What ends a connection instead of trusting it further: bytes that httptools refuses (both lengths, two lengths, bare line ends,
folded lines), a transfer coding other than chunked, a status below 100 or a switch of protocol, bytes behind an answer, an
answer that came before the request was written, a head or trailer section without end.

An answer that was complete before its connection proved bad stands; one that was not has failed.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import httptools

from gateway.errors import Code, Source, UpstreamError
from gateway.protocol.field_lines import FIELD_LINES
from gateway.transports.call import Call, Headers

if TYPE_CHECKING:
    from gateway.transports.http import HttpPool

MAX_HEAD_BYTES = 256 << 10
"""Bytes without a byte of body: a head, interim answers or trailers above this are a broken worker's (curl: 300 KiB)."""
MAX_DRAIN_BYTES = 64 << 10
"""An unwanted answer of at most this size is read to its end, so that its connection can be used again."""
STALE_S = 1.0
"""A reused connection lost within this time after the write, with no byte received, lost the keep-alive race."""
ONE_WRITE_BYTES = 64 << 10
"""Up to this size head and body are put together: one copy is cheaper than a second write."""


_SIMPLE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\r\n" + FIELD_LINES)
"""The head of an answer that leaves no question open: its status, its field lines."""
_SIZES: Final = {form % size: size for size in range(1, 0x1000) for form in (b"%x", b"%X")}
"""Chunk sizes of one to three digits. Looking one up costs a fifth of parsing it; larger events are rare and go the long way."""
_COMPLEX = frozenset((b"transfer-encoding", b"connection", b"upgrade", b"trailer"))
_BODILESS = (b"204", b"304")


def _simple_answer(data: bytes) -> tuple[int, Headers, bytes] | None:
    """Read an answer that came whole in one piece and leaves no question of framing open; None for every other.

    What is refused here is no error: httptools reads it. It saves the callbacks that httptools makes for each header line.
    """
    found = _SIMPLE.match(data)
    if found is None or found[1] in _BODILESS:
        return None
    headers: Headers = []
    length = -1
    for line in found[2].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            break  # the empty piece behind the last line end
        name = name.lower()
        value = value.strip(b" \t")
        if name in _COMPLEX:
            if name != b"connection" or value.lower() != b"keep-alive":
                return None
        elif name == b"content-length":
            if length >= 0 or not value.isdigit() or len(value) > 9:
                return None
            length = int(value)
        headers.append((name, value))
    end = found.end()
    if length != len(data) - end:
        return None
    return int(found[1]), headers, data[end:]


class Connection:
    """One connection to a worker; serves one call at a time. Made by `HttpPool`, over with `connection_lost`.

    It is an `asyncio.Protocol` by its methods, not by its base: mypyc gives a class quick attributes only where it knows all
    of its bases.
    """

    __slots__ = (
        "_between_chunks", "_call", "_close_after", "_done", "_head_done", "_headers", "_heard_body", "_interim", "_length", "_parser",
        "_pool", "_reading_paused", "_sent_at_s", "_silent_bytes", "_skip_bytes", "_transport", "_until_close", "drain_until_s",
        "got_bytes", "idle_since_s", "served",
    )  # fmt: skip

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._headers: Headers = []
        self._length: int | None = None
        self._head_done = False
        self._done = False
        """The answer's last byte was parsed."""
        self._heard_body = False
        self._silent_bytes = 0
        """Bytes of this answer that came in pieces without a byte of body."""
        self._interim = False
        self._until_close = False
        self._between_chunks = False
        """httptools waits for the first byte of a chunk's size, so that whole chunks may go past it.

        A chunk was the last thing it told of, and a line end was its last byte: had anything followed the chunk, that line end
        would have ended the next size, and been told of.
        """
        self._close_after = False
        self._reading_paused = False
        self._sent_at_s = 0.0
        self._skip_bytes = -1
        """Bytes that a discarded answer may still have; -1 where none is discarded."""
        self.drain_until_s = 0.0
        self.got_bytes = False
        self.served = 0
        self.idle_since_s = 0.0

    def __repr__(self) -> str:
        if not self.usable:
            state = "closed"
        elif self._call is not None:
            state = "answering" if self._head_done else "waiting for an answer"
        else:
            state = "draining" if self._skip_bytes >= 0 else "idle"
        return f"<Connection {state} served={self.served}{' paused' if self._reading_paused else ''}>"

    # -- for the pool and the call ------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Open, as far as we know."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, call: Call) -> None:
        """Write a call's request; the connection must be idle and open."""
        self._call = call
        call.connection = self
        self._headers = []
        self._length = None
        self._head_done = self._done = self.got_bytes = self._until_close = self._close_after = self._between_chunks = False
        self._silent_bytes = 0
        self._sent_at_s = self._pool.loop.time()
        self.served += 1
        transport = self._transport
        assert transport is not None
        if len(call.body) <= ONE_WRITE_BYTES:
            transport.write(call.head + call.body)
        else:
            transport.write(call.head)
            transport.write(call.body)
        if call.paused:
            self.pause()

    def close(self) -> None:
        """Close, telling the call in flight nothing."""
        self._call = None
        self._skip_bytes = -1
        if self._transport is not None:
            self._transport.abort()

    def break_off(self, error: UpstreamError) -> None:
        """Close, and tell the call in flight why."""
        call = self._call
        self.close()
        if call is not None:
            call.connection = None
            call.sink.on_failed(error)

    def discard(self) -> None:
        """Read the answer to its end for nobody, if it is short and comes soon; else close."""
        self._call = None
        self._skip_bytes = MAX_DRAIN_BYTES
        if self._reading_paused:
            self.resume()
        if not self._drains():
            self.close()
        else:
            self._pool.drain(self)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._call is None and self._skip_bytes < 0:
            self.close()  # bytes that nobody asked for: the stream cannot be trusted any more
            return
        try:
            simple = self._take_simple(data)
        except Exception as cause:  # whatever a sink raises: our mistake, not the worker's
            self._sink_failed(cause)
            return
        if simple:
            if self._done:
                self._complete()
            return
        self.got_bytes = True
        self._heard_body = False
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as cause:
            self._sink_failed(cause.__context__ or cause)
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._done:
                self.break_off(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's answer is not valid http"))
                return
            self._close_after = True
        if self._between_chunks and not data.endswith(b"\r\n"):
            self._between_chunks = False  # the beginning of the next size has come as well
        if self._done:
            self._complete()
        elif not self._heard_body:
            self._silent_bytes += len(data)
            if self._silent_bytes > MAX_HEAD_BYTES:
                self.break_off(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's response head is too large"))

    def _take_simple(self, data: bytes) -> bool:
        """Take a piece that is one whole chunk, or one whole answer, past the parser; False where it is neither."""
        call = self._call
        if call is None:
            return False
        if self._between_chunks:
            at = data.find(b"\r\n", 0, 5)
            length = _SIZES.get(data[:at]) if at > 0 else None
            if length is None or len(data) != at + length + 4 or not data.endswith(b"\r\n"):
                return False
            # As engines write an event: httptools would say the same, in four times the time.
            call.sink.on_chunk(data, data[at + 2 : -2])
            return True
        if self.got_bytes:
            return False
        answer = _simple_answer(data)
        if answer is None:
            return False
        status, headers, body = answer
        self.got_bytes = self._head_done = self._done = True
        call.sink.on_head(status, headers, len(body))
        if body and self._call is not None:
            call.sink.on_data(body)
        return True

    def _sink_failed(self, cause: BaseException) -> None:
        """A sink raised: the call ends all the same, exactly once."""
        self._pool.loop.call_exception_handler({"message": "the reader of a worker's answer failed", "exception": cause, "protocol": self})
        self.break_off(UpstreamError(Code.INTERNAL, "the gateway could not read the worker's answer", source=Source.GATEWAY))

    def pause_writing(self) -> None:
        """More of a request body waits than the socket takes; one body is all that ever does."""

    def resume_writing(self) -> None:
        """The socket takes more again."""

    def eof_received(self) -> bool:
        self._pool.not_idle(self)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        pool, call = self._pool, self._call
        self._transport = None
        self._call = None
        self._skip_bytes = -1
        self._parser = None  # it holds this protocol: no cycle is left for the collector
        pool.gone(self)
        if call is None:
            return
        call.connection = None
        if self._head_done and self._until_close and exc is None:
            call.sink.on_end()
        elif self.served > 1 and not self.got_bytes and not call.moved and pool.loop.time() - self._sent_at_s < STALE_S:
            call.moved = True
            pool.resend(call)
        elif self.got_bytes:
            call.sink.on_failed(UpstreamError(Code.UPSTREAM_FAILED, "the worker broke off its answer"))
        else:
            call.sink.on_failed(UpstreamError(Code.UPSTREAM_FAILED, "the worker closed the connection without an answer"))

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done:
            self._close_after = True  # a second answer in the same piece, to a question that was not asked

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else a trailer, which nobody here merges into a head that is gone
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._head_done:
            return
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            self._interim = True
            self._headers = []
            if status < 100:
                self.break_off(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's answer has no valid status"))
            return
        self._head_done = True
        length: int | None = None
        framed = False
        for name, value in self._headers:
            if name == b"content-length":
                length = int(value)  # httptools has seen to it that there is one, of digits
                framed = True
            elif name == b"transfer-encoding":
                if framed or value.strip().lower() != b"chunked":
                    self.break_off(UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's answer has a transfer coding other than chunked"))
                    return
                framed = True
        if status == 204 or status == 304:
            length = 0
            framed = True
        self._length = length
        self._until_close = not framed
        self._close_after = not framed or not parser.should_keep_alive()
        if self._call is not None:
            self._call.sink.on_head(status, self._headers, length)
        elif self._skip_bytes >= 0 and not self._drains():
            self.close()

    def on_body(self, body: bytes) -> None:
        self._heard_body = True
        if self._call is not None:
            if not self._done:
                self._call.sink.on_data(body)
        elif self._skip_bytes >= 0:
            self._skip_bytes -= len(body)
            if self._skip_bytes < 0:
                self.close()

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = not self._done

    def on_message_complete(self) -> None:
        self._between_chunks = False
        if self._interim:
            self._interim = False
        else:
            self._done = True

    # -- private ------------------------------------------------------------------------------------------------------

    def _drains(self) -> bool:
        """Whether a discarded answer is worth reading to its end, as far as is known of it."""
        return not self._until_close and (self._length is None or self._length <= MAX_DRAIN_BYTES)

    def _complete(self) -> None:
        """End the call, and give the connection back unless it is spoilt."""
        call, self._call = self._call, None
        transport = self._transport
        if (call is None and self._skip_bytes < 0) or transport is None:
            return  # cancelled meanwhile, and closed
        self._skip_bytes = -1
        if call is not None:
            call.connection = None
        if self._reading_paused:
            self.resume()
        if self._close_after or transport.get_write_buffer_size():
            transport.abort()
        else:
            self._pool.release(self)
        if call is not None:
            call.sink.on_end()
