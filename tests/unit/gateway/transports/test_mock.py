"""The fake pool behaves towards a sink as the real one does."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Code, GatewayError, UpstreamError
from gateway.transports.http import Headers, HttpPool
from gateway.transports.mock import MockCall, MockPool

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: w\r\nX-Request-Id: a\r\n\r\n"


class Log:
    """A sink that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_head(self, status: int, headers: Headers, length: int | None) -> None:
        self.heard.append((status, length))

    def on_data(self, data: bytes) -> None:
        self.heard.append(data)

    def on_chunk(self, framed: bytes, data: bytes) -> None:
        self.heard.append((framed, data))

    def on_end(self) -> None:
        self.heard.append("end")

    def on_failed(self, error: UpstreamError) -> None:
        self.heard.append(error.code)


def test_it_is_a_pool() -> None:
    """Whatever takes an HttpPool takes a MockPool."""
    assert isinstance(MockPool(), HttpPool)


def test_a_call_tells_what_was_sent() -> None:
    """Method, path, headers and body of the request can be looked at."""
    pool = MockPool()
    call = pool.send(HEAD, b"{}", Log())
    assert (call.method, call.path, call.body) == ("POST", "/v1/chat/completions", b"{}")
    assert call.headers == {"host": "w", "x-request-id": "a"}
    assert pool.calls == [call] and repr(call) == "<MockCall POST /v1/chat/completions open>"


def test_a_whole_answer() -> None:
    """`answer` plays head, data and end, with the length."""
    pool, log = MockPool(), Log()
    call = pool.send(HEAD, b"", log)
    assert pool.open_connections == 1
    call.answer(200, b"{}")
    assert log.heard == [(200, 2), b"{}", "end"]
    assert pool.open_connections == 0


def test_a_stream_by_hand() -> None:
    """A stream can be played piece by piece and left open."""
    pool, log = MockPool(), Log()
    call = pool.send(HEAD, b"", log)
    call.stream(b"data: 1\n\n", end=False)
    call.data(b"data: 2\n\n")
    call.end()
    assert log.heard == [(200, None), b"data: 1\n\n", b"data: 2\n\n", "end"]


def test_whole_chunks() -> None:
    """`chunks` plays pieces with their framing, as a worker's whole chunks are told."""
    pool, log = MockPool(), Log()
    call = pool.send(HEAD, b"", log)
    call.stream(end=False)
    call.chunks(b"data: 1\n\n", b"x" * 16)
    assert log.heard == [(200, None), (b"9\r\ndata: 1\n\n\r\n", b"data: 1\n\n"), (b"10\r\n" + b"x" * 16 + b"\r\n", b"x" * 16)]
    assert call.played == [b"data: 1\n\n", b"x" * 16]


@pytest.mark.parametrize("stop", [MockCall.cancel, MockCall.discard, MockCall.end, MockCall.fail])
def test_nothing_follows_the_end(stop: object) -> None:
    """After cancel, discard, end or failure no callback comes."""
    pool, log = MockPool(), Log()
    call = pool.send(HEAD, b"", log)
    stop(call)  # type: ignore[operator]
    heard = list(log.heard)
    call.answer(200, b"{}")
    call.fail()
    assert log.heard == heard
    assert not pool.open_calls


def test_cancel_within_a_callback_silences_the_rest() -> None:
    """A sink that cancels at the head hears no data."""
    pool = MockPool()

    class Shy(Log):
        def on_head(self, status: int, headers: Headers, length: int | None) -> None:
            super().on_head(status, headers, length)
            pool.calls[0].cancel()

    log = Shy()
    pool.send(HEAD, b"", log)
    pool.calls[0].answer(200, b"{}")
    assert log.heard == [(200, 2)]
    assert pool.calls[0].cancelled and not pool.calls[0].over


def test_replies_are_played_after_send_returned() -> None:
    """A scripted reply never reaches a sink before `send` has returned."""
    pool, log = MockPool(), Log()
    pool.replies += [lambda call: call.answer(503), MockCall.refuse]
    pool.send(HEAD, b"", log)
    pool.send(HEAD, b"", log)
    assert log.heard == []
    pool.run()
    assert log.heard == [(503, 0), "end", Code.CONNECT_FAILED]


async def test_replies_play_themselves_on_a_loop() -> None:
    """With a loop the scripted replies come by themselves."""
    pool, log = MockPool(loop=asyncio.get_running_loop()), Log()
    pool.replies.append(lambda call: call.answer(200))
    pool.send(HEAD, b"", log)
    assert log.heard == []
    await asyncio.sleep(0)
    assert log.heard == [(200, 0), "end"]


async def test_closing() -> None:
    """A closed pool refuses calls; `aclose` fails those under way, exactly once."""
    pool, log = MockPool(), Log()
    call = pool.send(HEAD, b"", log)
    await pool.aclose()
    call.fail()
    assert log.heard == [Code.UPSTREAM_FAILED]
    with pytest.raises(GatewayError) as caught:
        pool.send(HEAD, b"", log)
    assert caught.value.code is Code.CONNECT_FAILED


def test_raises() -> None:
    """`raises` plays a pool that has no room."""
    pool = MockPool()
    pool.raises = UpstreamError(Code.OVERLOADED, "full")
    with pytest.raises(UpstreamError):
        pool.send(HEAD, b"", Log())
    assert pool.calls == []
