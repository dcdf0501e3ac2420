"""A listener's connections: swept together, drained in order, closed in every state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.client_line import ClientLine, ClientTransport, LineLoop

POST = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class TurningLoop(LineLoop):
    """Time passes by itself while a test waits."""

    def time(self) -> float:
        self.now_s += 0.01
        return self.now_s


async def test_a_drain_waits_for_what_is_in_flight() -> None:
    """`drain` closes idle connections and returns once the busy ones are done."""
    line = ClientLine(at_once=False, loop=TurningLoop())
    idle = ClientTransport()
    idle_connection = line.connect(idle)
    line.send(POST)
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(line.listener.drain(1000))
        await asyncio.sleep(0)
        assert idle.closed and not draining.done()
        idle_connection.connection_lost(None)
        line.driver.answer(line.driver.begun[0])
        assert b"connection: close" in line.out
        line.connection.connection_lost(None)
    assert draining.result() is True and "closing" in repr(line.listener)


async def test_a_drain_has_an_end() -> None:
    """When its time is over, `drain` says that somebody was left."""
    line = ClientLine(at_once=False, loop=TurningLoop())
    line.send(POST)
    assert await line.listener.drain(0.05) is False


async def test_close_ends_everything() -> None:
    """`close` aborts connections and cancels tasks, also where it never listened."""
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    line = ClientLine(app=app)
    line.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0)
    await line.listener.close()
    assert line.transport.aborted and cancelled.is_set()
    await line.listener.close()


def test_a_sweep_reaches_every_connection() -> None:
    """Each connection is looked at once a sweep, by the limits in force then."""
    line = ClientLine(keep_alive_timeout_s=100)
    second = ClientTransport()
    line.connect(second)
    line.loop.now_s += 50
    line.listener.limits = line.listener.limits.model_copy(update={"keep_alive_timeout_s": 40.0})
    line.listener.sweep(line.loop.now_s)
    assert line.transport.closed and second.closed


def test_answers_that_nobody_reads_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more than the room for them waits to be read, those that waited longest are cut off, until the rest fits."""
    monkeypatch.setattr("gateway.server.listener.UNREAD_BYTES", 250)
    line = ClientLine()
    others = [ClientTransport() for _ in range(3)]
    connections = [line.connect(transport) for transport in others]
    for transport, connection, closes in zip(others, connections, (b"", b"Connection: close\r\n", b""), strict=True):
        line.loop.now_s += 1
        connection.pause_writing()
        connection.data_received(POST.replace(b"Content", closes + b"Content"))
        transport.unsent_bytes = 100
    line.transport.unsent_bytes = 1000  # of an answer under way, which has its own limits
    line.listener.sweep(line.loop.now_s)
    assert [transport.aborted for transport in (line.transport, *others)] == [False, True, False, False]
    others[1].unsent_bytes = 200
    line.listener.sweep(line.loop.now_s)
    assert [transport.aborted for transport in (line.transport, *others)] == [False, True, True, False]


def test_it_says_where_it_listens() -> None:
    """Before it listens its address is the configured one."""
    line = ClientLine(host="127.0.0.1", port=1234)
    assert line.listener.address == ("127.0.0.1", 1234)
    assert repr(line.listener) == "<Listener ('127.0.0.1', 1234) [1 connections]>"
