"""A call is controlled in the same way before, during and after it has a connection."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.transports.http import Call, HttpPool, Target
from tests.support.upstream import FakeLoop, LoggingSink, settle

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("stop", [Call.cancel, Call.discard])
async def test_a_waiting_call_that_is_stopped_is_never_sent(stop: Any) -> None:
    """Cancelled or discarded before it has a connection, a call leaves the queue."""
    loop = FakeLoop()
    pool = HttpPool(Target("10.0.0.1", 1), loop=cast(Any, loop))
    sink = LoggingSink()
    call = pool.send(b"HEAD", b"", sink)
    assert not call.connected
    stop(call)
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    assert transport.written == b"" and sink.heard == [] and "waiting=0" in repr(pool)
    await pool.aclose()


async def test_a_pause_that_was_taken_back_leaves_no_trace() -> None:
    """Paused and resumed while it waits, a call begins reading; the flag says the state throughout."""
    loop = FakeLoop()
    pool = HttpPool(Target("10.0.0.1", 1), loop=cast(Any, loop))
    sink = LoggingSink()
    call = pool.send(b"HEAD", b"", sink)
    call.pause()
    call.resume()
    await settle()
    transport = loop.connects[0].accept()
    await settle()
    assert call.connected and not call.paused and not transport.paused
    call.pause()
    assert call.paused and transport.paused
    call.resume()
    transport.answer(ANSWER)
    assert sink.heard == ["head", "end"] and not call.connected
    await pool.aclose()
