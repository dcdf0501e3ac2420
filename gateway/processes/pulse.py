"""Pulse: whether a process that lives also answers. Who does not is left alone first, and killed when it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.processes.link import Link
from gateway.processes.remote import PULSE


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a process is asked, and how much silence it is granted: by default new connections stop after at most 5 s, and
    it is killed after about 25 s. A machine that was paused as a whole costs one question, not the process."""

    gap_s: float = 2.0
    """Time between an answer, or its lack, and the next question."""
    limit_s: float = 3.0
    """Time an answer may take; the event loop of a process is never busy for so long with one thing."""
    misses: int = 5
    """Questions in a row that may stay without an answer."""


async def watch(link: Link, patience: Patience, *, silent: Callable[[], None], heard: Callable[[], None]) -> bool:
    """Ask again and again.

    Args:
        link: to the process.
        patience: how much silence is granted.
        silent: called after every question without an answer.
        heard: called after every answer.

    Returns:
        True when `patience.misses` questions in a row had no answer, False when the link has closed.
    """
    missed = 0
    while link.is_open:
        try:
            await link.call(PULSE, None, timeout_s=patience.limit_s)
        except GatewayError:
            if not link.is_open:
                break
            missed += 1
            silent()
            if missed >= patience.misses:
                return True
        else:
            missed = 0
            heard()
        await asyncio.sleep(patience.gap_s)
    return False
