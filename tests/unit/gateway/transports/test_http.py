"""The pool gives each call a connection, in order and within its bounds, and tells every call exactly once how it ended."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, cast

import pytest

from gateway.errors import Code, Retry, UpstreamError
from gateway.transports.connection import STALE_S
from gateway.transports.http import HttpPool, Target
from tests.support.upstream import FakeLoop, LoggingSink, settle

HEAD = b"POST /v1 HTTP/1.1\r\nhost: w\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
FULL = ["head", "data", "end"]


def new_pool(host: str = "10.0.0.1", **settings: Any) -> tuple[FakeLoop, HttpPool]:
    loop = FakeLoop()
    return loop, HttpPool(Target(host, 8000), loop=cast(Any, loop), **settings)


def send(pool: HttpPool, body: bytes = b"") -> LoggingSink:
    sink = LoggingSink()
    pool.send(HEAD, body, sink)
    return sink


async def test_each_call_gets_a_connection_of_its_own() -> None:
    """Three calls at once open three connections, and repr says so."""
    loop, pool = new_pool()
    sinks = [send(pool) for _ in range(3)]
    await settle()
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=0 idle=0 connecting=3 waiting=3>"
    transports = [connect.accept() for connect in loop.connects]
    await settle()
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=3 idle=0 connecting=0 waiting=0>"
    for transport in transports:
        transport.answer(WHOLE)
    assert all(sink.heard == FULL for sink in sinks)
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=3 idle=3 connecting=0 waiting=0>"
    await pool.aclose()
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=0 idle=0 connecting=0 waiting=0 closed>"


async def test_the_youngest_idle_connection_is_used() -> None:
    """Of idle connections the last one used serves next, so that the others can go."""
    loop, pool = new_pool()
    send(pool), send(pool)
    await settle()
    first, second = (connect.accept() for connect in loop.connects)
    await settle()
    second.answer(WHOLE)
    first.answer(WHOLE)
    send(pool)
    assert first.protocol.served == 2 and second.protocol.served == 1
    await pool.aclose()


async def test_the_oldest_call_is_served_first() -> None:
    """Calls beyond the connections wait in order; a connection that is free takes the oldest."""
    loop, pool = new_pool(max_connections=1)
    sinks = [send(pool, b"%d" % at) for at in range(3)]
    await settle()
    assert len(loop.connects) == 1
    transport = loop.connects[0].accept()
    await settle()
    for at in range(3):
        assert bytes(transport.written) == HEAD + b"%d" % at
        transport.written.clear()
        transport.answer(WHOLE)
        assert sinks[at].heard == FULL
    await pool.aclose()


async def test_a_call_sent_at_the_end_of_another_uses_its_connection() -> None:
    """`on_end` may send; the connection is free by then."""
    loop, pool = new_pool(max_connections=1)
    first, second = LoggingSink(), LoggingSink()
    first.on_any = lambda what: what == "end" and pool.send(HEAD, b"", second) and None
    pool.send(HEAD, b"", first)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    transport.answer(WHOLE)
    transport.answer(WHOLE)
    assert second.heard == FULL and len(loop.connects) == 1
    await pool.aclose()


async def test_a_call_that_waits_can_leave() -> None:
    """A cancelled call is not served, whoever waits behind it is."""
    loop, pool = new_pool(max_connections=1)
    send(pool)
    gone = LoggingSink()
    call = pool.send(HEAD, b"gone", gone)
    last = send(pool, b"last")
    call.cancel()
    call.cancel()
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    transport.answer(WHOLE)
    transport.answer(WHOLE)
    assert b"gone" not in transport.written and gone.heard == [] and last.heard == FULL
    await pool.aclose()


@pytest.mark.parametrize(("max_waiting", "room"), [(0, 2), (1, 3), (5, 7)])
async def test_the_waiting_queue_is_bounded(max_waiting: int, room: int) -> None:
    """Beyond the connections `max_waiting` calls wait; one more is refused at once and may go to another worker."""
    loop, pool = new_pool(max_connections=2, max_waiting=max_waiting)
    for _ in range(room):
        send(pool)
    sink = LoggingSink()
    for _ in range(2):
        with pytest.raises(UpstreamError) as caught:
            pool.send(HEAD, b"", sink)
        assert caught.value.code is Code.OVERLOADED and caught.value.retry is Retry.SAFE
        await settle()
        for connect in loop.connects:
            if not connect.outcome.done():
                connect.accept()
        await settle()
    assert sink.heard == []
    await pool.aclose()


async def test_a_failed_connect_is_told_to_one_call() -> None:
    """Each refused connect ends exactly one call, the oldest, while the others wait for theirs."""
    loop, pool = new_pool()
    sinks = [send(pool) for _ in range(3)]
    await settle()
    loop.connects[1].refuse(ConnectionRefusedError())
    await settle()
    assert [sink.last for sink in sinks] == ["failed", "", ""]
    error = sinks[0].error
    assert error is not None and error.code is Code.CONNECT_FAILED and error.retry is Retry.SAFE
    loop.connects[0].accept()
    loop.connects[2].refuse(ConnectionRefusedError())
    await settle()
    assert [sink.last for sink in sinks] == ["failed", "", "failed"]
    assert len(loop.connects) == 3 and pool.open_connections == 1
    await pool.aclose()
    assert all(sink.heard == ["failed"] for sink in sinks)


async def test_a_failed_connect_that_nobody_waits_for_is_told_to_nobody() -> None:
    """Where a free connection took the call meanwhile, its own connect may fail unheard."""
    loop, pool = new_pool()
    first = send(pool)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    second = send(pool)
    await settle()
    transport.answer(WHOLE)  # and takes the second call
    loop.connects[1].refuse(ConnectionRefusedError())
    await settle()
    transport.answer(WHOLE)
    assert first.heard == second.heard == FULL
    await pool.aclose()


async def test_a_worker_that_refuses_fails_every_waiting_call() -> None:
    """With one connection allowed and five calls waiting, five refused connects end five calls."""
    loop, pool = new_pool(max_connections=1)
    sinks = [send(pool) for _ in range(5)]
    for at in range(5):
        await settle()
        loop.connects[at].refuse(ConnectionRefusedError())
    await settle()
    assert [sink.heard for sink in sinks] == [["failed"]] * 5 and len(loop.connects) == 5
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=0 idle=0 connecting=0 waiting=0>"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(), "refuses"),
        (OSError("no route"), "refuses"),
        (TimeoutError(), "too long"),
        (ssl.SSLCertVerificationError("bad"), "certificate"),
        (socket.gaierror(-2, "unknown"), "resolved"),
        (UnicodeError("label too long"), "refuses"),
    ],
)
async def test_how_a_connect_fails(cause: Exception, words: str) -> None:
    """Every way in which connecting fails is a `connect_failed` that says which."""
    loop, pool = new_pool()
    sink = send(pool)
    await settle()
    loop.connects[0].refuse(cause)
    await settle()
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED and words in sink.error.message


async def test_a_connection_lost_at_once_is_a_failed_connect() -> None:
    """A worker that accepts and hangs up before anything was written has processed nothing."""
    loop, pool = new_pool()
    sink = send(pool)
    await settle()
    loop.connects[0].accept().lose()
    await settle()
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED and sink.error.retry is Retry.SAFE
    assert pool.open_connections == 0


async def test_a_connect_has_a_time_limit() -> None:
    """A worker that does not accept is given up after `connect_s`."""
    loop, pool = new_pool(connect_s=0.01)
    sink = send(pool)
    await sink.wait()
    assert sink.error is not None and sink.error.message == "connecting to the worker took too long"
    assert len(loop.connects) == 1


async def test_every_address_is_tried_within_its_share_of_the_time() -> None:
    """A name with a dead address first is reached at the next one; equal addresses are tried once."""
    loop, pool = new_pool("worker.example", connect_s=0.03)
    loop.addresses = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "fe80::1%eth0"]
    sink = send(pool)
    while len(loop.connects) < 2:
        await asyncio.sleep(0.001)
    loop.connects[1].refuse(ConnectionRefusedError())
    await settle()
    transport = loop.connects[2].accept()
    await settle()
    transport.answer(WHOLE)
    assert [connect.host for connect in loop.connects] == ["10.0.0.1", "10.0.0.2", "fe80::1%eth0"]
    assert sink.heard == FULL
    await pool.aclose()


async def test_no_address() -> None:
    """A name without addresses is a failed connect."""
    _, pool = new_pool("worker.example")
    sink = send(pool)
    await settle()
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED


async def test_tls_is_asked_for_the_workers_name() -> None:
    """The certificate is checked against the URL's host, not against the address that the name has."""
    context = ssl.create_default_context()
    loop = FakeLoop()
    loop.addresses = ["10.0.0.7"]
    for target, name in [
        (Target("w.example", 443, context), "w.example"),
        (Target("10.0.0.7", 443, context), "10.0.0.7"),
        (Target("10.0.0.7", 443, context, "w.example"), "w.example"),
        (Target("w.example", 80), None),
    ]:
        loop.connects.clear()
        pool = HttpPool(target, loop=cast(Any, loop))
        send(pool)
        await settle()
        assert loop.connects[0].host == "10.0.0.7"
        assert loop.connects[0].options == {"ssl": target.tls, "server_hostname": name}
        await pool.aclose()


# -- the keep-alive race ----------------------------------------------------------------------------------------------


async def used(**settings: Any) -> tuple[FakeLoop, HttpPool, Any]:
    """A pool with one connection that has served a call."""
    loop, pool = new_pool(**settings)
    send(pool)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    transport.answer(WHOLE)
    return loop, pool, transport


@pytest.mark.parametrize("cause", [None, ConnectionResetError()])
async def test_a_call_on_a_stale_connection_moves(cause: Exception | None) -> None:
    """A reused connection lost without a byte is not the worker's failure: the call goes to a new one, unseen."""
    loop, pool, stale = await used()
    sink = send(pool, b"again")
    stale.lose(cause)
    await settle()
    assert sink.heard == [] and len(loop.connects) == 2
    fresh = loop.connects[1].accept()
    await settle()
    assert bytes(fresh.written) == HEAD + b"again"
    fresh.answer(WHOLE)
    assert sink.heard == FULL
    await pool.aclose()


async def test_a_call_moves_once() -> None:
    """A worker that hangs up on the new connection too has failed the call."""
    loop, pool, stale = await used()
    sink = send(pool)
    stale.lose()
    await settle()
    fresh = loop.connects[1].accept()
    await settle()
    fresh.lose()
    assert sink.error is not None and sink.error.code is Code.UPSTREAM_FAILED and sink.error.retry is Retry.RESEND
    await settle()
    assert len(loop.connects) == 2


async def test_a_moved_call_that_finds_no_connection_may_have_been_processed() -> None:
    """Its failure allows only what the route allows for resends."""
    loop, pool, stale = await used()
    sink = send(pool)
    stale.lose()
    await settle()
    loop.connects[1].refuse(ConnectionRefusedError())
    await settle()
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED and sink.error.retry is Retry.RESEND


@pytest.mark.parametrize("what", ["late", "answered", "fresh"])
async def test_what_is_no_race(what: str) -> None:
    """A loss long after the write, after a byte of the answer, or on a new connection is the worker's failure."""
    loop, pool, transport = await used()
    if what == "fresh":
        send(pool)  # takes the idle one
        sink = send(pool)
        await settle()
        transport = loop.connects[1].accept()
        await settle()
    else:
        sink = send(pool)
        if what == "late":
            loop.now_s += STALE_S
        else:
            transport.answer(b"H")
    transport.lose()
    assert sink.heard == ["failed"] and sink.error is not None and sink.error.code is Code.UPSTREAM_FAILED
    await pool.aclose()


async def test_a_moved_call_goes_before_those_that_wait() -> None:
    """It has waited longest; other idle connections, as stale as the lost one, are not tried."""
    loop, pool, stale = await used(max_connections=1)
    moved = send(pool, b"moved")
    behind = send(pool, b"behind")
    stale.lose()
    await settle()
    fresh = loop.connects[1].accept()
    await settle()
    assert bytes(fresh.written) == HEAD + b"moved"
    fresh.answer(WHOLE)
    fresh.answer(WHOLE)
    assert moved.heard == behind.heard == FULL
    await pool.aclose()


async def test_a_moved_call_can_be_cancelled() -> None:
    """Between its connections a call waits like any other."""
    loop, pool, stale = await used()
    sink = LoggingSink()
    call = pool.send(HEAD, b"", sink)
    stale.lose()
    call.cancel()
    await settle()
    fresh = loop.connects[1].accept()
    await settle()
    assert bytes(fresh.written) == b"" and sink.heard == [] and "idle=1" in repr(pool)
    await pool.aclose()


async def test_a_connection_about_to_close_is_not_used() -> None:
    """An idle connection whose end was heard, or that is closing, serves no call."""
    loop, pool, transport = await used()
    transport.protocol.eof_received()
    send(pool)
    await settle()
    assert len(loop.connects) == 2
    loop.connects[1].accept()
    await settle()
    loop.connects[1].outcome.result()[0].answer(WHOLE)
    loop.connects[1].outcome.result()[0].closing = True
    sink = send(pool)
    await settle()
    assert len(loop.connects) == 3 and sink.heard == []
    loop.connects[1].outcome.result()[0].lose()
    await pool.aclose()


# -- closing ----------------------------------------------------------------------------------------------------------


async def test_sweep_closes_what_idled() -> None:
    """Connections close after `keep_alive_s` of idleness, the others stay."""
    loop, pool = new_pool(keep_alive_s=4.0)
    send(pool), send(pool)
    await settle()
    old, young = (connect.accept() for connect in loop.connects)
    await settle()
    old.answer(WHOLE)
    loop.now_s += 3
    young.answer(WHOLE)
    pool.sweep(loop.now_s + 1)
    assert not old.closing
    pool.sweep(loop.now_s + 1.5)
    assert old.closing and not young.closing
    await settle()
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=1 idle=1 connecting=0 waiting=0>"
    await pool.aclose()


async def test_close_lets_calls_in_flight_end() -> None:
    """A removed worker finishes what it was asked, is asked nothing more, and its connections close."""
    loop, pool = new_pool(max_connections=2)
    flying, idle = send(pool), send(pool)
    await settle()
    first, second = (connect.accept() for connect in loop.connects)
    await settle()
    second.answer(WHOLE)
    assert idle.heard == FULL
    third = send(pool)
    waiting = send(pool)
    pool.close()
    assert waiting.error is not None and waiting.error.code is Code.CONNECT_FAILED and waiting.error.retry is Retry.SAFE
    refused = LoggingSink()
    with pytest.raises(UpstreamError) as caught:
        pool.send(HEAD, b"", refused)
    assert caught.value.code is Code.CONNECT_FAILED
    first.answer(WHOLE)
    second.answer(WHOLE)
    assert flying.heard == third.heard == FULL and refused.heard == []
    await settle()
    assert pool.open_connections == 0 and first.lost and second.lost


async def test_close_stops_connects() -> None:
    """A connect under way when the pool closes leaves nothing behind."""
    loop, pool = new_pool()
    sink = send(pool)
    await settle()
    pool.close()
    await settle()
    assert sink.heard == ["failed"] and loop.connects[0].outcome.cancelled()
    assert repr(pool) == "<HttpPool 10.0.0.1:8000 open=0 idle=0 connecting=0 waiting=0 closed>"


async def test_a_stale_call_on_a_closed_pool_fails() -> None:
    """A call does not move to a worker that was removed."""
    _, pool, stale = await used()
    sink = send(pool)
    pool.close()
    stale.lose()
    assert sink.error is not None and sink.error.code is Code.CONNECT_FAILED and sink.error.retry is Retry.RESEND


async def test_aclose_ends_calls_in_flight() -> None:
    """After `aclose` every call has heard its end and no connection is open."""
    loop, pool = new_pool()
    sink = send(pool)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    transport.answer(WHOLE[:-2])
    await pool.aclose()
    assert sink.heard == ["head", "data", "failed"] and transport.lost and pool.open_connections == 0
    await pool.aclose()


async def test_fewer_connections_allowed() -> None:
    """Connections beyond a limit that was lowered close as their answers end."""
    loop, pool = new_pool(max_connections=2)
    send(pool), send(pool)
    await settle()
    first, second = (connect.accept() for connect in loop.connects)
    await settle()
    pool.max_connections = 1
    first.answer(WHOLE)
    await settle()
    second.answer(WHOLE)
    await settle()
    assert first.lost and not second.lost and pool.open_connections == 1
    await pool.aclose()
