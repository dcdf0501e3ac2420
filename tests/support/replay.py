"""A server that plays the recordings of a real engine (tests/data/wire) byte for byte, cut into chunks as a test likes.

The recordings hold heads as they came and bodies without their transfer coding; that is put back here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.support import wire
from tests.support.wire import FOLDER, Recording

BY_EVENT: Final = 0
"""One chunk an event, as engines write them."""
NAMES: Final = {
    "/v1/models": "models",
    "/health": "health",
    "/version": "version",
    "/load": "load",
    "/props": "props",
    "/v1/loads": "loads",
    "/server_info": "server_info",
}
"""What is played for a GET."""
JSON: Final = ("content-type", "application/json")
EVENTS: Final = ("content-type", "text/event-stream")
CHUNKED: Final = ("transfer-encoding", "chunked")
"""Heads of recordings that are a body alone."""
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Heard:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Replay:
    """A playing engine. Say what the next POSTs get in `name`, and in which pieces in `chunk_bytes`."""

    engine: str
    url: str = ""
    name: str = "chat"
    chunk_bytes: int = BY_EVENT
    more: bytes = b""
    """Bytes added to the recorded body."""
    echoes_id: bool = False
    """Answer with the request's id in place of the recorded one, as vLLM does."""
    heard: list[Heard] = field(default_factory=list)

    def recording(self) -> Recording:
        """What the next POST gets."""
        return wire.load(self.engine, self.name)

    def exists(self, name: str) -> bool:
        """Whether there is such a recording of this engine."""
        return (FOLDER / self.engine / f"{name}.txt").exists()

    def answer(self, request: Heard) -> bytes:
        """The bytes for the socket."""
        name = self.name if request.method == "POST" else NAMES.get(request.path, "")
        if not name or not self.exists(name):
            return _NOT_FOUND
        found = wire.load(self.engine, name)
        body = found.body + (self.more if request.method == "POST" else b"")
        lines = found.headers or [EVENTS, CHUNKED] if body.startswith(b"data: ") else found.headers or [JSON]
        chunked = any(line.lower() == "transfer-encoding" for line, _ in lines)
        if not chunked:  # some bodies were shortened after they were recorded: paths and prompts were taken out
            lines = [(line, value) for line, value in lines if line.lower() != "content-length"] + [("content-length", str(len(body)))]
        if self.echoes_id and (given := request.headers.get("x-request-id")):
            lines = [(line, given if line.lower() == "x-request-id" else value) for line, value in lines]
        head = f"HTTP/1.1 {found.status} {'OK' if found.status == 200 else 'Refused'}\r\n"
        head += "".join(f"{line}: {value}\r\n" for line, value in lines) + "\r\n"
        if chunked:
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in self._pieces(body)) + b"0\r\n\r\n"
        return head.encode("latin-1") + body

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        if self.chunk_bytes != BY_EVENT:
            yield from (body[at : at + self.chunk_bytes] for at in range(0, len(body), self.chunk_bytes))
            return
        *events, rest = body.split(b"\n\n")
        yield from (event + b"\n\n" for event in events)
        if rest:
            yield rest

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head[:-4].split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = first.split(" ")
                request = Heard(method, target, headers, body)
                self.heard.append(request)
                writer.write(self.answer(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def replaying(engine: str) -> AsyncIterator[Replay]:
    """Play the recordings of one engine on a free port of the current loop."""
    replay = Replay(engine)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(replay._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    replay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replay
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
