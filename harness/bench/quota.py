"""A limit on the CPU of single processes: a control group each, with a quota a period. Linux, and the right to make groups.

Both layouts are known: version 1 (`cpu.cfs_quota_us`) and version 2 (`cpu.max`). Groups are made below the one that this
process is in, hold nothing but the processes that were put there, and are removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

PERIOD_US = 20_000
"""Short, so that a process that used up its share waits 15 ms at most and not 75 (the kernel's default is 100 ms)."""
_EMPTY_S = 2.0
"""Time that a group has to become empty once its process was told to end."""


class NoQuota(Exception):
    """Processes cannot be limited here; the message says why."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Where groups of this process can be made."""

    parent: pathlib.Path
    version: int


def find_groups(mounts: str, own: str) -> Groups:
    """Read /proc/self/mounts and /proc/self/cgroup: where may groups with a CPU quota be made.

    Raises:
        NoQuota: nowhere.
    """
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in own.splitlines() if line.count(":") >= 2)}
    unified: Groups | None = None
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split(" ")
        if kind == "cgroup" and "cpu" in options.split(","):
            path = next((path for names, path in paths.items() if "cpu" in names.split(",")), "/")
            return Groups(pathlib.Path(place) / path.lstrip("/"), 1)
        if kind == "cgroup2":
            unified = Groups(pathlib.Path(place) / paths.get("", "/").lstrip("/"), 2)
    if unified is None:
        raise NoQuota("this system has no control groups")
    return unified


@contextlib.contextmanager
def limited(pids: list[int], share: float, groups: Groups) -> Iterator[None]:
    """Give each process a group of its own with `share` of a core. End the processes before leaving, or they stay limited.

    Raises:
        NoQuota: a group cannot be made or has no quota; no process is limited then.
    """
    made: list[pathlib.Path] = []
    try:
        for pid in pids:
            folder = groups.parent / f"smgctl-bench-{os.getpid()}-{pid}"
            try:
                folder.mkdir()
                made.append(folder)
                set_quota(folder, groups.version, share)
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                raise NoQuota(f"no control group can be used below {groups.parent}: {error.strerror}") from error
        yield
    finally:
        for folder in made:
            _remove(folder, groups.parent)


def set_quota(folder: pathlib.Path, version: int, share: float) -> None:
    """Write the quota of a group.

    Raises:
        NoQuota: the group has none, as its parent does not hand the controller down.
        OSError: it cannot be written.
    """
    quota_us = round(share * PERIOD_US)
    wanted = (
        {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)} if version == 1 else {"cpu.max": f"{quota_us} {PERIOD_US}"}
    )
    for name, value in wanted.items():
        if not (folder / name).exists():
            raise NoQuota(f"groups below {folder.parent} have no {name}")
        (folder / name).write_text(value)


def _remove(folder: pathlib.Path, parent: pathlib.Path) -> None:
    """Remove a group; what is still in it goes back to its parent."""
    until_s = time.monotonic() + _EMPTY_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > until_s:
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        (parent / "cgroup.procs").write_text(pid)
                    folder.rmdir()
                return
            time.sleep(0.02)
        else:
            return
