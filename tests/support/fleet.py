"""A fleet under test with what it published, and servers that answer as a test tells them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from gateway.config.model import GatewayConfig, HealthConfig, ServerConfig, WorkerConfig
from gateway.workers.fleet import Fleet
from gateway.workers.state import WorkerState

QUICK = HealthConfig(interval_s=0.05, timeout_s=0.5, failure_threshold=2)
"""Checks that a test does not wait long for."""


def configured(*urls: str, health: HealthConfig = QUICK, drain_timeout_s: float = 30.0, **more: Any) -> GatewayConfig:
    """A configuration with workers at these URLs."""
    workers = tuple(WorkerConfig(url=url) for url in urls)
    return GatewayConfig(workers=workers, health=health, server=ServerConfig(drain_timeout_s=drain_timeout_s), **more)


class Watched:
    """A fleet, the requests in flight that it is told, and every state that it published."""

    def __init__(self, config: GatewayConfig) -> None:
        self.in_flight: Counter[int] = Counter()
        self.states: tuple[WorkerState, ...] = ()
        self.history: list[tuple[WorkerState, ...]] = []
        self._news = asyncio.Event()
        self.fleet = Fleet(config, clock=time.monotonic, in_flight=lambda slot: self.in_flight[slot], publish=self._heard)

    def _heard(self, states: tuple[WorkerState, ...]) -> None:
        assert len({state.slot for state in states}) == len(states), "two workers share a slot"
        assert len({state.id for state in states}) == len(states)
        self.states = states
        self.history.append(states)
        self._news.set()

    def at(self, url: str) -> WorkerState | None:
        """The last published state of the worker at this URL."""
        return next((state for state in self.states if state.url == url), None)

    def status(self, url: str) -> str:
        """Its status; empty where there is no such worker."""
        state = self.at(url)
        return "" if state is None else str(state.status)

    def statuses(self, url: str) -> list[str]:
        """Every status that was published of a worker, in order, each once in a row."""
        seen: list[str] = []
        for states in self.history:
            for state in states:
                if state.url == url and (not seen or seen[-1] != str(state.status)):
                    seen.append(str(state.status))
        return seen

    async def until(self, holds: Callable[[], object], timeout_s: float = 8.0) -> None:
        """Wait until something holds of what was published."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s; {[(s, s.reason) for s in self.states]}") from None

    async def until_status(self, url: str, *statuses: str, timeout_s: float = 8.0) -> None:
        """Wait until a worker has one of these statuses; an empty one means that it has left."""
        await self.until(lambda: self.status(url) in statuses, timeout_s)


@asynccontextmanager
async def watched(config: GatewayConfig) -> AsyncIterator[Watched]:
    """Run a fleet."""
    one = Watched(config)
    async with one.fleet:
        yield one


class Script:
    """An HTTP server whose answers a test writes down: path -> (status, body), or raw bytes, or None for silence."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Path and headers of every request."""
        self.port = 0
        self.most = 0
        """Connections that were open at once, at most."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(path for path, _ in self.seen)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        while self._writers:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.most = max(self.most, len(self._writers))
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                path = head[0].split(" ")[1]
                self.seen.append((path, {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}))
                answer = self.answers.get(path, self.answers.get("*", (404, {"detail": "Not Found"})))
                if answer is None:
                    await reader.read()
                    return
                writer.write(answer if isinstance(answer, bytes) else whole(*answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def whole(status: int, body: Any, *headers: str) -> bytes:
    """An HTTP answer with a JSON body, or a body of bytes."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(data)}", "content-type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def listing(*names: str, owner: str | None = "me") -> tuple[int, dict[str, Any]]:
    """An answer of `/v1/models`."""
    return 200, {"object": "list", "data": [{"id": name, "object": "model"} | ({"owned_by": owner} if owner else {}) for name in names]}


@asynccontextmanager
async def scripted(**answers: Any) -> AsyncIterator[Script]:
    """Run a scripted server; keys are paths with `_` for `/`, `models` for `/v1/models`."""
    script = Script()
    for name, answer in answers.items():
        script.answers["/v1/models" if name == "models" else "/" + name] = answer
    await script.start()
    try:
        yield script
    finally:
        await script.stop()
