"""A gateway and simulated engines as processes on free ports, started and stopped by `with`."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.fleet.child import Child

START_S = 60.0


@dataclass
class Started:
    """A process that listens."""

    child: Child
    urls: list[str]

    @property
    def url(self) -> str:
        return self.urls[0]


@contextlib.contextmanager
def gateway(folder: pathlib.Path, *flags: str, port: int = 0, metrics_port: int = 0) -> Iterator[Started]:
    """Run `smgctl serve` on 127.0.0.1, on a free port unless one is given."""
    command = ["-P", "-m", "smgctl", "serve", "--port", str(port), "--metrics-port", str(metrics_port), *flags]
    with _started("gateway", command, folder, re.compile(r"ready on (https?://[^\s,]+)"), 1) as started:
        yield started


@contextlib.contextmanager
def engines(folder: pathlib.Path, count: int = 1, *flags: str) -> Iterator[Started]:
    """Run `smgctl sim engine` on free ports of 127.0.0.1."""
    command = ["-P", "-m", "smgctl", "sim", "engine", "--port", "0", "--count", str(count), "--step-ms", "1", *flags]
    with _started("engines", command, folder, re.compile(r"listening (http://\S+)"), count) as started:
        yield started


@contextlib.contextmanager
def _started(name: str, command: list[str], folder: pathlib.Path, says: re.Pattern[str], count: int) -> Iterator[Started]:
    with Child(name, [sys.executable, *command], folder / f"{name}.log") as child:
        until_s = time.monotonic() + START_S
        while len(urls := says.findall(child.log.read_text("utf-8", "replace"))) < count:
            assert child.running, f"{child!r}\n{child.tail()}"
            assert time.monotonic() < until_s, child.tail()
            time.sleep(0.02)
        yield Started(child, urls)
