"""The metrics port over real sockets: bounded in time, size and number, and closed without a trace."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import httpx
import pytest

from gateway.errors import ConfigError
from gateway.telemetry import metrics_server
from gateway.telemetry.metrics_server import MetricsServer

GET = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"


async def page() -> bytes:
    """A small page."""
    return b"smg_x 1\n"


async def ask(server: MetricsServer, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10.0)
    finally:
        writer.close()


async def test_a_client_gets_the_page() -> None:
    """A real HTTP client reads it, again and again."""
    async with MetricsServer("127.0.0.1", 0, page) as server, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(3):
            answer = await client.get(f"http://127.0.0.1:{server.address[1]}/metrics")
            assert answer.text == "smg_x 1\n"
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await client.get(f"http://127.0.0.1:{server.address[1]}/health")).json() == {"status": "ok"}


async def test_a_request_in_single_bytes_is_read() -> None:
    """Where packets end means nothing."""
    async with MetricsServer("127.0.0.1", 0, page) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        for byte in GET:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"smg_x 1\n")
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\r\n\r\n", 400), (b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 40_000, 431)],
)
async def test_a_bad_request_is_refused(data: bytes, status: int) -> None:
    """Nonsense, TLS on a plain port, a giant head."""
    async with MetricsServer("127.0.0.1", 0, page) as server:
        assert (await ask(server, data)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_slow_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing does not hold a connection."""
    monkeypatch.setattr(metrics_server, "HEAD_S", 0.05)
    async with MetricsServer("127.0.0.1", 0, page) as server:
        assert (await ask(server, b"GET /met")).startswith(b"HTTP/1.1 408 ")


async def test_a_page_that_takes_too_long_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not tell its counts does not hold the scrape for ever."""
    monkeypatch.setattr(metrics_server, "RENDER_S", 0.05)

    async def never() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with MetricsServer("127.0.0.1", 0, never) as server:
        assert (await ask(server, GET)).startswith(b"HTTP/1.1 503 ")


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page nobody takes is thrown away with its connection."""
    monkeypatch.setattr(metrics_server, "WRITE_S", 0.05)

    async def large() -> bytes:
        return b"x" * (32 << 20)

    async with MetricsServer("127.0.0.1", 0, large) as server:
        reader, writer = await asyncio.open_connection(*server.address, limit=1024)
        writer.write(GET)
        async with asyncio.timeout(10.0):
            while not server._tasks:
                await asyncio.sleep(0.01)
            while server._tasks:
                await asyncio.sleep(0.01)
        writer.transport.abort()
        del reader


async def test_scrapes_that_come_together_share_a_page() -> None:
    """A page is made once for all who wait for it, and anew for who comes later."""
    go = asyncio.Event()
    made = 0

    async def slow() -> bytes:
        nonlocal made
        made += 1
        await go.wait()
        return b"page %d\n" % made

    async with MetricsServer("127.0.0.1", 0, slow) as server:
        asked = [asyncio.ensure_future(ask(server, GET)) for _ in range(5)]
        async with asyncio.timeout(10.0):
            while len(server._tasks) < 5 or not made:
                await asyncio.sleep(0.01)
        go.set()
        assert all(answer.endswith(b"page 1\n") for answer in await asyncio.gather(*asked))
        assert (await ask(server, GET)).endswith(b"page 2\n")


async def test_connections_beyond_the_bound_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood takes no more than its share, and the port answers again once it is over."""
    monkeypatch.setattr(metrics_server, "MAX_CONNECTIONS", 2)
    async with MetricsServer("127.0.0.1", 0, page) as server:
        held = [await asyncio.open_connection(*server.address) for _ in range(2)]
        async with asyncio.timeout(10.0):
            while len(server._tasks) < 2:
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionError):
            if await ask(server, GET) == b"":
                raise ConnectionResetError
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(10.0):
            while server._tasks:
                await asyncio.sleep(0.01)
        assert (await ask(server, GET)).endswith(b"smg_x 1\n")


async def test_a_port_that_is_taken_is_a_mistake_of_the_configuration() -> None:
    """The message says which key to change."""
    async with MetricsServer("127.0.0.1", 0, page) as server:
        with pytest.raises(ConfigError, match=r"server\.metrics_port: cannot listen on 127\.0\.0\.1:"):
            async with MetricsServer(*server.address, page):
                raise AssertionError


@pytest.mark.parametrize("held", ["silent", "rendering"])
async def test_closing_ends_what_is_open(held: str) -> None:
    """No task, socket or scrape outlives the server."""

    async def never() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    render: Callable[[], Awaitable[bytes]] = never if held == "rendering" else page
    before = asyncio.all_tasks()
    async with MetricsServer("127.0.0.1", 0, render) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(GET if held == "rendering" else b"GET")
        async with asyncio.timeout(10.0):
            while not server._tasks or (held == "rendering" and server._page is None):
                await asyncio.sleep(0.01)
    try:
        assert await asyncio.wait_for(reader.read(), 10.0) == b""
    except ConnectionError:
        pass
    writer.close()
    assert asyncio.all_tasks() == before
    gc.collect()


async def test_a_server_that_never_opened_closes() -> None:
    """Close works after a failed open."""
    await MetricsServer("127.0.0.1", 0, page).__aexit__(None, None, None)
