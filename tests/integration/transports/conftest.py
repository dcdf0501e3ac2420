"""Runs each test on both loops, and fails one that leaves sockets or tasks behind."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.SelectorEventLoop}


def open_sockets() -> int:
    """Sockets that this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Sockets and tasks return to what they were."""
    gc.collect()
    before = open_sockets()
    tasks = len(asyncio.all_tasks())
    yield
    for _ in range(200):
        if open_sockets() <= before and len(asyncio.all_tasks()) <= tasks:
            return
        await asyncio.sleep(0.01)
    assert open_sockets() <= before
    assert len(asyncio.all_tasks()) <= tasks


@pytest.fixture
def sockets_open() -> Callable[[], int]:
    return open_sockets
