"""Which load generator runs, how it is called, and how what it says is read."""

from __future__ import annotations

import pathlib
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from harness.bench.cases import PATH, Case
from harness.bench.load import LoadResult
from harness.fleet.ports import HOST

GRACE_S = 30.0
"""Time beyond its round that a generator has to end."""
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}


class LoadFailed(Exception):
    """The load generator did not do its work; the message says why."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A load generator that is installed here."""

    name: str
    wrk: str | None
    """Path of `wrk`; None for our own generator."""

    def load(self, case: Case, port: int, seconds: float, *, folder: pathlib.Path, prefix: Sequence[str] = ()) -> tuple[LoadResult, float]:
        """Load a port of the loopback address for so many seconds; return what was seen, and the generator's own CPU seconds.

        Raises:
            LoadFailed: it did not end, or did not say what it saw.
        """
        command = [*prefix, *self._command(case, port, seconds, folder)]
        before_s = _children_cpu_s()
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoadFailed(f"{self.name} failed: {error}") from error
        if ended.returncode:
            raise LoadFailed(f"{self.name} ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-500:]}")
        cpu_s = _children_cpu_s() - before_s
        return (read_wrk(ended.stdout) if self.wrk is not None else msgspec.json.decode(ended.stdout, type=LoadResult)), cpu_s

    def _command(self, case: Case, port: int, seconds: float, folder: pathlib.Path) -> list[str]:
        if self.wrk is None:
            return [sys.executable, "-m", "harness.bench.load", case.name, str(port), f"{seconds:g}"]
        script = folder / f"{case.name}.lua"
        script.write_bytes(
            b'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\nwrk.body=[==[' + case.body + b"]==]\n",
        )
        flags = [f"-c{case.connections}", "-t1", f"-d{round(seconds)}s", "--latency", "--timeout", "20s", "-s", str(script)]
        return [self.wrk, *flags, f"http://{HOST}:{port}{PATH}"]


def choose(seconds: float) -> Generator:
    """Take `wrk` where it is installed and can keep the time (it knows whole seconds only), else our own generator."""
    wrk = shutil.which("wrk")
    if wrk is not None and seconds == round(seconds):
        return Generator("wrk", wrk)
    return Generator("own generator", None)


def read_wrk(text: str) -> LoadResult:
    """Read what `wrk --latency` prints.

    Raises:
        LoadFailed: it is not that.
    """
    done = re.search(r"(\d+) requests in ([\d.]+)([a-z]+),", text)
    if done is None:
        raise LoadFailed(f"wrk said nothing of requests: {text.strip()[-500:]}")
    broken = re.search(r"Socket errors: (.*)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return LoadResult(
        requests=int(done[1]),
        errors=(int(refused[1]) if refused else 0) + sum(map(int, re.findall(r"\d+", broken[1])) if broken else ()),
        seconds=float(done[2]) * _UNITS_MS[done[3]] / 1e3,
        p50_ms=_quantile_ms(text, 50),
        p99_ms=_quantile_ms(text, 99),
    )


def _quantile_ms(text: str, percent: int) -> float | None:
    found = re.search(rf"^ +{percent}% +([\d.]+)(us|ms|s|m|h)\s*$", text, re.MULTILINE)
    return float(found[1]) * _UNITS_MS[found[2]] if found else None


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
