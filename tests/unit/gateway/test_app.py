"""The composition root: what signals do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, cast

from gateway.app import Signals
from gateway.errors import ConfigError


class SignalLoop:
    """The parts of an event loop that signals need; a test sends them."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[], object]] = {}

    def add_signal_handler(self, number: int, handler: Callable[[], object]) -> None:
        self.handlers[number] = handler

    def create_task(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        return asyncio.get_running_loop().create_task(work)

    def send(self, number: signal.Signals) -> None:
        self.handlers[number]()


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_reload_is_lost() -> None:
    """Whatever number of SIGHUPs come during a reload, one more follows it, also where it failed; there are never two at once."""
    loop = SignalLoop()
    gate = asyncio.Event()
    begun = 0

    async def reload() -> None:
        nonlocal begun
        begun += 1
        await gate.wait()
        if begun == 1:
            raise ConfigError("no")

    signals = Signals(cast(asyncio.AbstractEventLoop, loop), reload)
    loop.send(signal.SIGHUP)
    await _turns()
    for _ in range(3):
        loop.send(signal.SIGHUP)
    await _turns()
    assert begun == 1
    gate.set()
    await _turns()
    assert begun == 2
    loop.send(signal.SIGHUP)
    await _turns()
    assert begun == 3
    await signals.aclose()


async def test_a_serving_process_outlives_a_hangup() -> None:
    """Where another process reloads, SIGHUP does nothing; by default it would kill."""
    loop = SignalLoop()
    signals = Signals(cast(asyncio.AbstractEventLoop, loop), None)
    loop.send(signal.SIGHUP)
    assert not signals.drain.is_set()
    loop.send(signal.SIGTERM)
    assert signals.drain.is_set() and not signals.stop.is_set()
    loop.send(signal.SIGTERM)
    assert signals.stop.is_set()
    await signals.aclose()
