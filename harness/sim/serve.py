"""Run one or many simulated engines in this process until a signal ends it.

    serve([SimSettings(flavour="vllm")], "127.0.0.1", [8000], ready=lambda engine: print(engine.url))

`smgctl sim engine` and `python -m harness.sim` call it; tests that want an engine on their own loop use `running` instead.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from harness.sim.engine import SimEngine, tls_context
from harness.sim.faults import Fault
from harness.sim.settings import SimSettings

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
MAX_PORT = 65_535


def ports_from(first: int, count: int) -> list[int]:
    """Return `count` ports beginning with `first`; 0 stands for a free one each.

    Raises:
        ValueError: when there are not so many.
    """
    if count < 1:
        raise ValueError("count must be at least 1")
    if first == 0:
        return [0] * count
    if not 0 < first <= MAX_PORT - count + 1:
        raise ValueError(f"ports {first} to {first + count - 1} are not all ports")
    return list(range(first, first + count))


def trouble(problem: ValueError | OSError, host: str) -> str:
    """Say in words why engines did not start."""
    if not isinstance(problem, OSError):
        return str(problem)
    said = (os.strerror(problem.errno) if problem.errno and problem.errno > 0 else problem.strerror or str(problem)).lower()
    return f"cannot listen on {host}: {said}; choose other ports with --port" if problem.errno == errno.EADDRINUSE else said


def several(settings: SimSettings, count: int) -> list[SimSettings]:
    """Return the settings of `count` engines that differ by their seed; one alone takes the process down when it crashes."""
    return [replace(settings, seed=settings.seed + place, crash_exits=count == 1) for place in range(count)]


def serve(
    settings: Sequence[SimSettings],
    host: str,
    ports: Sequence[int],
    *,
    ready: Callable[[SimEngine], None],
    tls_cert: str | None = None,
    tls_key: str | None = None,
    faults: Sequence[Fault] = (),
) -> None:
    """Run engines until SIGTERM or SIGINT.

    Args:
        settings: One for each engine.
        host: Address to listen on.
        ports: One for each engine; 0 takes a free one.
        ready: Called with every engine when all of them listen.
        tls_cert: PEM file; with `tls_key` the engines speak HTTPS.
        tls_key: PEM file.
        faults: Armed on every engine from the start.

    Raises:
        OSError: when a port is taken or a PEM file cannot be read; no engine is left.
        ValueError: when one of the two PEM files is missing.
    """
    if (tls_cert is None) is not (tls_key is None):
        raise ValueError("HTTPS takes both a certificate and a key: --tls-cert and --tls-key")
    if len(settings) != len(ports):
        raise ValueError(f"{len(settings)} engines need as many ports, not {len(ports)}")
    tls = tls_context(tls_cert, tls_key) if tls_cert and tls_key else None
    _run(_serve([SimEngine(one) for one in settings], host, ports, ready, tls, faults))


async def _serve(
    engines: list[SimEngine],
    host: str,
    ports: Sequence[int],
    ready: Callable[[SimEngine], None],
    tls: ssl.SSLContext | None,
    faults: Sequence[Fault],
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    try:
        for engine, port in zip(engines, ports, strict=True):
            await engine.start(host, port, tls)
            for fault in faults:
                engine.arm(msgspec.structs.replace(fault))  # an armed fault counts its hits down
        for engine in engines:
            ready(engine)
        await stopped.wait()
    finally:
        for engine in engines:
            await engine.close()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    uvloop.run(main)
