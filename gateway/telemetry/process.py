"""What a process says of itself: pid, start, memory, open descriptors, processor time; read at scrape time."""

from __future__ import annotations

import os
import resource
import sys
import time

import msgspec

from gateway.telemetry.clock import wall_s

_STATM = "/proc/self/statm"
_DESCRIPTORS = "/proc/self/fd"


class ProcessReading(msgspec.Struct, kw_only=True, frozen=True):
    """One process of the gateway at one moment."""

    index: int
    """Its number, and its row of the shared table; -1 is the supervisor."""
    pid: int
    started_s: float
    """Unix time of its start."""
    memory_bytes: int = 0
    """Resident memory."""
    open_fds: int = 0
    cpu_s: float = 0.0
    """Processor time, user and system together."""


class ProcessProbe:
    """Reads the process it was made in. Holds nothing that needs closing."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._pid = os.getpid()
        self._started_s = wall_s()
        self._page_bytes = resource.getpagesize()

    def read(self) -> ProcessReading:
        """Return what the system says of this process; a few files of `/proc`, well under a millisecond."""
        return ProcessReading(
            index=self.index,
            pid=self._pid,
            started_s=self._started_s,
            memory_bytes=self._memory_bytes(),
            open_fds=_open_fds(),
            cpu_s=time.process_time(),
        )

    def _memory_bytes(self) -> int:
        if sys.platform == "linux":
            with open(_STATM, encoding="ascii") as file:
                return int(file.read().split()[1]) * self._page_bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _open_fds() -> int:
    """Count the open descriptors; 0 where the system does not tell."""
    try:
        return len(os.listdir(_DESCRIPTORS)) - 1
    except OSError:
        return 0
