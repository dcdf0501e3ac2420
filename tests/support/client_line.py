"""A client's connection without sockets: the server's `Connection` on a transport that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from gateway.config.model import ServerConfig
from gateway.pipeline.context import Exchange
from gateway.pipeline.run import Driver
from gateway.server.connection import Connection, _Request
from gateway.server.listener import Listener
from gateway.telemetry.cells import ProcessCells
from tests.support.exchange import Clockwork


class LineLoop(Clockwork):
    """A clock that the test moves; tasks run on the test's own event loop."""

    def create_task(self, work: Coroutine[Any, Any, None], **more: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)


class ClientTransport(asyncio.Transport):
    """What the server writes to; the connection is lost when the test says so, or with `step` after a close."""

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__()
        self.written = bytearray()
        self.unsent_bytes = 0
        self.closed = self.aborted = self.eof = self.paused = False
        self._tls = tls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 1234), "sockname": ("10.0.0.2", 80), "sslcontext": self._tls or None}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof, "a write behind the end"
        if not self.is_closing():
            self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def can_write_eof(self) -> bool:
        return not self._tls

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class Recorder:
    """Stands for the driver: notes what reaches it, and answers when told to, or at once."""

    def __init__(self, loop: Clockwork, *, at_once: bool) -> None:
        self.time = loop.time
        self.at_once = at_once
        self.active: set[Exchange] = set()
        self.begun: list[Exchange] = []
        self.gone: list[Exchange] = []
        self.paused: list[Exchange] = []
        self.resumed: list[Exchange] = []

    def begin(self, x: Exchange) -> None:
        self.begun.append(x)
        self.active.add(x)
        if self.at_once:
            self.answer(x)

    def answer(self, x: Exchange, body: bytes = b"ok") -> None:
        """Give a whole answer."""
        x.client.respond(200, b"", body)
        self.end(x)

    def end(self, x: Exchange) -> None:
        x.over = True
        self.active.discard(x)
        x.client.release()

    def client_gone(self, x: Exchange) -> None:
        self.gone.append(x)
        self.end(x)

    def pause(self, x: Exchange) -> None:
        self.paused.append(x)

    def resume(self, x: Exchange) -> None:
        self.resumed.append(x)

    def close(self) -> None:
        """Nothing to end."""


class Line(Connection):
    """A connection that notes requests for the ASGI side instead of running them, unless it has an application."""

    runs_asgi = False
    asked: list[_Request]

    def _serve_asgi(self, request: _Request) -> None:
        if self.runs_asgi:
            super()._serve_asgi(request)
            return
        self.asked.append(request)
        self.respond(404, b"", b"asgi")
        self._next()


class ClientLine:
    """A listener with one connection. `send` plays the client; `driver` shows what got through."""

    def __init__(
        self, *, at_once: bool = True, app: Any = None, tls: bool = False, loop: Clockwork | None = None, driver: Any = None, **limits: Any
    ) -> None:
        self.loop = loop if loop is not None else LineLoop()
        self.driver = Recorder(self.loop, at_once=at_once)
        self.cells = ProcessCells()
        self.listener = Listener(
            app or _nothing,
            cast(Driver, driver if driver is not None else self.driver),
            ServerConfig.model_validate(limits),
            self.cells,
            cast(asyncio.AbstractEventLoop, self.loop),
        )
        self.transport = ClientTransport(tls=tls)
        self.connection = self.connect(self.transport, runs_asgi=app is not None)

    def connect(self, transport: ClientTransport, *, runs_asgi: bool = False) -> Line:
        """Open a connection."""
        connection = Line(self.listener)
        connection.asked = []
        connection.runs_asgi = runs_asgi
        connection.connection_made(transport)
        return connection

    def send(self, data: bytes, step: int = 0) -> None:
        """The client sends bytes, `step` at a time, as far as the server reads."""
        for at in range(0, len(data), step or max(1, len(data))):
            if self.transport.is_closing():
                return
            assert not self.transport.paused, "the server does not read now"
            self.connection.data_received(data[at : at + step] if step else data)
            self.loop.advance()

    @property
    def out(self) -> bytes:
        """Everything written so far."""
        return bytes(self.transport.written)

    @property
    def begun(self) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
        """Requests that the pipeline got."""
        return [(x.endpoint.path, x.query, x.headers, x.body) for x in self.driver.begun]

    @property
    def asked(self) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
        """Requests that the ASGI side got."""
        return [(one.method, one.url, one.headers, one.body) for one in self.connection.asked]

    @property
    def ended(self) -> bool:
        """The server wants no more of this connection."""
        return self.transport.is_closing() or self.transport.eof


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no application here")
