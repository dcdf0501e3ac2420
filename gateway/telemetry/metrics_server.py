"""The metrics port: `/metrics` and `/health` over HTTP/1.1, apart from the ports that clients use.

One request a connection, which is closed after the answer: a scrape comes every few seconds. Everything is bounded: open
connections, the size of a request head, the time to send it, to make the page and to take it. Scrapes that come together
share one page. Runs on the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Self

from gateway.errors import ConfigError
from gateway.telemetry.exposition import CONTENT_TYPE

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 16 << 10
HEAD_S = 10.0
"""Time a client has to send its request."""
RENDER_S = 10.0
"""Time to make a page; Prometheus gives a scrape 10 s unless told otherwise."""
WRITE_S = 30.0
"""Time a client has to take the page."""


class MetricsServer:
    """Serves what `render` returns. `async with` opens the port and closes it, with every connection that is left.

    Args:
        host: Address to listen on.
        port: 0 takes a free one; `address` tells which.
        render: Makes the page; an exception of it is logged and answered by 500.
    """

    def __init__(self, host: str, port: int, render: Callable[[], Awaitable[bytes]]) -> None:
        self._host = host
        self._port = port
        self._render = render
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._page: asyncio.Task[bytes] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._server is None else f"on {self.address[0]}:{self.address[1]}, {len(self._tasks)} connections"
        return f"<MetricsServer {state}>"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; before it is open, where it is to listen."""
        if self._server is None or not self._server.sockets:
            return self._host, self._port
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def __aenter__(self) -> Self:
        """Open the port; raises `ConfigError` when it cannot be had, nothing is open then."""
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            raise ConfigError(f"server.metrics_port: cannot listen on {self._host}:{self._port}: {error.strerror or error}") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks: set[asyncio.Task[None] | asyncio.Task[bytes]] = {*self._tasks}
        if self._page is not None:
            tasks.add(self._page)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=HEAD_S)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS or self._server is None:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        try:
            try:
                async with asyncio.timeout(HEAD_S):
                    head = await reader.readuntil(b"\r\n\r\n")
            except TimeoutError:
                answer = _answer(408)
            except asyncio.LimitOverrunError:
                answer = _answer(431)
            else:
                answer = await self._respond(head)
            async with asyncio.timeout(WRITE_S):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client left, or does not read
        finally:
            writer.transport.abort()

    async def _respond(self, head: bytes) -> bytes:
        """Return the whole answer to a request head."""
        line = head.split(b"\r\n", 1)[0].split(b" ")
        if len(line) != 3 or not line[2].startswith(b"HTTP/1."):
            return _answer(400)
        method, target = line[0], line[1].split(b"?", 1)[0]
        if target not in (b"/metrics", b"/health"):
            return _answer(404)
        if method not in (b"GET", b"HEAD"):
            return _answer(405, extra="allow: GET, HEAD\r\n")
        if target == b"/health":
            return _answer(200, b'{"status":"ok"}', "application/json", only_head=method == b"HEAD")
        try:
            async with asyncio.timeout(RENDER_S):
                page = await asyncio.shield(self._shared_page())
        except TimeoutError:
            return _answer(503)
        except Exception:  # the metrics port must not end a process that serves
            log.exception("the metrics page could not be made")
            return _answer(500)
        return _answer(200, page, CONTENT_TYPE, only_head=method == b"HEAD")

    def _shared_page(self) -> asyncio.Task[bytes]:
        """Return the page that is being made, or begin a new one."""
        page = self._page
        if page is None or page.done():
            page = self._page = asyncio.get_running_loop().create_task(self._make())
        return page

    async def _make(self) -> bytes:
        async with asyncio.timeout(RENDER_S):
            return await self._render()


def _answer(
    status: int, body: bytes | None = None, content_type: str = "text/plain; charset=utf-8", *, extra: str = "", only_head: bool = False
) -> bytes:
    phrase = HTTPStatus(status).phrase
    if body is None:
        body = f"{status} {phrase.lower()}\n".encode()
    head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{extra}connection: close\r\n\r\n"
    return head.encode() if only_head else head.encode() + body
