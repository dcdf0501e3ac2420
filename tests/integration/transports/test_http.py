"""The pool against real sockets, on both event loops: every way in which a worker can answer, stall, break or vanish."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.errors import Code, Retry
from gateway.transports.http import HttpPool
from gateway.transports.target import target_of
from tests.support.upstream import LoggingSink
from tests.support.worker import Line, RawWorker

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(30)]

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"Content-Length: 5\r\n\r\nhello"
FULL = ["head", "data", "end"]


def pool_of(url: str, *, ca_file: str | None = None, verify_tls: bool = True, **settings: Any) -> HttpPool:
    return HttpPool(target_of(url, ca_file=ca_file, verify_tls=verify_tls), loop=asyncio.get_running_loop(), **settings)


def send(pool: HttpPool, body: bytes = b"") -> LoggingSink:
    sink = LoggingSink()
    head = b"POST /v1 HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n\r\n" % (pool.target.authority, len(body))
    pool.send(head, body, sink)
    return sink


async def until(check: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.002)


async def answer_all(line: Line) -> None:
    """Answer every request with its own body, chunked."""
    while True:
        _, body = await line.request()
        chunks = [b"%x\r\n%b\r\n" % (len(body), body)] if body else []
        await line.send(OK + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")


async def test_a_thousand_calls_on_few_connections() -> None:
    """Each of a thousand calls gets its own answer, over eight connections."""
    async with RawWorker(answer_all) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}", max_connections=8)
        sinks = [send(pool, b"body %d" % at) for at in range(1000)]
        for at, sink in enumerate(sinks):
            await sink.wait()
            assert sink.heard == FULL and sink.body == b"body %d" % at
        assert worker.connections == 8 and pool.open_connections == 8
        await pool.aclose()
        assert pool.open_connections == 0


async def test_ipv6() -> None:
    """A worker on an IPv6 address is reached, and its host header has the brackets."""
    hosts = []

    async def play(line: Line) -> None:
        head, _ = await line.request()
        hosts.append(head.split(b"\r\n")[1])
        await line.send(WHOLE)

    async with RawWorker(play, host="::1") as worker:
        pool = pool_of(f"http://[::1]:{worker.port}")
        sink = send(pool)
        await sink.wait()
        assert sink.body == b"hello" and hosts == [b"host: [::1]:%d" % worker.port]
        await pool.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_name_with_several_addresses(host: str) -> None:
    """A worker that listens on one of its name's addresses alone is reached there."""
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    if host not in {info[4][0] for info in found}:
        pytest.skip(f"unproven here: localhost has no address {host}")
    async with RawWorker(answer_all, host=host) as worker:
        pool = pool_of(f"http://localhost:{worker.port}")
        sink = send(pool, b"x")
        await sink.wait()
        assert sink.body == b"x"
        await pool.aclose()


async def test_an_unknown_name() -> None:
    """A name that does not exist is a failed connect."""
    pool = pool_of("http://no-such-worker.invalid:80")
    sink = send(pool)
    await sink.wait(timeout_s=10)
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED
    await pool.aclose()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_worker_that_refuses() -> None:
    """Where nobody listens every call hears it, once, and may go elsewhere."""
    pool = pool_of(f"http://127.0.0.1:{closed_port()}", max_connections=2)
    sinks = [send(pool) for _ in range(20)]
    for sink in sinks:
        await sink.wait()
        assert sink.heard == ["failed"] and sink.error is not None
        assert sink.error.code is Code.CONNECT_FAILED and sink.error.retry is Retry.SAFE
    await pool.aclose()


async def test_a_worker_that_does_not_accept() -> None:
    """A connect that hangs ends after `connect_s`; one that is under way when the pool closes leaves no socket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):  # the kernel takes a few more than the backlog says
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        pool = pool_of(f"http://127.0.0.1:{port}", connect_s=0.2)
        sink = send(pool)
        await sink.wait()
        assert sink.error is not None and sink.error.message == "connecting to the worker took too long"
        other = send(pool)
        await asyncio.sleep(0)
        await pool.aclose()
        assert other.heard == ["failed"]
        for filler in fillers:
            filler.close()


async def test_the_keep_alive_race_is_unseen() -> None:
    """A worker that closes after every answer without saying so fails no call that follows."""

    async def play(line: Line) -> None:
        await line.request()
        await line.send(WHOLE)
        await line.reader.read(1)  # the next request is on its way: hang up on it
        line.reset()

    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        for _ in range(5):
            sink = send(pool, b"x" * 100)
            await sink.wait()
            assert sink.heard == FULL
        assert worker.connections == 5
        await pool.aclose()


async def test_a_closed_idle_connection_is_forgotten() -> None:
    """A worker that closes an idle connection is noticed at once."""

    async def play(line: Line) -> None:
        await line.request()
        await line.send(WHOLE)
        line.close()

    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        await send_and_wait(pool)
        await until(lambda: pool.open_connections == 0)
        await pool.aclose()


async def send_and_wait(pool: HttpPool) -> LoggingSink:
    sink = send(pool)
    await sink.wait()
    return sink


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    ("wire", "heard"),
    [
        (b"", ["failed"]),
        (OK, ["failed"]),
        (OK + b"Content-Length: 9\r\n\r\nhello", ["head", "data", "failed"]),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ["head", "data", "failed"]),
        (OK + b"\r\nhello", FULL),
    ],
    ids=["nothing", "half a head", "short", "no last chunk", "to the end"],
)
async def test_early_close(how: str, wire: bytes, heard: list[str]) -> None:
    """A connection that ends before its answer is a failure; where the answer runs to the end, only a reset is."""
    gate = asyncio.Event()

    async def play(line: Line) -> None:
        await line.request()
        await line.send(wire)
        if b"\r\n\r\n" in wire:
            await gate.wait()
        line.reset() if how == "rst" else line.close()

    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        sink = send(pool)
        if b"\r\n\r\n" in wire:
            await until(lambda: sink.body == b"hello")
        gate.set()
        await sink.wait()
        assert sink.heard == (["head", "data", "failed"] if how == "rst" and heard is FULL else heard)
        await pool.aclose()


async def test_an_answer_before_the_request_was_read() -> None:
    """A worker that refuses a large body unread is heard, and the connection with the unsent rest is not used again."""

    async def play(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    async with RawWorker(play, receive_buffer_bytes=4096) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        sink = send(pool, b"x" * (16 << 20))
        await sink.wait()
        assert sink.status == 413 and sink.last == "end"
        await until(lambda: pool.open_connections == 0)
        await pool.aclose()


async def test_a_worker_that_reads_no_body_costs_one_body() -> None:
    """Writing to a worker that does not read holds at most the request, and cancelling gives it back."""

    async def play(line: Line) -> None:
        await asyncio.sleep(60)

    async with RawWorker(play, receive_buffer_bytes=4096) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        size = 8 << 20
        sink = LoggingSink()
        body = b"x" * size
        tracemalloc.start()
        try:
            call = pool.send(b"POST / HTTP/1.1\r\nhost: w\r\ncontent-length: %d\r\n\r\n" % size, body, sink)
            await until(lambda: call.connected)
            await asyncio.sleep(0.05)
            held = tracemalloc.get_traced_memory()[1]
            assert held < size * 1.5
        finally:
            tracemalloc.stop()
        call.cancel()
        await until(lambda: pool.open_connections == 0)
        assert sink.heard == []
        await pool.aclose()


async def test_a_paused_call_stalls_its_worker() -> None:
    """While a call is paused its worker can send no more than the kernel holds; resumed, everything arrives."""
    size = 64 << 20
    sent = 0

    async def play(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(OK + b"Content-Length: %d\r\n\r\n" % size)
        piece = b"x" * 65536
        while sent < size:
            await line.send(piece)
            sent += len(piece)

    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        received = 0

        class Counting(LoggingSink):
            def on_data(self, data: bytes) -> None:
                nonlocal received
                received += len(data)

        sink = Counting()
        call = pool.send(b"GET / HTTP/1.1\r\nhost: w\r\n\r\n", b"", sink)
        await until(lambda: received > 0)
        call.pause()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        stalled_at = received
        assert sent < size
        await asyncio.sleep(0.05)
        assert received == stalled_at
        call.resume()
        await sink.wait(20)
        assert received == size and sink.last == "end"
        await pool.aclose()


async def test_cancel_reaches_the_worker() -> None:
    """A worker sees a cancelled call's connection close at once."""
    seen = asyncio.Event()

    async def play(line: Line) -> None:
        await line.request()
        await line.send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert await line.reader.read() == b""
        seen.set()

    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}")
        sink = LoggingSink()
        call = pool.send(b"GET / HTTP/1.1\r\nhost: w\r\n\r\n", b"", sink)
        await until(lambda: sink.body == b"hello")
        call.cancel()
        async with asyncio.timeout(2):
            await seen.wait()
        assert sink.heard == ["head", "data"]
        await pool.aclose()


# -- tls --------------------------------------------------------------------------------------------------------------


class Certificates:
    """An authority, its file, and a worker's certificate for 127.0.0.1 or another name."""

    def __init__(self, directory: Path, name: str) -> None:
        ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        ca.cert_pem.write_to_path(self.ca_file)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(name).configure_cert(self.context)


async def test_tls(tmp_path: Path) -> None:
    """Over TLS calls are answered and connections used again, with the worker's name checked."""
    certificates = Certificates(tmp_path, "localhost")
    async with RawWorker(answer_all, tls=certificates.context) as worker:
        pool = pool_of(f"https://localhost:{worker.port}", ca_file=certificates.ca_file)
        for size in (0, 10, 1 << 20):
            sink = send(pool, b"x" * size)
            await sink.wait()
            assert sink.last == "end" and len(sink.body) == size
        assert worker.connections == 1
        await pool.aclose()
        assert pool.open_connections == 0


@pytest.mark.parametrize("mistake", ["name", "authority"])
async def test_tls_refuses_the_wrong_worker(tmp_path: Path, mistake: str) -> None:
    """A certificate of another name or of an unknown authority is refused, unless nothing is to be checked."""
    certificates = Certificates(tmp_path, "other.example" if mistake == "name" else "127.0.0.1")
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the worker's failed handshake
    async with RawWorker(answer_all, tls=certificates.context) as worker:
        url = f"https://127.0.0.1:{worker.port}"
        pool = pool_of(url, ca_file=certificates.ca_file if mistake == "name" else None)
        sink = send(pool, b"x")
        await sink.wait()
        assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED
        assert sink.error.message == "the worker's certificate cannot be verified"
        await pool.aclose()
        lax = pool_of(url, verify_tls=False)
        sink = send(lax, b"x")
        await sink.wait()
        assert sink.body == b"x"
        await lax.aclose()


async def test_a_handshake_that_hangs_leaves_no_socket() -> None:
    """A worker that accepts and then says nothing to TLS is given up after `connect_s`."""

    async def play(line: Line) -> None:
        await line.reader.read()

    async with RawWorker(play) as worker:
        pool = pool_of(f"https://127.0.0.1:{worker.port}", connect_s=0.3)
        sink = send(pool)
        await sink.wait()
        assert sink.error is not None and sink.error.message == "connecting to the worker took too long"
        await pool.aclose()


async def test_plain_http_where_tls_was_asked() -> None:
    """A worker without TLS behind an https URL is a failed connect, not a hang."""

    async def play(line: Line) -> None:
        await line.send(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
        await line.reader.read()

    async with RawWorker(play) as worker:
        pool = pool_of(f"https://127.0.0.1:{worker.port}", connect_s=2.0)
        sink = send(pool)
        await sink.wait()
        assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED
        await pool.aclose()


# -- churn ------------------------------------------------------------------------------------------------------------


async def test_churn_returns_to_the_start(sockets_open: Callable[[], int]) -> None:
    """Hundreds of calls that end, break, are cancelled or discarded leave nothing open."""
    turn = 0

    async def play(line: Line) -> None:
        nonlocal turn
        while True:
            await line.request()
            turn += 1
            kind = turn % 6
            if kind == 0:
                line.reset()
                return
            if kind == 1:
                await line.send(OK + b"Content-Length: 9\r\n\r\nhello")
                line.close()
                return
            if kind == 2:
                await line.send(WHOLE + b"junk")
            elif kind == 3:
                await line.send(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello")
                return
            else:
                await line.send(OK, b"Content-Length: 5\r\n\r\nhe", b"llo")

    before = sockets_open()
    async with RawWorker(play) as worker:
        pool = pool_of(f"http://127.0.0.1:{worker.port}", max_connections=16)
        for at in range(40):
            sinks = []
            for which in range(12):
                sink = LoggingSink()
                call = pool.send(b"GET / HTTP/1.1\r\nhost: w\r\n\r\n", b"", sink)
                if which == at % 12:
                    call.cancel()
                elif which == (at + 1) % 12:
                    call.discard()
                else:
                    sinks.append(sink)
            for sink in sinks:
                await sink.wait()
                assert sink.last in ("end", "failed")
        assert "waiting=0" in repr(pool)
        await pool.aclose()
        assert pool.open_connections == 0
    await until(lambda: sockets_open() <= before)
