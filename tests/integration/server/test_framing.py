"""Attacks on HTTP framing over real sockets: each is answered or closed cleanly, and no worker sees anything of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import NamedTuple

import pytest

from tests.support.raw_gateway import ANSWER, RawGateway, raw_gateway

BODY = b'{"model":"m","messages":[]}'
SMUGGLED = b"POST /generate HTTP/1.1\r\nHost: evil\r\nContent-Length: 13\r\n\r\n" + b'{"model":"m"}'
TARGET = b"/v1/chat/completions"
QUICK = {"header_timeout_s": 0.6, "body_timeout_s": 0.6, "keep_alive_timeout_s": 30, "max_header_bytes": 8192, "max_body_bytes": 65536}


def post(*lines: bytes, body: bytes = BODY, target: bytes = TARGET, version: bytes = b"HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    """A request with these lines and no framing of its own."""
    return b"\r\n".join((b"POST " + target + b" " + version, *((host,) if host else ()), *lines, b"", b"")) + body


def sized(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


def chunk(body: bytes = BODY, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(body), extension, body)


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"


class Attack(NamedTuple):
    name: str
    wire: bytes
    status: int = 400


ATTACKS = [
    # two opinions on where the body ends
    Attack("CL.CL", post(sized(), b"Content-Length: 0")),
    Attack("CL.CL equal", post(sized(), sized())),
    Attack("CL list", post(b"Content-Length: 27, 27")),
    Attack("CL.TE", post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nG")),
    Attack("CL.TE of one mind", post(b"Content-Length: 5", CHUNKED, body=LAST)),
    Attack("TE.CL of one mind", post(CHUNKED, b"Content-Length: 5", body=LAST)),
    Attack("TE.CL", post(CHUNKED, b"Content-Length: 4", body=b"5c\r\n" + SMUGGLED)),
    Attack("CL in another case", post(sized(), b"CONTENT-LENGTH: 0")),
    # lengths that are none
    Attack("CL negative", post(b"Content-Length: -1")),
    Attack("CL signed", post(b"Content-Length: +27")),
    Attack("CL hexadecimal", post(b"Content-Length: 0x1b")),
    Attack("CL with a decimal point", post(b"Content-Length: 27.0")),
    Attack("CL with a space inside", post(b"Content-Length: 2 7")),
    Attack("CL empty", post(b"Content-Length:")),
    Attack("CL beyond 64 bits", post(b"Content-Length: 18446744073709551643")),
    Attack("CL with a tab before the colon", post(b"Content-Length\t: 27")),
    Attack("CL of letters that look like digits", post("Content-Length: \u0662\u0667".encode())),
    # codings in disguise
    Attack("TE xchunked", post(b"Transfer-Encoding: xchunked", body=LAST)),
    Attack("TE quoted", post(b'Transfer-Encoding: "chunked"', body=LAST)),
    Attack("TE space before the colon", post(b"Transfer-Encoding : chunked", body=LAST)),
    Attack("TE with a leading space in its line", post(b" Transfer-Encoding: chunked", body=LAST)),
    Attack("TE twice, the first a lie", post(b"Transfer-Encoding: x", CHUNKED, sized(), body=LAST)),
    Attack("TE chunked, identity", post(b"Transfer-Encoding: chunked, identity", body=LAST)),
    Attack("TE identity", post(b"Transfer-Encoding: identity", body=BODY)),
    Attack("TE with a vertical tab", post(b"Transfer-Encoding:\x0bchunked", body=LAST)),
    Attack("TE with a nul", post(b"Transfer-Encoding: chun\x00ked", body=LAST)),
    Attack("TE behind a fold", post(b"Transfer-Encoding:\r\n chunked", sized())),
    Attack("TE behind a bare cr", post(b"X: a\rTransfer-Encoding: chunked", sized())),
    Attack("TE behind a bare lf", post(b"X: a\nTransfer-Encoding: chunked", sized())),
    Attack("TE in HTTP/1.0 with a length", post(CHUNKED, sized(), version=b"HTTP/1.0", body=LAST)),
    # lines
    Attack("bare lf everywhere", post(sized()).replace(b"\r\n", b"\n")),
    Attack("bare cr everywhere", post(sized()).replace(b"\r\n", b"\r")),
    Attack("lf behind the request line", post(sized()).replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n")),
    Attack("a fold", post(b"X: a\r\n b", sized())),
    Attack("a fold at the start", b"POST %b HTTP/1.1\r\n Host: a\r\n%b\r\n\r\n" % (TARGET, sized()) + BODY),
    Attack("nul in a value", post(b"X: a\x00b", sized())),
    Attack("nul in a name", post(b"X\x00: a", sized())),
    Attack("a control in a value", post(b"X: a\x01b", sized())),
    Attack("a line without a colon", post(b"Transfer-Encoding chunked", sized())),
    Attack("an empty name", post(b": a", sized())),
    Attack("a bracket in a name", post(b"X[]: a", sized())),
    # the request line
    Attack("a space in the target", post(sized(), target=b"/a b")),
    Attack("a control in the target", post(sized(), target=b"/a\x01b")),
    Attack("high bytes in the target", post(sized(), target=b"/a\xff")),
    Attack("a fragment", post(sized(), target=TARGET + b"#a")),
    Attack("HTTP/1.2", post(sized(), version=b"HTTP/1.2")),
    Attack("HTTP/2.0", post(sized(), version=b"HTTP/2.0")),
    Attack("http in small letters", post(sized(), version=b"http/1.1")),
    Attack("no version", post(sized()).replace(b" HTTP/1.1", b"")),
    Attack("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64),
    Attack("a proxy protocol line", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + post(sized())),
    Attack("a method that is none", post(sized()).replace(b"POST", b"PO ST")),
    Attack("a tunnel", b"CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n" + SMUGGLED, 405),
    # hosts
    Attack("no host", post(sized(), host=b"")),
    Attack("two hosts", post(b"Host: b", sized())),
    # chunks
    Attack("a chunk size that is none", post(CHUNKED, body=b"zz\r\n")),
    Attack("a signed chunk size", post(CHUNKED, body=b"+1b\r\n" + BODY + b"\r\n" + LAST)),
    Attack("a chunk size with 0x", post(CHUNKED, body=b"0x1b\r\n" + BODY + b"\r\n" + LAST)),
    Attack("a chunk size beyond 64 bits", post(CHUNKED, body=b"1000000000000001b\r\n" + BODY + b"\r\n" + LAST)),
    Attack("a chunk size with a space before it", post(CHUNKED, body=b" 1b\r\n" + BODY + b"\r\n" + LAST)),
    Attack("a chunk longer than it says", post(CHUNKED, body=b"5\r\n" + BODY + b"\r\n" + LAST)),
    Attack("chunks ended by lf", post(CHUNKED, body=b"1b\n" + BODY + b"\n0\n\n")),
    Attack("a chunk ended by cr alone", post(CHUNKED, body=b"1b\r\n" + BODY + b"\rX" + LAST)),
    Attack("a bad trailer", post(CHUNKED, body=chunk() + b"0\r\nX : a\r\n\r\n")),
    Attack("a length among the trailers", post(CHUNKED, body=chunk() + b"0\r\nContent-Length: 3\r\n\r\n")),
    # sizes
    Attack("a giant header", post(b"X: " + b"a" * 20_000, sized()), 431),
    Attack("many headers", post(*[b"x-%d: a" % number for number in range(2000)], sized()), 431),
    Attack("a giant target", post(sized(), target=b"/" + b"a" * 20_000), 431),
    Attack("a giant name", post(b"x" * 20_000 + b": a", sized()), 431),
    Attack("a giant body by its length", post(b"Content-Length: 65537"), 413),
    Attack("a giant body by its chunks", post(CHUNKED, body=chunk(b"x" * 40_000) * 2 + LAST), 413),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
async def test_attacks_end_with_one_refusal(attack: Attack) -> None:
    """One 4xx, then the end, however the bytes come; what was smuggled behind is neither answered nor sent to a worker."""
    async with raw_gateway(server=QUICK) as gateway:
        half = len(attack.wire) // 2
        for pieces in ((attack.wire + SMUGGLED,), (attack.wire, SMUGGLED), (attack.wire[:half], attack.wire[half:], SMUGGLED)):
            found, closed = await gateway.send(*pieces, pause_s=0.01)
            assert [answer.status for answer in found] == [attack.status] and closed, (found, closed)
            (answer,) = found
            assert (
                answer.headers["connection"] == "close" and json.loads(answer.body)["error"]["code"] == answer.headers["x-smg-error-code"]
            )
        assert gateway.worker.requests == [] and gateway.worker.wrong == []
        assert gateway.worker.connections == 0, "not even a connection was opened"
        await _works(gateway)


async def _works(gateway: RawGateway) -> None:
    """The gateway still serves."""
    before = len(gateway.worker.requests)
    found, closed = await gateway.send(post(sized(), b"Connection: close"))
    assert [(answer.status, answer.body) for answer in found] == [(200, ANSWER)] and closed
    assert gateway.worker.requests[before:] == [(TARGET, BODY)] and gateway.worker.wrong == []


class Oddity(NamedTuple):
    name: str
    wire: bytes
    target: bytes = TARGET


ODDITIES = [
    Oddity("plain", post(sized())),
    Oddity("chunked", post(CHUNKED, body=chunk(BODY[:5]) + chunk(BODY[5:]) + LAST)),
    Oddity("chunked in capitals", post(b"TRANSFER-ENCODING: Chunked", body=chunk() + LAST)),
    Oddity("leading zeros of a chunk size", post(CHUNKED, body=b"0001b\r\n" + BODY + b"\r\n" + LAST)),
    Oddity("capitals in a chunk size", post(CHUNKED, body=b"1B\r\n" + BODY + b"\r\n" + LAST)),
    Oddity("chunk extensions", post(CHUNKED, body=chunk(extension=b';a=b;c="d e"') + b"0;x=y\r\n\r\n")),
    Oddity("trailers", post(CHUNKED, b"Trailer: X-Sum", body=chunk() + b"0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n")),
    Oddity("blank lines before", b"\r\n\r\n" + post(sized())),
    Oddity("blanks around values", post(b"Content-Length:   27  ", b"X-Request-Id:\tabc\t")),
    Oddity("no blank behind the colon", post(b"Content-Length:27")),
    Oddity("leading zeros of a length", post(b"Content-Length: 00027")),
    Oddity("high bytes in a value", post(b"Accept: caf\xe9", sized())),
    Oddity("an absolute target", post(sized(), target=b"http://evil:1" + TARGET)),
    Oddity("a query", post(sized(), target=TARGET + b"?a=b?c&d"), TARGET + b"?a=b?c&d"),
    Oddity("expect", post(sized(), b"Expect: 100-continue")),
    Oddity("an upgrade to h2c", post(sized(), b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMA")),
    Oddity("an upgrade to a websocket", post(sized(), b"Upgrade: websocket", b"Connection: upgrade", b"Sec-WebSocket-Key: x")),
    Oddity("te and trailer", post(sized(), b"TE: trailers, deflate", b"Trailer: x")),
    Oddity("connection names a header", post(sized(), b"Connection: host, content-length, keep-alive")),
    Oddity("framing lines that look alike", post(sized(), b"X-Content-Length: 5", b"Content_Length: 3", b"Transfer_Encoding: chunked")),
    Oddity("http/1.0", post(sized(), version=b"HTTP/1.0", host=b"")),
    Oddity("two spaces before the version", post(sized()).replace(b" HTTP", b"  HTTP")),
    Oddity("a large body", post(sized(BODY[:-1] + b" " * 60_000 + b"}"), body=BODY[:-1] + b" " * 60_000 + b"}")),
]  # fmt: skip


@pytest.mark.parametrize("oddity", ODDITIES, ids=[oddity.name for oddity in ODDITIES])
async def test_odd_requests_reach_the_worker_in_one_plain_form(oddity: Oddity) -> None:
    """What is right but odd is served, and the worker sees one length, one host and the body, whatever the client's form."""
    async with raw_gateway(server=QUICK) as gateway:
        for pieces in ((oddity.wire,), tuple(oddity.wire[at : at + 40] for at in range(0, min(len(oddity.wire), 4000), 40))):
            rest = oddity.wire[sum(map(len, pieces)) :]
            line = await gateway.connect()
            await line.send(*pieces, rest, pause_s=0.001)
            while (answer := await line.answer()).status == 100:
                pass
            await line.close()
            assert (answer.status, answer.body) == (200, ANSWER)
        await gateway.settled()
        body = oddity.wire[-60_027:] if "large" in oddity.name else BODY
        assert gateway.worker.requests == [(oddity.target, body)] * 2 and gateway.worker.wrong == []
        for head in gateway.worker.heads:
            assert b"evil" not in head and head.lower().count(b"\r\nhost: ") == 1


async def test_pipelined_requests() -> None:
    """Many requests in one write are answered in order, one at a time, with their own answers."""
    async with raw_gateway(server=QUICK) as gateway:
        bodies = [b'{"model":"m","n":%d}' % number for number in range(1, 30)]
        wire = b"".join(post(sized(body), body=body) for body in bodies) + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
        for pieces in ((wire,), tuple(wire[at : at + 700] for at in range(0, len(wire), 700))):
            gateway.worker.requests.clear()
            found, closed = await gateway.send(*pieces)
            assert [answer.status for answer in found] == [200] * 30 and not closed
            assert found[-1].body == b'{"status":"ok"}' and [body for _, body in gateway.worker.requests] == bodies
        assert gateway.worker.wrong == []


async def test_an_attack_behind_good_requests() -> None:
    """Good requests before it are answered; behind the last answer the connection ends."""
    async with raw_gateway(server=QUICK) as gateway:
        found, closed = await gateway.send(post(sized()) * 2 + ATTACKS[0].wire + SMUGGLED)
        assert [answer.status for answer in found][:2] == [200, 200] and closed
        assert len(gateway.worker.requests) == 2 and gateway.worker.wrong == []


@pytest.mark.parametrize("cut", [1, 30, len(post(sized())) - 1])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_leaves_while_it_sends(cut: int, reset: bool) -> None:
    """Half a request reaches nobody."""
    async with raw_gateway(server=QUICK) as gateway:
        line = await gateway.connect()
        await line.send(post(sized())[:cut], pause_s=0.02)
        if reset:
            line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert gateway.worker.connections == 0 and gateway.rt.cells.connections_active == 0
        await _works(gateway)


async def test_a_client_that_leaves_while_it_waits() -> None:
    """The worker's connection is closed, so that it stops working."""
    async with raw_gateway(server=QUICK) as gateway:
        gateway.worker.hold = asyncio.Event()
        line = await gateway.connect()
        await line.send(post(sized()))
        async with asyncio.timeout(5):
            while not gateway.worker.requests:
                await asyncio.sleep(0.01)
            await line.close()
            while not gateway.worker.cut:
                await asyncio.sleep(0.01)
        assert not gateway.driver.active
        gateway.worker.hold = None
        gateway.worker.requests.clear()
        await _works(gateway)


@pytest.mark.parametrize("sent", [b"P", post(sized())[:40], post(sized())[:-1], post(CHUNKED, body=b"1b\r\n" + BODY)])
async def test_a_client_that_dawdles(sent: bytes) -> None:
    """A head or a body that does not come is 408 and the end."""
    async with raw_gateway(server=QUICK) as gateway:
        line = await gateway.connect()
        await line.send(sent)
        answer = await line.answer()
        assert answer.status == 408 and answer.headers["connection"] == "close"
        assert await line.rest() == ([], True)
        await line.close()
        assert gateway.worker.connections == 0


async def test_a_client_that_drips() -> None:
    """A head that comes a byte at a time has its end, however steadily it drips."""
    async with raw_gateway(server=QUICK) as gateway:
        line = await gateway.connect()
        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(line.send(*[bytes([byte]) for byte in post(sized())], pause_s=0.05))
            answer = await line.answer()
            dripping.cancel()
        assert answer.status == 408
        await line.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nx: a\ncontent-length: 2\n\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"no http at all\r\n\r\n",
    ],
)  # fmt: skip
async def test_a_worker_that_attacks(answer: bytes) -> None:
    """A malformed answer is 502, and nothing of it reaches the client."""
    async with raw_gateway(server=QUICK, breaker={"enabled": False}) as gateway:
        gateway.worker.answer = answer
        found, closed = await gateway.send(post(sized()))
        assert [one.status for one in found] == [502] and not closed
        assert found[0].headers["x-smg-error-code"] == "upstream_protocol"


async def test_an_answer_that_nobody_asked_for() -> None:
    """What a worker sends behind its answer is no answer to the next request."""
    async with raw_gateway(server=QUICK) as gateway:
        good = gateway.worker.answer
        evil = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n" + b'{"evil": 1}'
        gateway.worker.answer = good + evil
        line = await gateway.connect()
        for _ in range(3):
            await line.send(post(sized()), pause_s=0.02)
            assert (await line.answer()).body == ANSWER
        await line.close()
        assert gateway.worker.connections == 3, "a connection with leftovers is not used again"
