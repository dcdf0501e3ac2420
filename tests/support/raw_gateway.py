"""The data plane on a real socket, before a worker that writes down every byte it gets and judges it strictly."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from gateway.config.model import GatewayConfig
from gateway.pipeline.endpoints import ENDPOINTS
from gateway.pipeline.run import Driver
from gateway.processes.listen import bind_listeners
from gateway.runtime import Runtime
from gateway.server.app import data_plane
from gateway.server.listener import Listener
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.workers.state import ModelInfo, Status, WorkerState

ANSWER = b'{"ok":1}'
_HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n((?:[a-z0-9!#$%&'*+.^_`|~-]+: [\t\x20-\x7e\x80-\xff]*\r\n)+)\r\n")


@dataclass
class Recorder:
    """A worker. `requests` are those it got; `wrong` is what a strict reader must not accept."""

    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(target, body) of each."""
    heads: list[bytes] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)
    connections: int = 0
    cut: int = 0
    """Connections that ended before an answer was given."""
    answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
    hold: asyncio.Event | None = None
    """Answers wait for it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        got = b""
        try:
            while True:
                while (found := _HEAD.match(got)) is None:
                    if b"\r\n\r\n" in got:
                        self.wrong.append(got)
                        return
                    piece = await reader.read(65_536)
                    if not piece:
                        if got:
                            self.wrong.append(got)
                        return
                    got += piece
                lines = [line.partition(b": ")[::2] for line in found[2].split(b"\r\n")[:-1]]
                lengths = [value for name, value in lines if name == b"content-length"]
                hosts = [value for name, value in lines if name == b"host"]
                framing = {b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect"} & {name for name, _ in lines}
                if len(lengths) != 1 or not lengths[0].isdigit() or len(hosts) != 1 or framing:
                    self.wrong.append(got)
                    return
                size = int(lengths[0])
                body = got[found.end() :]
                while len(body) < size:
                    piece = await reader.read(65_536)
                    if not piece:
                        self.wrong.append(got)
                        return
                    body += piece
                if len(body) > size:
                    self.wrong.append(body[size:])
                    return
                self.requests.append((found[1], body))
                self.heads.append(found[0])
                got = b""
                if self.hold is not None:
                    gone = asyncio.ensure_future(reader.read(1))
                    held = asyncio.ensure_future(self.hold.wait())
                    await asyncio.wait((gone, held), return_when=asyncio.FIRST_COMPLETED)
                    held.cancel()
                    if gone.done():
                        self.cut += 1
                        return
                    gone.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await gone
                writer.write(self.answer)
                await writer.drain()
        except ConnectionError:
            self.cut += 1
        finally:
            writer.close()


@dataclass
class RawGateway:
    """A running data plane and its worker."""

    port: int
    worker: Recorder
    rt: Runtime
    driver: Driver
    listener: Listener

    async def connect(self) -> Raw:
        """Open a client's connection."""
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port))

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> tuple[list[Answer], bool]:
        """Send pieces on a new connection; return the answers, and whether the server closed within half a second."""
        line = await self.connect()
        try:
            await line.send(*pieces, pause_s=pause_s)
            return await line.rest()
        finally:
            await line.close()

    async def settled(self) -> None:
        """Wait until no request is under way."""
        async with asyncio.timeout(5):
            while self.driver.active:
                await asyncio.sleep(0.01)


@dataclass
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """A client that sends what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Write pieces, each on its own; a server that hung up is no error."""
        for piece in pieces:
            with contextlib.suppress(ConnectionError):
                self.writer.write(piece)
                await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def answer(self) -> Answer:
        """Read one answer."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(first.split(" ")[1]), headers, body)

    async def rest(self) -> tuple[list[Answer], bool]:
        """Read what still comes, until the server closes or says nothing for half a second."""
        found = []
        while True:
            try:
                async with asyncio.timeout(0.5):
                    found.append(await self.answer())
            except TimeoutError:
                return found, False
            except asyncio.IncompleteReadError as end:
                assert not end.partial, f"half an answer: {end.partial!r}"
                return found, True
            except ConnectionError:
                return found, True

    async def close(self) -> None:
        """Close."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_gateway(tls: ssl.SSLContext | None = None, **sections: Any) -> AsyncIterator[RawGateway]:
    """Start a worker and a data plane before it; both are closed in the end, and nothing may be left under way."""
    loop = asyncio.get_running_loop()
    worker = Recorder()
    upstream = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    config = GatewayConfig.model_validate({"routing": {"policy": "round_robin"}, "retry": {"max_attempts": 1}, **sections})
    table = SharedTable(1, COLUMNS)
    rt = Runtime(config, table, loop, tuple(endpoint.path for endpoint in ENDPOINTS))
    driver = Driver(rt)
    rt.on_tick.append(driver.tick)
    listener = Listener(data_plane(rt), driver, config.server, rt.cells, loop, tls)
    rt.on_tick.append(listener.sweep)
    (sock,) = bind_listeners("127.0.0.1", 0, 1)
    await listener.start(sock)
    port = upstream.sockets[0].getsockname()[1]
    rt.states(
        (WorkerState(id="w", slot=0, url=f"http://127.0.0.1:{port}", status=Status.READY, source="config", models=(ModelInfo(name="m"),)),)
    )
    try:
        async with rt:
            try:
                yield RawGateway(listener.address[1], worker, rt, driver, listener)
                assert table.total(0) == len(driver.active)
            finally:
                await listener.close()
        assert not driver.active and table.total(0) == 0
    finally:
        upstream.close()
        async with asyncio.timeout(5):
            await upstream.wait_closed()
        table.close()
