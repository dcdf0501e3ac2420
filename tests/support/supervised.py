"""A supervisor over `serving_child` as a process of its own, and what a test says to it.

As a script: `python -m tests.support.supervised MODE CONFIG_FILE`; prints `ready PORT` once all serve, and logs to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pathlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE_S = 20.0


class Client:
    """One connection to whichever process the kernel picks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, line: str) -> None:
        self.writer.write(line.encode() + b"\n")
        await self.writer.drain()

    async def read(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            line = await self._reader.readline()
        if not line:
            raise ConnectionResetError("the process closed the connection")
        return json.loads(line)

    async def ask(self, line: str) -> Any:
        await self.send(line)
        return await self.read()


class Supervised:
    """A running supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, config: pathlib.Path) -> None:
        self.process = process
        self.config = config
        self.port = 0
        self.log = ""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, line: str) -> Any:
        async with self.connect() as client:
            return await client.ask(line)

    @asynccontextmanager
    async def each(self, count: int) -> AsyncIterator[list[Client]]:
        """One connection to every process, in order of their index."""
        async with contextlib.AsyncExitStack() as stack:
            clients: dict[int, Client] = {}
            async with asyncio.timeout(PATIENCE_S):
                while len(clients) < count:
                    connection = self.connect()
                    client = await connection.__aenter__()
                    index = (await client.ask("who"))["index"]
                    if index in clients:
                        await connection.__aexit__(None, None, None)
                        continue
                    stack.push_async_exit(connection)
                    clients[index] = client
            yield [clients[index] for index in sorted(clients)]

    async def until(self, line: str, holds: Any) -> Any:
        """Ask again and again until the answer is what it should become."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(ConnectionError):
                    value = await self.ask(line)
                    if holds(value):
                        return value
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def _collect(self, ready: asyncio.Event) -> None:
        async def out() -> None:
            assert self.process.stdout is not None
            async for line in self.process.stdout:
                if line.startswith(b"ready "):
                    self.port = int(line.split()[1])
                    ready.set()
            ready.set()

        async def err() -> None:
            assert self.process.stderr is not None
            async for line in self.process.stderr:
                self.log += line.decode()

        await asyncio.gather(out(), err())


@asynccontextmanager
async def supervised(config: pathlib.Path, mode: str = "serve") -> AsyncIterator[Supervised]:
    """Start a supervisor, wait until it is ready or has ended, and leave nothing of it behind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.supervised", mode, str(config), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = Supervised(process, config)
    ready = asyncio.Event()
    collecting = asyncio.get_running_loop().create_task(running._collect(ready))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        async with asyncio.timeout(PATIENCE_S):
            await collecting
        sys.stderr.write(running.log)


def main() -> int:
    from gateway.config.load import ConfigSource
    from gateway.processes.pulse import Patience
    from gateway.processes.supervisor import run

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    mode, path = sys.argv[1:]
    source = ConfigSource(path)
    command = [sys.executable, "-m", "tests.support.serving_child", mode]
    patience = Patience(gap_s=0.1, limit_s=0.4, misses=5) if mode == "impatient" else None
    return run(source.load(), source, command, on_ready=lambda host, port: print(f"ready {port}", flush=True), patience=patience)


if __name__ == "__main__":
    sys.exit(main())
