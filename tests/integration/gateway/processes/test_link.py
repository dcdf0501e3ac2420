"""Links over real sockets: calls, notices, and every way in which a peer can fail."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import Code, GatewayError, Retry
from gateway.processes import wire
from gateway.processes.link import Link
from gateway.processes.wire import Method

ECHO: Method[str, str] = Method("echo", str, str, 5.0)
NEVER: Method[None, None] = Method("never", None, None, 5.0)
FAIL: Method[None, None] = Method("fail", None, None, 5.0)
NUMBER: Method[int, int] = Method("number", int, int, 5.0)
SHOUT: Method[str, None] = Method("shout", str, None, 5.0)


def _pair(**settings: int) -> tuple[Link, Link]:
    left, right = socket.socketpair()
    return Link(left, "the right", **settings), Link(right, "the left", **settings)


@asynccontextmanager
async def _opened(left: Link, right: Link) -> AsyncIterator[None]:
    async with left, right:
        yield


async def _echo(text: str) -> str:
    return text


async def _code(call: object) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_both_ends_call_each_other_at_once() -> None:
    """Calls cross in both directions, and every answer finds its call."""
    left, right = _pair()
    left.answer(ECHO, _echo)
    right.answer(ECHO, _echo)
    async with _opened(left, right):
        calls = [link.call(ECHO, f"{link.peer} {number}") for number in range(50) for link in (left, right)]
        assert await asyncio.gather(*calls) == [f"{link.peer} {number}" for number in range(50) for link in (left, right)]


async def test_an_error_of_the_handler_reaches_the_caller_whole() -> None:
    """Code, message, retry rule and retry-after are those that the handler raised."""
    left, right = _pair()

    async def fail(_: None) -> None:
        raise GatewayError(Code.CONFLICT, "it exists", retry=Retry.NEVER, retry_after_s=3.0, param="url")

    right.answer(FAIL, fail)
    async with _opened(left, right):
        error = await _code(left.call(FAIL, None))
    assert (error.code, error.message, error.retry, error.retry_after_s, error.param) == (
        Code.CONFLICT,
        "it exists",
        Retry.NEVER,
        3.0,
        "url",
    )


async def test_a_bug_in_a_handler_is_an_internal_error_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets an answer at once; what happened stands in the log alone; the link lives on."""
    left, right = _pair()

    async def fail(_: None) -> None:
        raise ZeroDivisionError("secret detail")

    right.answer(FAIL, fail)
    right.answer(ECHO, _echo)
    async with _opened(left, right):
        error = await _code(left.call(FAIL, None))
        assert error.code is Code.INTERNAL
        assert "secret" not in error.message
        assert "secret detail" in caplog.text
        assert await left.call(ECHO, "still there") == "still there"


async def test_an_unknown_method_is_answered() -> None:
    """Nobody waits for an answer that cannot come."""
    left, right = _pair()
    async with _opened(left, right):
        assert "nobody answers `echo`" in (await _code(left.call(ECHO, "x"))).message


async def test_an_answer_of_another_type_is_an_error_of_the_call_alone() -> None:
    """A peer of another mind does not crash the caller."""
    left, right = _pair()
    right.answer(Method("number", int, str, 5.0), lambda number: _echo(str(number)))
    async with _opened(left, right):
        assert (await _code(left.call(NUMBER, 1))).code is Code.INTERNAL
        assert left.is_open


async def test_a_call_that_takes_too_long_fails_and_frees_its_place() -> None:
    """The caller's own limit counts; a late answer is dropped and the next call is not confused by it."""
    left, right = _pair(max_in_flight=1)
    released = asyncio.Event()

    async def late(text: str) -> str:
        await released.wait()
        return text

    right.answer(ECHO, late)
    async with _opened(left, right):
        error = await _code(left.call(ECHO, "first", timeout_s=0.02))
        assert (error.code, error.retry_after_s) == (Code.OVERLOADED, 1)
        assert "did not answer `echo` within 0.02 s" in error.message
        released.set()
        while "0 running" not in repr(right):
            await asyncio.sleep(0.001)
        assert await left.call(ECHO, "second") == "second"


async def test_the_handler_of_a_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    """A method's time limit holds on the answering end too, so that handlers cannot pile up."""
    left, right = _pair()
    cancelled = asyncio.Event()

    async def never(_: None) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    right.answer(Method("never", None, None, 0.02), never)
    async with _opened(left, right):
        assert "took too long" in (await _code(left.call(NEVER, None))).message
        assert cancelled.is_set()


async def test_more_calls_than_allowed_are_refused_at_once() -> None:
    """A leader that hangs does not collect calls without bound."""
    left, right = _pair(max_in_flight=3)
    right.answer(NEVER, lambda _: asyncio.Event().wait())
    async with _opened(left, right):
        waiting = [asyncio.ensure_future(left.call(NEVER, None)) for _ in range(3)]
        await asyncio.sleep(0)
        error = await _code(left.call(NEVER, None))
        assert (error.code, error.message) == (Code.OVERLOADED, "the right has 3 questions to answer already")
        left.close("enough")
        assert {type(outcome) for outcome in await asyncio.gather(*waiting, return_exceptions=True)} == {GatewayError}


async def test_a_peer_that_sends_more_calls_than_allowed_is_refused() -> None:
    """The answering end has a bound of its own and says so."""
    left_socket, right_socket = socket.socketpair()
    left, right = Link(left_socket, "the right", max_in_flight=100), Link(right_socket, "the left", max_in_flight=2)
    right.answer(NEVER, lambda _: asyncio.Event().wait())
    async with _opened(left, right):
        calls = [asyncio.ensure_future(left.call(NEVER, None)) for _ in range(3)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [str(call.exception()) for call in done] == ["too many questions at once"]
        left.close("enough")
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_peer_that_dies_in_the_middle_of_a_call_fails_the_call_at_once() -> None:
    """No caller waits for its time limit once the link is gone, and later calls fail without waiting at all."""
    left, right = _pair()
    called = asyncio.Event()

    async def never(_: None) -> None:
        called.set()
        await asyncio.Event().wait()

    right.answer(NEVER, never)
    async with _opened(left, right):
        calls = [asyncio.ensure_future(left.call(NEVER, None, timeout_s=600)) for _ in range(5)]
        await called.wait()
        right.close("it dies")
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [outcome.code for outcome in outcomes if isinstance(outcome, GatewayError)] == [Code.OVERLOADED] * 5
        assert await left.wait_closed() == "the right closed the link"
        assert (await _code(left.call(NEVER, None))).code is Code.OVERLOADED
        left.notify(SHOUT, "into the void")


async def test_a_peer_that_dies_in_the_middle_of_a_message_closes_the_link() -> None:
    """Half a frame followed by the end of the stream is an end, not an answer."""
    ours, theirs = socket.socketpair()
    async with Link(ours, "the right") as link:
        call = asyncio.ensure_future(link.call(ECHO, "x"))
        await asyncio.sleep(0)
        theirs.sendall(struct.pack("!I", 100) + b"half")
        theirs.close()
        assert (await _code(call)).code is Code.OVERLOADED


@pytest.mark.parametrize("data", [struct.pack("!I", wire.MAX_MESSAGE_BYTES + 1), struct.pack("!I", 3) + b"\xc1\xc1\xc1"])
async def test_a_peer_that_does_not_keep_to_the_format_is_cut_off(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A giant or malformed message closes the link with a reason, and every waiting call fails."""
    ours, theirs = socket.socketpair()
    with theirs:
        async with Link(ours, "the right") as link:
            call = asyncio.ensure_future(link.call(ECHO, "x"))
            await asyncio.sleep(0)
            theirs.sendall(data)
            assert (await _code(call)).code is Code.OVERLOADED
            assert "the right sent a m" in await link.wait_closed()
    assert "link to the right" in caplog.text


async def test_an_answer_too_large_to_send_is_an_error_of_its_call() -> None:
    """The caller hears why, the link stays open."""
    left, right = _pair()
    right.answer(ECHO, lambda text: _echo(text * wire.MAX_MESSAGE_BYTES))
    async with _opened(left, right):
        assert (await _code(left.call(ECHO, "xx"))).code is Code.PAYLOAD_TOO_LARGE
        assert await left.call(ECHO, "") == ""


async def test_large_messages_arrive_whole() -> None:
    """A message far above the socket's buffer takes its turns."""
    left, right = _pair()
    right.answer(ECHO, _echo)
    async with _opened(left, right):
        text = "x" * (8 << 20)
        assert await left.call(ECHO, text) == text


async def test_a_slow_peer_gets_the_newest_notice_and_costs_bounded_memory() -> None:
    """While the peer does not read, a notice replaces the one before; the first and the last arrive, in order."""
    ours, theirs = socket.socketpair()
    right = Link(theirs, "the left")
    heard: list[str] = []
    last = asyncio.Event()

    def hear(text: str) -> None:
        heard.append(text[:4])
        if text.startswith("0199"):
            last.set()

    right.hear(SHOUT, hear)
    async with Link(ours, "the right") as left:
        for number in range(200):
            left.notify(SHOUT, f"{number:04}" + "x" * 500_000)
            await asyncio.sleep(0)
        transport = left._transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 4 << 20
        async with right:
            async with asyncio.timeout(5):
                await last.wait()
    assert heard == sorted(heard)
    assert heard[0] == "0000"
    assert len(heard) < 10


async def test_calls_to_a_slow_peer_wait_and_time_out() -> None:
    """A peer that does not read makes calls fail in time, not grow a buffer."""
    ours, theirs = socket.socketpair()
    with theirs:
        async with Link(ours, "the right") as left:
            left.notify(SHOUT, "x" * (4 << 20))
            for _ in range(10):
                await _code(left.call(ECHO, "y" * 1_000_000, timeout_s=0.01))
            transport = left._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 5 << 20


async def test_a_listener_that_fails_is_logged_and_the_next_notice_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a listener does not cost the link."""
    left, right = _pair()
    heard = asyncio.Event()

    def hear(text: str) -> None:
        if text == "bad":
            raise ZeroDivisionError
        heard.set()

    right.hear(SHOUT, hear)
    async with _opened(left, right):
        left.notify(SHOUT, "bad")
        left.notify(SHOUT, "good")
        await heard.wait()
    assert "the notice `shout` failed" in caplog.text


async def test_leaving_a_link_cancels_its_handlers_and_keeps_the_error_of_the_body() -> None:
    """No task outlives its link, and an exception comes out unwrapped."""
    left, right = _pair()
    cancelled = asyncio.Event()

    async def never(_: None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    right.answer(NEVER, never)
    async with left:
        with pytest.raises(ValueError, match="of the body"):
            async with right:
                call = asyncio.ensure_future(left.call(NEVER, None))
                while "1 running" not in repr(right):
                    await asyncio.sleep(0.001)
                raise ValueError("of the body")
        assert cancelled.is_set()
        await _code(call)
