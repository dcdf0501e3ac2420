"""A whole pipeline without sockets: a real runtime and driver, mock pools as workers, a client that checks what it is told.

A test sends requests with `Rig.ask`, plays workers through `Rig.calls`, lets time pass with `Rig.advance` (timers run in
order) or `Rig.tick` (the driver's time limits), and looks at the `FakeClient`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import orjson

from gateway.config.model import GatewayConfig
from gateway.pipeline.context import Exchange
from gateway.pipeline.endpoints import BY_PATH, ENDPOINTS
from gateway.pipeline.run import Driver
from gateway.runtime import Runtime
from gateway.shared.layout import COLUMNS, CONCURRENCY
from gateway.shared.table import SharedTable
from gateway.transports.mock import MockCall, MockPool
from gateway.workers.state import ModelInfo, Status, WorkerState
from gateway.workers.worker import Worker

CHAT = b"/v1/chat/completions"
EVENTS = [(b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked")]


class Timer:
    """What `call_later` gives."""

    def __init__(self, when_s: float, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.when_s = when_s
        self.cancelled = False
        self._callback, self._arguments = callback, arguments

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        if not self.cancelled:
            self._callback(*self._arguments)


class Clockwork:
    """The parts of an event loop that the pipeline uses, on a clock that only the test moves."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self._order = 0
        self._timers: list[tuple[float, int, Timer]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        self._order += 1
        timer = Timer(self.now_s + delay_s, callback, arguments)
        heapq.heappush(self._timers, (timer.when_s, self._order, timer))
        return timer

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> Timer:
        return self.call_later(0.0, callback, *arguments)

    @property
    def timers(self) -> list[Timer]:
        """Timers that will still run."""
        return [timer for _, _, timer in self._timers if not timer.cancelled]

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, running what falls due on the way, in order."""
        until_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= until_s + 1e-9:
            when_s, _, timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, when_s)
            timer.run()
        self.now_s = until_s


class FakeClient:
    """A client's connection as an exchange sees it; asserts the order of calls that HTTP needs."""

    def __init__(self) -> None:
        self.status = 0
        self.head = b""
        self.body = b""
        self.length: int | None = None
        self.whole = False
        """The answer came in one piece."""
        self.begun = 0
        self.finished = False
        self.aborted = False
        self.released = 0
        self.pieces: list[bytes] = []
        self.on_write: Callable[[], None] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The header lines of the answer."""
        return dict(self.header_lines)

    @property
    def header_lines(self) -> list[tuple[str, str]]:
        """The header lines of the answer, in order."""
        lines = self.head.decode("latin-1").split("\r\n")
        assert lines[-1] == "", "the head must end with a line end"
        return [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines[:-1]]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)

    @property
    def over(self) -> bool:
        """The exchange has let go of it."""
        return self.released > 0

    def _open(self) -> None:
        assert not self.released and not self.finished and not self.aborted, "a call after the end"

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        self._open()
        assert not self.begun, "a second answer"
        self.begun += 1
        self.status, self.head, self.body, self.whole, self.finished = status, head, body, True, True

    def start(self, status: int, head: bytes, length: int | None) -> None:
        self._open()
        assert not self.begun, "a second answer"
        self.begun += 1
        self.status, self.head, self.length = status, head, length

    def write(self, data: bytes) -> None:
        self._open()
        assert self.begun and not self.whole, "a piece before the head"
        self.body += data
        if data:
            self.pieces.append(data)
        if self.on_write is not None:
            self.on_write()

    def chunk_writer(self) -> Callable[[bytes], None]:
        def write(framed: bytes) -> None:
            size, _, rest = framed.partition(b"\r\n")
            data = rest.removesuffix(b"\r\n")
            assert framed == b"%x\r\n%b\r\n" % (len(data), data) and len(data) == int(size, 16), "framing that does not fit its piece"
            self.write(data)

        return write

    def finish(self) -> None:
        self._open()
        assert self.begun and not self.whole, "an end before the head"
        self.finished = True
        if self.length is not None:
            assert len(self.body) == self.length

    def abort(self) -> None:
        self._open()
        self.aborted = True

    def release(self) -> None:
        assert not self.released, "released twice"
        self.released += 1


def state(number: int, *, models: Sequence[str | ModelInfo] = ("m",), status: Status = Status.READY, **more: Any) -> WorkerState:
    """A worker as the fleet would say it."""
    infos = tuple(model if isinstance(model, ModelInfo) else ModelInfo(name=model) for model in models)
    more = {"url": f"http://w{number}:8000", "source": "config", **more}
    return WorkerState(id=f"w{number}", slot=number, status=status, models=infos, **more)


class Rig:
    """A runtime with a driver and workers behind mock pools. `close` at the end, or use it as a context manager."""

    def __init__(self, workers: int | Sequence[WorkerState] = 1, config: dict[str, Any] | None = None) -> None:
        settings: dict[str, Any] = {"routing": {"policy": "passthrough"}, "retry": {"jitter": 0}, "upstream": {"slow_start_s": 0}}
        for key, value in (config or {}).items():
            settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
        self.config = GatewayConfig.model_validate(settings)
        self.loop = Clockwork()
        self.table = SharedTable(1, COLUMNS)
        self.rt = Runtime(
            self.config, self.table, cast(asyncio.AbstractEventLoop, self.loop), tuple(one.path for one in ENDPOINTS), self.loop.time
        )
        self.driver = Driver(self.rt)
        self.pools: dict[str, MockPool] = {}
        self.reported: list[str] = []
        self.rt.report_failure = self.reported.append
        self.clients: list[FakeClient] = []
        self.exchanges: list[Exchange] = []
        self.tell([state(number) for number in range(workers)] if isinstance(workers, int) else workers)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        self.table.close()

    def tell(self, states: Sequence[WorkerState]) -> None:
        """Let the fleet say what workers there are; each new one gets a mock pool."""
        self.rt.states(tuple(states))
        for worker in self.workers:
            if not isinstance(worker.http, MockPool):
                worker.http = self.pools[worker.id] = MockPool(worker.target)

    @property
    def workers(self) -> list[Worker]:
        """The workers, in the order of their slots."""
        return sorted(self.rt.registry.workers.values(), key=lambda worker: worker.slot)

    @property
    def calls(self) -> list[MockCall]:
        """All calls that are open, in the order of the workers."""
        return [call for worker in self.workers for call in cast(MockPool, worker.http).open_calls]

    @property
    def sent(self) -> list[MockCall]:
        """All calls ever made, in the order of the workers."""
        return [call for worker in self.workers for call in cast(MockPool, worker.http).calls]

    @property
    def call(self) -> MockCall:
        """The only open call."""
        (one,) = self.calls
        return one

    def ask(
        self,
        body: bytes | dict[str, Any] | None = None,
        *,
        path: bytes = CHAT,
        headers: Sequence[tuple[bytes, bytes]] = (),
        query: bytes = b"",
        client: FakeClient | None = None,
        **members: Any,
    ) -> tuple[Exchange, FakeClient]:
        """Send a request; without a body it is a chat of model `m` with `members`."""
        content = body if isinstance(body, bytes) else orjson.dumps({"model": "m", "messages": [], **(body or {}), **members})
        client = client if client is not None else FakeClient()
        fields = [(b"host", b"gateway"), (b"content-type", b"application/json"), *headers]
        x = Exchange(client, self.driver, BY_PATH[path], query, fields, content)
        self.clients.append(client)
        self.exchanges.append(x)
        self.driver.begin(x)
        return x, client

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass: backoffs, hedges and admissions happen."""
        self.loop.advance(seconds)

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, then look at the time limits."""
        self.loop.advance(seconds)
        self.driver.tick(self.loop.now_s)

    def check_idle(self) -> None:
        """Assert that nothing is held: every exchange over, every load and place given back, no timer waiting."""
        assert not self.driver.active
        assert [worker.load for worker in self.workers] == [0] * len(self.workers)
        assert self.table.total(CONCURRENCY) == 0
        assert not self.calls
        assert not self.loop.timers
        for x, client in zip(self.exchanges, self.clients, strict=True):
            assert x.over and client.released == 1 and not x.attempts
            assert x.ticket is None and x.waiting is None and x.resend_timer is None and x.hedge_timer is None
        for worker in self.workers:
            assert not worker.breaker._probes


def chunk(text: str = "a", **more: Any) -> bytes:
    """A chat chunk with a token."""
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}, **more}]}) + b"\n\n"


FINISH = b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"\n\n"
USAGE = b"data: " + orjson.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}) + b"\n\n"
DONE = b"data: [DONE]\n\n"
ANSWER = orjson.dumps({"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def cut(wire: bytes, step: int) -> Iterator[bytes]:
    """Cut a stream into pieces of `step` bytes; 0 is whole."""
    return (wire[at : at + step] for at in range(0, len(wire), step)) if step else iter([wire])


def chat_events(body: bytes) -> list[Any]:
    """The data of a stream's events, parsed; `[DONE]` stays a string."""
    found: list[Any] = []
    for event in body.split(b"\n\n")[:-1]:
        data = event.rpartition(b"data: ")[2]
        found.append("[DONE]" if data == b"[DONE]" else orjson.loads(data))
    return found
