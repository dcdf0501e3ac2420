"""The control plane over a real leader, asked in memory."""

import pathlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from gateway.admission.keyring import Keyring
from gateway.config.load import ConfigSource
from gateway.control.guard import KeyGuard
from gateway.control.routes import routes
from gateway.processes.leader import Leader
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable

Opening = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def bearer_of(request: Request) -> bytes | None:
    given = request.headers.get("authorization", "")
    return given[7:].encode() if given.startswith("Bearer ") else None


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Opening:
    """A client of a control plane, by the text of its configuration."""

    @asynccontextmanager
    async def opened(text: str = "", base_url: str = "http://127.0.0.1:30000") -> AsyncIterator[httpx.AsyncClient]:
        path = tmp_path / "smg.yaml"
        path.write_text("health: {enabled: false}\n" + text)
        source = ConfigSource(str(path))
        config = source.load()
        table = SharedTable(1, COLUMNS)
        keyring = Keyring(config.auth)
        async with Leader(config, source, table) as leader:
            table.own[0] = 5
            guard = KeyGuard(lambda: keyring, lambda: leader.current.config, bearer_of)
            app = Starlette(routes=routes(leader, guard, load_of=table.total, breaker_of=lambda worker_id: "closed"))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url) as client:
                yield client
        table.close()

    return opened
