"""A client's connection: the same requests however their bytes come, in order, within limits, and a close that can be read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.server.connection import _simple_request
from tests.support.client_line import ClientLine, ClientTransport
from tests.support.exchange import ANSWER, DONE, FINISH, Rig, chunk

CHAT = b"/v1/chat/completions"


def post(body: bytes = b"{}", *, path: bytes = CHAT, more: bytes = b"", version: bytes = b"1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return b"POST %b HTTP/%b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (path, version, host, len(body), more, body)


def chunked(*pieces: bytes, more: bytes = b"", last: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last
    return b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%b\r\n%b" % (CHAT, more, body)


def answers(wire: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in what a server wrote, all with a content-length."""
    found = []
    while wire:
        head, mark, rest = wire.partition(b"\r\n\r\n")
        assert mark, f"half a head: {wire!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
        status = int(first.split(" ")[1])
        length = int(headers.get("content-length", "0"))
        assert len(rest) >= length
        found.append((status, headers, rest[:length]))
        wire = rest[length:]
    return found


def statuses(line: ClientLine) -> list[int]:
    return [status for status, _, _ in answers(line.out)]


# -- the fast path and llhttp agree -----------------------------------------------------------------------------------


class Parsed:
    """What llhttp makes of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.messages = 0
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=False)
        parser.feed_data(data)
        self.method = parser.get_method()
        self.version = parser.get_http_version()
        self.keep_alive = parser.should_keep_alive()

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


TOKENS = st.sampled_from(
    [b"a", b"X-A", b"Content-Type", b"Accept", b"Keep-Alive", b"Connection", b"proxy-connection", b"Content-Length", b"Host", b"TE",
     b"x!#$%&'*+.^_`|~1", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Trailer", b"A ", b" A", b"", b"\xe9", b"A\x00", b"HOST",
     b"content-length", b"Content-length\t"]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"a", b"", b" a b ", b"\ta\t", b"keep-alive", b"Keep-Alive", b"close", b"keep-alive, close", b"2", b"2 ", b"+2", b"02", b"2,2",
     b"0x2",
     b"chunked", b"caf\xe9", b"a\x00b", b"a\x0bb", b"a\rb", b"a\nb", b"\x7f",
     b"100-continue", b"upgrade", b"a\r\n b", b"999999999", b"1" * 12]
)  # fmt: skip
TARGETS = st.sampled_from(
    [CHAT, CHAT, b"/", b"/a?b=c", b"/a#b", b"//", b"/%20", b"/a b", b"*", b"http://h/v1", b"/\xe9", b'/"<>\\^`{|}', b"/a\x7f", b""]
)
BODIES = st.sampled_from([b"{}", b"", b"{}x", b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", b"x" * 300])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are nearly right."""
    body = draw(BODIES)
    lines = [b"Host: a"] if draw(st.integers(0, 9)) else []
    lines += [name + b":" + value for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))]
    if draw(st.integers(0, 9)):
        lines.append(b"Content-Length: %d" % (len(body) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))))
    lines = draw(st.permutations(lines))
    method = draw(st.sampled_from([b"POST", b"POST", b"POST", b"POST", b"GET", b"post", b"POSTX"]))
    version = draw(
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "])
    )
    wire = method + b" " + draw(TARGETS) + b" " + version + draw(ENDS)
    for one in lines:
        wire += one + draw(ENDS)
    return wire + b"\r\n" + body


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Good requests with a byte changed, added or lost."""
    wire = draw(
        st.sampled_from([post(), post(b"x" * 30, more=b"X-A: b\r\nConnection: keep-alive\r\n"), post(path=b"/x?y"), chunked(b"{}")])
    )
    at = draw(st.integers(0, len(wire)))
    byte = draw(st.sampled_from([b"", b"\x00", b"\n", b"\r", b" ", b"\t", b":", b"\x7f", b"\xff", b"0", b"#", b"\x0b", b"\r\n"]))
    return wire[:at] + byte + wire[at + draw(st.integers(0, 1)) :]


@settings(max_examples=1500, deadline=None)
@given(st.one_of(requests(), damaged()))
@example(post(more=b"Proxy-Connection: close\r\n"))
@example(post(path=b"/a#b"))
@example(post(b"0\r\n\r\n", more=b"Transfer-Encoding: chunked\r\n"))
@example(post(more=b"Expect: 100-continue\r\n"))
@example(post(more=b"Upgrade: h2c\r\n"))
def test_whatever_the_fast_path_takes_llhttp_takes(wire: bytes) -> None:
    """A request that is read without the parser is one that the parser reads too, to the same method, target, lines and body."""
    found = _simple_request(wire, 1 << 16, 1 << 20)
    if found is None:
        return
    parsed = Parsed(wire)
    assert parsed.messages == parsed.complete == 1 and parsed.version == "1.1" and parsed.keep_alive
    assert (found.method, found.url, found.headers, found.body) == (parsed.method, parsed.url, parsed.headers, parsed.body)
    assert found.keep_alive and not found.http10


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(requests(), damaged()), min_size=1, max_size=3), st.lists(st.integers(0, 400), max_size=6))
@example([post(more=b"X-A: a b \t\r\nAuthorization:\tBearer x \r\n")], [70])
@example([post(more=b"Proxy-Connection: close\r\n"), post()], [])
@example([post(path=b"http://h" + CHAT), post(more=b"Upgrade: x\r\n"), post()], [])
def test_bytes_cut_anywhere_give_the_same_requests(wires: list[bytes], cuts: list[int]) -> None:
    """Whole, byte by byte or cut anywhere: the same requests reach the pipeline and ASGI, with the same answers."""
    wire = b"".join(wires)
    whole = ClientLine()
    whole.send(wire)
    for step in (1, 7):
        line = ClientLine()
        line.send(wire, step)
        assert (line.begun, line.asked, statuses(line), line.ended) == (whole.begun, whole.asked, statuses(whole), whole.ended)
    line = ClientLine()
    at = 0
    for end in [*sorted(set(cuts)), len(wire)]:
        if at < end <= len(wire):
            line.send(wire[at:end])
            at = end
    assert (line.begun, line.asked, statuses(line), line.ended) == (whole.begun, whole.asked, statuses(whole), whole.ended)


@pytest.mark.parametrize("step", [0, 1])
def test_the_usual_requests(step: int) -> None:
    """Bodies with a length, chunked, with a query, by an absolute target: each is one exchange with its bytes."""
    line = ClientLine()
    for wire in (
        post(b'{"a":1}'),
        chunked(b'{"a"', b":1}"),
        chunked(b'{"a":1}', more=b"Trailer: x\r\n", last=b"0\r\nX: y\r\n\r\n"),
        post(b'{"a":1}', path=CHAT + b"?x=1&y"),
        post(b'{"a":1}', path=b"http://other:80" + CHAT + b"?x=1&y"),
        post(b'{"a":1}', path=b"HTTPS://other" + CHAT),
        b"\r\n\r\n" + post(b'{"a":1}'),
    ):
        line.send(wire, step)
    assert [(path, query, body) for path, query, _, body in line.begun] == [
        ("/v1/chat/completions", query, b'{"a":1}') for query in (b"", b"", b"", b"?x=1&y", b"?x=1&y", b"", b"")
    ]
    assert statuses(line) == [200] * 7 and not line.ended and not line.asked


def test_other_paths_and_methods_are_asgis() -> None:
    """Whatever is no POST to an endpoint goes the other way, with an absolute target made an origin one."""
    line = ClientLine()
    for method, target in ((b"GET", b"/health"), (b"GET", CHAT), (b"POST", b"/v1/nothing?a"), (b"HEAD", CHAT), (b"GET", b"http://h?q")):
        line.send(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, target))
    assert [(method, url) for method, url, _, _ in line.asked][:4] == [
        (b"GET", b"/health"), (b"GET", CHAT), (b"POST", b"/v1/nothing?a"), (b"HEAD", CHAT),
    ]  # fmt: skip
    assert line.begun == []


# -- what is refused --------------------------------------------------------------------------------------------------

BAD = {
    "length and chunked, of one mind": post(b"0\r\n\r\n", more=b"Transfer-Encoding: chunked\r\n"),
    "length and chunked": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": post(more=b"Content-Length: 3\r\n"),
    "two equal lengths": post(more=b"Content-Length: 2\r\n"),
    "a list of lengths": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n{}",
    "a signed length": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
    "a hexadecimal length": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\n{}",
    "chunked not last": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": post(more=b"X: a\r\n b\r\n"),
    "a bare cr": post(more=b"X: a\rb\r\n"),
    "a bare lf": b"POST /generate HTTP/1.1\nHost: a\nContent-Length: 2\n\n{}",
    "a nul": post(more=b"X: a\x00b\r\n"),
    "a nul in the name": post(more=b"X\x00: a\r\n"),
    "http/2.0": post(version=b"2.0"),
    "no version": post().replace(b" HTTP/1.1", b""),
    "no host": post(host=b""),
    "two hosts": post(more=b"Host: b\r\n"),
    "a fragment": post(path=CHAT + b"?a#b"),
    "a bad chunk size": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a giant chunk size": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "chunks in bare lf": b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
def test_malformed_requests_are_refused(wire: bytes, step: int) -> None:
    """400 in a readable way, then the end; nothing of it reaches the pipeline, nor does what follows."""
    line = ClientLine()
    line.send(wire, step)
    line.connection.data_received(post())
    ((status, headers, body),) = answers(line.out)
    assert status == 400 and headers["connection"] == "close" and headers["x-request-id"].startswith("req-")
    assert json.loads(body)["error"]["code"] == "invalid_request" == headers["x-smg-error-code"]
    assert line.begun == line.asked == [] and line.transport.eof and not line.transport.is_closing()
    line.loop.now_s += 1.9
    line.listener.sweep(line.loop.now_s)
    assert not line.transport.aborted
    line.loop.now_s += 0.2
    line.listener.sweep(line.loop.now_s)
    assert line.transport.aborted


def test_a_malformed_request_behind_a_good_one() -> None:
    """The good one is answered; behind its answer there is only the close."""
    line = ClientLine(at_once=False)
    line.send(post() + BAD["two hosts"])
    assert len(line.begun) == 1 and line.out == b""
    line.driver.answer(line.driver.begun[0])
    assert statuses(line) == [200] and line.transport.closed and len(line.begun) == 1


@pytest.mark.parametrize("step", [0, 1, 50])
@pytest.mark.parametrize("complete", [True, False])
def test_a_large_head_is_refused(step: int, complete: bool) -> None:
    """A head above the limit is 431, whole in one piece, in small pieces, or without end."""
    line = ClientLine(max_header_bytes=1024)
    wire = post(more=b"X: " + b"a" * 1100 + b"\r\n") if complete else b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000
    if step == 0 and not complete:
        line.send(wire[:3000])
        line.send(wire[3000:])
        line.send(b"a")
    else:
        line.send(wire, step)
    assert statuses(line) == [431] and line.begun == [] and line.ended


def test_many_small_headers_are_refused() -> None:
    """The limit counts all lines together."""
    line = ClientLine(max_header_bytes=1024)
    line.send(post(more=b"".join(b"x-%d: a\r\n" % number for number in range(150))))
    assert statuses(line) == [431] and line.begun == []


def test_the_head_limit_counts_the_head_alone() -> None:
    """The body of one request and the head of the next may come in one piece."""
    line = ClientLine(max_header_bytes=1024)
    big = post(b"x" * 5000)
    second = post()
    line.send(big[:2000])
    line.send(big[2000:] + second[:20])
    line.send(second[20:])
    assert statuses(line) == [200, 200] and [len(body) for _, _, _, body in line.begun] == [5000, 2]
    line.send(post(b"x" * 5000, more=b"X: " + b"a" * 900 + b"\r\n"))
    assert statuses(line)[2] == 200


@pytest.mark.parametrize(
    "wire", [post(b"x" * 1025), chunked(*[b"x" * 100] * 11), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"]
)
@pytest.mark.parametrize("step", [0, 1])
def test_a_large_body_is_refused(wire: bytes, step: int) -> None:
    """A body above the limit is 413, by its length before it is read, chunked as soon as it is too large."""
    line = ClientLine(max_body_bytes=1024)
    line.send(wire, step)
    assert statuses(line) in ([413], [400]) and line.begun == [] and line.ended
    assert statuses(line) == [413] or b"9999" in wire


def test_a_body_of_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    line = ClientLine(max_body_bytes=1024)
    line.send(post(b"x" * 1024))
    line.send(chunked(b"x" * 512, b"x" * 512))
    assert statuses(line) == [200, 200]


# -- time -------------------------------------------------------------------------------------------------------------


def sweep(line: ClientLine, seconds: float) -> None:
    """Let time pass with a sweep every second."""
    until_s = line.loop.now_s + seconds
    while line.loop.now_s < until_s:
        line.loop.now_s = min(until_s, line.loop.now_s + 1)
        line.listener.sweep(line.loop.now_s)


def test_a_slow_head_is_cut_off() -> None:
    """The whole head has its time, however busily it drips."""
    line = ClientLine(header_timeout_s=10)
    for byte in post()[:9]:
        line.send(bytes([byte]))
        sweep(line, 1)
    assert line.out == b""
    line.send(b"x")
    sweep(line, 2.1)
    assert statuses(line) == [408] and line.ended and line.begun == []


def test_a_slow_body_is_cut_off() -> None:
    """A body may take as long as it likes while it comes, and no longer than its limit in silence."""
    line = ClientLine(body_timeout_s=10, header_timeout_s=1)
    wire = post(b"x" * 5)
    line.send(wire[:-5])
    for _ in range(4):
        sweep(line, 9)
        line.send(b"x")
    assert line.out == b""
    sweep(line, 11.1)
    assert statuses(line) == [408] and line.begun == []


def test_an_idle_connection_is_closed() -> None:
    """After its keep-alive time a connection is closed without a word; requests start the time anew; blank lines do not."""
    line = ClientLine(keep_alive_timeout_s=20)
    sweep(line, 15)
    line.send(post())
    sweep(line, 19)
    assert not line.ended
    line.send(b"\r\n")
    sweep(line, 3)
    assert line.transport.closed and statuses(line) == [200]
    never = ClientLine(keep_alive_timeout_s=20)
    sweep(never, 21.1)
    assert never.transport.closed and never.out == b""


def test_a_busy_connection_is_left_alone() -> None:
    """While a request is served no limit of the connection counts."""
    line = ClientLine(at_once=False, keep_alive_timeout_s=5, header_timeout_s=5, body_timeout_s=5)
    line.send(post())
    sweep(line, 1000)
    assert not line.ended
    line.driver.answer(line.driver.begun[0])
    sweep(line, 4)
    assert not line.ended


def test_a_closing_connection_is_not_waited_for_forever() -> None:
    """What a client does not read keeps its connection for the write timeout, no longer."""
    line = ClientLine(write_timeout_s=30)
    line.send(BAD["two hosts"])
    line.transport.unsent_bytes = 10
    sweep(line, 29)
    assert not line.transport.aborted
    sweep(line, 2)
    assert line.transport.aborted


# -- order ------------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_served_in_order() -> None:
    """One at a time, in order, hot and cold mixed; meanwhile nothing more is read."""
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2") + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" + post(b"3"))
    assert [body for _, _, _, body in line.begun] == [b"1"] and line.transport.paused
    for number in (1, 2, 3):
        line.driver.answer(line.driver.begun[-1], b"%d" % number)
        line.loop.advance()
    assert [body for _, _, body in answers(line.out)] == [b"1", b"2", b"asgi", b"3"]
    assert not line.transport.paused and not line.ended
    line.send(post(b"4"))
    assert line.begun[-1][3] == b"4"


async def test_nothing_overtakes_a_pipelined_request() -> None:
    """Also where an application that reads its body lets the connection be read on: answers come in the order of the requests."""

    async def echo(request: Any) -> PlainTextResponse:
        return PlainTextResponse((await request.body()).decode())

    line = ClientLine(app=Starlette(routes=[Route("/echo", echo, methods=["POST"])]))
    line.send(post(b"1", path=b"/echo") + post(b"2"))
    for _ in range(20):
        await asyncio.sleep(0)  # no timer of the connection runs
    assert line.out.endswith(b"1") and not line.transport.paused and not line.begun
    line.connection.data_received(post(b"3"))
    assert not line.begun
    line.loop.advance()
    assert [body for _, _, _, body in line.begun] == [b"2", b"3"]


def test_answers_that_nobody_reads_are_not_piled_up() -> None:
    """A client that pipelines and does not read is not read either, until it reads; after the write time limit it is cut off."""
    line = ClientLine(write_timeout_s=300)
    line.connection.pause_writing()
    line.send(post(b"1") + post(b"2") + post(b"3"))
    assert len(line.begun) == 1 and line.transport.paused
    line.connection.resume_writing()
    line.loop.advance()
    assert [body for _, _, _, body in line.begun] == [b"1", b"2", b"3"] and not line.transport.paused
    line.connection.pause_writing()
    line.send(post(b"4"))
    assert line.transport.paused
    line.loop.now_s += 299
    line.connection.overdue(line.loop.now_s)
    assert not line.ended
    line.connection.resume_writing()
    line.loop.advance()
    line.send(post(b"5"))
    assert len(line.begun) == 5 and not line.transport.paused
    line.connection.pause_writing()
    line.send(post(b"6"))
    line.loop.now_s += 301
    line.connection.overdue(line.loop.now_s)
    assert line.transport.aborted


def test_time_spent_in_the_queue_is_not_the_clients() -> None:
    """A request whose beginning came while another was served has its whole time from when it is read on."""
    line = ClientLine(at_once=False, header_timeout_s=15)
    line.send(post(b"1") + post(b"2")[:20])
    line.loop.now_s += 100
    line.driver.answer(line.driver.begun[0])
    line.connection.overdue(line.loop.now_s)
    assert not line.ended
    line.send(post(b"2")[20:])
    assert len(line.begun) == 2


def test_bodies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all bodies that are held fill the room for them, the next is told to come back; what is given back makes room."""
    monkeypatch.setattr("gateway.server.listener.BODIES_BYTES", 4096)
    line = ClientLine(at_once=False, max_body_bytes=2048)
    others = [ClientTransport() for _ in range(2)]
    first, second = [line.connect(transport) for transport in others]
    wire = post(b"x" * 2048)
    for one in (first, second):
        one.data_received(wire[:100])
        one.data_received(wire[100:-1])
    line.send(wire[:100])
    line.send(wire[100:])
    ((status, headers, body),) = answers(line.out)
    assert status == 503 and headers["retry-after"] == "1" and json.loads(body)["error"]["code"] == "overloaded" and line.ended
    second.connection_lost(None)
    line.listener.sweep(line.loop.now_s)
    third = line.connect(ClientTransport())
    third.data_received(wire[:100])
    third.data_received(wire[100:])
    first.data_received(wire[-1:])
    assert [len(body) for _, _, _, body in line.begun] == [2048, 2048]
    for x in tuple(line.driver.begun):
        line.driver.answer(x)
    assert line.listener.body_bytes == 0


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (post(path=b"/v1/messages", more=b"X: " + b"a" * 3000 + b"\r\n"), 431),
        (b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n", 413),
        (post(path=b"/v1/messages/batches", host=b""), 400),
    ],
)
def test_a_refusal_speaks_the_dialect_of_its_path(wire: bytes, status: int) -> None:
    """Anthropic's SDKs get their own shape also for what is refused before it was read."""
    line = ClientLine(max_header_bytes=2048, max_body_bytes=2048)
    line.send(wire)
    ((found, headers, body),) = answers(line.out)
    value = json.loads(body)
    assert found == status and value["type"] == "error" and value["request_id"] == headers["x-request-id"]


def test_no_content_has_no_length() -> None:
    """A 204 says nothing of a length (RFC 9110, 8.6), and the connection goes on."""
    line = ClientLine(at_once=False)
    line.send(post())
    (x,) = line.driver.begun
    x.client.respond(204, b"x-a: 1\r\n", b"")
    line.driver.end(x)
    assert line.out == b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"


def test_close_ends_the_pipeline() -> None:
    """A request that wants the connection closed is the last one; what comes behind it is not served."""
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2", more=b"Connection: close\r\n") + post(b"3"))
    line.driver.answer(line.driver.begun[0])
    line.loop.advance()
    assert not line.ended
    line.driver.answer(line.driver.begun[1])
    line.loop.advance()
    assert [body for _, _, _, body in line.begun] == [b"1", b"2"] and line.transport.closed
    (_, first, _), (_, second, _) = answers(line.out)
    assert "connection" not in first and second["connection"] == "close"


def test_an_unreadable_target_in_a_pipeline() -> None:
    """A target without a path is refused and ends the connection, also where requests wait behind it."""
    line = ClientLine(app=_unasked, at_once=False)
    line.send(post(b"1") + b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + post(b"2"))
    line.driver.answer(line.driver.begun[0])
    line.loop.advance()
    assert statuses(line) == [200, 400] and line.transport.eof and len(line.begun) == 1


async def _unasked(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not asked for")


@pytest.mark.parametrize("step", [0, 1])
def test_http_10(step: int) -> None:
    """An HTTP/1.0 request needs no host, gets no chunks, and its connection closes."""
    line = ClientLine(at_once=False)
    line.send(post(version=b"1.0", host=b"", more=b"Connection: keep-alive\r\n"), step)
    client = line.driver.begun[0].client
    client.start(200, b"", None)
    client.write(b"abc")
    client.finish()
    line.driver.end(line.driver.begun[0])
    assert line.out == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc" and line.transport.closed


def test_expect_100_continue() -> None:
    """A client that waits for a go-ahead gets it, unless its request is refused or is of HTTP/1.0."""
    line = ClientLine()
    wire = post(b"{}", more=b"Expect: 100-continue\r\n")
    line.send(wire[:-2])
    assert line.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.send(wire[-2:])
    assert line.out.endswith(b"ok") and line.begun[0][3] == b"{}"
    for bad in (
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ):
        line = ClientLine()
        line.send(bad)
        assert line.out.startswith(b"HTTP/1.1 4") and b" 100 " not in line.out
    line = ClientLine()
    line.send(post(version=b"1.0", more=b"Expect: 100-continue\r\n"))
    assert b" 100 " not in line.out


@pytest.mark.parametrize("step", [0, 1, 9])
@pytest.mark.parametrize("body", ["length", "chunked", "none"])
def test_upgrades_are_ignored(body: str, step: int) -> None:
    """A request that offers another protocol is served as it is, body and all, and is the last one of its connection."""
    more = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\nX-A: 1\r\n"
    wire = {
        "length": post(b'{"a":1}', more=more),
        "chunked": chunked(b'{"a"', b":1}", more=more),
        "none": b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (CHAT, more),
    }[body]
    line = ClientLine(at_once=False)
    line.send(wire, step)
    ((_, _, headers, content),) = line.begun
    assert content == (b"" if body == "none" else b'{"a":1}')
    assert (b"x-a", b"1") in headers and (b"host", b"a") in headers and not any(name == b"upgrade" for name, _ in headers)
    line.connection.data_received(post(b"next"))
    line.driver.answer(line.driver.begun[0])
    ((status, told, _),) = answers(line.out)
    assert status == 200 and told["connection"] == "close" and line.transport.closed and len(line.begun) == 1


def test_an_upgrade_is_held_to_the_same_rules() -> None:
    """Limits, hosts and order count for it as for any other; a tunnel is refused."""
    more = b"Upgrade: h2c\r\nConnection: Upgrade\r\n"
    line = ClientLine(max_body_bytes=1024)
    line.send(post(b"x" * 2000, more=more))
    assert statuses(line) == [413] and line.begun == []
    line = ClientLine()
    line.send(post(host=b"", more=more))
    assert statuses(line) == [400] and line.begun == []
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2", more=more) + post(b"3"))
    line.driver.answer(line.driver.begun[0])
    line.loop.advance()
    line.driver.answer(line.driver.begun[1])
    assert [body for _, _, _, body in line.begun] == [b"1", b"2"] and line.transport.closed
    line = ClientLine()
    line.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert statuses(line) == [405] and line.asked == [] and line.ended
    line = ClientLine()
    line.send(post(more=more + b"Expect: 100-continue\r\n")[:-2])
    assert line.out.count(b" 100 Continue") == 1


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_whole_pipeline_behind_a_connection() -> None:
    """Request and answer bytes, whole and streamed, through the real driver."""
    with Rig() as rig:
        line = ClientLine(loop=rig.loop, driver=rig.driver)
        body = b'{"model":"m","messages":[]}'
        line.send(post(body, more=b"X-Request-Id: abc\r\n"))
        rig.call.answer(200, ANSWER)
        assert line.out == (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: abc\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
        )
        line.transport.written.clear()
        line.send(post(b'{"model":"m","messages":[],"stream":true}', more=b"X-Request-Id: abc\r\n"))
        rig.call.head_of(200, [(b"content-type", b"text/event-stream")])
        rig.call.chunks(chunk("a"), chunk("b"), FINISH)
        rig.call.data(DONE)
        rig.call.end()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: abc\r\ntransfer-encoding: chunked\r\n\r\n"
        framed = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (chunk("a"), chunk("b"), FINISH, DONE))
        assert line.out == head + framed + b"0\r\n\r\n" and not line.ended
        line.transport.written.clear()
        line.send(post(b"{"))
        assert statuses(line) == [400] and not line.ended, "a bad body is no bad framing"
        line.send(post(body))
        assert len(rig.calls) == 1
        line.connection.connection_lost(None)
        rig.check_idle()


def test_a_broken_stream_ends_its_chunks() -> None:
    """Behind the error event the chunks end rightly, and the next request is served."""
    with Rig() as rig:
        line = ClientLine(loop=rig.loop, driver=rig.driver)
        line.send(post(b'{"model":"m","messages":[],"stream":true}'))
        rig.call.stream(chunk("a"), end=False)
        rig.call.fail()
        assert line.out.endswith(b"\r\n0\r\n\r\n") and b"stream_broken" in line.out and not line.ended
        rig.check_idle()


def test_large_pieces_keep_their_framing() -> None:
    """Large bodies and pieces are written beside their framing."""
    line = ClientLine(at_once=False)
    line.send(post())
    line.driver.answer(line.driver.begun[0], b"x" * 100_000)
    assert answers(line.out)[0][2] == b"x" * 100_000
    line.transport.written.clear()
    line.send(post())
    client = line.driver.begun[1].client
    client.start(200, b"", None)
    client.write(b"")
    client.write(b"y" * 20_000)
    client.chunk_writer()(b"1\r\nz\r\n")
    client.finish()
    line.driver.end(line.driver.begun[1])
    assert line.out.partition(b"\r\n\r\n")[2] == b"4e20\r\n" + b"y" * 20_000 + b"\r\n1\r\nz\r\n0\r\n\r\n"
    line.transport.written.clear()
    line.send(post())
    client = line.driver.begun[2].client
    client.start(200, b"", 3)
    assert client.chunk_writer() is None, "an answer of known length has no chunks"
    client.write(b"abc")
    client.finish()
    line.driver.end(line.driver.begun[2])
    assert line.out.endswith(b"content-length: 3\r\n\r\nabc")


def test_an_unknown_status_has_a_line_too() -> None:
    """A status beyond the known ones is sent as it came."""
    line = ClientLine(at_once=False)
    line.send(post())
    line.driver.begun[0].client.respond(799, b"", b"")
    assert line.out.startswith(b"HTTP/1.1 799 \r\n")


def test_back_pressure_reaches_the_driver() -> None:
    """A client that stops reading pauses its exchange, also one that begins while it does not read."""
    line = ClientLine(at_once=False)
    line.connection.pause_writing()
    line.send(post())
    (x,) = line.driver.begun
    assert line.driver.paused == [x]
    line.connection.resume_writing()
    assert line.driver.resumed == [x]
    line.connection.pause_writing()
    assert line.driver.paused == [x, x]
    line.driver.answer(x)
    line.connection.resume_writing()
    assert line.driver.resumed == [x]


@pytest.mark.parametrize("exc", [None, ConnectionResetError()])
def test_a_client_that_leaves(exc: Exception | None) -> None:
    """Its exchange hears it once; what it pipelined is dropped."""
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2"))
    line.transport.closed = True
    line.connection.connection_lost(exc)
    line.loop.advance()
    assert line.driver.gone == line.driver.begun and len(line.begun) == 1
    assert line.cells.connections_active == 0 and not line.listener.server_state.connections


def test_an_abort_cuts_the_connection() -> None:
    """`abort` ends the connection at once; what is pipelined is not served."""
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2"))
    (x,) = line.driver.begun
    x.client.abort()
    line.driver.end(x)
    line.loop.advance()
    assert line.transport.aborted and len(line.begun) == 1


def test_a_mistake_of_ours_is_not_the_clients() -> None:
    """An exception in the pipeline is not taken for bad framing: it reaches the loop, which closes the connection."""
    for step in (0, 1):
        line = ClientLine()

        def fails(x: Any) -> None:
            raise RuntimeError("a mistake")

        line.driver.begin = fails  # type: ignore[method-assign]
        with pytest.raises((RuntimeError, httptools.HttpParserCallbackError)):
            line.send(post(), step)
        assert line.cells.framing_errors == 0 and line.out == b""


# -- many and few connections -----------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_closed() -> None:
    """The one too many is aborted without an answer, and counted no longer once it is gone."""
    line = ClientLine(max_connections=1)
    second = ClientTransport()
    connection = line.connect(second)
    assert second.aborted
    connection.data_received(post())
    connection.connection_lost(None)
    assert line.begun == [] and line.cells.connections_active == 1 and line.cells.connections_total == 2
    line.send(post())
    assert statuses(line) == [200]


def test_a_drain() -> None:
    """Idle connections close at once, busy ones behind their answer, and those that read a request behind its answer too."""
    idle, busy, reading = ClientLine(), ClientLine(at_once=False), ClientLine()
    busy.send(post())
    reading.send(post()[:20])
    for line in (idle, busy, reading):
        line.listener.closing = True
        line.connection.shutdown()
    assert idle.transport.closed and not busy.ended and not reading.ended
    busy.driver.answer(busy.driver.begun[0])
    reading.send(post()[20:])
    for line in (busy, reading):
        ((status, headers, _),) = answers(line.out)
        assert status == 200 and headers["connection"] == "close" and line.transport.closed


def test_a_drain_serves_what_was_pipelined() -> None:
    """Requests that were read before the drain are answered, the last answer says close."""
    line = ClientLine(at_once=False)
    line.send(post(b"1") + post(b"2"))
    line.listener.closing = True
    line.connection.shutdown()
    line.driver.answer(line.driver.begun[0])
    line.loop.advance()
    line.driver.answer(line.driver.begun[1])
    assert [headers.get("connection") for _, headers, _ in answers(line.out)] == [None, "close"] and line.transport.closed


def test_tls_connections_close_without_half_closing() -> None:
    """TLS has no half-close: a refused connection is closed."""
    line = ClientLine(tls=True)
    line.send(BAD["two hosts"])
    assert statuses(line) == [400] and line.transport.closed


def test_it_says_where_it_stands() -> None:
    """`repr` tells the state."""
    line = ClientLine(at_once=False)
    assert "[idle, 0 waiting]" in repr(line.connection)
    line.send(post()[:9])
    assert "[reading," in repr(line.connection)
    line.send(post()[9:] + post())
    assert "[serving, 1 waiting]" in repr(line.connection)


# -- ASGI -------------------------------------------------------------------------------------------------------------


async def test_the_asgi_side() -> None:
    """Other routes run as ASGI: method, path, query, headers and body arrive, answers go out in order."""

    async def echo(request: Any) -> PlainTextResponse:
        body = await request.body()
        return PlainTextResponse(f"{request.method} {request.url.path} {request.url.query} {request.headers['x-a']} {body.decode()}")

    app = Starlette(routes=[Route("/echo/{rest:path}", echo, methods=["GET", "POST", "PUT"])])
    line = ClientLine(app=app)
    wire = b"PUT http://h/echo/%20x?a=b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 3\r\n\r\nabc"
    line.send(wire + post() + wire)
    for _ in range(50):
        await asyncio.sleep(0)
        line.loop.advance()
    assert [body for _, _, body in answers(line.out)] == [b"PUT /echo/ x a=b 1 abc", b"ok", b"PUT /echo/ x a=b 1 abc"]
    line.send(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    for _ in range(50):
        await asyncio.sleep(0)
    status, headers, _ = answers(line.out)[-1]
    assert status == 404 and headers["connection"] == "close" and line.transport.closed
