"""A worker's end of a connection without sockets: transport and loop that a test plays, and a sink that writes down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.errors import UpstreamError
from gateway.transports.connection import Connection
from gateway.transports.http import Headers


class LoggingSink:
    """Writes down what it hears; pieces of a body that follow each other count as one."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.body = b""
        self.heard: list[str] = []
        self.error: UpstreamError | None = None
        self.over: asyncio.Future[None] | None = None
        self.on_any: Callable[[str], None] | None = None

    @property
    def last(self) -> str:
        """The last callback's name."""
        return self.heard[-1] if self.heard else ""

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        self.status, self.headers, self.length = status, headers, length
        self._hear("head")

    def on_chunk(self, framed: bytes, data: bytes) -> None:
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        assert isinstance(data, bytes) and data
        self.body += data
        self._hear("data")

    def on_end(self) -> None:
        self._hear("end")

    def on_failed(self, error: UpstreamError) -> None:
        self.error = error
        self._hear("failed")

    def _hear(self, what: str) -> None:
        assert self.last not in ("end", "failed"), f"{what} after {self.last}"
        if what in ("data", "end") and self.last == "":
            raise AssertionError(f"{what} before the head")
        if what != "data" or self.last != "data":
            self.heard.append(what)
        if what in ("end", "failed") and self.over is not None and not self.over.done():
            self.over.set_result(None)
        if self.on_any is not None:
            self.on_any(what)

    async def wait(self, timeout_s: float = 5.0) -> None:
        """Wait for the end or the failure (integration tests)."""
        if self.last in ("end", "failed"):
            return
        self.over = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(timeout_s):
            await self.over


class FakeTransport(asyncio.Transport):
    """What a connection writes to; loses its connection an iteration after `abort`, as real ones do."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.closing = False
        self.paused = False
        self.unsent_bytes = 0
        self.lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    close = abort

    def pause_reading(self) -> None:
        assert not self.paused and not self.closing
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused and not self.closing
        self.paused = False

    # -- for the test

    def lose(self, cause: Exception | None = None) -> None:
        """The connection is lost."""
        if not self.lost:
            self.closing = self.lost = True
            self.protocol.connection_lost(cause)

    def answer(self, data: bytes, step: int = 0) -> None:
        """The worker sends bytes, `step` at a time."""
        for piece in [data] if not step else [data[at : at + step] for at in range(0, len(data), step)]:
            if self.lost or self.closing:
                return
            self.protocol.data_received(piece)


class Connect:
    """One connect under way: `accept` it or `refuse` it."""

    def __init__(self, factory: Callable[[], Connection], host: str, port: int, options: dict[str, Any]) -> None:
        self.host, self.port, self.options = host, port, options
        self._factory = factory
        self.outcome: asyncio.Future[tuple[FakeTransport, Connection]] = asyncio.get_running_loop().create_future()

    def accept(self) -> FakeTransport:
        protocol = self._factory()
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        self.outcome.set_result((transport, protocol))
        return transport

    def refuse(self, cause: Exception) -> None:
        self.outcome.set_exception(cause)


class FakeLoop:
    """The parts of a loop that `HttpPool` uses, with a clock and connects that the test holds."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.connects: list[Connect] = []
        self.addresses: list[str] = []
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now_s

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        return [(2, type, 6, "", (address, port)) for address in self.addresses]

    async def create_connection(
        self, factory: Callable[[], Connection], host: str, port: int, **options: Any
    ) -> tuple[FakeTransport, Connection]:
        connect = Connect(factory, host, port, options)
        self.connects.append(connect)
        return await connect.outcome


async def settle() -> None:
    """Let everything that is due on the loop happen."""
    for _ in range(6):
        await asyncio.sleep(0)
