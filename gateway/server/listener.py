"""A listening socket and the connections behind it: opened, swept, drained and closed as one."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from gateway.config.model import ServerConfig
from gateway.pipeline.run import Driver
from gateway.server.connection import Connection
from gateway.telemetry.cells import ProcessCells

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn (4096 by default)."""
BODIES_BYTES = 1 << 30
"""Room of a process for request bodies that came in pieces, all together; twice `max_body_bytes` where that is more."""

GOODBYE_S = 0.1
"""Time that connections without a request have, once the socket is closed, to send what may be on its way already."""
UNREAD_BYTES = 1 << 30
"""Room of a process for whole answers that their clients do not read, all together."""


class Listener:
    """One listening socket of a process. Made by the application, used on its loop; `close` works in every state."""

    def __init__(
        self,
        app: ASGIApp,
        driver: Driver,
        limits: ServerConfig,
        cells: ProcessCells,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.driver = driver
        self.limits = limits
        self.cells = cells
        self.loop = loop
        self.tls = tls
        self.closing = False
        """Every answer from now on is its connection's last."""
        self.body_bytes = 0
        """Bytes of bodies that are held. Connections that end forget to give back: each sweep counts anew."""
        self.server_state = ServerState()
        self.uvicorn_config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self.uvicorn_config.load()
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<Listener {self.address} [{len(self.server_state.connections)} connections{', closing' if self.closing else ''}]>"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        if self._server is None or not self._server.sockets:
            return self.limits.host, self.limits.port
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def start(self, sock: socket.socket) -> None:
        """Take connections from a bound socket, which it owns from here on."""
        self._socket = sock
        handshake_s = self.limits.header_timeout_s if self.tls is not None else None
        self._server = await self.loop.create_server(
            self._connection, sock=sock, ssl=self.tls, ssl_handshake_timeout=handshake_s, backlog=BACKLOG
        )

    def sweep(self, now_s: float) -> None:
        """End connections that idled or dawdled too long, or keep too much from being freed; called about every second."""
        held = unread = 0
        slow: list[Connection] = []
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.overdue(now_s)
                held += connection.held_bytes
                if waits := connection.unread_bytes:
                    unread += waits
                    slow.append(connection)
        self.body_bytes = held
        if unread > UNREAD_BYTES:
            slow.sort(key=lambda one: one.since_s)
            for connection in slow:
                unread -= connection.unread_bytes
                connection.abort()
                if unread <= UNREAD_BYTES:
                    break

    def hold(self, size: int) -> bool:
        """Take room for a piece of a body; False where there is none."""
        held = self.body_bytes + size
        if held > BODIES_BYTES and held > 2 * self.limits.max_body_bytes:
            return False
        self.body_bytes = held
        return True

    def let_go(self, size: int) -> None:
        """Give the room of a body back."""
        self.body_bytes = max(0, self.body_bytes - size)

    def say_goodbye(self) -> None:
        """Let every answer from now on be its connection's last, and say so in it; connections are still taken.

        Clients that keep their connections then leave one by one, each after an answer, and few are left when the drain closes
        those that idle, which a client may be about to use.
        """
        self.closing = True

    async def drain(self, timeout_s: float) -> bool:
        """Take no more connections, let requests in flight end; say whether all did within the time."""
        self.closing = True
        deadline = self.loop.time() + timeout_s
        if self._server is not None:
            queued = self._take_queued()
            self._server.close()
            await self._open(queued)
            await asyncio.sleep(GOODBYE_S)
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        # Polled, since the request path should not pay for an event that only this waits for.
        while (self.server_state.connections or self.driver.active) and self.loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return not self.driver.active

    async def close(self) -> None:
        """Close the socket and every connection now."""
        self.closing = True
        if self._server is not None:
            self._server.close()
        self.driver.close()
        for connection in tuple(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        for task in tuple(self.server_state.tasks):
            task.cancel()
        for _ in range(100):
            if not self.server_state.connections and not self.server_state.tasks:
                break
            await asyncio.sleep(0)

    def _take_queued(self) -> list[socket.socket]:
        """Accept what waits in the queue of the listening socket: closing that would reset it."""
        queued: list[socket.socket] = []
        assert self._socket is not None
        try:
            while True:
                queued.append(self._socket.accept()[0])
        except OSError:  # BlockingIOError: the queue is empty; any other: it cannot be had
            return queued

    async def _open(self, queued: list[socket.socket]) -> None:
        """Make connections of accepted sockets; one that is gone already, or fails its handshake, is dropped."""
        for sock in queued:
            sock.setblocking(False)
        handshake_s = min(self.limits.header_timeout_s, 5.0) if self.tls is not None else None
        opened = (
            self.loop.connect_accepted_socket(self._connection, sock, ssl=self.tls, ssl_handshake_timeout=handshake_s) for sock in queued
        )
        for sock, outcome in zip(queued, await asyncio.gather(*opened, return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                sock.close()

    def _connection(self) -> Connection:
        return Connection(self)
