"""Phase relay: one attempt's answer on its way back, as its worker's connection tells it.

What happens to an answer is decided when its head has come:

- HOLD   a status that may be retried: kept, in case nothing better comes;
- STREAM events: scanned, and given to the client whole event by whole event;
- WHOLE  anything else: kept until complete, so that a broken one can be tried elsewhere;
- PASS   a whole answer too large to keep, or one in a coding that nobody here reads: passed on as it comes.

The attempt only observes; what follows from it the driver decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import Code, Retry, UpstreamError
from gateway.pipeline.context import Exchange
from gateway.protocol.answer import MALFORMED, read_usage
from gateway.protocol.sse import StreamScanner
from gateway.protocol.usage import Usage
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from gateway.transports.http import Call, Headers

MAX_HELD_BYTES = 1 << 20
"""Of an error answer more is not kept: llama.cpp's largest has 13 KB."""

_NOT_RELAYED = frozenset(
    (
        b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"proxy-connection",
        b"proxy-authenticate", b"content-length", b"x-request-id", b"x-smg-error-code",
    )
)  # fmt: skip
"""Hop-by-hop lines (RFC 9110, 7.6.1), the framing, and what the gateway sets itself: the id and the error code."""
_PERSISTENCE = (b"close", b"keep-alive", b"Close", b"Keep-Alive", b"keep-Alive")


NONE: Final = 0
HOLD: Final = 1
STREAM: Final = 2
WHOLE: Final = 3
PASS: Final = 4
"""What is done with an answer; plain numbers, since they are compared for every piece of it (a member of an enum costs more)."""
_NAMES = ("NONE", "HOLD", "STREAM", "WHOLE", "PASS")


class Attempt:
    """One try at one worker. Made by `Driver`; a `transports.http.Sink`. Over once it has left `exchange.attempts`."""

    call: Call | None = None
    mode = NONE
    status = 0
    headers: Headers
    head = b""
    """The header lines for the client."""
    length: int | None = None
    scanner: StreamScanner | None = None
    heard = False
    """A chunk came since the driver last looked: it sets `last_s` then, which saves an event the clock."""
    _size = 0

    def __init__(self, x: Exchange, worker: Worker, hides_usage: bool, hedge: bool) -> None:
        self.exchange = x
        self.worker = worker
        self.epoch = worker.breaker.epoch
        """Which state of the breaker let it through: a verdict counts for no other."""
        self.hides_usage = hides_usage
        self.hedge = hedge
        self._time = time = x.driver.time
        self.sent_s = self.last_s = time()
        self.headers = []
        self._parts: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Attempt at {self.worker.url} {_NAMES[self.mode]} {self.status or ''}>"

    @property
    def body(self) -> bytes:
        """What is kept of a held or whole answer."""
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        """Decide what is done with the answer."""
        x = self.exchange
        self.last_s = self._time()
        self.status = status
        self.headers = headers
        self.length = length
        head = b""
        events = encoded = False
        for name, value in headers:
            if name in _NOT_RELAYED:
                if name == b"connection" and value not in _PERSISTENCE:
                    self.on_head(status, _without_named(headers), length)
                    return
                continue
            if name == b"content-type":
                events = value[:17].lower() == b"text/event-stream"
            elif name == b"content-encoding":
                encoded = value.lower() != b"identity"
            head += b"%b: %b\r\n" % (name, value)
        self.head = head
        responses = self.worker.cells.responses
        responses[status] = responses.get(status, 0) + 1
        driver = x.driver
        if status in driver.retry_statuses or (status in (401, 403) and self.worker.own_key):
            self.mode = HOLD
        elif events and status == 200 and not encoded:
            self.mode = STREAM
            self.scanner = StreamScanner(x.endpoint.dialect, hide_usage=self.hides_usage, choices=x.facts.n)
        elif encoded or (length is not None and length > driver.max_buffered_bytes):
            self.mode = PASS
        else:
            self.mode = WHOLE

    def on_chunk(self, framed: bytes, data: bytes) -> None:
        """Take a piece of the body that is one chunk: what goes on unchanged keeps its framing too."""
        x = self.exchange
        scanner = self.scanner
        if scanner is None or not x.started or not scanner.token_seen:
            self.on_data(data)
            return
        self.heard = True
        out = scanner.feed(data)
        if out is data and x.write_framed is not None:
            x.bytes_out += len(data)
            x.write_framed(framed)
        elif out:
            x.bytes_out += len(out)
            x.client.write(out)
        if scanner.broken is not None:
            x.driver.stream_broken(self, scanner.broken)

    def on_data(self, data: bytes) -> None:
        """Take a piece of the body."""
        x = self.exchange
        self.last_s = self._time()
        mode = self.mode
        if mode == STREAM:
            scanner = self.scanner
            assert scanner is not None
            out = scanner.feed(data)
            if out:
                if x.started:
                    x.bytes_out += len(out)
                    x.client.write(out)
                else:
                    x.driver.begin_stream(self, out)
                if scanner.token_seen and not x.first_token_s:
                    x.first_token_s = self.last_s
                    x.driver.vouch(self)
            if scanner.broken is not None:
                x.driver.stream_broken(self, scanner.broken)
            return
        self._size += len(data)
        if mode == WHOLE:
            self._parts.append(data)
            if self._size > x.driver.max_buffered_bytes:
                self.mode = PASS
                x.driver.begin_passing(self, self.body)
                self._parts.clear()
        elif mode == PASS:
            if x.started:
                x.bytes_out += len(data)
                x.client.write(data)
            else:
                x.driver.begin_passing(self, data)
        elif self._size <= MAX_HELD_BYTES:
            self._parts.append(data)

    def on_end(self) -> None:
        """The framing says that the answer is complete."""
        driver = self.exchange.driver
        mode = self.mode
        if mode == STREAM:
            scanner = self.scanner
            assert scanner is not None
            out = scanner.finish()
            if out:
                if self.exchange.started:
                    self.exchange.bytes_out += len(out)
                    self.exchange.client.write(out)
                else:
                    driver.begin_stream(self, out)
            if scanner.complete:
                driver.stream_complete(self)
            else:
                driver.stream_broken(self, scanner.broken or "it ended without its end mark")
        elif mode == WHOLE:
            self._end_whole()
        elif mode == PASS:
            driver.passed(self)
        else:
            driver.refused(self)

    def on_failed(self, error: UpstreamError) -> None:
        """No more will come."""
        self.exchange.driver.attempt_failed(self, error)

    def _end_whole(self) -> None:
        """Check a whole answer: a success must be one that a client can read."""
        x = self.exchange
        usage: Usage | None = None
        if self.status == 200 and x.endpoint.tells_usage:
            body = self.body
            usage = read_usage(x.endpoint.dialect, body)
            if usage is MALFORMED and (not body or self._says_json()):
                x.driver.attempt_failed(
                    self, UpstreamError(Code.UPSTREAM_PROTOCOL, "the worker's answer is not valid json", retry=Retry.RESEND)
                )
                return
            if usage is MALFORMED:
                usage = None
        x.driver.whole(self, usage)

    def _says_json(self) -> bool:
        for name, value in self.headers:
            if name == b"content-type":
                return b"json" in value.lower()
        return True


def _without_named(headers: Headers) -> Headers:
    """The header lines without `connection` and those that it names, which are for the next hop alone (RFC 9110, 7.6.1)."""
    named = {b"connection"}
    for name, value in headers:
        if name == b"connection":
            named.update(part.strip().lower() for part in value.split(b","))
    return [(name, value) for name, value in headers if name not in named]
