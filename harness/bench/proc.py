"""What processes used, as Linux tells it under /proc: CPU time and resident memory of one, or of one and all below it."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

PROC = pathlib.Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that count here, in ticks and pages."""

    parent: int
    own_ticks: int
    """User and system time of the process and its threads."""
    waited_ticks: int
    """That of its children that ended and were waited for."""
    resident_pages: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and all below it used so far."""

    cpu_s: float
    resident_bytes: int


def read_stat(text: str) -> Stat:
    """Read a line of /proc/PID/stat. The name in it may hold spaces and brackets, so what counts begins behind the last."""
    fields = text.rpartition(")")[2].split()
    user, system, child_user, child_system = map(int, fields[11:15])
    return Stat(int(fields[1]), user + system, child_user + child_system, int(fields[21]))


def tree(root: int, stats: dict[int, Stat]) -> list[int]:
    """The process `root` and all below it, as far as they are in `stats`."""
    below: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        below.setdefault(stat.parent, []).append(pid)
    found: list[int] = []
    todo = [root] if root in stats else []
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += below.get(pid, ())
    return found


def usage_of_tree(root: int, proc: pathlib.Path = PROC) -> Usage:
    """What a process and all below it used. A child that ends moves its time to its parent's, so that none is lost."""
    stats = _all_stats(proc)
    mine = [stats[pid] for pid in tree(root, stats)]
    ticks = sum(stat.own_ticks + stat.waited_ticks for stat in mine)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), sum(stat.resident_pages for stat in mine) * os.sysconf("SC_PAGE_SIZE"))


def cpu_s(pid: int, proc: pathlib.Path = PROC) -> float:
    """The CPU time of one process.

    Raises:
        OSError: there is none.
    """
    return read_stat((proc / str(pid) / "stat").read_text()).own_ticks / os.sysconf("SC_CLK_TCK")


def _all_stats(proc: pathlib.Path) -> dict[int, Stat]:
    stats = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                stats[int(entry)] = read_stat((proc / entry / "stat").read_text())
            except OSError:
                continue  # it ended meanwhile
    return stats
