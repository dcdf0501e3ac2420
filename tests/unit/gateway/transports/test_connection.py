"""One connection reads every answer, broken ones too, the same however its bytes come, and is used again only if it is clean."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import pytest

from gateway.errors import Code, Retry, Source
from gateway.transports.connection import MAX_DRAIN_BYTES, MAX_HEAD_BYTES, ONE_WRITE_BYTES
from gateway.transports.http import Call, HttpPool, Target
from tests.support.upstream import FakeLoop, FakeTransport, LoggingSink, settle

HEAD = b"POST /v1 HTTP/1.1\r\nhost: w\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + b"Content-Length: 5\r\n\r\nhello"


class Rig(NamedTuple):
    """A pool with one connection that has a call on it."""

    loop: FakeLoop
    pool: HttpPool
    transport: FakeTransport
    sink: LoggingSink
    call: Call


async def rig(body: bytes = b"{}", **settings: Any) -> Rig:
    loop = FakeLoop()
    pool = HttpPool(Target("10.0.0.1", 8000), loop=cast(Any, loop), **settings)
    sink = LoggingSink()
    call = pool.send(HEAD, body, sink)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    return Rig(loop, pool, transport, sink, call)


class Case(NamedTuple):
    name: str
    wire: bytes
    heard: list[str]
    body: bytes = b""
    status: int = 200
    length: int | None = None
    reused: bool = True


REFUSED = ["failed"]
FULL = ["head", "data", "end"]
CUT = ["head", "failed"]
CUT_LATE = ["head", "data", "failed"]

CASES = [
    Case("content-length", WHOLE, FULL, b"hello", length=5),
    Case("length with spaces behind it", OK + b"Content-Length: 5  \r\n\r\nhello", FULL, b"hello", length=5),
    Case("empty", OK + b"Content-Length: 0\r\n\r\n", ["head", "end"], length=0),
    Case("no reason phrase", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ["head", "end"], length=0),
    Case("chunked", CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", FULL, b"hello"),
    Case("chunked in capitals", OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", FULL, b"hello"),
    Case("chunk extensions", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n', FULL, b"hello"),
    Case("trailers are dropped", CHUNKED + b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nX-B: 2\r\n\r\n", FULL, b"hello"),
    Case("a length among the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n", CUT_LATE, b"hello", reused=False),
    Case("100 before the answer", b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, FULL, b"hello", length=5),
    Case("103 before the answer", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 3 + WHOLE, FULL, b"hello", length=5),
    Case("100 with a length", b"HTTP/1.1 100 C\r\nContent-Length: 4\r\n\r\n" + WHOLE, FULL, b"hello", length=5),
    Case("204 with a length has no body", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", ["head", "end"], status=204, length=0),
    Case("204 chunked has no body", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", ["head", "end"], status=204, length=0),
    Case("304 with a length has no body", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", ["head", "end"], status=304, length=0),
    Case("connection: close", OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", FULL, b"hello", length=5, reused=False),
    Case("close in a list", OK + b"Connection: x, close\r\nContent-Length: 5\r\n\r\nhello", FULL, b"hello", length=5, reused=False),
    Case("http/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", FULL, b"hello", length=5, reused=False),
    Case("http/1.0 kept alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", FULL, b"hello", length=5),
    Case("an upgrade offered", OK + b"Upgrade: x\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello", FULL, b"hello", length=5),
    Case("an unknown status", b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n", ["head", "end"], status=599, length=0),
    # refused
    Case("length and chunked", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", REFUSED, reused=False),
    Case("chunked and length", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", REFUSED, reused=False),
    Case("two equal lengths", OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("two lengths", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", REFUSED, reused=False),
    Case("a list of lengths", OK + b"Content-Length: 5, 5\r\n\r\nhello", REFUSED, reused=False),
    Case("a negative length", OK + b"Content-Length: -5\r\n\r\nhello", REFUSED, reused=False),
    Case("a signed length", OK + b"Content-Length: +5\r\n\r\nhello", REFUSED, reused=False),
    Case("an empty length", OK + b"Content-Length: \r\n\r\nhello", REFUSED, reused=False),
    Case("a length beyond 64 bits", OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello", REFUSED, reused=False),
    Case("identity coding", OK + b"Transfer-Encoding: identity\r\n\r\nhello", REFUSED, reused=False),
    Case("gzip coding", OK + b"Transfer-Encoding: gzip\r\n\r\nhello", REFUSED, reused=False),
    Case("gzip, chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", REFUSED, reused=False),
    Case("chunked twice", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", REFUSED, reused=False),
    Case("chunked, then gzip", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", REFUSED, reused=False),
    Case("bare line feeds", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", REFUSED, reused=False),
    Case("a folded line", OK + b"A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("a space before the colon", OK + b"Content-Length : 5\r\n\r\nhello", REFUSED, reused=False),
    Case("a nul in a header", OK + b"A: b\x00c\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("a bare cr in a header", OK + b"A: b\rX: y\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("status 000", b"HTTP/1.1 000 X\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("a status of four digits", b"HTTP/1.1 1000 X\r\nContent-Length: 5\r\n\r\nhello", REFUSED, reused=False),
    Case("101 switching", b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz", REFUSED, reused=False),
    Case("not http", b"hello world, I am a database\r\n\r\n", REFUSED, reused=False),
    Case("a chunk size that is none", CHUNKED + b"xyz\r\n", CUT, reused=False),
    Case("a chunk size beyond 64 bits", CHUNKED + b"fffffffffffffffff\r\n", CUT, reused=False),
    Case("a chunk longer than its size", CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", CUT_LATE, b"he", reused=False),
    Case("chunk lines in bare line feeds", CHUNKED + b"5\nhello\n0\n\n", CUT, reused=False),
]  # fmt: skip


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_answers(case: Case, step: int) -> None:
    """Each answer is heard as its framing says, or refused; only a clean connection is used again."""
    loop, pool, transport, sink, call = await rig()
    assert bytes(transport.written) == HEAD + b"{}"
    transport.answer(case.wire, step)
    assert sink.heard == case.heard
    assert sink.body == case.body
    if "head" in case.heard:
        assert (sink.status, sink.length) == (case.status, case.length)
        assert all(name == name.lower() for name, _ in sink.headers)
        assert b"x-checksum" not in dict(sink.headers)
    if sink.error is not None:
        assert sink.error.code is Code.UPSTREAM_PROTOCOL
        assert sink.error.retry is Retry.RESEND
    assert not call.connected
    await settle()
    assert (pool.open_connections == 1) is case.reused
    if case.reused:
        again = LoggingSink()
        pool.send(HEAD, b"", again)
        assert len(loop.connects) == 1, "the connection was to be used again"
        transport.answer(WHOLE)
        assert again.heard == FULL
    await pool.aclose()


@pytest.mark.parametrize(
    "parts",
    [
        [b"3\r\nabc\r\n", b"7\r\nhello\r\n\r\n", b"1\r\nx\r\n", b"0\r\n\r\n"],
        [b"3\r\nabc\r\n1", b"5\r\nhello\r\n", b"x" * 14 + b"\r\n", b"0\r\n\r\n"],
        [b"3\r\nabc\r", b"\n5\r\nhello\r\n", b"0\r\n\r\n"],
        [b"3\r\nabc\r\n15", b"\r\nhello\r\n", b"x" * 14, b"\r\n0\r\n\r\n"],
        [b"3\r\nabc\r\n0", b"5\r\nhello\r\n", b"0\r\n", b"\r\n"],
        [b"3\r\nabc\r\n", b"5\r\nhello\r\n0", b"0\r\n\r\n"],
        [b"3\r\nabc\r\n", b"5;1\r\nhello\r\n", b"0\r\nA: b\r\n\r\n"],
        [b"3\r\nabc\r\n", b"5\r\n5\r\n\r\n\r\n", b"0\r\n\r\n"],
        [b"3\r\nabc\r\n5;", b"5\r\nhello\r\n", b"0\r\n\r\n"],
    ],
)
async def test_chunks_however_they_are_cut(parts: list[bytes]) -> None:
    """A piece that looks like a whole chunk is one only where a chunk may begin."""
    _, pool, transport, sink, _ = await rig()
    transport.answer(CHUNKED)
    for part in parts:
        transport.answer(part)
    _, _, other, expected, _ = await rig()
    other.answer(CHUNKED + b"".join(parts))
    assert (sink.body, sink.heard) == (expected.body, expected.heard)
    assert sink.last == "end"
    await pool.aclose()


@pytest.mark.parametrize(
    "piece",
    [b"5\r\nhelloXX", b"5\r\nhell\r\n", b"ffffff1\r\n\r\n", b"5\nhello\r\n", b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b" 5\r\nhello\r\n"],
)
async def test_pieces_that_are_no_chunk(piece: bytes) -> None:
    """What only resembles a chunk is judged by the strict parser."""
    _, pool, transport, sink, _ = await rig()
    transport.answer(CHUNKED + b"1\r\nx\r\n")
    transport.answer(piece)
    transport.answer(b"zzzzzzzzzzzz\r\n")
    assert sink.last == "failed" or (piece == b"ffffff1\r\n\r\n" and sink.last == "data")
    assert sink.body in (b"x", b"xhello", b"xhell\r", b"xhell\r\nzzz"[:6]) or piece == b"ffffff1\r\n\r\n"
    await pool.aclose()


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 2", WHOLE, WHOLE + WHOLE, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"\x00" * 100])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
async def test_garbage_behind_an_answer(junk: bytes, close: bytes) -> None:
    """An answer that was complete stands, what follows it reaches nobody, and the connection is closed."""
    loop, pool, transport, sink, _ = await rig()
    waiting = LoggingSink()
    pool.max_connections = 1
    pool.send(HEAD, b"", waiting)
    transport.answer(OK + close + b"Content-Length: 5\r\n\r\nhello" + junk)
    assert sink.heard == FULL and sink.body == b"hello"
    await settle()
    assert transport.lost and waiting.heard == []
    loop.connects[1].accept()
    await settle()
    assert pool.open_connections == 1
    await pool.aclose()


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    """A worker that speaks on an idle connection loses it, and the next call gets a new one."""
    loop, pool, transport, _, _ = await rig()
    transport.answer(WHOLE)
    transport.answer(b"HTTP/1.1 408 Too slow\r\n\r\n")
    assert transport.closing
    pool.send(HEAD, b"", LoggingSink())
    await settle()
    assert len(loop.connects) == 2
    await pool.aclose()


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytewise"])
async def test_an_answer_that_runs_to_the_end(step: int) -> None:
    """Without a length or chunks the answer ends with the connection."""
    _, _, transport, sink, _ = await rig()
    transport.answer(OK + b"\r\nhello", step)
    assert sink.heard == ["head", "data"] and sink.length is None
    transport.lose()
    assert sink.heard == FULL and sink.body == b"hello"


@pytest.mark.parametrize(
    ("wire", "heard"),
    [(b"", REFUSED), (OK, REFUSED), (OK + b"\r\nhello", CUT_LATE), (OK + b"Content-Length: 9\r\n\r\nhello", CUT_LATE), (CHUNKED, CUT)],
)
async def test_a_connection_that_is_reset(wire: bytes, heard: list[str]) -> None:
    """A reset is never an end, not even where the answer would run to it."""
    _, pool, transport, sink, _ = await rig()
    transport.answer(wire)
    transport.lose(ConnectionResetError())
    assert sink.heard == heard
    assert sink.error is not None and sink.error.code is Code.UPSTREAM_FAILED and sink.error.retry is Retry.RESEND
    assert pool.open_connections == 0


@pytest.mark.parametrize("wire", [OK + b"Content-Length: 9\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"5\r\nhello\r\n0\r\n"])
async def test_an_answer_that_ends_early(wire: bytes) -> None:
    """A close before the framing's end is a failure."""
    _, _, transport, sink, _ = await rig()
    transport.answer(wire)
    assert transport.protocol.eof_received() is False
    transport.lose()
    assert sink.heard == CUT_LATE


async def test_a_head_without_end() -> None:
    """A head of more than 256 KiB is refused, in one line or in many."""
    for line in (b"a: b\r\n", b"x"):
        _, pool, transport, sink, _ = await rig()
        transport.answer(OK + (b"long: " if line == b"x" else b""))
        sent = 0
        while not sink.heard:
            transport.answer(line * 1000)
            sent += 1000 * len(line)
            assert sent < MAX_HEAD_BYTES + 10_000
        assert sink.error is not None and sink.error.code is Code.UPSTREAM_PROTOCOL
        await pool.aclose()


async def test_interim_answers_without_end() -> None:
    """A worker that sends nothing but interim answers is refused."""
    _, _, transport, sink, _ = await rig()
    for _ in range(MAX_HEAD_BYTES // 1000 + 10):
        transport.answer(b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" * 40)
    assert sink.heard == REFUSED


@pytest.mark.parametrize("line", [b"a: b\r\n", b"x"])
async def test_trailers_without_end(line: bytes) -> None:
    """Trailers of more than 256 KiB are refused."""
    _, _, transport, sink, _ = await rig()
    transport.answer(CHUNKED + b"5\r\nhello\r\n0\r\n" + (b"long: " if line == b"x" else b""))
    for _ in range(MAX_HEAD_BYTES // (1000 * len(line)) + 10):
        transport.answer(line * 1000)
    assert sink.heard == CUT_LATE and sink.error is not None and sink.error.code is Code.UPSTREAM_PROTOCOL


async def test_trailers_do_not_change_the_head() -> None:
    """The list that a sink was given stays as it was."""
    _, _, transport, sink, _ = await rig()
    transport.answer(CHUNKED + b"5\r\nhello\r\n")
    headers = list(sink.headers)
    transport.answer(b"0\r\nEvil: 1\r\n\r\n")
    assert sink.headers == headers and sink.last == "end"


async def test_an_answer_before_the_request_was_written() -> None:
    """The answer counts, but the connection, which still has our bytes to send, is closed."""
    _, pool, transport, sink, _ = await rig(b"x" * (ONE_WRITE_BYTES + 1))
    assert len(transport.written) == len(HEAD) + ONE_WRITE_BYTES + 1
    transport.unsent_bytes = 1000
    transport.answer(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
    assert sink.status == 413 and sink.last == "end" and transport.closing
    await settle()
    assert pool.open_connections == 0


@pytest.mark.parametrize("when", ["head", "data"])
@pytest.mark.parametrize("how", ["cancel", "discard"])
async def test_stopping_within_a_callback(when: str, how: str) -> None:
    """A sink that cancels or discards in a callback hears nothing more, though the same piece holds the rest."""
    _, pool, transport, sink, call = await rig()
    sink.on_any = lambda what: getattr(call, how)() if what == when else None
    transport.answer(CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
    assert sink.heard == (["head"] if when == "head" else ["head", "data"])
    assert sink.body == (b"" if when == "head" else b"he")
    await settle()
    assert pool.open_connections == (1 if how == "discard" else 0)
    await pool.aclose()


async def test_cancel_closes_the_connection() -> None:
    """The worker notices a cancelled call; nothing is heard of it; cancelling again is harmless."""
    _, pool, transport, sink, call = await rig()
    call.cancel()
    call.cancel()
    assert transport.closing and not call.connected
    transport.answer(WHOLE)
    await settle()
    assert sink.heard == [] and pool.open_connections == 0


async def test_cancel_after_the_end_leaves_the_connection_alone() -> None:
    """A call that is over has no hold on a connection that may serve another."""
    _, pool, transport, _, call = await rig()
    transport.answer(WHOLE)
    other = LoggingSink()
    pool.send(HEAD, b"", other)
    call.cancel()
    call.discard()
    call.pause()
    assert not transport.paused
    transport.answer(WHOLE)
    assert other.heard == FULL
    await pool.aclose()


async def test_discard_reads_a_short_answer_to_its_end() -> None:
    """After a discarded answer has ended its connection serves the next call."""
    loop, pool, transport, sink, call = await rig()
    call.discard()
    transport.answer(WHOLE, 1)
    assert sink.heard == []
    pool.send(HEAD, b"", sink)
    assert len(loop.connects) == 1
    await pool.aclose()


@pytest.mark.parametrize(
    "wire",
    [
        OK + b"Content-Length: %d\r\n\r\n" % (MAX_DRAIN_BYTES + 1),
        OK + b"\r\n",
        CHUNKED + b"%x\r\n" % (MAX_DRAIN_BYTES + 100) + b"x" * (MAX_DRAIN_BYTES + 100),
    ],
    ids=["long", "to the end", "endless chunks"],
)
@pytest.mark.parametrize("early", [True, False], ids=["before the head", "after it"])
async def test_discard_closes_what_is_not_worth_reading(wire: bytes, early: bool) -> None:
    """A discarded answer that is long or of unknown end costs its connection."""
    _, pool, transport, sink, call = await rig()
    if early:
        call.discard()
        transport.answer(wire)
    else:
        transport.answer(wire[:60])
        call.discard()
        transport.answer(wire[60:])
    assert transport.closing
    await settle()
    assert pool.open_connections == 0 and "failed" not in sink.heard


async def test_discard_has_a_time_limit() -> None:
    """A discarded answer that does not come is not waited for."""
    loop, pool, transport, _, call = await rig()
    call.discard()
    pool.sweep(loop.now_s)
    assert not transport.closing
    pool.sweep(loop.now_s + 5)
    assert transport.closing
    await settle()
    assert pool.open_connections == 0


async def test_discard_resumes_reading() -> None:
    """A paused call that is discarded is read on."""
    _, pool, transport, _, call = await rig()
    call.pause()
    call.discard()
    assert not transport.paused
    await pool.aclose()


async def test_pause_and_resume() -> None:
    """A pause reaches the transport once; the end of an answer ends it."""
    _, pool, transport, sink, call = await rig()
    call.pause()
    call.pause()
    assert transport.paused and "paused" in repr(transport.protocol)
    call.resume()
    call.resume()
    assert not transport.paused
    call.pause()
    transport.answer(WHOLE)  # bytes that were on their way
    assert sink.heard == FULL and not transport.paused
    await pool.aclose()


async def test_pause_before_the_connection_is_there() -> None:
    """A call that was paused while it waited begins paused."""
    loop = FakeLoop()
    pool = HttpPool(Target("10.0.0.1", 8000), loop=cast(Any, loop))
    call = pool.send(HEAD, b"", LoggingSink())
    call.pause()
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    assert transport.paused
    await pool.aclose()


@pytest.mark.parametrize("when", ["head", "data"])
@pytest.mark.parametrize("parts", [[WHOLE], [WHOLE[:-2], WHOLE[-2:]], [CHUNKED, b"5\r\nhello\r\n", b"5\r\nhello\r\n"]])
async def test_a_sink_that_raises(parts: list[bytes], when: str) -> None:
    """A reader's own failure is reported as ours, ends the call once, and closes the connection."""
    loop, pool, transport, sink, _ = await rig()

    def fall(what: str) -> None:
        if what == when and (when == "head" or len(sink.body) == 10 or parts[0] != CHUNKED):
            raise LookupError("a mistake")

    sink.on_any = fall
    raised: list[BaseException] = []
    for part in parts:
        try:
            transport.answer(part)
        except LookupError as cause:  # what the loop would report
            raised.append(cause)
    raised += [context["exception"] for context in loop.errors]
    assert [type(cause) for cause in raised] == [LookupError]
    assert sink.heard == (["head", "failed"] if when == "head" else ["head", "data", "failed"])
    assert sink.error is not None and sink.error.code is Code.INTERNAL and sink.error.source is Source.GATEWAY
    assert transport.closing
    await pool.aclose()


async def test_repr_says_the_state() -> None:
    """The state of a connection can be read off it."""
    _, pool, transport, _, call = await rig()
    connection = transport.protocol
    assert repr(connection) == "<Connection waiting for an answer served=1>"
    transport.answer(CHUNKED)
    assert repr(connection) == "<Connection answering served=1>"
    call.discard()
    assert repr(connection) == "<Connection draining served=1>"
    transport.answer(b"0\r\n\r\n")
    assert repr(connection) == "<Connection idle served=1>"
    await pool.aclose()
    assert repr(connection) == "<Connection closed served=1>"
