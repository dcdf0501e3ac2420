"""A client that asks and does not read, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from tests.support.raw_gateway import raw_gateway

BAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{"
MANY = 40_000


async def test_pipelined_requests_wait_for_their_reader() -> None:
    """Answers are not piled up for a client that pipelines without reading, and all come, in order, once it reads."""
    async with raw_gateway() as gateway, _closing(socket.socket()) as sock:
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
        sending = asyncio.ensure_future(loop.sock_sendall(sock, BAD * MANY))
        (connection,) = await _connections(gateway.listener.server_state.connections)
        most = 0
        last = -1
        while last != (now := gateway.rt.endpoint_cells["/v1/chat/completions"].requests) or not now:
            last = now
            await asyncio.sleep(0.2)
            most = max(most, connection.transport.get_write_buffer_size())
        assert last < MANY
        assert most < 1 << 20, most
        answers = 0
        tail = b""
        async with asyncio.timeout(30):
            while answers < MANY:
                data = tail + await loop.sock_recv(sock, 1 << 20)
                answers += data.count(b"HTTP/1.1 400 ")
                tail = data[data.rfind(b"\n") + 1 :]
                assert len(tail) < 400
            await sending


@contextlib.asynccontextmanager
async def _closing(sock: socket.socket) -> AsyncIterator[socket.socket]:
    with sock:
        yield sock


async def _connections(found: set[Any]) -> tuple[Any, ...]:
    async with asyncio.timeout(5):
        while not found:
            await asyncio.sleep(0.01)
    return tuple(found)
