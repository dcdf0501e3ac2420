"""A listener on real sockets: clients that do not read, clients in TLS, and the end of it all."""

from __future__ import annotations

import asyncio
import pathlib
import ssl

import httpx
import pytest
import trustme

from gateway.config.model import TlsConfig
from gateway.server.connection import Connection
from gateway.server.tls import server_context
from tests.support.raw_gateway import ANSWER, Raw, RawGateway, raw_gateway

BODY = b'{"model":"m","messages":[]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
STREAM_BODY = b'{"model":"m","messages":[],"stream":true}'
STREAM = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(STREAM_BODY) + STREAM_BODY
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 4000 + b'"}}]}\n\n'
EVENTS = 2000
DONE = b"data: [DONE]\n\n"


def flood(gateway: RawGateway) -> bytes:
    """Let the worker answer with 8 MB of events; returns their bytes."""
    wire = EVENT * EVENTS + DONE
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    gateway.worker.answer = head + b"%x\r\n%b\r\n" % (len(EVENT), EVENT) * EVENTS + b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)
    return wire


def unsent_bytes(gateway: RawGateway) -> int:
    """Bytes that the gateway keeps for its clients."""
    found = [one for one in gateway.listener.server_state.connections if isinstance(one, Connection)]
    return sum(one.transport.get_write_buffer_size() for one in found)


async def test_a_client_that_does_not_read_holds_little() -> None:
    """While a client does not read, its stream is not read either: what is kept is bounded; then it gets every byte."""
    async with raw_gateway() as gateway:
        wire = flood(gateway)
        line = await gateway.connect()
        await line.send(STREAM)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        kept = 0
        for _ in range(30):
            await asyncio.sleep(0.02)
            kept = max(kept, unsent_bytes(gateway))
        assert 0 < kept < 1 << 20 and len(gateway.driver.active) == 1
        (x,) = gateway.driver.active
        assert x.paused_s and x.attempts[0].call is not None and x.attempts[0].call.paused
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await line.answer()
        assert answer.status == 200 and answer.body == wire
        await line.close()


async def test_a_client_that_never_reads_is_cut_off() -> None:
    """After the write timeout its connection is gone, and so is the worker's."""
    async with raw_gateway(server={"write_timeout_s": 0.5}) as gateway:
        flood(gateway)
        line = await gateway.connect()
        await line.send(STREAM)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        assert gateway.driver.active
        await gateway.settled()
        async with asyncio.timeout(5):
            while gateway.rt.cells.connections_active:
                await asyncio.sleep(0.02)
        assert gateway.rt.endpoint_cells["/v1/chat/completions"].responses == {(499, "client_gone"): 1}
        line.writer.transport.abort()
        await line.close()


async def test_tls(tmp_path: pathlib.Path) -> None:
    """Clients speak HTTPS, whole and streamed; plain HTTP on the port is closed without harm."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "pem"))
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    config = TlsConfig(cert_file=str(tmp_path / "pem"), key_file=str(tmp_path / "key"))
    async with raw_gateway(server_context(config)) as gateway:
        async with httpx.AsyncClient(verify=theirs, base_url=f"https://127.0.0.1:{gateway.port}") as client:
            for _ in range(3):
                answer = await client.post("/v1/chat/completions", content=BODY)
                assert (answer.status_code, answer.content) == (200, ANSWER)
            assert (await client.get("/health")).json() == {"status": "ok"}
            wire = flood(gateway)
            answer = await client.post("/v1/chat/completions", content=STREAM_BODY)
            assert answer.content == wire
        assert gateway.rt.cells.connections_total == 1
        plain = await gateway.connect()
        await plain.send(POST)
        found, closed = await plain.rest()
        assert found == [] and closed
        await plain.close()
        bad = Raw(*await asyncio.open_connection("127.0.0.1", gateway.port, ssl=theirs))
        await bad.send(b"POST / HTTP/1.1\r\n\r\n")
        found, closed = await bad.rest()
        assert [one.status for one in found] == [400] and closed
        await bad.close()


async def test_a_drain() -> None:
    """Idle connections close, nobody new gets in, what is in flight ends whole and is told that it is the last."""
    async with raw_gateway() as gateway:
        gateway.worker.hold = asyncio.Event()
        idle, busy = await gateway.connect(), await gateway.connect()
        await busy.send(POST)
        async with asyncio.timeout(5):
            while not gateway.worker.requests:
                await asyncio.sleep(0.01)
        async with asyncio.TaskGroup() as group:
            drained = group.create_task(gateway.listener.drain(10))
            assert await idle.rest() == ([], True)
            with pytest.raises(ConnectionRefusedError):
                await gateway.connect()
            assert not drained.done()
            gateway.worker.hold.set()
            found, closed = await busy.rest()
            assert [(one.status, one.headers["connection"], one.body) for one in found] == [(200, "close", ANSWER)] and closed
            await idle.close()
            await busy.close()
        assert drained.result() is True


async def test_connections_beyond_the_limit() -> None:
    """One connection more than allowed is closed at once; those that are there are served."""
    async with raw_gateway(server={"max_connections": 2}) as gateway:
        lines = [await gateway.connect() for _ in range(2)]
        for line in lines:
            await line.send(POST)
            assert (await line.answer()).status == 200
        third = await gateway.connect()
        await third.send(POST)
        assert await third.rest() == ([], True)
        await third.close()
        await lines[0].close()
        await asyncio.sleep(0.05)
        fourth = await gateway.connect()
        await fourth.send(POST)
        assert (await fourth.answer()).status == 200
        for line in (lines[1], fourth):
            await line.close()
