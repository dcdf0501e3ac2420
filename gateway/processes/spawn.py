"""How a serving process is started: what the supervisor passes down, and how the child takes it up.

A child is `command + MemberArguments.to_argv()`; it inherits three descriptors: the shared table, its end of the link, and
its listening socket. It is told to end (SIGTERM, so it drains) by the kernel when the supervisor dies.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from gateway.errors import Code, GatewayError, Retry
from gateway.processes.link import Link
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class MemberArguments:
    """What a serving process is started with."""

    index: int
    """Its number, which is also its row of the shared table."""
    rows: int
    """Rows of the shared table."""
    table_fd: int
    link_fd: int
    listen_fd: int
    supervisor_pid: int

    @property
    def fds(self) -> tuple[int, int, int]:
        """The descriptors to inherit."""
        return self.table_fd, self.link_fd, self.listen_fd

    def to_argv(self) -> list[str]:
        """Return the command line arguments."""
        return [
            "--member",
            str(self.index),
            "--rows",
            str(self.rows),
            "--fds",
            ",".join(map(str, self.fds)),
            "--supervisor",
            str(self.supervisor_pid),
        ]

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> Self:
        """Read the command line arguments (without the program); ends the process with code 2 when they are wrong."""
        parser = argparse.ArgumentParser(description="a serving process; started by the supervisor of `smgctl serve`")
        parser.add_argument("--member", type=int, required=True)
        parser.add_argument("--rows", type=int, required=True)
        parser.add_argument("--fds", required=True, help="shared table, link, listening socket")
        parser.add_argument("--supervisor", type=int, required=True)
        found = parser.parse_args(argv)
        try:
            table_fd, link_fd, listen_fd = map(int, found.fds.split(","))
        except ValueError:
            parser.error("--fds takes three numbers")
        return cls(
            index=found.member,
            rows=found.rows,
            table_fd=table_fd,
            link_fd=link_fd,
            listen_fd=listen_fd,
            supervisor_pid=found.supervisor,
        )


def start_member(command: Sequence[str], arguments: MemberArguments) -> subprocess.Popen[bytes]:
    """Start a serving process in a process group of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
    return subprocess.Popen([*command, *arguments.to_argv()], pass_fds=arguments.fds, stdin=subprocess.DEVNULL, process_group=0)


def connect_member(arguments: MemberArguments) -> tuple[SharedTable, Link, socket.socket]:
    """Take up what was passed down: the shared table at this process's row, the unopened link, the listening socket.

    Raises:
        GatewayError: `draining`, when the supervisor has died already.
    """
    for fd in arguments.fds:
        os.set_inheritable(fd, False)
    die_with_parent(arguments.supervisor_pid)
    table = SharedTable(arguments.rows, COLUMNS, row=arguments.index, fd=arguments.table_fd)
    link = Link(socket.socket(fileno=arguments.link_fd), "the leader")
    listener = socket.socket(fileno=arguments.listen_fd)
    listener.setblocking(False)
    return table, link, listener


def die_with_parent(parent_pid: int) -> None:
    """Get SIGTERM when the parent dies; where the system cannot do that, the closed link is the only sign.

    Raises:
        GatewayError: `draining`, when it has died already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise GatewayError(Code.DRAINING, "the supervisor has ended", retry=Retry.NEVER)
