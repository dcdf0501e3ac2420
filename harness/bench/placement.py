"""Which cores the gateways get and which the load: apart, so that neither takes the other's time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Cores of the gateways, and of the load generator with the upstreams. Both empty where nothing is pinned."""

    gateway: tuple[int, ...] = ()
    load: tuple[int, ...] = ()

    @property
    def gateway_prefix(self) -> list[str]:
        """What goes before a gateway's command."""
        return _taskset(self.gateway)

    @property
    def load_prefix(self) -> list[str]:
        """What goes before the command of an upstream or the load generator."""
        return _taskset(self.load)

    def __str__(self) -> str:
        if not self.gateway:
            return "not pinned"
        return f"gateways on core {_cores(self.gateway)}, load and upstreams on core {_cores(self.load)}"


def place(cores: Sequence[int], processes: int, *, taskset: bool) -> Placement:
    """Give a core to each serving process, and what is left to the load; nothing is pinned where nothing would be left."""
    if not taskset or len(cores) <= processes:
        return Placement()
    return Placement(tuple(cores[:processes]), tuple(cores[processes:]))


def place_here(processes: int) -> Placement:
    """`place` on the cores that this process may use."""
    return place(sorted(os.sched_getaffinity(0)), processes, taskset=shutil.which("taskset") is not None)


def _taskset(cores: tuple[int, ...]) -> list[str]:
    return ["taskset", "-c", _cores(cores)] if cores else []


def _cores(cores: tuple[int, ...]) -> str:
    return ",".join(map(str, cores))
