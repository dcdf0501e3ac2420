"""Whatever a worker sends, and however it is cut, a call hears one well-formed story, always the same, and ends exactly once."""

from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import Code, ConfigError
from gateway.transports.connection import _simple_answer
from gateway.transports.http import HttpPool, Target
from gateway.transports.target import target_of
from tests.support.upstream import FakeLoop, LoggingSink, settle

HEAD_LINES = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 7", b"content-length: 5 ", b"Content-Length: -1",
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Connection: close",
        b"Connection: keep-alive", b"Upgrade: x", b"Connection: upgrade", b"X: y", b"X:", b" folded", b": z", b"X : y", b"\x00: \x00", b"",
    ]
)  # fmt: skip
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 No", b"HTTP/1.1 100 Go",
        b"HTTP/1.1 103 Early", b"HTTP/1.1 101 Up", b"HTTP/1.0 200 OK", b"HTTP/1.1 500 Oh", b"HTTP/1.1 000 X", b"HTTP/2.0 200 OK",
        b"HTTP/1.1 200",
    ]
)  # fmt: skip
BODIES = st.sampled_from(
    [
        b"",
        b"hello",
        b"hell",
        b"hello!!",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
        b"5\r\nhello\r\n",
        b"zz\r\n",
        b"0\r\n\r\n",
    ]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer as workers send it, or nearly so."""
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    lines = [draw(STATUS_LINES), *draw(st.lists(HEAD_LINES, max_size=3))]
    return end.join(lines) + end + end + draw(BODIES)


WIRES = st.lists(answers(), max_size=3).map(b"".join) | st.binary(max_size=40)


class Story(NamedTuple):
    """What one call heard, and what became of its connection."""

    heard: tuple[str, ...]
    status: int
    length: int | None
    body: bytes
    code: Code | None
    reused: bool


async def play(parts: list[bytes], reset: bool) -> Story:
    loop = FakeLoop()
    pool = HttpPool(Target("10.0.0.1", 1), loop=cast(Any, loop))
    sink = LoggingSink()
    call = pool.send(b"POST / HTTP/1.1\r\n\r\n", b"", sink)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    for part in parts:
        if part:
            transport.answer(part)
    await settle()
    reused = not transport.closing and sink.last == "end"
    assert ("idle=1" in repr(pool)) is reused
    if not transport.lost:
        transport.lose(ConnectionResetError() if reset else None)
    await settle()
    assert sink.last in ("end", "failed") and not call.connected and pool.open_connections == 0
    assert not loop.errors
    await pool.aclose()
    return Story(tuple(sink.heard), sink.status, sink.length, sink.body, sink.error.code if sink.error else None, reused)


def cut(wire: bytes, data: st.DataObject) -> list[bytes]:
    at = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    return [wire[a:b] for a, b in zip([0, *at], [*at, len(wire)], strict=True)]


@settings(max_examples=400, deadline=None)
@given(WIRES, st.booleans(), st.data())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello", False, None)
def test_any_answer_is_one_story(wire: bytes, reset: bool, data: Any) -> None:
    """Head, data, then end or failure, in this order, once; and a connection is used again only after a whole answer."""
    with asyncio.Runner() as runner:
        whole = runner.run(play([wire], reset))
        assert whole.heard in {("failed",), ("head", "failed"), ("head", "end"), ("head", "data", "end"), ("head", "data", "failed")}
        if whole.length is not None and whole.heard[-1] == "end":
            assert len(whole.body) == whole.length
        assert whole.status == 0 or whole.status >= 200
        bytewise = runner.run(play([wire[at : at + 1] for at in range(len(wire))], reset))
        pieces = runner.run(play(cut(wire, data), reset)) if data is not None else whole
    # Whether junk behind a whole answer is seen at once or as a surprise later, the connection is not used again; a lone line
    # end may be skipped by the parser in the same piece and be a surprise in another.
    for other in (bytewise, pieces):
        assert other[:-1] == whole[:-1]
        assert other.reused is whole.reused or wire.endswith((b"\n", b"\r"))


class Parsed:
    """What httptools makes of an answer."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = 0
        self.keeps_alive = False
        self._parser = parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


@settings(max_examples=1500)
@given(answers() | WIRES, st.data())
def test_the_quick_reading_of_an_answer_is_the_strict_one(wire: bytes, data: st.DataObject) -> None:
    """What is read without httptools, httptools reads as one whole answer with the same status, headers and body, kept alive."""
    at = data.draw(st.integers(0, len(wire)))
    for candidate in (wire, wire[:at] + data.draw(st.binary(max_size=2)) + wire[at:]):
        quick = _simple_answer(candidate)
        if quick is not None:
            strict = Parsed(candidate)
            assert quick == (strict.status, strict.headers, strict.body)
            assert strict.complete == 1 and strict.keeps_alive


SIZES = st.sampled_from([b"15", b"15", b"15", b"3", b"05", b"5;a"])
"""Mostly one whose second half is a size as well, of what the filling then has."""


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(SIZES, st.sampled_from([b"hello\r\n", b"hello\r\n", b"x", b"5\r\n"])), max_size=5), st.data())
def test_chunks_are_the_same_however_they_are_cut(chunks: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Pieces that end or begin anywhere in chunks, sizes and line ends give the same body."""
    body = b""
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size, filling in chunks:
        count = int(size.partition(b";")[0], 16)
        piece = (filling * count)[:count]
        body += piece
        wire += size + b"\r\n" + piece + b"\r\n"
    wire += b"0\r\n\r\n"
    with asyncio.Runner() as runner:
        ends = [found.end() for found in re.finditer(b"\r\n", wire)]
        near = sorted({end + offset for end in ends for offset in (-1, 0, 1) if data.draw(st.booleans())} & set(range(len(wire))))
        parts_near = [wire[a:b] for a, b in zip([0, *near], [*near, len(wire)], strict=True)]
        for parts in (cut(wire, data), parts_near, wire.replace(b"\r\n", b"\r\n\x00").split(b"\x00")):
            story = runner.run(play(parts, reset=False))
            assert story.body == body and story.heard[-1] == "end" and story.reused


URLS = st.text(max_size=30) | st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
    st.sampled_from(["a", "a.b", "[::1]", "10.0.0.1", "[fe80::1%25e0]", "u:p@a", "ü", "", "[", "a b", "a%", "x" * 64]),
    st.sampled_from(["", ":1", ":0", ":99999", ":x", ":"]),
    st.sampled_from(["", "/", "/p", "/p/", "/../x", "/ü", "?q", "#f", "/a b", "/%0d%0a", "/\r\nx: y"]),
)


@settings(max_examples=400, deadline=None)
@given(URLS)
def test_any_url_is_a_target_or_a_config_error(url: str) -> None:
    """A URL gives a target whose parts are safe to write into a request, or ConfigError and nothing else."""
    try:
        target = target_of(url, verify_tls=False)
    except ConfigError as error:
        assert "p@" not in str(error) or "u:p@a" not in url
        return
    assert target.host and 0 < target.port < 65536
    for written in (target.authority, target.prefix):
        assert all(0x21 <= byte <= 0x7E for byte in written)
    assert target.prefix == b"" or (target.prefix.startswith(b"/") and not target.prefix.endswith(b"/"))
    assert urlsplit(f"http://{target.authority.decode()}").hostname
