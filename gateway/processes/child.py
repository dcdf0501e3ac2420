"""One serving process as its supervisor holds it: started, watched until it ends, told to end, killed when it does not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Sequence

from gateway.processes.port import ProcessStatus
from gateway.processes.restart import RestartRule
from gateway.processes.spawn import MemberArguments, start_member
from gateway.telemetry.clock import wall_s

log = logging.getLogger(__name__)


class Child:
    """The process of one index, over all its lives. Belongs to the supervisor's event loop."""

    def __init__(self, index: int, listener: socket.socket) -> None:
        self.index = index
        self.name = f"process {index}"
        self.listener = listener
        self.rule = RestartRule()
        self.restarts = 0
        self.state = "starting"
        self.since_s = wall_s()
        self.reason = ""
        """Why its last life ended."""
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._told = False
        """Whether this life was told to end: a second SIGTERM means to stop at once, so it must be meant."""

    def __repr__(self) -> str:
        return f"<Child {self.index} pid {self.pid} {self.state}, {self.restarts} restarts>"

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is no process."""
        return 0 if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and not self._exited.is_set()

    def move(self, state: str) -> None:
        """Change its state."""
        self.state = state
        self.since_s = wall_s()

    def status(self, version: int) -> ProcessStatus:
        """Describe it; `version` is the configuration in force."""
        return ProcessStatus(
            index=self.index,
            pid=self.pid,
            state=self.state,
            restarts=self.restarts,
            since_s=self.since_s,
            version=version if self.state in ("ready", "hung", "draining") else 0,
            reason=self.reason,
        )

    def start(self, command: Sequence[str], *, rows: int, table_fd: int) -> socket.socket:
        """Start a process; return this end of its link."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            arguments = MemberArguments(
                index=self.index,
                rows=rows,
                table_fd=table_fd,
                link_fd=theirs.fileno(),
                listen_fd=self.listener.fileno(),
                supervisor_pid=os.getpid(),
            )
            try:
                self._process = start_member(command, arguments)
            except BaseException:
                ours.close()
                raise
        self._exited.clear()
        self._told = False
        self.move("starting")
        return ours

    async def wait(self) -> int:
        """Return the exit code once the process has ended; negative is the signal that ended it."""
        process = self._process
        assert process is not None
        loop = asyncio.get_running_loop()
        pid_fd = os.pidfd_open(process.pid)
        try:
            loop.add_reader(pid_fd, self._exited.set)
            await self._exited.wait()
        finally:
            loop.remove_reader(pid_fd)
            os.close(pid_fd)
        return process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process lives."""
        if self.alive and self._process is not None:
            self._process.send_signal(number)

    async def end(self, grace_s: float, *, at_once: bool = False) -> None:
        """Tell the process to end, and kill it when it has not after `grace_s`. `wait` must be running.

        The first SIGTERM makes it drain; one more, sent with `at_once` only, makes it stop.
        """
        if at_once or not self._told:
            self._told = True
            self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._exited.wait()
        except TimeoutError:
            log.warning("%s (pid %d) did not end within %g s and is killed", self.name, self.pid, grace_s)
            self.send(signal.SIGKILL)

    def kill_now(self) -> None:
        """Kill it and wait for its end, blocking: the last resort of a supervisor that fails."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
