"""A whole data plane on transports in memory: everything between two sockets is real, the sockets are not there.

`InMemoryGateway` is one client connection before workers with one open connection each. A test or benchmark gives the client's
bytes to `client`, finds the worker that was asked with `asked`, and gives it the worker's bytes.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self, cast

from gateway.config.model import GatewayConfig
from gateway.pipeline.endpoints import ENDPOINTS
from gateway.pipeline.run import Driver
from gateway.runtime import Runtime
from gateway.server.app import data_plane
from gateway.server.connection import Connection
from gateway.server.listener import Listener
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.transports.connection import Connection as UpstreamConnection
from gateway.workers.state import ModelInfo, Status, WorkerState


class MemoryTransport:
    """A transport whose far side reads at once: it keeps what was written last, and how often."""

    def __init__(self) -> None:
        self.writes = 0
        self.last = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.last = data

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Upstream:
    """One open connection to a worker."""

    def __init__(self, connection: UpstreamConnection, transport: MemoryTransport) -> None:
        self.connection = connection
        self.transport = transport
        self.answered = 0
        """Requests that the test knows of."""


class InMemoryGateway:
    """Made on a running loop; a context manager, so that its memory is given back."""

    def __init__(self, config: dict[str, Any] | None = None, workers: int = 2, model: str = "mock") -> None:
        loop = asyncio.get_running_loop()
        self.config = GatewayConfig.model_validate({"routing": {"policy": "round_robin"}, **(config or {})})
        self.table = SharedTable(1, COLUMNS)
        self.rt = Runtime(self.config, self.table, loop, tuple(endpoint.path for endpoint in ENDPOINTS))
        self.driver = Driver(self.rt)
        self.rt.states(tuple(_ready(number, model) for number in range(workers)))
        self.upstreams = [self._connect(worker.http) for worker in self.rt.registry.workers.values()]
        listener = Listener(data_plane(self.rt), self.driver, self.config.server, self.rt.cells, loop)
        self.client = Connection(listener)
        self.transport = MemoryTransport()
        self.client.connection_made(cast(asyncio.Transport, self.transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.table.close()

    def asked(self) -> UpstreamConnection:
        """The worker's connection that the last request went to."""
        for upstream in self.upstreams:
            if upstream.transport.writes > upstream.answered:
                upstream.answered = upstream.transport.writes
                return upstream.connection
        raise AssertionError("no worker was asked")

    def check_idle(self) -> None:
        """Assert that nothing is held: no exchange is under way, no worker has load."""
        assert not self.driver.active
        assert [worker.load for worker in self.rt.registry.workers.values()] == [0] * len(self.upstreams)

    def _connect(self, pool: Any) -> Upstream:
        connection, transport = UpstreamConnection(pool), MemoryTransport()
        connection.connection_made(cast(asyncio.Transport, transport))
        pool._open.add(connection)
        pool.release(connection)
        return Upstream(connection, transport)


def _ready(number: int, model: str) -> WorkerState:
    models = (ModelInfo(name=model),)
    return WorkerState(
        id=f"w{number}", slot=number, url=f"http://127.0.0.1:{number + 1}", status=Status.READY, source="config", models=models
    )
