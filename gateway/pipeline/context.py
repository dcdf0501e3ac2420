"""What the phases of one request share: the exchange, from the client's bytes to the account of it.

An exchange is driven by callbacks, never by a task: the client's connection begins it, a worker's connection moves it on, a
timer retries it. `Driver` (run.py) is the only one that decides; phases read and write this object.

Invariants.

1. `over` turns true exactly once, in `account`; after it no callback does anything.
2. `started` turns true when the first byte of an answer goes to the client; after it nothing is retried.
3. Every attempt in `attempts` holds one count of its worker's load; it is given back when the attempt leaves the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from gateway.config.model import PriorityClass
from gateway.errors import GatewayError
from gateway.pipeline.endpoints import Endpoint
from gateway.protocol.request import RequestFacts
from gateway.protocol.usage import Usage
from gateway.routing.engine import Pool
from gateway.telemetry.cells import ModelCells
from gateway.workers.worker import Worker

if TYPE_CHECKING:
    from gateway.admission.admission import Ticket, Waiting
    from gateway.admission.keyring import Identity
    from gateway.pipeline.relay import Attempt
    from gateway.pipeline.run import Driver
    from gateway.telemetry.trace import Span

Headers = list[tuple[bytes, bytes]]


class Client(Protocol):
    """The client's side of an exchange, as the connection offers it. Nothing here raises; a client that left hears nothing."""

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole answer; `head` is header lines, each with its line end, without any framing header."""
        ...

    def start(self, status: int, head: bytes, length: int | None) -> None:
        """Begin an answer in pieces; without a length it is chunked."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece."""
        ...

    def finish(self, *, keep: bool) -> None:
        """End an answer in pieces as its framing wants it; `keep` says whether the connection may be used again."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that the client sees a broken answer."""
        ...

    def release(self) -> None:
        """Hear that the exchange is accounted for: the connection takes its next request."""
        ...


class Exchange:
    """One request and all that happens to it. Satisfies `routing.candidate.RoutingRequest`."""

    __slots__ = (
        "attempt_count", "attempts", "bearer", "body", "bytes_out", "cells", "client", "code", "driver", "endpoint",
        "error", "events", "facts", "first_byte_s", "first_token_s", "forwarded", "headers", "hedge_timer", "held", "identity", "over",
        "paused_s", "plan", "pool", "priority", "prompt", "query", "request_id", "resend_timer", "rewrite", "span", "started",
        "started_s", "status", "streaming", "ticket", "traceparent", "tried", "upstream_bodies", "usage", "waiting", "worker",
    )  # fmt: skip

    def __init__(self, client: Client, driver: Driver, endpoint: Endpoint, query: bytes, headers: Headers, body: bytes) -> None:
        self.client = client
        self.driver = driver
        self.endpoint = endpoint
        self.query = query
        """With its question mark; empty where there is none."""
        self.headers = headers
        self.body = body
        self.started_s = 0.0
        self.request_id = b""
        self.forwarded = b""
        """Header lines that go to the worker with every attempt."""
        self.bearer: bytes | None = None
        """The client's own credential."""
        self.traceparent: bytes | None = None
        self.facts: RequestFacts = _NO_FACTS
        self.prompt = b""
        self.identity: Identity | None = None
        self.priority = PriorityClass.DEFAULT
        self.ticket: Ticket | None = None
        self.waiting: Waiting | None = None
        self.pool: Pool | None = None
        self.rewrite: str | None = None
        self.plan: Iterator[Worker] | None = None
        self.cells: ModelCells | None = None
        self.attempts: list[Attempt] = []
        """Attempts under way: one, or two while a hedge runs."""
        self.attempt_count = 0
        self.tried: list[str] = []
        """Ids of the workers that attempts went to, in order."""
        self.upstream_bodies: dict[bool, bytes] = {}
        """The body for a worker, by whether usage is asked for."""
        self.held: Attempt | None = None
        """The last attempt that ended in an answer which may be retried: what the client gets when nothing better comes."""
        self.resend_timer: asyncio.TimerHandle | None = None
        self.hedge_timer: asyncio.TimerHandle | None = None
        self.span: Span | None = None
        self.streaming = False
        """The answer to the client goes out as events."""
        self.started = False
        self.over = False
        self.paused_s = 0.0
        """When the client stopped reading; 0 while it reads."""
        self.status = 0
        self.error: GatewayError | None = None
        self.code = ""
        self.usage: Usage | None = None
        self.worker: Worker | None = None
        """Whose answer the client got."""
        self.first_byte_s = 0.0
        self.first_token_s = 0.0
        self.bytes_out = 0
        self.events = 0
        """Events that the worker's stream had, once it is over."""

    def __repr__(self) -> str:
        state = "over" if self.over else "started" if self.started else "waiting" if self.waiting else "open"
        return f"<Exchange {self.endpoint.path} {self.request_id.decode('latin-1')} [{state}, {self.attempt_count} attempts]>"

    def header(self, name: bytes) -> bytes | None:
        """Value of a request header, by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


_NO_FACTS = RequestFacts("", b"")
