"""Runs each test on both loops, and fails one that leaves sockets, tasks or threads behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


def _open() -> tuple[int, int, int]:
    sockets = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    pooled = ("asyncio_", "uvloop_", "MainThread")  # the loop's own, which end with it
    threads = sum(1 for thread in threading.enumerate() if not thread.name.startswith(pooled))
    return sockets, len(asyncio.all_tasks()), threads


@pytest.fixture(autouse=True)
async def no_leaks() -> AsyncIterator[None]:
    """Sockets, tasks and threads return to what they were."""
    gc.collect()
    before = _open()
    yield
    for _ in range(200):
        if all(now <= then for now, then in zip(_open(), before, strict=True)):
            return
        await asyncio.sleep(0.01)
    assert _open() <= before
