"""A worker on a real socket that does byte for byte what a test says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType


class Line:
    """The worker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head, await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Write pieces, each on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Close with FIN."""
        self.writer.close()


class RawWorker:
    """Serves every connection with `play`, an async function of its line; `async with` starts and stops it."""

    def __init__(
        self,
        play: Callable[[Line], Awaitable[None]],
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int = 0,
    ) -> None:
        self._play, self._host, self._tls = play, host, tls
        self._receive_buffer_bytes = receive_buffer_bytes
        self.lines: list[Line] = []
        self.failures: list[BaseException] = []
        self.port = 0

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return len(self.lines)

    async def __aenter__(self) -> RawWorker:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        listener.bind((self._host, 0))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, sock=listener, ssl=self._tls)
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        self.lines.append(line)
        try:
            await self._play(line)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as cause:
            self.failures.append(cause)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for line in self.lines:
            line.writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await self._server.wait_closed()
        assert not self.failures, self.failures
