"""The comparison: all contestants up at once before the same upstreams, their rounds interleaved, CPU read from /proc.

Interleaving is what makes it fair on a machine that others use too: a slow minute hits a round of each. The figure to quote is
CPU a request, not requests a second: what a gateway costs is the same whether the load generator or the gateway is the limit.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.bench import arena
from harness.bench.cases import CASES, Case
from harness.bench.contestants import OURS, Ground, find, how_to_get
from harness.bench.generator import Generator, choose
from harness.bench.placement import Placement, place_here
from harness.bench.proc import usage_of_tree
from harness.bench.report import Comparison, Measurement, rows_of, this_machine, today
from harness.fleet.child import Child, ChildFailed
from harness.fleet.ports import free_ports


class Watcher(Protocol):
    """Hears how far a run is."""

    def begin(self, steps: int) -> None:
        """Everything is up; so many steps follow."""

    def say(self, text: str) -> None:
        """What happens now."""

    def step(self, text: str) -> None:
        """A step is done, with this result."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and for how long."""

    cases: tuple[str, ...]
    against: tuple[str, ...]
    rounds: int
    seconds: float
    processes: int
    cache: pathlib.Path
    """Folder of the environment with the peers."""


@dataclass(frozen=True, slots=True)
class _Up:
    """A contestant that is up."""

    name: str
    version: str
    port: int
    child: Child


def compare(plan: Plan, watch: Watcher) -> Comparison:
    """Run a comparison.

    Raises:
        ChildFailed: the upstreams or the own gateway do not start.
        LoadFailed: the load generator does not work.
    """
    placement = place_here(plan.processes)
    generator = choose(plan.seconds)
    notices: list[str] = []
    with arena.tidy_end(), contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smgctl-bench-")))
        folder.chmod(0o755)  # nginx's workers run as another user where root starts it
        watch.say("starting the upstreams")
        urls = tuple(url for url, _ in stack.enter_context(arena.upstreams(folder, placement.load_prefix)))
        up = _start((*plan.against, OURS), plan, folder, urls, placement, watch, notices, stack)
        watch.begin(len(plan.cases) * plan.rounds * len(up))
        measured = []
        for case in (CASES[name] for name in plan.cases):
            for number in range(1, plan.rounds + 1):
                for one in up:
                    watch.say(f"{case.name}, round {number} of {plan.rounds}: {one.name}")
                    found = measure(one.name, one.child.pid, one.port, case, plan.seconds, generator, placement, folder)
                    measured.append(found)
                    watch.step(_told(found))
    return Comparison(
        date=today(),
        machine=this_machine(),
        generator=generator.name,
        placement=str(placement),
        processes=plan.processes,
        rounds=plan.rounds,
        seconds=plan.seconds,
        versions={one.name: one.version for one in up},
        rows=rows_of(measured, plan.against),
        notices=notices,
    )


def _start(
    names: Sequence[str],
    plan: Plan,
    folder: pathlib.Path,
    urls: tuple[str, ...],
    placement: Placement,
    watch: Watcher,
    notices: list[str],
    stack: contextlib.ExitStack,
) -> list[_Up]:
    """Start everybody who is there; what is not, is noticed and left out, except the own gateway."""
    up = []
    for name in names:
        found = find(name, plan.cache)
        if found is None:
            notices.append(f"{name} is not installed and was left out; {how_to_get(name)}")
            continue
        watch.say(f"starting {name} {found.version}".rstrip())
        port, spare_port = free_ports(2)
        ground = Ground(folder, urls, port, spare_port, plan.processes)
        try:
            child = stack.enter_context(arena.contestant(found, ground, placement.gateway_prefix))
        except ChildFailed as failed:
            if name == OURS:
                raise
            notices.append(f"{name} was left out: {failed}")
        else:
            up.append(_Up(name, found.version, port, child))
    return up


def measure(
    name: str, pid: int, port: int, case: Case, seconds: float, generator: Generator, placement: Placement, folder: pathlib.Path
) -> Measurement:
    """Run one round against one contestant.

    Raises:
        LoadFailed: the load generator does not work.
    """
    before = usage_of_tree(pid)
    seen, _ = generator.load(case, port, case.lasts_s(seconds), folder=folder, prefix=placement.load_prefix)
    after = usage_of_tree(pid)
    return Measurement(
        case=case.name,
        name=name,
        requests=seen.requests,
        errors=seen.errors,
        cpu_us=cpu_us(after.cpu_s - before.cpu_s, seen.requests),
        rps=seen.rps,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        resident_bytes=after.resident_bytes,
    )


def cpu_us(cpu_s: float, requests: int) -> float | None:
    """CPU microseconds a request; None where there was no request."""
    return cpu_s / requests * 1e6 if requests else None


def _told(found: Measurement) -> str:
    cpu = "no request ended" if found.cpu_us is None else f"{found.cpu_us:.1f} us/request, {found.rps:.0f} requests/s"
    return f"{found.case} {found.name}: {cpu}{f', {found.errors} errors' if found.errors else ''}"
