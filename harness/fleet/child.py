"""A child process that is waited for until it is healthy, writes its own log file, and is stopped in time.

A child gets a session of its own, so that Ctrl-C in a terminal reaches its owner alone, who stops its children in the right
order. Should the owner be killed, the kernel (Linux) sends the child SIGTERM.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx

POLL_S = 0.05
KILL_AFTER_S = 15.0
"""Time that a child has after SIGTERM."""
TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """A child ended, or was not healthy in time; it has been stopped. The message holds the end of its log."""


class Child:
    """One process with a log file. `with` stops it on leaving, whatever happened."""

    def __init__(self, name: str, command: Sequence[str], log: pathlib.Path, *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
                preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
            )

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} {'running' if self.running else f'exit {self._process.returncode}'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_healthy(self, url: str, timeout_s: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until a GET of `url` answers 200; at once if `given_up` says so.

        Raises:
            ChildFailed: it ended or took too long; it has been stopped.
        """
        until_s = time.monotonic() + timeout_s
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while not given_up():
                if not self.running:
                    raise self._failed(f"ended with exit code {self._process.returncode}")
                try:
                    if client.get(url).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() > until_s:
                    raise self._failed(f"was not ready after {timeout_s:g} s")
                time.sleep(POLL_S)

    async def async_wait_healthy(self, url: str, timeout_s: float) -> None:
        """Wait as `wait_healthy` does, in a thread, so that the event loop can answer what the child asks of it."""
        await asyncio.to_thread(self.wait_healthy, url, timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens to one that has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Stop it: SIGTERM, and SIGKILL if it does not end in time. Return its exit code; fine for one that ended already."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def _failed(self, what: str) -> ChildFailed:
        self.stop()
        return ChildFailed(f"{self.name} {what}; the end of {self.log}:\n{self.tail()}")


def _end_with_parent() -> Callable[[], None]:
    """What a child calls between fork and exec: have the kernel signal it when its parent dies."""
    prctl = ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return arm
