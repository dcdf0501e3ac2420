"""Carry a job to its client: whole or as events, with the fault that hit the request.

A stream to a slow client is held back until the client reads again; no more than the answer is ever held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from harness.sim.faults import Fault, Kind
from harness.sim.http import Exchange, Headers, head
from harness.sim.job import Answer, Job


class StreamCodec(Protocol):
    """How an engine writes a job as server-sent events; every returned item is one event, framed."""

    @property
    def done(self) -> bytes:
        """The end mark, asked for once, after `tail`."""

    def head(self) -> list[bytes]:
        """Return the events before the first token."""

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the events of one token."""

    def tail(self) -> list[bytes]:
        """Return the events after the last token of the last answer, without the end mark."""


class Engine(Protocol):
    """What a reply needs of its engine."""

    def abandon(self, job: Job) -> None:
        """Abort a job."""

    def crash(self) -> None:
        """Die."""

    def later(self, delay_s: float, exchange: Exchange, call: Callable[[], None]) -> None:
        """Call back after a while, unless the exchange is over or the engine closed by then."""


def broken(event: bytes) -> bytes:
    """Return an event whose data is cut off, framed as a whole one."""
    return event[: max(len(event) * 2 // 3, 1)].rstrip(b"\n") + b"\n\n"


class StreamReply:
    """A job going out as events."""

    def __init__(self, engine: Engine, exchange: Exchange, job: Job, codec: StreamCodec, fault: Fault | None) -> None:
        self._engine = engine
        self._exchange = exchange
        self._job = job
        self._codec = codec
        self._fault = fault
        self._sent = 0
        self._out: deque[bytes] = deque()
        """Events not written yet: the client is slow or the stream is stalled. Bounded by the answers' length."""
        self._begun = False
        self._made = False
        self._stalled = False
        self._marked = fault is None or fault.kind is not Kind.NO_DONE
        job.on_token = self.on_token
        job.on_over = self.on_over
        exchange.on_writable = self._pump

    def on_token(self, answer: Answer, place: int) -> None:
        """Encode a token and send what can be sent."""
        if not self._begun:
            self._begun = True
            self._out.extend(self._codec.head())
        self._out.extend(self._codec.token(answer, place))
        self._pump()

    def on_over(self) -> None:
        """All tokens are made: add the end."""
        self._out.extend(self._codec.tail())
        if self._marked:
            self._out.append(self._codec.done)
        self._made = True
        self._pump()

    def _pump(self) -> None:
        exchange, out = self._exchange, self._out
        while out and exchange.writable and not self._stalled and not exchange.over:
            if self._fault is not None and self._sent == (self._fault.after_events or 0):
                fault, self._fault = self._fault, None
                if not self._strike(fault):
                    return
            self._sent += 1
            exchange.chunk(out.popleft())
        if self._made and not out:
            exchange.end()

    def _strike(self, fault: Fault) -> bool:
        """Do what the fault says; True when the stream goes on."""
        exchange = self._exchange
        match fault.kind:
            case Kind.STALL:
                self._stalled = True
                if fault.delay_s:
                    self._engine.later(fault.delay_s, exchange, self._resume)
                return False
            case Kind.RESET:
                self._engine.abandon(self._job)
                exchange.reset()
                return False
            case Kind.TRUNCATED_CHUNK | Kind.SHORT_BODY:
                self._engine.abandon(self._job)
                exchange.raw(b"%x\r\n" % len(self._out[0]) + self._out[0][: len(self._out[0]) // 2])
                exchange.close()
                return False
            case Kind.NO_DONE if fault.after_events is not None:
                self._engine.abandon(self._job)
                exchange.end()
                return False
            case Kind.CRASH:
                self._engine.crash()
                return False
            case Kind.BROKEN_EVENT | Kind.WRONG_JSON:
                exchange.chunk(broken(self._out[0]))
                return True
            case _:
                return True

    def _resume(self) -> None:
        self._stalled = False
        self._pump()


class WholeReply:
    """An answer going out in one piece."""

    def __init__(self, engine: Engine, exchange: Exchange, fault: Fault | None) -> None:
        self._engine = engine
        self._exchange = exchange
        self._fault = fault

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Send head and body; content-length is added where uvicorn's engines put it, before the other headers."""
        exchange, fault = self._exchange, self._fault
        kind = fault.kind if fault is not None else None
        half = body[: len(body) // 2]
        match kind:
            case Kind.WRONG_JSON | Kind.BROKEN_EVENT:
                exchange.respond(status, [("content-length", str(len(half))), *headers], half)
            case Kind.SHORT_BODY:
                exchange.raw(head(status, [("content-length", str(len(body))), *headers]) + half)
                exchange.close()
            case Kind.TRUNCATED_CHUNK:
                exchange.start(status, headers)
                exchange.raw(b"%x\r\n" % len(body) + half)
                exchange.close()
            case Kind.RESET:
                if exchange.writable:
                    exchange.raw(head(status, [("content-length", str(len(body))), *headers]) + half)
                self._engine.later(0.02, exchange, exchange.reset)
            case Kind.CRASH:
                self._engine.crash()
            case Kind.STALL:
                if fault is not None and fault.delay_s:
                    whole = [("content-length", str(len(body))), *headers]
                    self._engine.later(fault.delay_s, exchange, lambda: exchange.respond(status, whole, body))
            case _:
                exchange.respond(status, [("content-length", str(len(body))), *headers], body)
