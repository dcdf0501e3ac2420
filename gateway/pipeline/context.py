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
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError
from gateway.pipeline.endpoints import Endpoint
from gateway.protocol.request_wire import RequestFacts
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

    def chunk_writer(self) -> Callable[[bytes], None] | None:
        """Return what sends a piece that is framed as a chunk already; None where the answer that has begun is not chunked."""
        ...

    def finish(self) -> None:
        """End an answer in pieces as its framing wants it."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that the client sees a broken answer."""
        ...

    def release(self) -> None:
        """Hear that the exchange is accounted for: the connection takes its next request."""
        ...


class Exchange:
    """One request and all that happens to it. Satisfies `routing.candidate.RoutingRequest`.

    Attributes have their first values on the class, not in slots: most requests never touch most of them, and setting forty
    of them a request costs a microsecond.
    """

    request_id = b""
    id_line = b""
    """The header line with it, for the worker and for the client."""
    forwarded = b""
    """Header lines that go to the worker with every attempt."""
    bearer: bytes | None = None
    """The client's own credential."""
    traceparent: bytes | None = None
    wanted_priority: bytes | None = None
    tenant_header: bytes | None = None
    facts: RequestFacts
    prompt = b""
    identity: Identity | None = None
    ticket: Ticket | None = None
    waiting: Waiting | None = None
    pool: Pool | None = None
    rewrite: str | None = None
    """The name that workers know the model by, where the client used an alias."""
    plan: Iterator[Worker] | None = None
    cells: ModelCells | None = None
    attempt_count = 0
    plain_body: bytes | None = None
    """The body for a worker that is not asked for usage, once it was made."""
    asking_body: bytes | None = None
    """The body for a worker that is."""
    held: Attempt | None = None
    """The last attempt that ended in an answer which may be retried: what the client gets when nothing better comes."""
    resend_timer: asyncio.TimerHandle | None = None
    hedge_timer: asyncio.TimerHandle | None = None
    span: Span | None = None
    streaming = False
    """The answer to the client goes out as events."""
    write_framed: Callable[[bytes], None] | None = None
    """`Client.chunk_writer` of a stream that has begun."""
    started = False
    over = False
    paused_s = 0.0
    """When the client stopped reading; 0 while it reads."""
    status = 0
    error: GatewayError | None = None
    usage: Usage | None = None
    worker: Worker | None = None
    """Whose answer the client got."""
    first_token_s = 0.0
    bytes_out = 0
    events = 0
    """Events that the worker's stream had, once it is over."""

    def __init__(self, client: Client, driver: Driver, endpoint: Endpoint, query: bytes, headers: Headers, body: bytes) -> None:
        self.client = client
        self.driver = driver
        self.endpoint = endpoint
        self.query = query
        """With its question mark; empty where there is none."""
        self.headers = headers
        self.body = body
        self.started_s = driver.time()
        self.attempts: list[Attempt] = []
        """Attempts under way: one, or two while a hedge runs."""

    def __repr__(self) -> str:
        state = "over" if self.over else "started" if self.started else "waiting" if self.waiting else "open"
        return f"<Exchange {self.endpoint.path} {self.request_id.decode('latin-1')} [{state}, {self.attempt_count} attempts]>"

    def header(self, name: bytes) -> bytes | None:
        """Value of a request header, by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
